"""Collects measured figures, and writes them as JSON, as tables for the docs, and as two charts."""

import json
import platform
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

Row = dict[str, Any]

CHARTS = {
    "at least": ("speed", "speed relative to the reference: longer bars are better"),
    "at most": ("time", "time relative to the reference: shorter bars are better"),
}
"""The ratios that have a lower and an upper limit as their goal: the name of their chart, and its axis."""

# Legible without color: a bar that meets its goal is filled, one that misses it is empty, a void one hatched.
STYLES: dict[str, dict[str, Any]] = {
    "met": {"color": "#2a7f62", "edgecolor": "#2a7f62", "label": "goal met"},
    "missed": {"color": "white", "edgecolor": "#b3402f", "linewidth": 1.5, "label": "goal missed"},
    "void": {"color": "white", "edgecolor": "#777777", "hatch": "////", "label": "void"},
}


def pace(us: float, size: int | None = None, bytes_per_pixel: int = 2) -> str:
    """Return the rate for a time per frame, in frames/s, and in MB/s if the size in pixels is given."""
    rate = 1e6 / us
    text = f"{rate:,.0f} frames/s"
    return text if size is None else f"{text}, {rate * size**2 * bytes_per_pixel / 1e6:,.0f} MB/s"


class Table:
    """The figures of a run, each with its goal and whether the goal is met."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.section = ""
        """The heading of the rows that are added next."""

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        goal: float,
        *,
        most: bool = True,
        measured: str = "",
        note: str = "",
        void: str = "",
    ) -> None:
        """Add a figure, and print it.

        Parameters
        ----------
        name : str
            The measured thing and, for a ratio, the reference: ``"a / b"``.
        value, unit : float, str
            The figure, for example ``1.2, "us"``. The unit ``"x"`` denotes a ratio.
        goal : float
        most : bool
            Whether the goal is an upper limit, and not a lower one.
        measured : str
            The figure behind a ratio, as an absolute value, for example ``"1,000 frames/s"``.
        note : str
            For example the reference's absolute value.
        void : str
            The reason why the figure shows nothing, for example that the reference differs from itself.
        """
        good = value <= goal if most else value >= goal
        limit = f"{'at most' if most else 'at least'} {goal:g}"
        self.rows.append(
            {
                "section": self.section,
                "name": name,
                "value": round(value, 3),
                "unit": unit,
                "goal": limit,
                "met": good,
                "measured": measured,
                "note": note,
                "void": void,
            }
        )
        mark = "VOID" if void else "ok  " if good else "MISS"
        rest = "; ".join(text for text in (measured, note, void) if text)
        print(f"{mark} {name:58} {value:10.3f} {unit:9} goal {limit}  {rest}", flush=True)

    def merge(self, earlier: Sequence[Row], sections: Sequence[str]) -> None:
        """Keep the rows of an earlier run, except for those of the sections that were measured again."""
        self.rows = [row for row in earlier if row.get("section", "") not in sections] + self.rows

    def save(self, folder: Path, name: str, script: str) -> None:
        """Write the rows as ``NAME.json``, and as ``NAME.rst``, which contains tables for the docs."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        (folder / f"{name}.rst").write_text(as_rst(self.rows, script), encoding="utf-8")


def outcome(row: Row) -> str:
    """Return ``"met"``, ``"missed"`` or ``"void"``."""
    return "void" if row.get("void") else "met" if row["met"] else "missed"


def as_rst(rows: Sequence[Row], script: str) -> str:
    """Return a summary and a table per section."""
    machine = f"{platform.system()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    lines = [f".. Created by benchmarks/{script} on {machine}.", "", summary(rows), ""]
    for section, group in groupby(rows, key=lambda row: str(row.get("section", ""))):
        if section:
            lines += [f".. rubric:: {section}", ""]
        lines += [".. list-table::", "   :header-rows: 1", "   :widths: 30 22 12 12 24", ""]
        for cells in [("Figure", "Measured", "Ratio", "Goal", "Note"), *map(_cells, group)]:
            lines += [f"   {'*' if not number else ' '} - {cell}" for number, cell in enumerate(cells)]
        lines.append("")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    """Return a paragraph that counts the goals that are met, and a list of those that are missed."""
    by_outcome = {kind: [row for row in rows if outcome(row) == kind] for kind in STYLES}
    text = f"{len(by_outcome['met'])} of {len(rows)} goals are met."
    if missed := by_outcome["missed"]:
        named = "\n".join(
            f"* {row['name']} ({row['value']:g} {row['unit']}, {row['goal']})" for row in missed
        )
        text += f" Missed:\n\n{named}"
    if void := by_outcome["void"]:
        named = "; ".join(row["name"] for row in void)
        many = "1 figure is" if len(void) == 1 else f"{len(void)} figures are"
        text += "\n\n" if missed else " "
        text += f"{many} void, because repeated measurements of the reference differ too much: {named}."
    return text


def _cells(row: Row) -> tuple[str, ...]:
    is_ratio = row["unit"] == "x"
    number = f"{row['value']:,g}"
    notes = [text for text in (row["note"], row.get("void")) if text]
    return (
        row["name"],
        row.get("measured") or ("\u2013" if is_ratio else f"{number} {row['unit']}"),
        number if is_ratio else "\u2013",
        f"{row['goal']}{' (missed)' if outcome(row) == 'missed' else ''}",
        "; ".join(notes) or "\u2013",
    )


def plot(rows: Sequence[Row], folder: Path, name: str) -> None:
    """Draw the ratios and their goals as ``NAME-speed.svg`` and ``NAME-time.svg``, with matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no charts: pip install matplotlib")
        return
    matplotlib.use("svg")
    from matplotlib import pyplot

    for limit, (kind, label) in CHARTS.items():
        drawn = [row for row in rows if row["unit"] == "x" and row["goal"].startswith(limit)]
        if not drawn:
            continue
        figure, axes = pyplot.subplots(figsize=(9, 0.34 * len(drawn) + 1.6))
        for result, style in STYLES.items():
            places = [place for place, row in enumerate(drawn) if outcome(row) == result]
            if places:
                axes.barh(places, [drawn[place]["value"] for place in places], **style)
        for place, row in enumerate(drawn):
            goal = float(row["goal"].split()[-1])
            axes.plot([goal, goal], [place - 0.45, place + 0.45], color="black", linewidth=2)
            axes.annotate(
                f"{row['value']:.2f}", (max(row["value"], goal), place), (4, 0), va="center",
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
        axes.set_yticks(range(len(drawn)), [row["name"] for row in drawn], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(f"{label}; the black line is the goal")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8)
        figure.tight_layout()
        figure.savefig(folder / f"{name}-{kind}.svg", metadata={"Date": None})
        pyplot.close(figure)
