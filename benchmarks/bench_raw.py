"""NDTiff with fsync at finish, as a fraction of the speed of ``os.write`` and fsync for the same bytes."""

import sys

from harness import VOID_ABOVE, Table, alternate


def main(table: Table, quick: bool) -> None:
    rounds = 4 if quick else 12
    for size, count, goal in ((64, 20_000, 0.35), (512, 800, 0.85), (2048, 80, 0.85)):
        found = alternate("tiff", ["current", "raw#1", "raw#2"], rounds, size, count)
        first, second = found["raw#1"]["whole_us"], found["raw#2"]["whole_us"]
        apart = abs(first - second) / min(first, second)
        raw = (first + second) / 2
        note = f"{found['current']['whole_us']:.0f} us per frame, raw {raw:.0f}; raw against raw {apart:.0%}"
        if apart > VOID_ABOVE:
            note += ": VOID, run again on a quieter disk"
        table.add(
            f"ndtiff {size}x{size}, speed / raw + fsync",
            raw / found["current"]["whole_us"],
            "x",
            goal,
            most=False,
            note=note,
        )


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
