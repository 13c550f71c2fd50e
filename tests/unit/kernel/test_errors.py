"""The tree of exceptions: drawn as it is, each also the builtin it refines, messages for people."""

import builtins
import errno
import pickle
import re
import subprocess
import sys

import pytest

from exengine.kernel import errors
from exengine.kernel.errors import AcquisitionError, ContractError, CoordinatesNotFoundError, ExEngineError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]


def drawn_tree():
    """Return (name, name of the parent, names of the builtins) of each line of the drawing."""
    rows, path = [], ["ExEngineError"]
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ([│ ]*)[├└]── (\w+)(?: \((\w+(?:, \w+)*)\))?", line)
        if match:
            depth = len(match[1]) // 4 + 1
            rows.append((match[2], path[depth - 1], tuple((match[3] or "").split(", ")) if match[3] else ()))
            path[depth:] = [match[2]]
    return rows


def test_the_drawing_shows_every_class_under_its_parent_with_its_builtin():
    drawn = drawn_tree()
    defined = [
        (
            cls.__name__,
            next(base.__name__ for base in cls.__bases__ if issubclass(base, ExEngineError)),
            tuple(base.__name__ for base in cls.__bases__ if not issubclass(base, ExEngineError)),
        )
        for cls in CLASSES
        if cls is not ExEngineError
    ]
    assert sorted(drawn) == sorted(defined)
    assert len(drawn) == len(set(drawn)) > 20


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_is_an_exengine_error_and_a_builtin_and_says_its_message_plainly(cls):
    message = 'it\'s "here": what, got, allowed'
    error = cls(message)
    assert isinstance(error, ExEngineError)
    assert str(error) == message
    assert cls.__doc__
    if cls not in (ExEngineError, errors.PluginError):
        refined = [base for base in cls.__mro__ if vars(builtins).get(base.__name__) is base]
        assert set(refined) - {Exception, BaseException, object}, f"{cls.__name__} refines no builtin"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_survives_pickling(cls):
    error = pickle.loads(pickle.dumps(cls("message")))
    assert type(error) is cls
    assert str(error) == "message"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_can_be_made_without_its_initializer(cls):
    # tblib, which dask.distributed installs for all exceptions, unpickles them in this way.
    assert type(cls.__new__(cls, "message")) is cls


def test_a_key_error_shows_no_quotes_around_its_message():
    error = CoordinatesNotFoundError("nothing was put at {'time': 1}")
    assert isinstance(error, KeyError)
    assert str(error) == "nothing was put at {'time': 1}"


def test_an_error_without_a_message_or_with_an_errno_shows_what_the_builtin_shows():
    assert str(ExEngineError()) == ""
    error = errors.DatasetAccessError(errno.EACCES, "Permission denied", "/data")
    assert (error.errno, error.filename) == (errno.EACCES, "/data")
    assert str(error) == f"[Errno {errno.EACCES}] Permission denied: '/data'"


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.CoordinatesError, ValueError),
        (errors.CoordinatesTypeError, TypeError),
        (errors.UnsupportedOperationError, NotImplementedError),
        (errors.StorageFailedError, OSError),
        (errors.DatasetExistsError, FileExistsError),
        (errors.DatasetNotFoundError, FileNotFoundError),
        (errors.PluginNotFoundError, LookupError),
        (errors.PluginBrokenError, ImportError),
        (errors.HandlerError, RuntimeError),
    ],
)
def test_a_caller_may_catch_the_builtin(cls, builtin):
    with pytest.raises(builtin, match="message"):
        raise cls("message")


def test_a_contract_error_carries_its_findings_and_an_acquisition_error_its_ledger():
    assert ContractError("message").findings == ()
    assert ContractError("message", ("EX101",)).findings == ("EX101",)
    assert pickle.loads(pickle.dumps(ContractError("message", ("EX101",)))).findings == ("EX101",)
    assert AcquisitionError("message").ledger is None
    assert AcquisitionError("message", {"stored": 3}).ledger == {"stored": 3}


def test_the_module_imports_nothing():
    code = (
        "import sys; before = set(sys.modules); import exengine.kernel.errors; "
        "print(*sorted(set(sys.modules) - before))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == ["exengine", "exengine.kernel", "exengine.kernel.errors"]


def test_an_exception_as_text_is_bounded_and_survives_its_own_faults():
    class Sly(Exception):
        def __str__(self):
            raise RuntimeError

    assert errors.describe(Sly()) == "Sly"
    assert errors.describe(ValueError()) == "ValueError"
    assert len(errors.describe(ValueError("x" * 10**6))) < 600
    assert errors.describe(ValueError("long text"), 4) == "ValueError: long"
    assert errors.message_of(errors.ConfigError("plain")) == "plain"
    assert errors.message_of(OSError("no")) == "OSError: no"


def test_an_error_from_the_system_keeps_its_number():
    error = errors.from_os(errors.DatasetAccessError, "cannot write", PermissionError(errno.EACCES, "no"))
    assert (type(error), str(error), error.errno) == (errors.DatasetAccessError, "cannot write", errno.EACCES)
    assert errors.from_os(errors.StorageFailedError, "stopped", KeyboardInterrupt()).errno is None
