"""What makes a class valid: each code has a class that gives it, and a near one that does not."""

import os
import pathlib
import typing

import pytest
from annotated_types import Ge, Interval, Le

from exengine.kernel.data_storage_base import DataStorage, StorageCapabilities
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.registry import class_checks
from exengine.kernel.registry.class_checks import FAULTS, RESERVED_OPTIONS, Finding, check_class


class Six(DataStorage):
    """Do the six things."""

    def put(self, c, d, m): ...
    def get_data(self, c): ...
    def get_metadata(self, c): ...
    def __contains__(self, c): ...
    def finish(self): ...
    def close(self): ...


class Disk(Six):
    """Write to disk."""

    capabilities = StorageCapabilities(persistent=True)

    def __init__(self, path): ...


class Source(FrameSource):
    """Give frames."""

    def prepare(self, sequence):
        return SourcePlan()

    def run(self, sink): ...


def codes(cls, base=DataStorage):
    return [finding.code for finding in check_class(cls, base)]


def messages(cls, base=DataStorage):
    return [finding.message for finding in check_class(cls, base)]


# -- valid classes -------------------------------------------------------------------------------


def test_a_class_with_the_six_methods_and_a_summary_is_valid():
    assert check_class(Six, DataStorage) == []


def test_a_persistent_class_with_a_path_is_valid_though_its_path_is_not_documented():
    assert check_class(Disk, DataStorage) == []


def test_a_frame_source_is_valid():
    assert check_class(Source, FrameSource) == []


def test_the_names_of_the_parameters_of_methods_are_free():
    class Free(Six):
        """Do it in other words."""

        def put(self, where, pixels, what, *more, really=True): ...
        def get_data(self, *where): ...

    assert check_class(Free, DataStorage) == []


def test_the_parameters_may_be_described_in_the_docstring_of_init():
    class InInit(Six):
        """Keep."""

        def __init__(self, gain: int = 1):
            """Make it.

            Parameters
            ----------
            gain : int, default: 1
                A number.
            """

    assert check_class(InInit, DataStorage) == []


def test_the_docstring_of_a_base_class_does_not_document_a_subclass():
    class Silent(Six):
        pass

    assert codes(Silent) == ["EX201"]


def test_nothing_of_the_class_is_called():
    class Loud(Six):
        """Shout."""

        def __new__(cls, *_):
            raise AssertionError("it was made")

        @classmethod
        def can_open(cls, path):
            raise AssertionError("it was called")

    assert check_class(Loud, DataStorage) == []


# -- EX101 - EX109: the interface ----------------------------------------------------------------


@pytest.mark.parametrize(
    "thing", [5, None, "text", print, lambda: Six, Six(), os], ids=lambda thing: type(thing).__name__
)
def test_ex101_what_is_no_class(thing):
    assert codes(thing) == ["EX101"]


class RaisingMeta(type):
    def __getattribute__(cls, name):
        raise ValueError("not today")


def test_ex101_a_class_that_raises_when_it_is_inspected():
    class Raising(metaclass=RaisingMeta):
        pass

    assert messages(Raising) == ["inspecting the class raised ValueError: not today"]


@pytest.mark.parametrize("cls", [dict, int, DataStorage, Source])
def test_ex102_no_subclass(cls):
    assert codes(cls) == ["EX102"]


def test_ex102_a_virtual_subclass_counts_as_none():
    class Virtual:
        """Look like one."""

    DataStorage.register(Virtual)
    assert codes(Virtual) == ["EX102"]


def test_ex103_names_the_methods_that_are_left():
    class Half(DataStorage):
        """Do half of it."""

        def put(self, c, d, m): ...
        def get_data(self, c): ...
        def finish(self): ...

    assert codes(Half) == ["EX103"]
    assert messages(Half) == ["Half does not implement __contains__, close, get_metadata"]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("put", lambda self, c, d: None),
        ("put", lambda self, c, d, m, n: None),
        ("put", lambda self, c, d, m, *, n: None),
        ("get_data", lambda self: None),
        ("get_metadata", lambda: None),
        ("finish", lambda self, reason: None),
        ("put", staticmethod(lambda c, d, m: None)),
        ("close", 5),
        ("close", None),
    ],
)
def test_ex104_a_method_that_the_kernel_cannot_call(name, method):
    wrong = type("Wrong", (Six,), {"__doc__": "Be wrong.", name: method})
    assert codes(wrong) == ["EX104"]
    assert messages(wrong)[0].startswith(name)


