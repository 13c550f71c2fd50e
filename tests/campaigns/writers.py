"""Tests that a second writer is refused while the first one is alive, and accepted after it was killed.

``python tests/campaigns/writers.py --times 100 --seed 1 [--save]``

The second writer is in a thread or another process, uses another spelling of the path or a symbolic link, or
sets ``if_exists='overwrite'``. The killed writer has forked before, with ``os.fork``, ``multiprocessing`` or
``subprocess``, and its child is still alive when the next writer starts.
"""

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import results
from forked import Child, Say
from judge import judge
from variants import Variant, add_arguments, variant_of
from writer import Job, axes_of, metadata_of, pixels_of, write

import exengine
from exengine.errors import DatasetExistsError, DatasetLockedError

Trial = Callable[[str, random.Random], None]
REFUSALS = (DatasetLockedError, DatasetExistsError)
FRAMES = 3
PATIENCE_S = 1.0
waits_s: list[float] = []
chosen = [Variant()]  # the backend and options of this run


class BrokenError(Exception):
    """A second writer was accepted, or the next writer was refused."""


def _begin(path: str) -> Any:
    storage = exengine.open_storage(chosen[0].backend, path, **chosen[0].options)
    for number in range(FRAMES):
        storage.put(axes_of(number), pixels_of(number, 64), metadata_of(number))
    return storage


def _attempt(path: str, if_exists: Any) -> str:
    """Try to write where another writer is active; return the outcome."""
    try:
        storage = exengine.open_storage(chosen[0].backend, path, if_exists=if_exists)
    except REFUSALS as error:
        if if_exists == "overwrite" and not isinstance(error, DatasetLockedError):
            return f"refused by {type(error).__name__}, and not because of the lock"
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    storage.close()
    return f"admitted to {storage.path}"


def _refused(path: str, spelling: Callable[[str], str], where: Callable[[Callable[[], str]], str]) -> None:
    storage = _begin(path)
    try:
        for if_exists in ("error", "overwrite"):
            came = where(lambda if_exists=if_exists: _attempt(spelling(path), if_exists))
            if came != "refused":
                raise BrokenError(f"if_exists={if_exists!r}: {came}")
        storage.put(axes_of(FRAMES), pixels_of(FRAMES, 64), metadata_of(FRAMES))
        storage.finish()
    finally:
        storage.close()
    verdict = judge(Job(path, count=FRAMES + 1))
    if verdict.readable != list(range(FRAMES + 1)) or verdict.status != "complete":
        raise BrokenError(f"the first writer was disturbed: {verdict}")


def _here(call: Callable[[], str]) -> str:
    return call()


def _in_a_thread(call: Callable[[], str]) -> str:
    came: list[str] = []
    thread = threading.Thread(target=lambda: came.append(call()), name="second-writer")
    thread.start()
    thread.join()
    return came[0]


def _in_a_process(call: Callable[[], str]) -> str:
    with Child(lambda say: say(call())) as child:
        return child.line(60) or "no answer"


def _same(path: str) -> str:
    return path


def _spelt(path: str) -> str:
    parent, name = os.path.split(path)
    return os.path.join(parent, ".", "..", os.path.basename(parent), f"{name}{os.sep}")


def _linked(path: str) -> str:
    link = f"{path}-link"
    if not os.path.islink(link):
        os.symlink(path, link)
    return link


def _relative(path: str) -> str:
    return os.path.relpath(path)


REFUSED: dict[str, Trial] = {
    "refused: a thread": lambda path, _: _refused(path, _same, _in_a_thread),
    "refused: a process": lambda path, _: _refused(path, _same, _in_a_process),
    "refused: another spelling": lambda path, _: _refused(path, _spelt, _here),
    "refused: a relative path, from a process": lambda path, _: _refused(path, _relative, _in_a_process),
    "refused: a symbolic link": lambda path, _: _refused(path, _linked, _here),
    "refused: a symbolic link, from a process": lambda path, _: _refused(path, _linked, _in_a_process),
}


# -- after a killed writer -----------------------------------------------------------------------


def _no_child() -> int:
    return 0


def _by_fork() -> int:
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    return pid


def _by_multiprocessing() -> int:
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    process.start()
    return process.pid or 0


def _by_subprocess() -> int:
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]).pid


def _by_c() -> int:
    """Fork as C code does, without the knowledge of Python."""
    import ctypes

    pid = int(ctypes.CDLL(None).fork())
    if not pid:
        ctypes.CDLL(None).sleep(60)
        os._exit(0)
    return pid


