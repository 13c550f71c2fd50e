"""Every exception that ExEngine raises, in a single hierarchy.

Each class is both an :class:`ExEngineError` and a subclass of the builtin exception that it refines, so that
a caller can catch either. The classes differ in how a caller should react, not in where they are raised::

    ExEngineError
    ├── CoordinatesError (ValueError)            correct the coordinates
    │   ├── CoordinatesExistError                 choose other coordinates
    │   ├── CoordinatesFrozenError (TypeError)    use .replace(...)
    │   └── CoordinatesTypeError (TypeError)      pass a mapping
    ├── CoordinatesNotFoundError (KeyError)      no frame has these coordinates
    ├── UnsupportedDataError (ValueError)        the format cannot store this array
    ├── MetadataError (ValueError)               JSON cannot represent this metadata
    ├── UnsupportedOperationError (NotImplementedError)   the backend does not offer the operation
    ├── StorageStateError (RuntimeError)         the storage is in a state that forbids the operation
    │   ├── StorageFinishedError                  finished: read-only
    │   ├── StorageClosedError                    closed: open the dataset again
    │   └── StorageFailedError (OSError)          writing failed; see ``__cause__``
    ├── StorageFullError (MemoryError)           the memory limit was reached
    ├── DatasetExistsError (FileExistsError)     choose another path, or set ``if_exists``
    ├── DatasetNotFoundError (FileNotFoundError) the path does not exist, or contains no dataset
    ├── DatasetLockedError (BlockingIOError)     another writer has locked the dataset
    ├── DatasetAccessError (OSError)             the folder cannot be used
    ├── DatasetDamagedError (ValueError)         the data differ from those that were written
    ├── ClusterError (ConnectionError)           a dask cluster cannot be reached, or failed
    ├── PluginError                              a plugin cannot be used
    │   ├── PluginNotFoundError (LookupError)     misspelled, or not installed
    │   ├── PluginConflictError (LookupError)     two distributions share a name
    │   ├── PluginBrokenError (ImportError)       installed, but cannot be loaded
    │   └── ContractError (TypeError)             loaded, but not valid: see ``findings``
    ├── OptionError (ValueError)                 an option is unknown, or its value is wrong
    ├── ConfigError (ValueError)                 the config file or a setting is wrong
    ├── SourceError (RuntimeError)               the frame source cannot carry out the request
    ├── HandlerError (RuntimeError)              a frame was not stored; see ``__cause__``
    │   └── HandlerFullError (BlockingIOError)    the queue is full and ``when_full`` is ``error``
    └── AcquisitionError (RuntimeError)          the run failed; see ``ledger`` for the stored frames

This module imports nothing, so that every other module can import it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _OSErrorT = TypeVar("_OSErrorT", bound=OSError)


class ExEngineError(Exception):
    """The base class of every exception that ExEngine raises."""

    def __str__(self) -> str:
        # ``KeyError`` itself would show the repr of its argument.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class CoordinatesError(ExEngineError, ValueError):
    """The coordinates are not a mapping of axis names to int or str."""


class CoordinatesExistError(CoordinatesError):
    """A frame already exists at these coordinates (promise P4)."""


class CoordinatesFrozenError(CoordinatesError, TypeError):
    """The coordinates were hashed and can no longer be changed."""


class CoordinatesTypeError(CoordinatesError, TypeError):
    """The coordinates are neither ``DataCoordinates`` nor a mapping."""


class CoordinatesNotFoundError(ExEngineError, KeyError):
    """No frame exists at these coordinates (promise R1)."""


class UnsupportedDataError(ExEngineError, ValueError):
    """The format cannot store this array; nothing was changed (promise P8)."""


class MetadataError(ExEngineError, ValueError):
    """The metadata cannot be represented in JSON; nothing was changed (promise P9)."""


class UnsupportedOperationError(ExEngineError, NotImplementedError):
    """The backend does not offer this optional operation."""


class StorageStateError(ExEngineError, RuntimeError):
    """The storage is in a state that does not allow this operation."""


class StorageFinishedError(StorageStateError):
    """The storage is finished, so its dataset is immutable."""


class StorageClosedError(StorageStateError):
    """The storage is closed; open the dataset again to read it."""


class StorageFailedError(StorageStateError, OSError):
    """An I/O error made the storage fail; every later write raises this error (promise P7)."""

    # The inherited ``__new__`` belongs to a different builtin and rejects this class. tblib calls ``__new__``
    # directly to unpickle errors from a dask cluster.
    if not TYPE_CHECKING:
        __new__ = OSError.__new__


class StorageFullError(ExEngineError, MemoryError):
    """A storage reached the memory limit that the user set."""

    if not TYPE_CHECKING:
        __new__ = Exception.__new__


class DatasetExistsError(ExEngineError, FileExistsError):
    """The path already exists, whether or not it is a dataset (promise D1)."""


class DatasetNotFoundError(ExEngineError, FileNotFoundError):
    """The path does not exist, or contains no dataset."""


class DatasetLockedError(ExEngineError, BlockingIOError):
    """Another writer has locked the dataset (promise D2)."""


class DatasetAccessError(ExEngineError, OSError):
    """The path cannot be used: no permission, no space, or a file where a folder is needed."""


class DatasetDamagedError(ExEngineError, ValueError):
    """A dataset, or one of its frames, differs from the data that were written (promise C2).

    Attributes
    ----------
    readable : str or None
        The text of damaged metadata, any part of which may be wrong. A recovery preserves this text.
    """

    readable: str | None = None


class ClusterError(ExEngineError, ConnectionError):
    """A dask cluster cannot be reached, or failed during a conversion."""


class PluginError(ExEngineError):
    """The base class for errors about plugins."""


class PluginNotFoundError(PluginError, LookupError):
    """No installed plugin has this name."""


class PluginConflictError(PluginError, LookupError):
    """Two distributions register the same name."""


class PluginBrokenError(PluginError, ImportError):
    """The plugin is installed, but importing it or resolving its entry point fails."""


class ContractError(PluginError, TypeError):
    """A class violates the contract or is not documented.

    Attributes
    ----------
    findings : tuple of exengine.kernel.registry.class_checks.Finding
        All faults that were found, each with its code.
    """

    def __init__(self, message: str, findings: tuple = ()) -> None:  # type: ignore[type-arg]
        super().__init__(message)
        self.findings = findings


class OptionError(ExEngineError, ValueError):
    """An option does not exist, or its value is not accepted."""


class ConfigError(ExEngineError, ValueError):
    """A config file, an environment variable or a setting is wrong."""


class SourceError(ExEngineError, RuntimeError):
    """A frame source cannot run the requested sequence or config.

    Attributes
    ----------
    rule : str or None
        The name of the rule that the sequence breaks, as in the table of rules on the source's page.
    """

    rule: str | None = None


class HandlerError(ExEngineError, RuntimeError):
    """A ``DataHandler`` did not store a frame; see ``__cause__`` for the reason."""


class HandlerFullError(HandlerError, BlockingIOError):
    """The handler's queue is full, and ``when_full`` is ``error``."""

    if not TYPE_CHECKING:
        __new__ = BlockingIOError.__new__


