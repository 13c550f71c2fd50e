"""A task that damages a dataset in many ways, and reports how the backend reads each damaged dataset."""

import time
from pathlib import Path
from typing import Any

from exengine.kernel.errors import ExEngineError, describe
from exengine.testing.children import say
from exengine.testing.subject import Subject, key_of, same_json, status_of
from exengine.testing.tasks.damages import damages_of
from exengine.testing.tasks.dataset_files import copy_to, move_to, remove
from exengine.testing.tasks.memory import peak_mib
from exengine.testing.tasks.probe import limit_memory, watch_after

_COMPLETE = "complete"
_TIMED = 4
_LEAST = 100
_MOST_FAULTS = 50  # after this number of unnoticed changes, the task ends


def run_damage(subject: Subject, spec: dict[str, Any]) -> None:
    """Apply each change to a copy of a dataset, open the copy and read it. Report faults.

    The copy gets a new path for each change, so that the backend cannot reuse data cached for an old path.
    """
    original = Path(spec["good"])
    watch = watch_after(subject, spec)
    limit_memory()
    place = subject.new_path()
    copy_to(original, place)
    count, opened, faults = 0, 0, 0
    for damage in damages_of(original, _affordable(subject, original, spec), spec["only"]):
        count += 1
        path = place.with_name(f"{count}-{place.name[-20:]}")
        move_to(place, path)
        place = path
        target = damage.place(place)
        content = target.read_bytes()
        changed = damage.change(content)
        if changed == content:
            continue
        target.unlink() if changed is None else target.write_bytes(changed)
        say(opening=damage.text)
        watch.look_at(place)
        started = time.monotonic()
        outcome = _outcome(subject, place, spec["count"])
        seconds = time.monotonic() - started
        watch.rest()
        opened += outcome.pop("opened")
        if any(outcome.values()) or watch.reached or seconds > spec["seconds"]:
            say(what=damage.text, **outcome, seconds=seconds, reached=watch.reached[:5])
            faults += 1
            if faults == _MOST_FAULTS:
                break
        if not place.exists():
            remove(place)
            copy_to(original, place)
        target.write_bytes(content)
    say(memory_mib=peak_mib())
    say(damaged=count, opened=opened)


def _affordable(subject: Subject, original: Path, spec: dict[str, Any]) -> int:
    """Return the number of damaged datasets that a backend can open in the permitted processor time."""
    started = time.process_time()
    for _ in range(_TIMED):
        _outcome(subject, original, spec["count"])
    each = (time.process_time() - started) / _TIMED
    return max(_LEAST, min(int(spec["most"]), int(spec["processor_s"] / max(each, 1e-6))))


def _outcome(subject: Subject, path: Path, count: int) -> dict[str, Any]:
    """Open and read a dataset. Return the faults."""
    outcome: dict[str, Any] = {"foreign": "", "wrong": "", "opened": 0}
    try:
        storage = subject.open(path)
        outcome["opened"] = 1
        outcome["wrong"], outcome["foreign"] = _read(subject, storage, count)
        storage.close()
    except ExEngineError as error:
        if isinstance(error.__cause__, MemoryError):
            outcome["foreign"] = describe(error.__cause__)
    except BaseException as error:
        outcome["foreign"] = describe(error)
    subject.forget()
    return outcome


def _read(subject: Subject, storage: Any, count: int) -> tuple[str, str]:
    """Read everything. Return any fault in the data, and any exception that is not an ExEngineError."""
    from exengine.testing.frames import same

    wanted = [subject.axes(number) for number in range(count)]
    wrong, missing = "", 0
    for number, axes in enumerate(wanted):
        try:
            if axes not in storage:
                missing += 1
                continue
            if not same(storage.get_data(axes), subject.frame(axes)):
                wrong = wrong or f"the frame at {axes} was returned with wrong pixels"
            metadata = storage.get_metadata(axes) if subject.can.metadata else {}
            if not same_json(metadata, subject.numbered(number)):
                wrong = wrong or f"the metadata at {axes} was returned as {metadata!r:.100}"
        except ExEngineError:
            continue
        except Exception as error:
            return wrong, describe(error)
    status = str(status_of(storage))
    if missing and status == _COMPLETE:
        wrong = wrong or f"the status is complete, but the number of missing frames is {missing}"
    if subject.can.iterable and status == _COMPLETE:
        known = {key_of(axes) for axes in wanted}
        strange = [dict(axes) for axes in storage if key_of(axes) not in known]
        if strange:
            wrong = wrong or f"a frame is listed at {strange[0]}, where no frame was put"
    summary = subject.options.get("summary_metadata")
    if summary and status == _COMPLETE:
        try:
            if not same_json(storage.summary_metadata, summary):
                wrong = wrong or f"the summary metadata was returned as {storage.summary_metadata!r:.100}"
        except ExEngineError:
            pass
        except Exception as error:
            return wrong, describe(error)
    return wrong, ""
