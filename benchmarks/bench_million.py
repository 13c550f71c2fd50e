"""A million frames: memory use during writing, the cost of a put at the end, opening, and look-ups."""

import os
import sys

from harness import measure, temporary
from report import Table

TITLE = "A million frames"
BACKENDS = {"ndtiff": {}, "ome-zarr": {"EXENGINE_BENCH_BACKEND": "ome-zarr", "EXENGINE_BENCH_SIZE": "64"}}


def main(table: Table, quick: bool) -> None:
    count = 200_000 if quick else 1_000_000
    for backend, settings in BACKENDS.items():
        with temporary() as folder:
            writes = []
            for number in range(2):
                env = {"EXENGINE_BENCH_DATASET": os.path.join(folder, f"million-{number}"), **settings}
                writes.append(measure("million", "current", count, env=env))
            opens = [measure("open_million", "current", count, env=env) for _ in range(3)]
            old = measure("open_million", "old", count, env=env) if backend == "ndtiff" else None
        assert opens[0]["frames"] == count
        add_rows(table, f"{count:,} frames, {backend}", writes, opens, old)


def add_rows(
    table: Table,
    name: str,
    writes: list[dict[str, float]],
    opens: list[dict[str, float]],
    old: dict[str, float] | None,
) -> None:
    """Add the figures of a backend to the table, with those of ndstorage, if it can open the dataset."""
    # For times, use the best run, as for every in-memory measurement. For memory, use the largest value.
    first, last = (min(written[f"put_us_{end}"] for written in writes) for end in ("first", "last"))
    growth = max(written["rss_mb_per_100k"] for written in writes)
    open_s, lookup_us, read_us = (
        min(opened[what] for opened in opens) for what in ("open_s", "lookup_us", "read_us")
    )
    memory = max(opened["rss_mb"] for opened in opens)
    table.add(f"{name}: memory per 100,000 while writing", growth, "MiB", 20)
    table.add(
        f"{name}: put at the end / at the beginning", last / first, "x", 1.1,
        measured=f"{last:.1f} us", note=f"{first:.1f} us",
    )  # fmt: skip
    table.add(f"{name}: files", writes[0]["files"], "files", 2000)
    table.add(f"{name}: open", open_s, "s", 1, note=f"ndstorage {old['open_s']:.1f} s" if old else "")
    table.add(
        f"{name}: memory when open", memory, "MiB", 150,
        note=f"ndstorage {old['rss_mb']:.0f} MiB" if old else "",
    )  # fmt: skip
    table.add(f"{name}: look-up", lookup_us, "us", 5)
    table.add(f"{name}: random read, cached", read_us, "us", 10)


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