class AcquisitionError(ExEngineError, RuntimeError):
    """An acquisition ended early; see ``__cause__`` for the reason.

    Attributes
    ----------
    ledger : exengine.kernel.frames.ledger.Ledger or None
        Counts of the stored and lost frames.
    """

    def __init__(self, message: str, ledger: object = None) -> None:
        super().__init__(message)
        self.ledger = ledger


# -- exceptions as text, and exceptions from the operating system ---------------------------------


def describe(error: BaseException, limit: int = 500) -> str:
    """Return the type and text of an exception, even if its own ``__str__`` raises an error.

    Parameters
    ----------
    error : BaseException
    limit : int
        The maximum length of the text, in characters.

    Examples
    --------
    >>> describe(ValueError("no number")), describe(ValueError())
    ('ValueError: no number', 'ValueError')
    """
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # raised by the exception's own __str__
        return name
    return f"{name}: {text[:limit]}" if text else name


def message_of(error: BaseException) -> str:
    """Return the message of an ExEngine error, or the :func:`describe` text of any other exception.

    Examples
    --------
    >>> message_of(ConfigError("no backend is selected")), message_of(KeyError("time"))
    ('no backend is selected', "KeyError: 'time'")
    """
    return str(error) if isinstance(error, ExEngineError) else describe(error)


def from_os(error_class: "type[_OSErrorT]", message: str, cause: BaseException | None) -> "_OSErrorT":
    """Return an error with the ``errno`` of its cause. The caller should raise it ``from`` the cause.

    Parameters
    ----------
    error_class : type
        A subclass of ``OSError``, such as ``DatasetAccessError``.
    message : str
    cause : BaseException or None
        Usually an ``OSError``. If it has no ``errno``, the new error has none either.

    Examples
    --------
    >>> from_os(DatasetAccessError, "cannot write here", PermissionError(13, "Permission denied")).errno
    13
    """
    error = error_class(message)
    error.errno = getattr(cause, "errno", None)
    return error


# -- the frames that a failed call stored --------------------------------------------------------


def note_stored(error: BaseException, frames: int) -> None:
    """Record in an exception's ``frames_stored`` attribute how many frames a ``put_many`` call stored."""
    error.frames_stored = frames  # type: ignore[attr-defined]


def frames_stored_before(error: BaseException) -> int:
    """Return the number that :func:`note_stored` recorded, or 0."""
    return int(getattr(error, "frames_stored", 0))
