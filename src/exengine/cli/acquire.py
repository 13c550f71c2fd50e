"""``exengine acquire CONFIG``: the main job, with progress and a summary."""

import argparse
import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator

from exengine.acquisition.run import Acquisition
from exengine.cli.output import human_bytes, human_time, print_json, say
from exengine.cli.settings import resolve_settings
from exengine.kernel.errors import AcquisitionError
from exengine.kernel.frames.ledger import Ledger

_LINE_EVERY_S = 2.0  # when nobody watches a terminal


def run(options: argparse.Namespace) -> int:
    """Run the acquisition; 0 when every frame is stored, 1 when not, 130 when interrupted."""
    config = resolve_settings(options)
    with Acquisition(config) as acquisition:
        for item in config.set_aside:
            say(f"set aside: {item.key} ({item.origin}): {item.reason}")
        code, problem = 0, ""
        progress = _Progress(acquisition.plan.frames)
        try:
            with _signals_as_interrupt():
                acquisition.run(progress)
        except AcquisitionError as error:
            if options.debug:
                raise
            code, problem = 1, str(error)
        except KeyboardInterrupt:
            code, problem = 130, f"interrupted; what is stored is finished as {acquisition.status}"
        finally:
            progress.end()
        summary = _summary(acquisition, problem)
    if options.json:
        print_json(summary)
    else:
        _print_summary(summary)
    if problem:
        say(f"exengine: {problem}")
    return code


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Let what ends a program from outside end the run as Ctrl-C does: what is stored is finished."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # elsewhere Python takes no signals
    # What nohup ignores stays ignored, and what somebody else handles is theirs.
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Progress:
    """Shows how far the run is: one line that changes on a terminal, else a line now and then."""

    def __init__(self, expected: int | None) -> None:
        self._expected = expected
        self._terminal = sys.stderr.isatty()
        self._begin = self._shown = time.monotonic()
        self._width = 0

    def __call__(self, ledger: Ledger) -> None:
        now = time.monotonic()
        if not self._terminal and now - self._shown < _LINE_EVERY_S:
            return
        self._shown = now
        elapsed = now - self._begin
        rate = ledger.stored / elapsed if elapsed else 0.0
        text = f"{ledger.stored} frames"
        if self._expected:
            text = f"{ledger.stored} of {self._expected} frames"
        text += f", {rate:.1f} frames/s, {human_bytes(ledger.stored_bytes / elapsed if elapsed else 0)}/s"
        if self._expected and rate:
            text += f", {human_time(max(0, self._expected - ledger.stored) / rate)} left"
        if ledger.failed or ledger.dropped:
            text += f", {ledger.failed} failed, {ledger.dropped} dropped"
        if self._terminal:
            print("\r" + text.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(text)
        else:
            say(text)

    def end(self) -> None:
        if self._terminal and self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)


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
    """Return a path as a person in this folder would write it."""
    here = (
        os.path.relpath(path) if os.path.splitdrive(path)[0] == os.path.splitdrive(os.getcwd())[0] else path
    )
    return path if here.startswith("..") else here


def _print_summary(summary: dict[str, object]) -> None:
    ledger = summary["ledger"]
    assert isinstance(ledger, dict)
    where = _near(str(summary["path"])) if summary["path"] else "in memory, until this program ends"
    print(f"{summary['status']}: {where} ({summary['backend']})")
    print(
        f"  frames   {ledger['offered']} offered, {ledger['stored']} stored, "
        f"{ledger['dropped']} dropped, {ledger['failed']} failed"
    )
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
    for line in summary["observer_errors"]:  # type: ignore[attr-defined]
        print(f"  observer {line}")
