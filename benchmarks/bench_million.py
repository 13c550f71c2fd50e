"""A million frames: memory while writing, cost of a put at the end, opening, look-ups."""

import os
import sys

from harness import Table, measure, temporary


def main(table: Table, quick: bool) -> None:
    count = 200_000 if quick else 1_000_000
    with temporary() as folder:
        env = {"EXENGINE_BENCH_DATASET": os.path.join(folder, "million")}
        written = measure("million", "ours", count, env=env)
        opened = measure("open_million", "ours", count, env=env)
        old = measure("open_million", "old", count, env=env)
    assert opened["frames"] == old["frames"] == count
    table.add(f"{count:,} frames: memory per 100,000 while writing", written["rss_mb_per_100k"], "MiB", 20)
    last, first = written["put_us_last"], written["put_us_first"]
    table.add(
        f"{count:,} frames: put at the end / at the beginning",
        last / first,
        "x",
        1.1,
        note=f"{last:.1f} us, {first:.1f} us",
    )
    table.add(f"{count:,} frames: open", opened["open_s"], "s", 1, note=f"ndstorage {old['open_s']:.1f} s")
    table.add(
        f"{count:,} frames: memory when open",
        opened["rss_mb"],
        "MiB",
        150,
        note=f"ndstorage {old['rss_mb']:.0f} MiB",
    )
    table.add(f"{count:,} frames: look-up", opened["lookup_us"], "us", 5)


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
