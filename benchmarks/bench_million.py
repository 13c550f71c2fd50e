"""A million frames: memory use during writing, the cost of a put at the end, opening, and look-ups."""

import os
import sys

from harness import measure, temporary
from report import Table

TITLE = "A million frames"


def main(table: Table, quick: bool) -> None:
    count = 200_000 if quick else 1_000_000
    with temporary() as folder:
        writes = []
        for number in range(2):
            env = {"EXENGINE_BENCH_DATASET": os.path.join(folder, f"million-{number}")}
            writes.append(measure("million", "current", count, env=env))
        opens = [measure("open_million", "current", count, env=env) for _ in range(3)]
        old = measure("open_million", "old", count, env=env)
    assert opens[0]["frames"] == old["frames"] == count
    # For times, use the best run, as for every in-memory measurement. For memory, use the largest value.
    first, last = (min(written[f"put_us_{end}"] for written in writes) for end in ("first", "last"))
    growth = max(written["rss_mb_per_100k"] for written in writes)
    open_s, lookup_us = (min(opened[what] for opened in opens) for what in ("open_s", "lookup_us"))
    memory = max(opened["rss_mb"] for opened in opens)
    table.add(f"{count:,} frames: memory per 100,000 while writing", growth, "MiB", 20)
    table.add(
        f"{count:,} frames: put at the end / at the beginning",
        last / first,
        "x",
        1.1,
        note=f"{last:.1f} us, {first:.1f} us",
    )
    table.add(f"{count:,} frames: open", open_s, "s", 1, note=f"ndstorage {old['open_s']:.1f} s")
    table.add(
        f"{count:,} frames: memory when open",
        memory,
        "MiB",
        150,
        note=f"ndstorage {old['rss_mb']:.0f} MiB",
    )
    table.add(f"{count:,} frames: look-up", lookup_us, "us", 5)


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
