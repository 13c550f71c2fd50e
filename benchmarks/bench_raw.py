"""NDTiff with fsync at finish, as a fraction of the speed of ``os.write`` and fsync for the same bytes."""

import sys

from harness import VOID_ABOVE, alternate
from report import Table, pace

TITLE = "NDTiff, beside raw writes"


def main(table: Table, quick: bool) -> None:
    rounds = 4 if quick else 12
    for size, count, goal in ((64, 20_000, 0.35), (512, 800, 0.85), (2048, 80, 0.85)):
        found = alternate("tiff", ["current", "raw#1", "raw#2"], rounds, size, count)
        first, second = found["raw#1"]["whole_us"], found["raw#2"]["whole_us"]
        apart = abs(first - second) / min(first, second)
        raw = (first + second) / 2
        ours = found["current"]["whole_us"]
        table.add(
            f"ndtiff {size}x{size}, speed / raw + fsync",
            raw / ours,
            "x",
            goal,
            most=False,
            measured=pace(ours, size),
            note=f"raw {pace(raw)}",
            void=f"raw differs from itself by {apart:.0%}" if apart > VOID_ABOVE else "",
        )


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
