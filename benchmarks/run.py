"""Runs all benchmarks: ``python benchmarks/run.py [--quick] [--only NAME ...] [--save FOLDER]``.

Prints each figure with its goal. Writes ``figures.json``, tables for the docs (``figures.rst``) and charts
(``figures-speed.svg`` and ``figures-time.svg``) to the folder; the figures of the data handler also have a
table and a chart of their own (``handler.rst``, ``handler-speed.svg``). With ``--only``, the other figures of
an earlier run are kept.
"""

import argparse
import json
from pathlib import Path

import bench_convert
import bench_facade
import bench_handler
import bench_listing
import bench_million
import bench_predecessor
import bench_raw
import bench_zarr
from harness import HERE
from report import Table, outcome, plot

BENCHES = {
    "facade": bench_facade,
    "listing": bench_listing,
    "predecessor": bench_predecessor,
    "handler": bench_handler,
    "raw": bench_raw,
    "million": bench_million,
    "zarr": bench_zarr,
    "convert": bench_convert,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds and frames")
    parser.add_argument("--save", type=Path, default=HERE / "results", help="the folder of the results")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    options = parser.parse_args()
    table = Table()
    for name in options.only:
        table.section = BENCHES[name].TITLE
        print(f"\n{table.section}")
        BENCHES[name].main(table, options.quick)
    kept = options.save / "figures.json"
    if len(options.only) < len(BENCHES) and kept.is_file():
        measured = [BENCHES[name].TITLE for name in options.only]
        table.merge(json.loads(kept.read_text(encoding="utf-8")), measured)
    table.save(options.save, "figures", "run.py")
    plot(table.rows, options.save, "figures")
    handler = Table()
    handler.rows = [row for row in table.rows if row.get("section") == bench_handler.TITLE]
    if handler.rows:
        handler.save(options.save, "handler", "run.py")
        plot(handler.rows, options.save, "handler")
    met = sum(outcome(row) == "met" for row in table.rows)
    print(f"\n{met} of {len(table.rows)} goals met; results in {options.save}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
