"""Options come from signature and docstring alone, and values are checked against them."""

import enum
import gc
import os
import pathlib
import string
import weakref
from typing import Annotated, Any, Literal, Optional

import numpy as np
import pytest
from annotated_types import Ge, Interval, Lt
from hypothesis import example, given
from hypothesis import strategies as st

from exengine.kernel.data_storage_base import StorageCapabilities
from exengine.kernel.errors import OptionError
from exengine.kernel.registry.annotations import describe_type
from exengine.kernel.registry.docstrings import documentation_of, same_default
from exengine.kernel.registry.options import (
    REQUIRED,
    TextValue,
    check_options,
    options_of,
    place_parameters,
    validate_options,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Plugin:
    """Do something.

    At length, with a ``Parameters`` in the middle.

    Parameters
    ----------
    size : int
        How many pixels,
        on two lines.
    mode, other : str
        Two in one.
    ratio : float, default: 0.5
        A share.
    limit : int, optional
        The most. By default there is none.
    note : str, optional
        A remark. By default there is none.
    anything
        Whatever.
    folder : path
        Where to look.
    colour : Colour
        A colour.
    array : numpy.ndarray
        For Python only.

    Notes
    -----
    A note.

    Examples
    --------
    >>> 1 + 1
    2
    """

    def __init__(
        self,
        size: Annotated[int, Ge(1)],
        mode: Literal["fast", "safe"] = "fast",
        other: str = "a",
        ratio: Annotated[float, Interval(ge=0, lt=1)] = 0.5,
        limit: int | None = None,
        note: str | None = None,
        anything=None,
        folder: pathlib.Path | None = None,
        colour: Colour = Colour.RED,
        array: np.ndarray | None = None,
    ) -> None: ...


def option(name):
    return {each.name: each for each in options_of(Plugin)}[name]


def validate(**given_options):
    return validate_options(Plugin, given_options, "backend 'plugin'")


# -- options -------------------------------------------------------------------------------------


def test_options_are_the_parameters_in_their_order():
    names = ["size", "mode", "other", "ratio", "limit", "note", "anything", "folder", "colour", "array"]
    assert [each.name for each in options_of(Plugin)] == names


def test_an_option_has_type_default_and_meaning():
    size = option("size")
    assert (size.type_text, size.default, size.default_text) == ("int, at least 1", REQUIRED, "required")
    assert size.text == "How many pixels, on two lines."
    assert size.required and not option("mode").required
    assert (option("mode").type_text, option("mode").default_text) == ("'fast' or 'safe'", "'fast'")
    assert option("mode").text == option("other").text == "Two in one."
    assert option("anything").type_text == ""


def test_an_option_has_a_json_schema_that_says_the_same():
    assert option("size").json_schema == {
        "type": "integer",
        "minimum": 1,
        "description": "How many pixels, on two lines.",
    }
    assert option("mode").json_schema["enum"] == ["fast", "safe"]
    assert option("mode").json_schema["default"] == "fast"
    assert option("anything").json_schema == {}


def test_an_option_that_no_config_can_express_is_for_python_only():
    assert option("array").python_only and option("array").json_schema is None
    assert not option("folder").python_only and not option("size").python_only


def test_a_class_without_an_init_has_no_options():
    class Plain:
        """Be plain."""

    assert options_of(Plain) == ()


def test_inherited_parameters_are_options():
    class Child(Plugin):
        """Do it again.

        Parameters
        ----------
        size : int
            Of its own.
        """

    assert options_of(Child)[0].name == "size"
    assert options_of(Child)[0].text == "Of its own."


def test_the_place_of_a_dataset_is_no_option():
    class Disk:
        capabilities = StorageCapabilities(persistent=True)

        def __init__(self, path, gain: int = 1): ...

    class Two(Disk):
        place_parameters = ("path", "gain")

    class Memory(Disk):
        capabilities = StorageCapabilities()

    assert place_parameters(Disk) == ("path",)
    assert [each.name for each in options_of(Disk)] == ["gain"]
    assert place_parameters(Two) == ("path", "gain") and options_of(Two) == ()
    assert place_parameters(Memory) == () and len(options_of(Memory)) == 2


def test_a_class_is_read_once_and_a_subclass_by_itself(monkeypatch):
    from exengine.kernel.registry import docstrings

    class Base:
        """Be first.

        Parameters
        ----------
        gain : int
            Of the first.
        """

        def __init__(self, gain: int = 1): ...

    class Child(Base):
        """Be second.

        Parameters
        ----------
        gain : int
            Of the second.
        """

    parsed = []
    real = docstrings._parse
    monkeypatch.setattr(docstrings, "_parse", lambda text: (parsed.append(text), real(text))[1])
    for _ in range(3):
        assert [cls.text for cls in (*options_of(Base), *options_of(Child))] == [
            "Of the first.",
            "Of the second.",
        ]
    assert parsed == [Base.__doc__, Child.__doc__]
    copied = type("Copied", (Base,), {**vars(Base), "__doc__": None})
    assert options_of(copied)[0].text == ""
    assert options_of(Base)[0].adapter is options_of(Base)[0].adapter


def test_what_is_known_of_a_class_goes_with_it():
    class Mode(enum.Enum):
        FAST = "fast"

    class Short:
        """Live briefly.

        Parameters
        ----------
        mode : Mode
            How.
        """

        def __init__(self, mode: Mode = Mode.FAST): ...

    Mode.owner = Short
    Short.__init__.__annotations__["mode"] = Mode
    assert options_of(Short)[0].adapter is not None
    alive = weakref.ref(Short)
    del Short, Mode
    gc.collect()
    assert alive() is None


# -- docstrings ----------------------------------------------------------------------------------


def test_a_docstring_is_taken_apart():
    doc = documentation_of(Plugin)
    assert doc.summary == "Do something."
    assert doc.description == "At length, with a ``Parameters`` in the middle."
    assert doc.notes == "A note."
    assert doc.examples == ">>> 1 + 1\n2"
    assert doc.parameters["ratio"].default == "0.5"
    assert doc.parameters["limit"].default is None


@pytest.mark.parametrize(
    "docstring", [None, "", 5, "Summary.\n\nParameters\n----------", "Parameters\n----------\nx"]
)
def test_any_docstring_gives_a_documentation(docstring):
    assert isinstance(documentation_of(type("Odd", (), {"__doc__": docstring})).summary, str)


@given(st.text(alphabet=string.printable, max_size=300))
def test_no_docstring_raises(text):
    doc = documentation_of(type("Odd", (), {"__doc__": text}))
    assert isinstance(doc.summary, str)


@given(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.lists(st.integers()),
        st.dictionaries(st.text(), st.none()),
    )
)
def test_the_repr_of_a_default_states_that_default(value):
    assert same_default(repr(value), value)
    assert same_default(f"``{value!r}``", value)
    assert not same_default(repr(value), object())


