"""The lines that ``exengine acquire`` and ``exengine info`` print about a ledger."""

from collections.abc import Mapping
from typing import Any

from exengine.kernel.wording import human_bytes, human_count

_MOST_NAMED = 5


def ledger_lines(ledger: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the label and the text of each line about gaps, late frames and waiting times.

    Parameters
    ----------
    ledger : mapping
        A ledger as JSON. Another program may have written it, so any field may be missing or malformed.
    """
    lines = []
    for label, key, text in (
        ("gap", "gaps", _gap),
        ("late", "late", _late),
        ("raw", "passed_raw", _raw),
    ):
        entries = ledger.get(key)
        named = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        lines += [(label, text(entry)) for entry in named[:_MOST_NAMED]]
        if len(named) > _MOST_NAMED:
            lines.append((label, f"... and {len(named) - _MOST_NAMED} more"))
    if before := _number(ledger.get("stored_before")):
        lines.append(("before", f"{human_count(int(before), 'frame')} stored by earlier runs"))
    if skipped := _number(ledger.get("skipped_by_plan")):
        lines.append(("skipped", f"combinations of positions without a planned frame: {skipped:g}"))
    stalled, latency, most = (_mapping(ledger.get(key)) for key in ("stalled", "latency_us", "high_water"))
    if _number(stalled.get("frames")):
        seconds = _number(stalled.get("seconds"))
        waited = human_count(int(stalled["frames"]), "frame")
        lines.append(("stalled", f"{waited} waited for the storage, {seconds:.3g} s in all"))
    if latency:
        times = ", ".join(f"{key} {_number(value) / 1000:.3g} ms" for key, value in latency.items())
        lines.append(("latency", f"until stored: {times}"))
    if most:
        size = human_bytes(int(_number(most.get("bytes"))))
        lines.append(("queue", f"at most {human_count(int(_number(most.get('frames'))), 'frame')}, {size}"))
    return lines


def run_lines(runs: object) -> list[str]:
    """Return a line for each run of a continued acquisition: its start, its first frame and its end.

    Parameters
    ----------
    runs : list of dict
        The annotation ``runs`` of a dataset. Any field may be missing or malformed.
    """
    named = [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    lines = [_run(run) for run in named[-_MOST_NAMED:]]
    return [f"... {len(named) - _MOST_NAMED} earlier", *lines] if len(named) > _MOST_NAMED else lines


def _run(run: Mapping[str, Any]) -> str:
    first, end = _number(run.get("first_frame")), run.get("frames")
    frames = f"frames from number {first:g}" + (f" to {_number(end) - 1:g}" if _number(end) > first else "")
    reason = f", {run['reason']:.100}" if isinstance(run.get("reason"), str) else ""
    return f"{run.get('started')}: {frames}" + (f", {run['status']}{reason}" if "status" in run else "")


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _gap(entry: Mapping[str, Any]) -> str:
    camera = f"{entry['camera']}: " if entry.get("camera") else ""
    place = f"between {entry.get('after')} and {entry.get('before')}"
    return f"{camera}{entry.get('missing')} frames missing {place}"


def _late(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('coordinates')}: {entry.get('delay_s')} s later than planned"


def _raw(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('coordinates')}: stored unprocessed, {entry.get('reason')}"
