"""The data handler: its rate and the latency of put, as ratios to ExEngine 0.4.0 and to the storage alone."""

import json
import statistics
import subprocess
import sys

from harness import HERE, VOID_ABOVE, environment, predecessor_python, warm_memory
from report import Table

TITLE = "The data handler"
NAMES = {"ram": "ndram", "tiff": "ndtiff"}
Figures = dict[str, dict[str, list[float]]]


def main(table: Table, quick: bool) -> None:
    rounds = 3 if quick else 7
    warm_memory()
    for backend, count, goal in (("ram", 30_000, 4.0), ("tiff", 10_000, 3.0)):
        found = interleaved(["old", "current", "old#2"], rounds, backend, 64, count, 0)
        add_ratio(table, f"handler, 64x64 into {NAMES[backend]} / 0.4.0", found, "old", goal)
        latency_ms = statistics.median(found["current"]["p999_us"]) / 1e3
        note = f"0.4.0 {statistics.median(found['old']['p999_us']) / 1e3:.2f} ms"
        table.add(f"put, 64x64 into {NAMES[backend]}: p99.9", latency_ms, "ms", 1.0, note=note)
    found = interleaved(["current"], rounds, "tiff", 64, 10_000, 1)
    rate = statistics.median(found["current"]["frames_per_s"])
    table.add(
        "handler, 64x64 into ndtiff, beside a busy thread", rate, "frames/s", 5000, most=False,
        note=f"best {max(found['current']['frames_per_s']):.0f}",
    )  # fmt: skip
    for backend in ("ram", "tiff"):
        # The first touch of memory takes a different time in each round. A run reuses its buffers after it.
        found = interleaved(["storage", "handed", "current", "storage#2"], 3 * rounds, backend, 2048, 200, 0)
        name = f"handler, 2048x2048 into {NAMES[backend]}"
        if backend == "tiff":  # An acquisition hands its frames over, and a storage in memory keeps them.
            add_ratio(table, f"{name} / storage alone", found, "storage", 0.9, measured="handed")
        add_ratio(table, f"{name}, with a copy / storage alone", found, "storage", 0.9)


def interleaved(candidates: list[str], rounds: int, *case: object) -> Figures:
    """Return all figures of each candidate; the candidates run in turn, in a rotating order."""
    found: Figures = {name: {} for name in candidates}
    for number in range(rounds):
        turn = number % len(candidates)
        for name in candidates[turn:] + candidates[:turn]:
            for key, value in run(name.split("#")[0], *case).items():
                found[name].setdefault(key, []).append(value)
    return found


def run(candidate: str, *case: object) -> dict[str, float]:
    """Run one measurement in its own process."""
    python = predecessor_python() if candidate == "old" else sys.executable
    command = [python, str(HERE / "handler_worker.py"), candidate, *map(str, case)]
    variables = environment()
    if candidate == "old":
        variables.pop("PYTHONPATH", None)  # a path to another ExEngine is not for the predecessor
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=variables)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def add_ratio(
    table: Table, name: str, found: Figures, reference: str, goal: float, measured: str = "current"
) -> None:
    """Add the ratio of the medians to the table; the note has the ratio of the best rounds, and the rates."""
    rates = {candidate: figures["frames_per_s"] for candidate, figures in found.items()}
    medians = {candidate: statistics.median(values) for candidate, values in rates.items()}
    again = medians[f"{reference}#2"]
    void = abs(again / medians[reference] - 1) > VOID_ABOVE
    best = max(rates[measured]) / max(*rates[reference], *rates[f"{reference}#2"])
    table.add(
        name,
        medians[measured] / statistics.median(rates[reference] + rates[f"{reference}#2"]),
        "x",
        goal,
        most=False,
        measured=f"{medians[measured]:,.0f} frames/s",
        note=f"reference {medians[reference]:,.0f} and {again:,.0f}; by the best {best:.2f}",
        void="the reference differs from itself" if void else "",
    )


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