# -- types for people ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (None, "None"),
        (Any, "any"),
        (Optional[int], "int or None"),  # noqa: UP045 - the old spelling is under test
        (str | os.PathLike[str] | None, "str or path or None"),
        (pathlib.Path, "path"),
        (list[int], "list of int"),
        (dict[str, int], "dict of str, int"),
        (tuple[int, ...], "tuple of int"),
        (Literal["a", 1, None], "'a' or 1 or None"),
        (Annotated[int, Ge(1), Lt(10)], "int, at least 1, less than 10"),
        (Annotated[float, Interval(gt=0, le=1)], "float, more than 0, at most 1"),
        (Annotated[int, "words"], "int"),
        (Colour, "'red' or 'blue'"),
    ],
)
def test_a_type_is_described_as_people_write_it(annotation, text):
    assert describe_type(annotation) == text


# -- validation ----------------------------------------------------------------------------------


def test_good_values_come_back_in_their_types():
    checked = validate(size=5, mode="safe", folder="a/b", colour="blue", limit=None, anything={"a": 1})
    assert checked == {
        "size": 5,
        "mode": "safe",
        "folder": pathlib.Path("a/b"),
        "colour": Colour.BLUE,
        "limit": None,
        "anything": {"a": 1},
    }


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("size", 0, "got 0; expected int, at least 1"),
        ("size", "many", "got 'many'; expected int, at least 1"),
        ("size", 1.5, "got 1.5"),
        ("size", None, "got None"),
        ("size", [1], r"got \[1\]"),
        ("size", TextValue("no number"), "got 'no number'"),
        ("mode", "slow", "got 'slow'; expected 'fast' or 'safe'$"),
        ("mode", 1, "got 1; expected 'fast' or 'safe'"),
        ("ratio", 1.0, "float, at least 0, less than 1"),
        ("ratio", float("nan"), "ratio"),
        ("ratio", float("-inf"), r"got -inf; .*finite"),
        ("other", 5, "expected str"),
        ("limit", "x" * 1000, "int or None"),
        ("colour", "green", "expected 'red' or 'blue'"),
        ("array", 5, "option 'array' of backend 'plugin'"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_taken(name, value, says):
    with pytest.raises(OptionError, match=says) as info:
        validate(**{"size": 5, name: value})
    assert f"option {name!r} of backend 'plugin'" in str(info.value)
    assert isinstance(info.value, ValueError) and len(str(info.value)) < 400


def test_an_unknown_option_is_refused_with_a_near_one_and_with_all():
    with pytest.raises(
        OptionError, match=r"no option 'sise' \(did you mean 'size'\?\); the options are size, mode, "
    ):
        validate(size=1, sise=2)


@pytest.mark.parametrize("name", ["size", "sise"])
def test_a_wrong_option_from_the_environment_is_refused_with_the_name_of_its_variable(name):
    variable = f"EXENGINE_STORAGE__OPTIONS__{name.upper()}"
    value = TextValue.of({variable: "no number"}, variable)
    with pytest.raises(OptionError, match=rf"(?m)^environment variable {variable}: .*option '{name}'"):
        validate(**{"size": 5, name: value})


def test_a_class_without_options_says_so():
    class Plain:
        """Be plain."""

    with pytest.raises(OptionError, match="source 'plain' has no option 'gain'; the plugin has no options"):
        validate_options(Plain, {"gain": 1}, "source 'plain'")


def test_a_missing_option_is_named_with_type_and_meaning():
    with pytest.raises(OptionError, match=r"needs the option 'size' \(int, at least 1\): How many pixels"):
        validate()


def test_all_faults_are_told_at_once():
    with pytest.raises(OptionError) as info:
        validate(mode="slow", nothing=1, ratio=7)
    assert len(str(info.value).splitlines()) == 4  # and the missing one


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "12", 12),
        ("ratio", "0.25", 0.25),
        ("other", "12", "12"),
        ("other", "yes", "yes"),
        ("other", "null", "null"),
        ("other", "2024-01-01", "2024-01-01"),
        ("other", "a: [b", "a: [b"),
        ("other", "", ""),
        ("other", "''", "''"),
        ("other", '"12"', '"12"'),
        ("note", "'null'", "null"),
        ("note", "null", None),
        ("mode", "safe", "safe"),
        ("limit", "null", None),
        ("limit", "5", 5),
        ("anything", "{a: 1}", "{a: 1}"),
        ("folder", "a/b", pathlib.Path("a/b")),
    ],
)
def test_text_from_the_environment_becomes_what_the_option_takes(name, text, value):
    checked = validate(**{"size": 5, name: TextValue(text)})[name]
    assert checked == value and type(checked) in (type(value), type(pathlib.Path()))


