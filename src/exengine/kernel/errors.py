"""Every exception that ExEngine raises, in one tree.

Each class is an :class:`ExEngineError` *and* the builtin it refines, so that a caller may catch
either. Classes are cut by what a handler would do next, not by where the error came from::

    ExEngineError
    ├── CoordinatesError (ValueError)            mend the coordinates
    │   ├── CoordinatesExistError                 choose other coordinates
    │   ├── CoordinatesFrozenError (TypeError)    use .replace(...)
    │   └── CoordinatesTypeError (TypeError)      pass a mapping
    ├── CoordinatesNotFoundError (KeyError)      nothing was put there
    ├── UnsupportedDataError (ValueError)        the format cannot hold this array
    ├── MetadataError (ValueError)               JSON cannot hold this metadata
    ├── UnsupportedOperationError (NotImplementedError)   this backend does not offer that
    ├── StorageStateError (RuntimeError)         the storage cannot do that any more
    │   ├── StorageFinishedError                  finished: read only
    │   ├── StorageClosedError                    closed: open the dataset again
    │   └── StorageFailedError (OSError)          writing failed; ``__cause__`` says why
    ├── StorageFullError (MemoryError)           the bound on memory was reached
    ├── DatasetExistsError (FileExistsError)     choose another path, or if_exists
    ├── DatasetNotFoundError (FileNotFoundError) nothing there
    ├── DatasetLockedError (BlockingIOError)     another writer is at work
    ├── DatasetAccessError (OSError)             the folder cannot be used
    ├── DatasetDamagedError (ValueError)         what is there is not what was written
    ├── PluginError                              something about a plugin
    │   ├── PluginNotFoundError (LookupError)     misspelt, or not installed
    │   ├── PluginConflictError (LookupError)     two distributions share a name
    │   ├── PluginBrokenError (ImportError)       installed, but it cannot be loaded
    │   └── ContractError (TypeError)             loaded, but not valid: see ``findings``
    ├── OptionError (ValueError)                 an option is unknown, or its value is wrong
    ├── ConfigError (ValueError)                 the config file or a setting is wrong
    ├── SourceError (RuntimeError)               the frame source cannot do what was asked
    ├── HandlerError (RuntimeError)              a frame was not stored; ``__cause__`` says why
    │   └── HandlerFullError (BlockingIOError)    the queue is full and ``when_full`` is ``error``
    └── AcquisitionError (RuntimeError)          the run failed; ``ledger`` says what is safe

This module imports nothing, so that every other module may import it.
"""


class ExEngineError(Exception):
    """Base of every exception raised by ExEngine."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument; a message is for people.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class CoordinatesError(ExEngineError, ValueError):
    """Coordinates that are not axis name -> int or str."""


class CoordinatesExistError(CoordinatesError):
    """A frame was already put at these coordinates (promise P4)."""


class CoordinatesFrozenError(CoordinatesError, TypeError):
    """Coordinates were changed after they had been hashed."""


class CoordinatesTypeError(CoordinatesError, TypeError):
    """Something that is neither ``DataCoordinates`` nor a mapping was given as coordinates."""


class CoordinatesNotFoundError(ExEngineError, KeyError):
    """Nothing was put at these coordinates (promise R1)."""


class UnsupportedDataError(ExEngineError, ValueError):
    """The format cannot hold this array; nothing was changed (promise P8)."""


class MetadataError(ExEngineError, ValueError):
    """Metadata holds something that JSON cannot hold; nothing was changed (promise P9)."""


class UnsupportedOperationError(ExEngineError, NotImplementedError):
    """The backend does not offer this optional operation."""


class StorageStateError(ExEngineError, RuntimeError):
    """The storage cannot do this in the state in which it is."""


class StorageFinishedError(StorageStateError):
    """The storage is finished: its dataset is immutable."""


class StorageClosedError(StorageStateError):
    """The storage is closed: open the dataset again to read it."""


class StorageFailedError(StorageStateError, OSError):
    """An I/O error made the storage fail; every later call that writes says so (promise P7)."""


class StorageFullError(ExEngineError, MemoryError):
    """The bound that the user set on the memory of a storage was reached."""


class DatasetExistsError(ExEngineError, FileExistsError):
    """A dataset, or something else, is already at the path (promise D1)."""


class DatasetNotFoundError(ExEngineError, FileNotFoundError):
    """There is nothing, or no dataset, at the path."""


class DatasetLockedError(ExEngineError, BlockingIOError):
    """Another writer is at work on the dataset (promise D2)."""


class DatasetAccessError(ExEngineError, OSError):
    """The path cannot be used: permission, a file where a folder is needed, no space."""


class DatasetDamagedError(ExEngineError, ValueError):
    """A dataset, or one frame of it, is not what was written (promise C2)."""


class PluginError(ExEngineError):
    """Base of the errors about plugins."""


class PluginNotFoundError(PluginError, LookupError):
    """No installed plugin has this name."""


class PluginConflictError(PluginError, LookupError):
    """Two distributions register the same name."""


class PluginBrokenError(PluginError, ImportError):
    """The plugin is installed, but its import or its entry point fails."""


class ContractError(PluginError, TypeError):
    """A class breaks the contract or is not documented.

    Attributes
    ----------
    findings : tuple of exengine.kernel.registry.class_checks.Finding
        Each fault with its code.
    """

    def __init__(self, message: str, findings: tuple = ()) -> None:  # type: ignore[type-arg]
        super().__init__(message)
        self.findings = findings


class OptionError(ExEngineError, ValueError):
    """An option that does not exist, or a value that it does not take."""


class ConfigError(ExEngineError, ValueError):
    """A config file, an environment variable or a setting is wrong."""


class SourceError(ExEngineError, RuntimeError):
    """A frame source cannot do what the config or the sequence asks of it."""


class HandlerError(ExEngineError, RuntimeError):
    """A frame given to a ``DataHandler`` was not stored; ``__cause__`` says why."""


class HandlerFullError(HandlerError, BlockingIOError):
    """The queue of the handler is full and its policy is to raise."""


class AcquisitionError(ExEngineError, RuntimeError):
    """An acquisition ended before its end; ``__cause__`` says why.

    Attributes
    ----------
    ledger : exengine.kernel.frames.ledger.Ledger or None
        What was stored and what was not.
    """

    def __init__(self, message: str, ledger: object = None) -> None:
        super().__init__(message)
        self.ledger = ledger


# -- how much of a call was done ---------------------------------------------------------------------


def note_stored(error: BaseException, frames: int) -> None:
    """Record on an exception, as ``frames_stored``, how many frames of a ``put_many`` were stored."""
    error.frames_stored = frames  # type: ignore[attr-defined]


def frames_stored_before(error: BaseException) -> int:
    """Return the number that :func:`note_stored` recorded, or 0."""
    return int(getattr(error, "frames_stored", 0))
