"""Listing of installed plugins as whole processes, compared with importlib.metadata, xarray and stevedore."""

import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

from harness import HERE, VOID_ABOVE, fake_distributions, temporary
from report import Table

TITLE = "Listing of plugins, beside other libraries"
PEERS = ("xarray>=2025.1", "stevedore>=5.4")
GROUP = "exengine.storage_backends"
SOURCE = HERE.parent / "src"

# stevedore imports each plugin that it lists, and skips plugins that cannot be imported. It caches its
# results on disk. The warm-up run before the first measured run fills this cache, as in everyday use.
PROGRAMS = {
    "bare": "pass",
    "bare again": "pass",
    "current": "import exengine; print(len(exengine.backends()))",
    "entry_points": f"from importlib.metadata import entry_points; print(len(entry_points(group={GROUP!r})))",
    "xarray": "from xarray.backends.plugins import list_engines; print(len(list_engines()))",
    "stevedore": (
        "from stevedore import ExtensionManager\n"
        f"found = ExtensionManager({GROUP!r}, on_load_failure_callback=lambda *_: None)\n"
        "print(len(found.list_entry_points()))"
    ),
}


def peers_python() -> str:
    """Return the interpreter of a virtual environment with the peer libraries. Create it if necessary."""
    folder = HERE / ".peers"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print("creating a virtual environment with", *PEERS, file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        (folder / ".gitignore").write_text("*\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], check=True)
        (folder / "ready").touch()
    return str(python)


def listing_ms(python: str, folder: Path, cache: Path, rounds: int) -> dict[str, float]:
    """Return the median wall time of each program. The programs run in turn, in a rotating order."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (folder, SOURCE))),
        "XDG_CACHE_HOME": str(cache),
    }
    names = list(PROGRAMS)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            begin = time.perf_counter()
            done = subprocess.run(
                [python, "-c", PROGRAMS[name]], env=env, check=True, text=True, stdout=subprocess.PIPE
            )
            elapsed = (time.perf_counter() - begin) * 1e3
            if number:  # the first round only warms up the disk and the caches
                times[name].append(elapsed)
            elif name in ("current", "entry_points", "stevedore"):
                assert int(done.stdout) == backends_in(folder), f"{name} listed {done.stdout.strip()}"
    return {name: statistics.median(found) for name, found in times.items()}


def backends_in(folder: Path) -> int:
    """Return the number of backends that the fake distributions register."""
    return sum(GROUP in file.read_text() for file in folder.glob("*.dist-info/entry_points.txt"))


def main(table: Table, quick: bool) -> None:
    rounds = 7 if quick else 25
    python = peers_python()
    for count in (20, 200, 1000):
        with temporary() as folder, temporary() as cache:
            fake_distributions(Path(folder), count)
            found = listing_ms(python, Path(folder), Path(cache), rounds)
        drift = abs(found["bare again"] / found["bare"] - 1)
        void = f"a bare interpreter differs from itself by {drift:.0%}" if drift > VOID_ABOVE else ""
        for peer in ("entry_points", "xarray", "stevedore"):
            table.add(
                f"listing, {count:,} distributions / {peer}", found["current"] / found[peer], "x", 1,
                measured=f"{found['current']:.0f} ms", void=void,
                note=f"{peer} {found[peer]:.0f} ms, bare interpreter {found['bare']:.0f} ms",
            )  # fmt: skip


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
