"""Runs measurements side by side, each in its own process and in turn, so that machine drift affects all.

The reference runs twice per round. If the two runs of the reference differ by more than 10 % (median over the
rounds), the comparison is marked as void.
"""

import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
PREDECESSOR = "exengine==0.4.0"
VOID_ABOVE = 0.10


def predecessor_python() -> str:
    """Return the interpreter of a virtual environment with ExEngine 0.4.0. Create it if necessary."""
    folder = HERE / ".predecessor"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print("creating a virtual environment with", PREDECESSOR, file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PREDECESSOR, "ndstorage==0.1.18"], check=True)
        (folder / "ready").touch()
    return str(python)


def earlier_python(commit: str) -> str:
    """Return the interpreter of a virtual environment with this project at a commit. Create it if needed.

    It has the Python and the libraries of this environment, so that only the project differs.
    """
    folder = HERE / ".earlier" / f"{commit}-{sys.implementation.cache_tag}"
    python = folder / "bin" / "python"
    libraries = "".join(sorted(_libraries()))
    ready = folder / "ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != libraries:
        print("creating a virtual environment with this project at", commit, file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        source, constraints = folder / "source", folder / "constraints.txt"
        constraints.write_text(libraries, encoding="utf-8")
        subprocess.run(["git", "clone", "-q", HERE.parent, source], check=True)
        subprocess.run(["git", "-C", source, "checkout", "-q", commit], check=True)
        projects = [source, source / "plugins" / "exengine-ndstorage"]
        subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *projects], check=True)
        ready.write_text(libraries, encoding="utf-8")
    return str(python)


def _libraries() -> set[str]:
    """Return a requirement, with its version, for each library in this environment."""
    found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
    return {f"{name}=={version}\n" for name, version in found.items() if not name.startswith("exengine")}


def warm_memory(megabytes: int = 2048) -> None:
    """Touch memory once, so that it is already allocated on virtual machines that allocate it on demand."""
    bytearray(b"\1") * (megabytes * 2**20)


def environment(**variables: str) -> dict[str, str]:
    """Return the variables for a measured process, which must be able to keep the modules that it compiles.

    Otherwise, it would compile each module that it imports, unlike an environment that pip has compiled.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **variables}


def measure(what: str, who: str, *numbers: int, env: dict[str, str] | None = None) -> dict[str, float]:
    """Run one measurement in its own process, for ``current``, ``old``, ``raw``, or ``at COMMIT``."""
    python = predecessor_python() if who == "old" else sys.executable
    if who.startswith("at "):
        python, who = earlier_python(who.removeprefix("at ")), "current"
    done = subprocess.run(
        [python, str(HERE / "worker.py"), what, who, *map(str, numbers)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=environment(**(env or {})),
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def alternate(
    what: str, who: list[str], rounds: int, *numbers: int, best: bool = False
) -> dict[str, dict[str, float]]:
    """Measure the candidates in turn, in a rotating order. Return each candidate's median (or best) figures.

    Use ``best`` for in-memory measurements, in which every disturbance only adds time. For example, if a
    virtual machine reclaims memory, the first touch of a page takes 9 us. With ``best``, the median is also
    included, under the figure's name with the suffix ``_median``.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in who}
    for number in range(rounds):
        for name in who[number % len(who) :] + who[: number % len(who)]:
            found[name].append(measure(what, name.split("#")[0], *numbers))
    return {name: _summary(results, best) for name, results in found.items()}


def _summary(results: list[dict[str, float]], best: bool) -> dict[str, float]:
    figures = {key: [result[key] for result in results] for key in results[0]}
    medians = {key: statistics.median(values) for key, values in figures.items()}
    if not best:
        return medians
    return {key: min(values) for key, values in figures.items()} | {
        f"{key}_median": value for key, value in medians.items()
    }


def wall_ms(command: list[str], rounds: int, env: dict[str, str] | None = None) -> float:
    """Return the median wall time of a whole process in milliseconds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment(**(env or {})))
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def fake_distributions(folder: Path, count: int, backends: int = 20) -> None:
    """Write the metadata of ``count`` fake distributions, some of which have a storage backend."""
    for number in range(count):
        info = folder / f"some_package_{number}-1.{number}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: some-package-{number}\n"
            f"Version: 1.{number}\nSummary: Package {number}\n"
        )
        if number % 3 == 0:
            entry = f"[console_scripts]\nsome-command-{number} = some_package_{number}:main\n"
            if number % max(1, count // backends) == 0:
                entry += f"[exengine.storage_backends]\nbackend{number} = some_package_{number}:Storage\n"
            (info / "entry_points.txt").write_text(entry)


def temporary() -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder on the disk under test: ``EXENGINE_BENCH_DIR``, or the default disk."""
    return tempfile.TemporaryDirectory(prefix="bench-", dir=os.environ.get("EXENGINE_BENCH_DIR"))
