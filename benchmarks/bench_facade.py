"""Import of ``exengine``, and listing with 1,000 installed distributions, relative to a bare interpreter."""

import sys
from pathlib import Path

from harness import fake_distributions, predecessor_python, temporary, wall_ms
from report import Table

TITLE = "Import and listing"


def main(table: Table, quick: bool) -> None:
    rounds = 7 if quick else 31
    bare = wall_ms([sys.executable, "-c", "pass"], rounds)
    current = wall_ms([sys.executable, "-c", "import exengine"], rounds)
    old = wall_ms([predecessor_python(), "-c", "import exengine"], 3)
    table.add(
        "import exengine, over a bare interpreter",
        current - bare,
        "ms",
        5,
        note=f"0.4.0: {old - bare:.0f} ms",
    )
    with temporary() as folder:
        fake_distributions(Path(folder), 1000)
        command = [sys.executable, "-m", "exengine", "backends", "list"]
        listing = wall_ms(command, rounds, {"PYTHONPATH": folder})
        bare = wall_ms([sys.executable, "-c", "pass"], rounds, {"PYTHONPATH": folder})
        code = "import importlib.metadata as m; m.entry_points(group='exengine.storage_backends')"
        standard = wall_ms([sys.executable, "-c", code], rounds, {"PYTHONPATH": folder})
    table.add(
        "backends list, 1,000 distributions, over a bare interpreter", listing - bare, "ms", 80,
        note=f"importlib.metadata.entry_points alone: {standard - bare:.0f} ms",
    )  # fmt: skip


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
