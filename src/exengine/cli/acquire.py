"""``exengine acquire CONFIG``: runs an acquisition, showing its progress and a summary."""

import argparse
import contextlib
import logging
import os
import shlex
import signal
import threading
from collections.abc import Iterator

from exengine.acquisition.run import Acquisition
from exengine.cli.ledger_text import ledger_lines
from exengine.cli.output import counts, print_json, say
from exengine.cli.progress import AcquisitionProgress
from exengine.cli.settings import resolve_settings
from exengine.cli.watching.terminal import Screen, is_watchable
from exengine.kernel.errors import AcquisitionError, describe
from exengine.kernel.storage.remote import is_url
from exengine.kernel.wording import human_bytes, human_time


def run(options: argparse.Namespace) -> int:
    """Run the acquisition. Return 0 if every frame was stored, 1 if not, and 130 if interrupted."""
    config = resolve_settings(options)
    with Acquisition(config, resume=options.resume) as acquisition:
        for item in config.set_aside:
            say(f"set aside: {item.key} ({item.origin}): {item.reason}")
        code, problem = 0, ""
        try:
            with _signals_as_interrupt(), _shown(acquisition, options) as progress:
                acquisition.run(progress)
        except AcquisitionError as error:
            if options.debug:
                raise
            code, problem = 1, str(error)
        except KeyboardInterrupt:
            code, problem = 130, f"interrupted; the dataset was finished as {acquisition.status}"
        if not code and not acquisition.ledger.complete:  # even if the config tolerates lost frames
            lost = counts(acquisition.ledger.to_dict(), "dropped", "failed")
            code, problem = 1, f"not every frame was stored: {lost}"
        summary = _summary(acquisition, problem)
    if options.json:
        print_json(summary)
    else:
        _print_summary(summary)
    if problem:
        say(f"exengine: {problem}")
    return code


@contextlib.contextmanager
def _shown(acquisition: Acquisition, options: argparse.Namespace) -> Iterator[AcquisitionProgress | None]:
    """Show the run on the terminal. Yield its progress line, or None if ``--watch`` shows a view instead."""
    if not options.watch or options.json or not is_watchable():
        with AcquisitionProgress(acquisition.remaining) as progress:
            yield progress
        return
    from exengine.cli.watching.run_view import RunView

    view = RunView(acquisition)
    log = logging.getLogger("exengine")
    log.addHandler(view.messages)
    screen = Screen(view)
    try:
        with screen:
            yield None
    finally:
        log.removeHandler(view.messages)
        for text in view.messages.texts:
            say(text)
        if screen.error is not None:
            say(f"exengine: the view ended early: {describe(screen.error)}")


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the run in the same way as Ctrl-C, so that the dataset is finished."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python can only install signal handlers in the main thread
    # Replace only default handlers: nohup may ignore a signal, and the calling program may handle one.
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _summary(acquisition: Acquisition, problem: str) -> dict[str, object]:
    ledger, seconds = acquisition.ledger, acquisition.duration_s
    return {
        "path": acquisition.path,
        "backend": acquisition.config["storage.backend"],
        "status": acquisition.status,
        "problem": problem,
        "ledger": ledger.to_dict(),
        "observer_errors": acquisition.observer_errors,
        "duration_s": round(seconds, 3),
        "frames_per_s": round(ledger.stored / seconds, 1) if seconds else 0.0,
        "bytes_per_s": round(ledger.stored_bytes / seconds) if seconds else 0,
        "look": f"exengine preview {shlex.quote(_near(acquisition.path))}" if acquisition.path else "",
    }


def _near(path: str) -> str:
    """Return a path inside the current folder relative to that folder, and any other path unchanged."""
    if is_url(path):
        return path
    here = (
        os.path.relpath(path) if os.path.splitdrive(path)[0] == os.path.splitdrive(os.getcwd())[0] else path
    )
    return path if here.startswith("..") else here


def _print_summary(summary: dict[str, object]) -> None:
    ledger = summary["ledger"]
    assert isinstance(ledger, dict)
    where = _near(str(summary["path"])) if summary["path"] else "in memory, until this program ends"
    print(f"{summary['status']}: {where} ({summary['backend']})")
    print(f"  frames   {counts(ledger, 'offered', 'stored', 'dropped', 'failed')}")
    print(
        f"  data     {human_bytes(ledger['stored_bytes'])} in {human_time(summary['duration_s'])}, "  # type: ignore[arg-type]
        f"{summary['frames_per_s']} frames/s, {human_bytes(summary['bytes_per_s'])}/s"  # type: ignore[arg-type]
    )
    if summary["look"]:
        print(f"  look     {summary['look']}")
    for item in ledger["not_stored"][:5]:
        print(f"  lost     {item['coordinates']}: {item['reason']}")
    if len(ledger["not_stored"]) > 5:
        print(f"  lost     ... and {ledger['failed'] + ledger['dropped'] - 5} more")
    for label, text in ledger_lines(ledger):
        print(f"  {label:8} {text}")
    for line in summary["observer_errors"]:  # type: ignore[attr-defined]
        print(f"  observer {line}")