@pytest.mark.parametrize("method", [print, classmethod(lambda cls, c: None), lambda self, c, more=1: None])
def test_ex104_is_not_given_for_what_can_be_called(method):
    right = type("Right", (Six,), {"__doc__": "Be right.", "get_data": method})
    assert check_class(right, DataStorage) == []


def test_ex105_what_hides_the_options():
    class Hiding(Six):
        """Hide."""

        def __init__(self, *args, **more): ...

    assert messages(Hiding) == [
        "__init__ accepts *args, **more, so options are hidden; name every option instead"
    ]


def test_ex105_in_a_persistent_class_too():
    class Hiding(Six):
        """Hide."""

        capabilities = StorageCapabilities(persistent=True)

        def __init__(self, path, *args): ...

    assert codes(Hiding) == ["EX105"]

    class HidingAll(Six):
        """Hide even the path."""

        capabilities = StorageCapabilities(persistent=True)

        def __init__(self, *args): ...

    assert "EX105" in codes(HidingAll)


def test_ex106_an_annotation_that_names_nothing():
    class Unresolved(Six):
        """Refer to nothing.

        Parameters
        ----------
        gain : int
            A number.
        """

        def __init__(self, gain: "Nowhere" = 1): ...  # noqa: F821

    assert codes(Unresolved) == ["EX106"]


@pytest.mark.parametrize("name", sorted(RESERVED_OPTIONS))
def test_ex107_a_reserved_name(name):
    namespace = {}
    exec(f"def __init__(self, {name}: str = ''): ...", namespace)
    doc = f"Keep.\n\nParameters\n----------\n{name} : str\n    What."
    reserved = type("Reserved", (Six,), {"__doc__": doc, "__init__": namespace["__init__"]})
    assert codes(reserved) == ["EX107"]


def test_ex107_is_not_given_to_a_frame_source():
    class WithPath(Source):
        """Read a folder.

        Parameters
        ----------
        path : str
            Of the folder.
        """

        def __init__(self, path: str = ""): ...

    assert check_class(WithPath, FrameSource) == []


@pytest.mark.parametrize(
    "value", [None, {}, StorageCapabilities, property(lambda self: StorageCapabilities())]
)
def test_ex108_capabilities_of_another_type(value):
    assert codes(type("Odd", (Six,), {"__doc__": "Be odd.", "capabilities": value})) == ["EX108"]


def test_ex109_a_persistent_class_without_a_path():
    class Nowhere(Six):
        """Write nowhere."""

        capabilities = StorageCapabilities(persistent=True)

    assert codes(Nowhere) == ["EX109"]


def test_ex109_a_path_that_cannot_be_given_by_position():
    class KeywordOnly(Six):
        """Write to disk."""

        capabilities = StorageCapabilities(persistent=True)

        def __init__(self, *, path): ...

    with pytest.raises(TypeError):
        KeywordOnly.create("somewhere")
    assert codes(KeywordOnly) == ["EX109"]


def test_ex109_is_not_given_where_create_is_overridden():
    class Elsewhere(Six):
        """Write to disk."""

        capabilities = StorageCapabilities(persistent=True)
        place_parameters = ("folder", "name")

        def __init__(self, folder, name): ...

        @classmethod
        def create(cls, path=None, /, **options):
            return cls(*os.path.split(path), **options)

    assert check_class(Elsewhere, DataStorage) == []


# -- EX201 - EX207: the documentation ------------------------------------------------------------

TEMPLATE = '''
class Documented(Six):
    """{summary}

    Parameters
    ----------
    {parameters}
    """

    def __init__(self{signature}): ...
'''


def documented(signature, parameters, summary="Keep."):
    namespace = {"Six": Six, "Path": pathlib.Path, "typing": typing, "Ge": Ge, "Le": Le, "Interval": Interval}
    exec(TEMPLATE.format(signature=signature, parameters=parameters, summary=summary), namespace)
    return namespace["Documented"]


@pytest.mark.parametrize("doc", [None, "", "   \n  "])
def test_ex201_no_summary(doc):
    assert codes(type("Silent", (Six,), {"__doc__": doc})) == ["EX201"]


def test_ex202_an_option_without_a_description():
    assert codes(documented(", gain: int = 1, size: int = 2", "gain : int\n        A number.")) == ["EX202"]
    assert codes(documented(", gain: int = 1", "gain : int")) == ["EX202"]
    assert "option 'gain'" in messages(documented(", gain: int = 1", "gain : int"))[0]


