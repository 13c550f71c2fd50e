"""The cost of a change: compares this working tree with an earlier commit, in the same run.

``python benchmarks/bench_before.py COMMIT [--quick] [--save FOLDER]``. Each figure is the ratio of this
working tree to the commit. Both are measured twice, to show how much repeated measurements differ. The time
to import and to list is measured in fresh environments of the commit and of ``HEAD``, not of the tree.
"""

import argparse
import subprocess
import time
from pathlib import Path

from harness import HERE, VOID_ABOVE, alternate, earlier_python
from report import Table

MOST = 1.05


def main(table: Table, commit: str, quick: bool) -> None:
    rounds = 5 if quick else 15
    then = f"at {commit}"
    for what, numbers, names in (
        ("coordinates", (20_000,), {"us": "DataCoordinates: create + hash"}),
        ("ram_put", (64, 20_000), {"us": "ndram put 64x64"}),
        ("tiff", (64, 10_000), _tiff("64x64")),
        ("tiff", (512, 400), _tiff("512x512")),
        ("tiff", (2048, 40), _tiff("2048x2048")),
        (
            "many",
            (100_000,),
            {
                "put_us_last": "put after 90,000 frames",
                "open_s": "open 100,000 frames",
                "lookup_us": "look-up",
            },
        ),
    ):
        found = alternate(what, ["current", then, "current#2", f"{then}#2"], rounds, *numbers, best=True)
        for figure, name in names.items():
            add(
                table, f"{name} / {commit}", "s" if figure.endswith("_s") else "us",
                [found["current"][figure], found["current#2"][figure]],
                [found[then][figure], found[f"{then}#2"][figure]],
            )  # fmt: skip
    processes(table, commit, 2 * rounds)


def processes(table: Table, commit: str, rounds: int) -> None:
    """Compare whole processes: importing the package, and listing the backends."""
    head = subprocess.run(
        ["git", "-C", HERE, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    pythons = {name: earlier_python(name) for name in (head, commit)}
    for name, arguments in (
        ("import exengine", ["-c", "import exengine"]),
        ("backends list", ["-m", "exengine", "backends", "list"]),
    ):
        times: dict[str, float] = {}
        for number in range(rounds):
            for place in (head, commit, f"{head}#2", f"{commit}#2"):
                begin = time.perf_counter()
                subprocess.run(
                    [pythons[place.split("#")[0]], *arguments], check=True, stdout=subprocess.DEVNULL
                )
                elapsed = (time.perf_counter() - begin) * 1e3
                # The first round warms up the caches.
                times[place] = min(elapsed, times.get(place, elapsed)) if number > 1 else elapsed
        current, before = ([times[place], times[f"{place}#2"]] for place in (head, commit))
        add(table, f"{name} / {commit}", "ms", current, before)


def add(table: Table, name: str, unit: str, current: list[float], before: list[float]) -> None:
    """Add the ratio of the best measurements to the table."""
    apart = max(max(both) / min(both) - 1 for both in (current, before))
    table.add(
        name,
        min(current) / min(before),
        "x",
        MOST,
        measured=f"{current[0]:.3g} and {current[1]:.3g} {unit}",
        note=f"before {before[0]:.3g} and {before[1]:.3g} {unit}",
        void=f"the same code differs from itself by {apart:.0%}" if apart > VOID_ABOVE else "",
    )


def _tiff(size: str) -> dict[str, str]:
    return {
        "put_us": f"ndtiff put {size}",
        "whole_us": f"ndtiff put and finish {size}",
        "read_us": f"ndtiff read {size}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--save", type=Path, help="a folder for before.json and before.rst")
    options = parser.parse_args()
    found = Table()
    main(found, options.commit, options.quick)
    if options.save:
        found.save(options.save, "before", "bench_before.py")
