"""Runs all benchmarks: ``python benchmarks/run.py [--quick] [--only NAME ...] [--save FOLDER]``.

Prints each figure with its goal, and writes ``figures.json``, a table for the docs (``figures.rst``) and a
plot (``figures.svg``) to the folder. With ``--only``, the other figures from an earlier run are kept.
"""

import argparse
import json
from pathlib import Path

import bench_facade
import bench_handler
import bench_listing
import bench_million
import bench_predecessor
import bench_raw
import bench_zarr
from harness import HERE, Table

BENCHES = {
    "facade": bench_facade,
    "listing": bench_listing,
    "predecessor": bench_predecessor,
    "handler": bench_handler,
    "raw": bench_raw,
    "million": bench_million,
    "zarr": bench_zarr,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and frames")
    parser.add_argument("--save", type=Path, default=HERE / "results", help="the folder of the results")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    options = parser.parse_args()
    table = Table()
    for name in options.only:
        print(f"\n{BENCHES[name].__doc__.splitlines()[0]}")
        BENCHES[name].main(table, options.quick)
    kept = options.save / "figures.json"
    if len(options.only) < len(BENCHES) and kept.is_file():
        again = {row["name"]: row for row in table.rows}
        table.rows = [again.get(row["name"], row) for row in json.loads(kept.read_text())]
    table.save(options.save, "figures", "run.py")
    plot(table, options.save / "figures.svg")
    missed = [row for row in table.rows if not row["met"]]
    print(f"\n{len(table.rows) - len(missed)} of {len(table.rows)} goals met; results in {options.save}")
    return 0


def plot(table: Table, path: Path) -> None:
    """Draw a bar chart of the ratios and their goals, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: pip install matplotlib")
        return
    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [row for row in table.rows if row["unit"] == "x"]
    figure, axes = pyplot.subplots(figsize=(9, 0.38 * len(rows) + 1))
    places = range(len(rows))
    axes.barh(
        places, [row["value"] for row in rows], color=["#2a7f62" if row["met"] else "#b3402f" for row in rows]
    )
    for place, row in zip(places, rows, strict=True):
        goal = float(row["goal"].split()[-1])
        axes.plot([goal, goal], [place - 0.45, place + 0.45], color="black", linewidth=1.5)
    axes.set_yticks(places, [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("ratio; the black line is the goal")
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
