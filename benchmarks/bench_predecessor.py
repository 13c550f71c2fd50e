"""Coordinates, frames in RAM, NDTiff: as a ratio to ExEngine 0.4.0 in the same run."""

import sys

from harness import Table, alternate, warm_memory


def main(table: Table, quick: bool) -> None:
    rounds = 3 if quick else 7
    warm_memory()
    for name, what, numbers, goal in (
        ("DataCoordinates: create + hash / 0.4.0 create", "coordinates", (20_000,), 0.3),
        ("ndram put 64x64 / 0.4.0", "ram_put", (64, 20_000), 0.5),
    ):
        found = alternate(what, ["ours", "old"], rounds, *numbers, best=True)
        ratio = found["ours"]["us"] / found["old"]["us"]
        table.add(
            name, ratio, "x", goal, note=f"{found['ours']['us']:.2f} us, 0.4.0 {found['old']['us']:.2f} us"
        )
    for size, count, goal in ((64, 10_000, 0.35), (512, 600, 1.0), (2048, 60, 1.0)):
        found = alternate("tiff", ["ours", "old"], rounds, size, count)
        ours, old = found["ours"], found["old"]
        for figure, limit in (("put_us", goal), ("read_us", 0.5)):
            table.add(
                f"ndtiff {figure[:-3]} {size}x{size} / 0.4.0", ours[figure] / old[figure], "x", limit,
                note=f"{ours[figure]:.1f} us, 0.4.0 {old[figure]:.1f} us",
            )  # fmt: skip


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
