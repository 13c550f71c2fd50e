"""Tasks in which the disk fails, to show whether an error reaches the caller and which frames survive."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exengine.kernel.errors import ExEngineError, describe
from exengine.kernel.storage.manifest import MANIFEST_NAME
from exengine.testing.children import describe_kind, kind_of, look, say
from exengine.testing.frames import frame_of
from exengine.testing.subject import Model, Subject, status_of, tree_of
from exengine.testing.tasks.calls import Calls, Syncs
from exengine.testing.tasks.dataset_files import files_of

_LARGE = (300, 300)
_PUTS = 5
_FAILING = 3  # the number of the frame at which the disk fails
_MANY = 12


def run_limit(subject: Subject, spec: dict[str, Any]) -> None:
    """Put frames until a file reaches the size limit, and report how the storage reacts."""
    import resource

    storage = subject.create(Path(spec["path"]))
    sys.dont_write_bytecode = True  # the size limit would truncate the bytecode caches
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (spec["limit"], hard))
    model = Model(subject)
    met: BaseException | None = None
    for number in range(spec["count"]):
        axes = subject.axes(number)
        large = number == spec["count"] - 1
        frame = _large_frame(subject, axes) if large else subject.frame(axes)
        try:
            storage.put(axes, frame, subject.numbered(number))
            storage.flush() if spec["flush"] else None
        except BaseException as error:
            met = error
            break
        model.add(axes, frame, subject.numbered(number))
    else:
        try:
            storage.finish()
        except BaseException as error:
            met = error
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    # The limit has been lifted. A storage that has failed must nevertheless remain failed.
    before = tree_of(Path(spec["path"]).parent)
    after = kind_of(lambda: storage.put(subject.axes(9000), subject.frame(subject.axes(9000)), {}))
    changed = tree_of(Path(spec["path"]).parent) != before
    stored = len(model.frames)
    faults = [fault for put in model.frames.values() if (fault := _fault_of(model, storage, put))]
    ends = [kind_of(storage.finish), kind_of(storage.close)]
    kind = describe_kind(met) if met is not None else None
    cause = met is not None and isinstance(_last_cause(met), OSError)
    say(stored=stored, met=kind, has_cause=cause, after=after, changed=changed, ends=ends, faults=faults)


def _last_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _fault_of(model: Model, storage: Any, put: Any) -> str:
    try:
        model.check_one(storage, put, "P7")
    except Exception as error:
        return describe(error, 300)
    return ""


def _large_frame(subject: Subject, axes: Any) -> Any:
    return frame_of(axes, (*subject.shape[:-2], *_LARGE)[-max(len(subject.shape), 1) :], subject.dtype)


# -- one call that fails ---------------------------------------------------------------------------------


def run_broken_calls(subject: Subject, spec: dict[str, Any]) -> None:
    """Make each system call of put, finish and close fail, one per dataset, and report the errors raised."""
    for phase in ("put", "finish", "close"):
        for kind in ("error", "short"):
            number = 0
            while number < spec["most"]:
                told = _with_a_broken_call(subject, phase, kind, number)
                if not told["failed"]:
                    break
                say(**told)
                number += 1
    for told in _with_limits(subject):
        say(**told)


def _with_a_broken_call(subject: Subject, phase: str, kind: str, number: int) -> dict[str, Any]:
    path = subject.new_path()
    storage = subject.create(path)
    calls = Calls(path, number, kind)
    errors: list[str] = []
    foreign: list[str] = []
    stored = 0

    def attempt(call: Callable[[], Any]) -> bool:
        try:
            call()
        except ExEngineError as error:
            errors.append(describe(error, 120))
        except Exception as error:
            errors.append(describe(error, 120))
            foreign.append(describe(error, 120))
        else:
            return True
        return False

    for at in range(_PUTS):
        axes = subject.axes(at)
        put = _put(subject, storage, axes, at)
        if phase == "put" and at == _FAILING:
            with calls:
                done = attempt(put)
        else:
            done = not errors and attempt(put)
        if not done:
            break
        stored += 1
    done = True
    if phase == "finish":
        with calls:
            done = attempt(storage.finish)
    if phase == "close":
        with calls:
            attempt(storage.close)
    elif phase == "put":
        attempt(storage.finish)
    attempt(storage.close)
    subject.forget()
    what = f"call {number + 1} of {phase}, os.{calls.failed}, {'failed' if kind == 'error' else 'wrote half'}"
    return {"phase": phase, "what": what, "failed": calls.failed, "path": os.fspath(path), "stored": stored,
            "returned": done, "errors": errors, "foreign": foreign, "kind": kind}  # fmt: skip


def _put(subject: Subject, storage: Any, axes: Any, number: int) -> Callable[[], None]:
    return lambda: storage.put(axes, subject.frame(axes), subject.numbered(number))


def _with_limits(subject: Subject) -> Iterator[dict[str, Any]]:
    """Limit the size of files, including during finish and close."""
    try:
        import resource
    except ImportError:  # this module does not exist on Windows
        return
    sys.dont_write_bytecode = True  # the size limit would truncate the bytecode caches
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else hard, hard))

    def lift(event: str, arguments: tuple[Any, ...]) -> None:
        if limited and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            if MANIFEST_NAME in os.path.basename(os.fsdecode(arguments[0])):
                limit(0)

    clean = subject.new_path()
    storage = subject.create(clean)
    subject.fill(storage, _MANY)
    storage.finish()
    storage.close()
    found = sorted({file.stat().st_size for file in files_of(clean) if file.stat().st_size > 1})[-6:]
    sizes = dict.fromkeys(at for whole in found for at in (whole // 3, whole // 2, whole - 1) if at)
    limited = False
    sys.addaudithook(lift)
    for size in [*sizes, 0]:
        path = subject.new_path()
        storage = subject.create(path)
        phase, stored, errors, done = "put" if size else "finish", 0, [], True
        limit(size)
        for number in range(_MANY):
            try:
                _put(subject, storage, subject.axes(number), number)()
            except Exception as error:
                errors.append(describe(error, 120))
                break
            stored += 1
        if not size:  # in this case, only the writes that the format makes in finish fail
            limited = True
            limit(1)
        for end in (storage.finish, storage.close):
            try:
                end()
            except Exception as error:
                errors.append(describe(error, 120))
                done = False
        limited = False
        limit(0)
        subject.forget()
        what = f"no file could grow beyond {size} bytes" if size else "no file could grow during finish()"
        yield {"phase": phase, "what": what, "failed": "write", "path": os.fspath(path), "stored": stored,
               "returned": done, "errors": errors, "foreign": [], "kind": "limit"}  # fmt: skip


# -- synced content --------------------------------------------------------------------------------------


def run_synced(subject: Subject, spec: dict[str, Any]) -> None:
    """Report the frames that would survive power loss right after a durable flush, and after finish."""
    syncs = Syncs(subject.folder)
    for end in ("finish", "flush"):
        path, copy = subject.new_path(), subject.new_path()
        storage = subject.create(path)
        subject.fill(storage, spec["count"])
        count = spec["count"]
        if end == "flush":
            storage.flush(True)
            subject.fill(storage, 2, first=count)
            storage.flush(True)
            count += 2
        else:
            storage.finish()
        lacking = syncs.restore(os.fspath(path), os.fspath(copy))
        storage.close()
        try:
            opened = subject.open(copy)
            present, faults = look(subject, opened, count)
            status = str(status_of(opened))
            opened.close()
        except Exception as error:
            present, faults, status = [], [f"opening raised {describe(error, 200)}"], ""
        lost = sorted(set(range(count)) - set(present))
        unseen = not syncs.sees(lacking)
        names = [os.path.relpath(name, path if path.is_dir() else path.parent) for name in lacking]
        say(end=end, lacking=names, lost=len(lost), faults=faults[:1], status=status, unseen=unseen)


# -- a sync that fails -----------------------------------------------------------------------------------


def run_failed_sync(subject: Subject, spec: dict[str, Any]) -> None:
    """Make the first sync fail and all later syncs succeed; report the errors that later calls raise."""
    storage = subject.create(Path(spec["path"]))
    model = Model(subject)
    model.put(storage, subject.axes(0), subject.numbered(0))
    storage.flush(True)
    model.put(storage, subject.axes(1), subject.numbered(1))
    calls: list[str] = []
    _fail_once(calls)
    first = _name_of(lambda: storage.flush(True))
    again = _name_of(lambda: storage.flush(True))
    put = _name_of(lambda: storage.put(subject.axes(2), subject.frame(subject.axes(2)), {}))
    finish = _name_of(storage.finish)
    status = _name_of(storage.close) or _status(storage)
    say(calls=len(calls), first=first, again=again, put=put, finish=finish, status=status)


def _fail_once(calls: list[str]) -> None:
    """Wrap every function that syncs data to disk, so that the first call to any of them fails."""
    from exengine.kernel.system import files

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(getattr(real, "__name__", ""))
            if len(calls) == 1:
                raise OSError(errno.EIO, "a failing sync, injected by the conformance kit")
            return real(*arguments)

        return call

    for module, name in ((os, "fsync"), (os, "fdatasync"), (os, "sync"), (files, "sync_filesystem")):
        if hasattr(module, name):
            setattr(module, name, failing(getattr(module, name)))


def _name_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return ""


def _status(storage: Any) -> str:
    try:
        return str(storage.status)
    except NotImplementedError:
        return ""
