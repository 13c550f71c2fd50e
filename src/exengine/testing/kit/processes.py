"""Tests that need another process: C6, P6, P7, F1, F2, R3, R4 under several hash seeds, D2, N5 at exit."""

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.errors import ExEngineError, describe
from exengine.testing.children import Child, look, try_to_create
from exengine.testing.kit.read import at_once, put_in_odd_order
from exengine.testing.promises import NotRun, PromiseBrokenError, promise
from exengine.testing.subject import Subject, check_order, status_of, tree_of

FRAMES = 30
WATCHED, WATCHED_THOROUGH = 120, 1500
"""The number of frames that are put while another process reads."""
SECONDS = 100
"""The approximate number of attempts, in several threads, to create a dataset at a path in use.

All of the attempts must be refused.
"""
_LIMIT_BYTES = 65536
_LIVE_FRAMES = 60
_SEEN_LIVE = 10  # number of frames that are read while the others are being written

_PATIENCE_S = 5.0


class ProcessPromises:
    """Tests in which a process is killed or two processes use the same dataset."""

    @promise("P6", code="EX308")
    def test_a_frame_survives_the_death_of_the_process_when_put_has_returned(self, subject: Subject) -> None:
        subject.needs_reopen()
        if subject.can.safety_of_put == "accepted":
            subject.not_promised("safety_of_put")
        _killed_after(subject, "put", "P6")

    @promise("F1")
    def test_after_flush_frames_survive_the_death_of_the_process(self, subject: Subject) -> None:
        subject.needs_reopen()
        if not _flushes(subject) and subject.can.safety_of_put == "accepted":
            subject.not_promised("safety_of_put")
        _killed_after(subject, "flush" if _flushes(subject) else "put", "F1")

    @promise("F2", code="EX309")
    def test_after_a_durable_flush_frames_survive_the_death_of_the_process(self, subject: Subject) -> None:
        if not subject.can.durable_flush:
            storage = subject.create()
            subject.fill(storage, 2)
            subject.refuses(lambda: storage.flush(True), "flush(durable=True)")
            subject.not_promised("durable_flush")
        subject.needs_reopen()
        _killed_after(subject, "durable", "F2")

    @promise("P7", "P5")
    def test_the_first_error_of_the_disk_stays_and_reaches_the_caller(self, subject: Subject) -> None:
        subject.needs_reopen()
        if sys.platform == "win32":
            raise NotRun("this system cannot limit the size of a file")
        path = subject.new_path()
        spec: dict[str, Any] = {
            "path": os.fspath(path),
            "count": 400,
            "limit": _LIMIT_BYTES,
            "flush": _flushes(subject),
        }
        with Child(subject, "limit", **spec) as child:
            told = child.result()
        met = told["met"]
        if met is None and told["faults"]:
            raise PromiseBrokenError(
                "P7", f"no error was raised although the file size was limited; fault: {told['faults'][0]}"
            )
        if met is None:
            raise NotRun("the backend wrote all frames without exceeding the file size limit of 64 KiB")
        if "UnsupportedDataError" in met["kinds"]:
            raise NotRun("the backend accepts no frame larger than the file size limit")
        if "ExEngineError" not in met["kinds"]:
            raise PromiseBrokenError(
                "P7", f"a disk error reached the caller as {met['message']}, not as an ExEngineError"
            )
        if not told["has_cause"]:
            raise PromiseBrokenError("P7", f"the cause of the error is not an OSError: {met['message']}")
        if told["after"] is None or "ExEngineError" not in told["after"]["kinds"]:
            after = f"raised {told['after']['message']}" if told["after"] else "returned"
            raise PromiseBrokenError("P7", f"put after a disk error {after}, but must raise an ExEngineError")
        if told["changed"]:
            raise PromiseBrokenError("P5", "a put after a disk error changed the files")
        foreign = [end["message"] for end in told["ends"] if end and "ExEngineError" not in end["kinds"]]
        if foreign or told["faults"]:
            raise PromiseBrokenError(
                "P7", f"after a disk error, the storage had a fault: {[*foreign, *told['faults']][0]}"
            )
        _holds(subject, path, told["stored"], "C4")

    @promise("R3", code="EX306")
    def test_another_process_reads_while_this_one_writes(self, subject: Subject) -> None:
        subject.needs_reopen()
        if not subject.can.read_while_writing:
            _opens_or_refuses(subject)
            subject.not_promised("read_while_writing")
        path = subject.new_path()
        storage = subject.create(path)
        count = WATCHED_THOROUGH if subject.thorough else WATCHED
        subject.varied = not subject.can.same_shape
        with Child(subject, "watch", path=os.fspath(path), count=count, varied=subject.varied) as child:
            child.wait_for(0)
            subject.fill(storage, count)
            if subject.can.safety_of_put == "accepted" and _flushes(subject):
                storage.flush()
            child.say_stop()
            told = child.result()
        storage.close()
        if told["faults"]:
            raise PromiseBrokenError("R3", f"a reader in a child process failed: {told['faults'][0]}")
        counts = told["counts"]
        if counts != sorted(counts):
            raise PromiseBrokenError("R3", f"a reader found fewer frames than before (counts: {counts})")
        if counts[-1] != count:
            raise PromiseBrokenError(
                "R3",
                f"{count} frames were put, but a reader that opened the dataset later found {counts[-1]}",
            )

    @promise("R4", code="EX305")
    def test_the_order_is_the_same_under_any_hash_seed(self, subject: Subject) -> None:
        subject.needs_reopen()
        if not subject.can.iterable:
            subject.not_promised("iterable")
        path = subject.new_path()
        storage = subject.create(path)
        wanted = [[list(item) for item in axes] for axes in put_in_odd_order(storage, subject)]
        storage.finish()
        storage.close()
        for seed in ("0", "77"):
            with Child(subject, "read", hash_seed=seed, path=os.fspath(path), count=0) as child:
                order = child.result()["order"]
            try:
                check_order(order, wanted, "R4")
            except PromiseBrokenError as fault:
                raise PromiseBrokenError("R4", f"with the hash seed {seed}: {fault}") from fault

    @promise("D2")
    def test_a_second_writer_is_refused(self, subject: Subject) -> None:
        _needs_place(subject)
        path = subject.new_path()
        storage = subject.create(path)
        model = subject.fill(storage, 3)
        link = path.parent / f"link-to-{path.name}"
        spellings = [os.fspath(path), os.path.join(path.parent, ".", "..", path.parent.name, path.name)]
        if sys.platform != "win32":
            link.symlink_to(path)
            spellings.append(os.fspath(link))
        before = set(tree_of(path.parent))
        ways = ("error", "overwrite") if subject.name else ("error",)
        attempts = [(spelling, if_exists) for spelling in spellings for if_exists in ways]
        seconds: list[Callable[[], Any]] = []
        for spelling, if_exists in attempts:
            what = f"a second writer at {spelling!r} with if_exists={if_exists!r}"
            _refused(try_to_create(subject, spelling, if_exists), what)
            seconds.append(functools.partial(_second, subject, spelling, if_exists, what))
        for _ in range(SECONDS // len(seconds)):
            at_once(seconds)
        with Child(subject, "second", attempts=attempts * 3) as child:
            for told in child.lines():
                _refused(told, f"a second writer in a child process ({told})")
        if set(tree_of(path.parent)) - before:
            raise PromiseBrokenError("D2", "a refused second writer left files behind")
        model.put(storage, subject.axes(3), subject.numbered(3))
        model.check(storage, "D2")
        storage.finish()
        storage.close()
        if subject.can.reopen:
            model.check(subject.open(path), "D2")

    @promise("D2")
    def test_a_killed_writer_hinders_no_other(self, subject: Subject) -> None:
        _needs_place(subject)
        if not subject.name:
            raise NotRun("this test needs the name of an installed backend, because it overwrites a dataset")
        path = subject.new_path()
        with Child(subject, "write", path=os.fspath(path), count=2, level="put", end="wait") as child:
            child.wait_for(1)
            child.kill()
        told = _refused_by_lock(subject, path)
        if told is not None:
            raise PromiseBrokenError(
                "D2", f"the path is still refused after its writer was killed: {told['message']}"
            )

    @promise("D2")
    def test_a_killed_writer_that_had_forked_hinders_no_other(self, subject: Subject) -> None:
        _needs_place(subject)
        if not subject.name:
            raise NotRun("this test needs the name of an installed backend, because it overwrites a dataset")
        if not hasattr(os, "fork"):
            raise NotRun("this system cannot fork")
        path = subject.new_path()
        spec: dict[str, Any] = {"count": 2, "level": "put", "end": "wait", "fork": True}
        with Child(subject, "write", path=os.fspath(path), **spec) as child:
            child.wait_for(True, key="forked")
            child.kill()
        deadline = time.monotonic() + _PATIENCE_S
        # A forked process releases the lock when it first runs, which can take a while on a busy machine.
        while (told := _refused_by_lock(subject, path)) is not None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if told is not None:
            raise PromiseBrokenError(
                "D2", f"a process forked by a killed writer keeps the path locked: {told['message']}"
            )

    @promise("N5")
    def test_a_storage_that_was_forgotten_at_exit_keeps_its_frames(self, subject: Subject) -> None:
        subject.needs_reopen()
        path = subject.new_path()
        with Child(subject, "write", path=os.fspath(path), count=5, level="put", end="exit") as child:
            child.result()
            said = child.errors()
        status = _holds(subject, path, 5, "N5")
        if status not in (None, DatasetStatus.ABORTED):
            raise PromiseBrokenError(
                "N5", f"after an exit without closing the storage, the dataset has the status {status}"
            )
        if status and "Warning" not in said:
            raise PromiseBrokenError("N5", "a storage was never closed, but no warning was issued at exit")


class LivePromises:
    """Tests of ``live_readers`` with the class's foreign reader."""

    @promise("C6")
    def test_foreign_readers_see_every_acknowledged_frame(self, subject: Subject) -> None:
        if not subject.can.live_readers:
            subject.not_promised("live_readers")
        if not subject.cls.foreign_reader:
            raise NotRun("live_readers is declared, but the class has no foreign_reader to test it with")
        path = subject.new_path()
        spec: dict[str, Any] = {"path": os.fspath(path), "count": _LIVE_FRAMES, "level": "put", "end": "wait"}
        with Child(subject, "write", **spec) as writer:
            writer.wait_for(_SEEN_LIVE - 1)
            _are_seen(subject, path, _SEEN_LIVE, "while further frames were being written")
            writer.wait_for(_LIVE_FRAMES - 1)
            _are_seen(subject, path, _LIVE_FRAMES, "while the writer was alive")
            writer.kill()
        _are_seen(subject, path, _LIVE_FRAMES, "after the writer was killed")


def _are_seen(subject: Subject, path: Path, count: int, when: str) -> None:
    with Child(subject, "foreign", path=os.fspath(path), count=count) as child:
        faults = child.result()["faults"]
    if faults:
        raise PromiseBrokenError(
            "C6", f"{when}, {subject.cls.foreign_reader} did not see {len(faults)} of {count} acknowledged "
            f"frames: {faults[0]}"
        )  # fmt: skip


def _refused_by_lock(subject: Subject, path: Path) -> dict[str, Any] | None:
    """Try to overwrite a dataset. Return the refusal, unless it only says that dataset_files is missing."""
    told: dict[str, Any] | None = try_to_create(subject, os.fspath(path), "overwrite")["refused"]
    if told is not None and not subject.cls.dataset_files and "DatasetExistsError" in told["kinds"]:
        return None
    return told


def _flushes(subject: Subject) -> bool:
    """Return whether the backend can flush. Raise an error if flushing fails in an undocumented way."""
    from exengine.testing.subject import refusal_of

    storage = subject.create()
    error = refusal_of(storage.flush)
    storage.close()
    if error is not None and not isinstance(error, NotImplementedError):
        raise PromiseBrokenError("F1", f"flush() raised {describe(error)}")
    return error is None


def _killed_after(subject: Subject, level: str, label: str) -> None:
    """Kill a process that is writing two datasets, and check that all frames put so far survive."""
    one, several = subject.new_path(), subject.new_path()
    before = [(os.fspath(one), 1)]
    spec: dict[str, Any] = {"before": before, "count": FRAMES, "level": level, "end": "wait"}
    with Child(subject, "write", path=os.fspath(several), **spec) as child:
        child.wait_for(FRAMES - 1)
        child.kill()
    _holds(subject, one, 1, label)
    _holds(subject, several, FRAMES, label)


def _holds(subject: Subject, path: Path, count: int, label: str) -> DatasetStatus | None:
    """Return the status of a dataset. Raise an error unless its first ``count`` frames are intact."""
    try:
        opened = subject.open(path)
    except ExEngineError as error:
        raise PromiseBrokenError(label, f"the dataset cannot be opened: {describe(error)}") from error
    present, faults = look(subject, opened, count)
    if faults:
        raise PromiseBrokenError(label, faults[0])
    lost = sorted(set(range(count)) - set(present))
    if lost:
        raise PromiseBrokenError(
            label, f"lost frames: {len(lost)} of {count}; the first of their numbers: {lost[:10]}"
        )
    return status_of(opened)


def _needs_place(subject: Subject) -> None:
    if not subject.can.persistent:
        subject.needs_reopen()


def _second(subject: Subject, path: str, if_exists: str, what: str) -> None:
    _refused(try_to_create(subject, path, if_exists), what + " in another thread")


def _refused(told: dict[str, Any], what: str) -> None:
    refused = told["refused"]
    if refused is None:
        raise PromiseBrokenError("D2", f"{what} was accepted")
    if "ExEngineError" not in refused["kinds"]:
        raise PromiseBrokenError("D2", f"{what} raised {refused['message']}, which is not an ExEngineError")


def _opens_or_refuses(subject: Subject) -> None:
    """Open a dataset that is being written, and check that reads are correct or raise an ExEngineError."""
    path = subject.new_path()
    storage = subject.create(path)
    subject.fill(storage, 4)
    with Child(subject, "probe", paths=[os.fspath(path)], count=4) as child:
        first = next(iter(child.lines()))
    if first.get("foreign") or first.get("wrong"):
        raise PromiseBrokenError(
            "R3", f"reading a dataset that was being written failed: {first['foreign'] or first['wrong']}"
        )