def _enter(path: str) -> None:
    """Write where the killed writer was, immediately or after a short time.

    A child that was forked at the last moment holds the lock until it first runs.
    """
    killed = time.monotonic()
    while True:
        try:
            exengine.open_storage(chosen[0].backend, path, if_exists="overwrite").close()
        except DatasetLockedError as error:
            if time.monotonic() - killed > PATIENCE_S:
                raise BrokenError(f"not admitted within {PATIENCE_S} s: {error}") from error
        except Exception as error:
            raise BrokenError(f"not admitted: {type(error).__name__}: {error}") from error
        else:
            waits_s.append(time.monotonic() - killed)
            return


def _admitted(path: str, rng: random.Random, fork: Callable[[], int]) -> None:
    def work(say: Say) -> None:
        storage = _begin(path)
        child = fork()
        storage.put(axes_of(FRAMES), pixels_of(FRAMES, 64), metadata_of(FRAMES))
        say(str(child))
        time.sleep(60)

    pid = 0
    try:
        with Child(work) as writer:
            pid = int(writer.line(60) or 0)
            time.sleep(rng.uniform(0, 0.002))
            writer.kill()
            writer.wait()
        if pid:
            os.kill(pid, 0)  # the child is alive
        verdict = judge(Job(path, count=FRAMES + 1))
        if verdict.readable != list(range(FRAMES + 1)):
            raise BrokenError(f"frames of the killed writer are missing: {verdict}")
        _enter(path)
    finally:
        if pid:
            os.kill(pid, 9)


ADMITTED: dict[str, Trial] = {
    "admitted: after a kill": lambda path, rng: _admitted(path, rng, _no_child),
    "admitted: after a kill, os.fork": lambda path, rng: _admitted(path, rng, _by_fork),
    "admitted: after a kill, multiprocessing": lambda path, rng: _admitted(path, rng, _by_multiprocessing),
    "admitted: after a kill, subprocess": lambda path, rng: _admitted(path, rng, _by_subprocess),
}
NOT_PROMISED: dict[str, Trial] = {
    "admitted: after a kill, fork by C code": lambda path, rng: _admitted(path, rng, _by_c),
}


# -- faults that must be found -------------------------------------------------------------------


def no_lock() -> None:
    """Make a lock that every writer acquires."""
    from exengine.kernel.system import files

    files.try_lock = lambda descriptor, *, shared=False: True


def children_keep_it() -> None:
    """Make a lock that a forked child does not release."""
    from exengine.kernel.system import at_exit

    at_exit._disown_all.__code__ = (lambda: None).__code__  # the system calls this function in a child


SPOILS: dict[str, Callable[[], None]] = {
    "": lambda: None,
    "no-lock": no_lock,
    "children-keep-it": children_keep_it,
}


def main() -> int:
    """Run the campaign, print the results, and return 1 if a promise was broken."""
    options = argparse.ArgumentParser(description="second writers")
    options.add_argument("--times", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--spoil", choices=SPOILS, default="", help="make the lock faulty, which must be found"
    )
    options.add_argument(
        "--c-fork", action="store_true", help="also test a fork by C code, which is not covered by a promise"
    )
    options.add_argument(
        "--folder", help="the folder for datasets; by default, the folder for temporary files"
    )
    options.add_argument("--save", action="store_true", help="save the figures for the documentation")
    add_arguments(options)
    given = options.parse_args()
    variant = chosen[0] = variant_of(given)
    broken: list[str] = []
    good: Counter[str] = Counter()
    trials = {**REFUSED, **ADMITTED, **(NOT_PROMISED if given.c_fork else {})}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        write(Job(os.path.join(folder, "first"), variant.backend, count=2), lambda line: None)
        SPOILS[given.spoil]()
        for time_ in range(given.times):
            for number, (name, trial) in enumerate(trials.items()):
                try:
                    trial(
                        os.path.join(folder, f"{time_}-{number}"),
                        random.Random(f"{given.seed} {time_} {number}"),
                    )
                    good[name] += 1
                except BrokenError as error:
                    broken.append(f"{name}, time {time_}, seed {given.seed}: {error}")
    figures = {
        **{name: f"{good[name]} of {given.times}" for name in trials},
        "longest until admitted, ms": round(1000 * max(waits_s, default=0)),
        "seconds": round(time.monotonic() - began),
    }
    command = f"python tests/campaigns/writers.py --times {given.times} --seed {given.seed}"
    return results.conclude("writers", command, given.seed, figures, broken, keep=given.save, variant=variant)


if __name__ == "__main__":
    sys.exit(main())