def test_ex203_a_description_without_an_option():
    faults = check_class(
        documented(", gain: int = 1", "gain : int\n        A.\n    gian : int\n        B."), DataStorage
    )
    assert [finding.code for finding in faults] == ["EX203"]
    assert "did you mean 'gain'?" in faults[0].message


def test_ex204_an_option_without_a_type():
    assert codes(documented(", gain=1", "gain\n        A number.")) == ["EX204"]
    assert codes(documented(", gain=1", "gain : int\n        A number.")) == []
    assert codes(documented(", gain: int = 1", "gain\n        A number.")) == []


@pytest.mark.parametrize(
    "head",
    [
        "gain : int, default: 2",
        "gain : int, default 2",
        "gain : int, default=2",
        "gain : int, default: 'x'",
        "gain : int, optional (default 2)",
        "gain : int (default: 2)",
        "gain : int, optional, default is 2",
        "gain : int, by default 2",
        "gain : int. Defaults to 2",
        "gain : int, 2 by default",
        "gain : int, default -1",
    ],
)
def test_ex205_a_default_in_the_type_that_is_not_the_real_one(head):
    assert codes(documented(", gain: int = 1", f"{head}\n        A number.")) == ["EX205"]


@pytest.mark.parametrize(
    ("default", "text"),
    [
        ("1", "gain : int, default: 1"),
        ("1", "gain : int, default 1"),
        ("2**20", "gain : int, default: 1048576"),
        ("None", "gain : int, default: None"),
        ("None", "gain : int, optional"),
        ("'a'", "gain : str, default: 'a'"),
        ("'a'", 'gain : str, default: "a"'),
        ("0.5", "gain : float, default: 0.5"),
        ("-1", "gain : int, default: -1"),
        ("True", "gain : bool, default: True"),
        ("()", "gain : tuple, default: ()"),
        ("1", "gain : {1, 2}"),
        ("1", "gain : int, optional (default 1)"),
        ("1", "gain : int, optional, default is 1"),
        ("1", "gain : int, 1 by default"),
        ("(1, 2)", "gain : tuple, default (1, 2)"),
        ("-0.5", "gain : float, default is -0.5"),
        ("1e-3", "gain : float (default 1e-3)"),
    ],
)
def test_ex205_is_not_given_for_the_real_default(default, text):
    assert codes(documented(f", gain={default}", f"{text}\n        A number.")) == []


@pytest.mark.parametrize(
    "statement",
    [
        "Default: 2", "Defaults to 2", "A number. Default is ``2``.", "The default is 2.", "Some (default 2).",
        "Some (default: ``2``).", "2 by default.", "``2`` by default, which is few.",
    ],
)  # fmt: skip
def test_ex205_a_default_stated_in_the_text(statement):
    assert codes(documented(", gain: int = 1", f"gain : int\n        {statement}")) == ["EX205"]
    assert codes(documented(", gain: int = 2", f"gain : int\n        {statement}")) == []


def test_ex205_a_default_for_an_option_that_has_none():
    assert codes(documented(", gain: int", "gain : int, default: 1\n        A number.")) == ["EX205"]


@pytest.mark.parametrize(
    "text",
    [
        "By default nothing is waited for.",
        "By default as many as there are.",
        "The default of the camera, where it has one.",
        "Not the default 5 of others.",
        "Is off by default.",
        "The default is the width of the camera.",
        "Defaults to what the camera has.",
        "Every ``frame`` by default.",
        "Called v2 by default.",
    ],
)
def test_ex205_a_sentence_about_defaults_is_no_statement(text):
    assert codes(documented(", gain: int = 1", f"gain : int\n        {text}")) == []
    # nor where the name of another option begins like this one
    parameters = f"gain : int\n        {text}\n    gain_limit : int, default: 3\n        The most."
    assert codes(documented(", gain: int = 1, gain_limit: int = 3", parameters)) == []


@pytest.mark.parametrize(
    ("annotation", "default", "stated"),
    [
        ("int", "1", "str"), ("int", "1", "float, optional"), ("str", "'a'", "int"), ("bool", "True", "int"),
        ("int | None", "None", "string"), ("float", "1.0", "bool"), ("list[int]", "()", "dict"),
        ("typing.Literal['a', 'b']", "'a'", "int"), ("Path", "'a'", "int"), ("int", "1", "str, default: 1"),
        ("typing.Annotated[int, Ge(0)]", "1", "str"),
    ],
)  # fmt: skip
def test_ex206_a_type_in_the_docstring_that_is_not_the_annotation(annotation, default, stated):
    faulty = documented(f", gain: {annotation} = {default}", f"gain : {stated}\n        A number.")
    assert "EX206" in codes(faulty) and "the docstring states" in " ".join(messages(faulty))