@given(st.integers(min_value=1))
def test_every_number_survives_the_way_through_text(number):
    assert validate(size=TextValue(str(number))) == {"size": number}


@example("''")
@example(" 'a' ")
@given(st.text())
def test_every_text_survives_the_way_through_text(text):
    assert validate(size=1, other=TextValue(text))["other"] == text


# -- arguments given in Python -------------------------------------------------------------------


class Camera:
    """Take pictures.

    Parameters
    ----------
    size : int
        In pixels.
    mode : str
        How.
    rate : float, optional
        Per second.
    array : numpy.ndarray, optional
        Not checked.
    plain
        Not checked.
    """

    def __init__(
        self,
        size: Annotated[int, Interval(ge=1, le=9)] = 5,
        mode: Literal["fast", "safe"] = "fast",
        rate: Annotated[float, Ge(1)] | None = None,
        array: np.ndarray | None = None,
        plain=None,
    ) -> None:
        check_options(Camera, size=size, mode=mode, rate=rate, array=array, plain=plain)


@pytest.mark.parametrize(
    ("given_options", "says"),
    [
        ({"size": 0}, r"option 'size' of Camera: got 0; expected int, at least 1, at most 9"),
        ({"size": np.int64(10)}, "got 10; expected int, at least 1, at most 9"),
        ({"size": True + 9}, "got 10"),
        ({"size": "5"}, "got '5'"),
        ({"size": 1.5}, "got 1.5"),
        ({"size": None}, "got None"),
        ({"mode": "slow"}, "got 'slow'; expected 'fast' or 'safe'"),
        ({"rate": 0.5}, "got 0.5; expected float, at least 1 or None"),
        ({"rate": float("nan")}, "got nan"),
        ({"rate": float("inf")}, r"got inf; expected float, at least 1 or None .*finite"),
    ],
)
def test_an_argument_that_its_annotation_refuses_is_refused(given_options, says):
    with pytest.raises(OptionError, match=says):
        Camera(**given_options)


def test_arguments_that_their_annotations_accept_are_accepted():
    Camera()
    Camera(9, "safe", 2, np.zeros(2), object())
    Camera(np.uint8(9), rate=np.float32(1.5))
