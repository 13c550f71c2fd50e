"""Coordinates, frames in RAM, and NDTiff, each as a ratio to ExEngine 0.4.0 in the same run."""

import sys

from harness import alternate, warm_memory
from report import Table

TITLE = "Frames one by one, beside ExEngine 0.4.0"


def main(table: Table, quick: bool) -> None:
    rounds = 3 if quick else 7
    warm_memory()
    for name, what, numbers, goal in (
        ("DataCoordinates: create + hash / 0.4.0 create", "coordinates", (20_000,), 0.3),
        ("ndram put 64x64 / 0.4.0", "ram_put", (64, 20_000), 0.5),
    ):
        # These rounds are cheap, and only the least disturbed round is used, so run three times as many.
        found = alternate(what, ["current", "old"], 3 * rounds, *numbers, best=True)
        add(table, name, found, "us", goal)
    for size, count, goal in ((64, 10_000, 0.35), (512, 600, 1.0), (2048, 60, 1.0)):
        found = alternate("tiff", ["current", "old"], rounds, size, count, best=True)
        add(table, f"ndtiff put {size}x{size} / 0.4.0", found, "put_us", goal)
        add(table, f"ndtiff read {size}x{size} / 0.4.0", found, "read_us", 0.5)


def add(table: Table, name: str, found: dict[str, dict[str, float]], figure: str, goal: float) -> None:
    """Add the ratio of the best rounds to the table, with the ratio of the medians as a note."""
    current, old = found["current"], found["old"]
    median = current[f"{figure}_median"] / old[f"{figure}_median"]
    table.add(
        name, current[figure] / old[figure], "x", goal,
        measured=f"{current[figure]:.2f} us", note=f"0.4.0 {old[figure]:.2f} us; by the medians {median:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
