"""The cost of a change: compares this working tree with an earlier commit, in the same run.

``python benchmarks/bench_before.py COMMIT [--quick] [--save FOLDER]``. Each figure is the ratio of this
working tree to the commit. Both are measured twice, to show how much repeated measurements differ.
"""

import argparse
from pathlib import Path

from harness import VOID_ABOVE, alternate
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
    ):
        found = alternate(what, ["current", then, "current#2", f"{then}#2"], rounds, *numbers, best=True)
        for figure, name in names.items():
            current = [found["current"][figure], found["current#2"][figure]]
            before = [found[then][figure], found[f"{then}#2"][figure]]
            apart = max(max(both) / min(both) - 1 for both in (current, before))
            table.add(
                f"{name} / {commit}",
                min(current) / min(before),
                "x",
                MOST,
                measured=f"{current[0]:.2f} and {current[1]:.2f} us",
                note=f"before {before[0]:.2f} and {before[1]:.2f} us",
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