@pytest.mark.parametrize(
    ("annotation", "default", "stated"),
    [
        ("int", "1", "int"), ("int", "1", "int, optional"), ("int", "1", "integer"), ("float", "1", "int"),
        ("int | None", "None", "int or None"), ("int | str", "1", "str"), ("Path", "Path()", "str"),
        ("str", "''", "path-like"), ("typing.Literal['a', 'b']", "'a'", "{'a', 'b'}"), ("list[int]", "()", "sequence of int"),
        ("typing.Literal['int', 'b']", "'b'", "'int' or 'b'"), ("complex", "1j", "number"), ("typing.Any", "1", "str"),
        ("dict[str, int]", "None or {}", "dict of str to int"), ("int", "1", "how many there are"),
        ("float", "1.0", "scalar"), ("int", "1", "{1, 2}"),
    ],
)  # fmt: skip
def test_ex206_is_not_given_where_a_type_may_mean_the_annotation(annotation, default, stated):
    assert codes(documented(f", gain: {annotation} = {default}", f"gain : {stated}\n        A number.")) == []


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        ("typing.Annotated[int, Ge(0), Le(9)]", "11"), ("typing.Annotated[int, Ge(0), Le(9)]", "-1"),
        ("typing.Annotated[float, Interval(gt=0)]", "0.0"), ("typing.Literal['a', 'b']", "'c'"), ("int", "None"),
        ("int", "'1'"), ("str", "1"), ("typing.Annotated[int, Ge(0)] | None", "-1"), ("bool", "1"), ("list[int]", "1"),
    ],
)  # fmt: skip
def test_ex207_a_default_that_the_annotation_does_not_take(annotation, default):
    faulty = documented(f", gain: {annotation} = {default}", "gain\n        A number.")
    assert codes(faulty) == ["EX207"] and "the default of option 'gain'" in messages(faulty)[0]


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        ("typing.Annotated[int, Ge(0), Le(9)]", "9"), ("typing.Annotated[float, Interval(gt=0)]", "1"), ("int | None", "None"),
        ("typing.Annotated[int, Ge(0)] | None", "None"), ("float", "1"), ("typing.Literal[1, None]", "None"), ("list[int]", "()"),
        ("Path", "'a'"), ("Path | None", "None"), ("typing.Any", "None"), ("complex", "None"), ("int", "True"),
        ("typing.Annotated[int | None, Ge(0)]", "None"),
    ],
)  # fmt: skip
def test_ex207_is_not_given_for_a_default_that_is_taken(annotation, default):
    assert codes(documented(f", gain: {annotation} = {default}", "gain\n        A number.")) == []


def test_faults_come_in_the_order_of_their_codes_and_all_at_once():
    faulty = documented(", gain=1, size: int = 2", "siez : int\n        A number.", summary="")
    found = codes(faulty)
    assert found == sorted(found)
    assert set(found) == {"EX201", "EX202", "EX203", "EX204"}


# -- codes ---------------------------------------------------------------------------------------


def test_every_code_has_a_meaning_and_none_is_left_out():
    assert list(FAULTS) == [f"EX10{n}" for n in range(1, 10)] + [f"EX20{n}" for n in range(1, 8)]
    assert all(FAULTS.values())


def test_a_finding_is_text_and_json():
    finding = Finding("EX202", "what")
    assert str(finding) == "EX202 what"
    assert finding.to_dict() == {"code": "EX202", "message": "what"}


def test_without_docstrings_only_the_interface_is_checked(run_python, make_distribution):
    source = (
        "from exengine.kernel.registry.class_checks import DOCS_STRIPPED, check_class\n"
        "from exengine.kernel.data_storage_base import DataStorage\n"
        "class Six(DataStorage):\n"
        "    '''Document nothing.'''\n"
        "    def __init__(self, gain=1): ...\n"
        "    def put(self, c, d): ...\n"
        "    def get_data(self, c): ...\n"
        "    get_metadata = get_data\n"
        "    __contains__ = get_data\n"
        "    def close(self): ...\n"
        "    finish = close\n"
        "print(DOCS_STRIPPED, *(finding.code for finding in check_class(Six, DataStorage)))"
    )
    assert run_python(source).stdout.split() == ["False", "EX104", "EX202", "EX204"]
    assert run_python(source, options=["-OO"]).stdout.split() == ["True", "EX104"]
    assert class_checks.DOCS_STRIPPED is False
