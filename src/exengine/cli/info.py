"""``exengine info PATH``: shows the contents and the status of a dataset."""

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from exengine.cli.ledger_text import ledger_lines, run_lines
from exengine.cli.output import counts, print_json, print_some, print_table
from exengine.datasets import frame_table
from exengine.datasets.content import paths_of_dataset
from exengine.datasets.opening import open_dataset, remote_reader
from exengine.kernel.axes import summarize_positions
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError, OptionError, UnsupportedOperationError
from exengine.kernel.registry import plugins
from exengine.kernel.source_plan import SourcePlan
from exengine.kernel.storage.description import UNITS, missing_frames, plan_of
from exengine.kernel.storage.manifest import has_writer
from exengine.kernel.storage.remote import RemoteDatasets, is_url
from exengine.kernel.system.files import expanded
from exengine.kernel.wording import human_bytes

_WIDTH_OF_METADATA = 100  # width in characters


def run(options: argparse.Namespace) -> int:
    """Describe a dataset without changing it."""
    if options.output and not options.export:
        raise OptionError("-o specifies the file for --export; add --export csv or --export parquet")
    with OpenDataset(options.path) as dataset:
        facts = describe(dataset, options.path)
        if options.frames:
            facts["frame_list"] = [
                {"coordinates": coordinates, "metadata": metadata, **({"problem": why} if why else {})}
                for coordinates, metadata, why in frame_table.rows(dataset)
            ]
        if options.export:
            output = expanded(options.output or _beside(options.path, options.export))
            facts["exported"] = os.path.abspath(output)
            facts["rows"] = frame_table.export(dataset, output, options.export)
    if options.json:
        print_json(facts)
    else:
        _print(facts, options.path)
    return 0


def _beside(path: str, kind: str) -> str:
    name = f"{path.rstrip('/')}.frames.{kind}"
    return name.rpartition("/")[2] if is_url(path) else name


def _print(facts: Mapping[str, Any], path: str) -> None:
    reason = f" ({facts['reason']})" if facts["reason"] else ""
    version = f" ({facts['backend_version']})" if facts["backend_version"] else ""
    print(f"{path}\n  status   {facts['status']}{reason}\n  backend  {facts['backend']}{version}")
    print(f"  frames   {facts['frames']}")
    if facts["missing"]:
        print(
            f"  missing  {facts['missing']} of the {facts['frames'] + facts['missing']} "
            "combinations of positions"
        )
    steps = {"time": (facts["interval_s"], "s"), "z": (facts["z_step_um"], "um")}
    for axis, values in facts["axes"].items():
        step, unit = steps.get(axis, (None, ""))
        every = f", {step:g} {unit} apart" if step else ""
        print(f"  axis     {axis}: {len(values)} ({summarize_positions(values)}){every}")
    if facts["shape"]:
        size = facts["pixel_size_um"]
        of = f", {size[0]:g} x {size[1]:g} um each" if size else ""
        print(f"  pixels   {' x '.join(map(str, facts['shape']))} {facts['dtype']}{of}")
    print_some("channel", [_channel(each) for each in facts["channels"]])
    print_some("position", [_position(each) for each in facts["stage_positions"]])
    if facts["resolution_levels"]:
        print(f"  levels   {', '.join(map(str, facts['resolution_levels']))}")
    print(f"  size     {human_bytes(facts['bytes'])}{'' if is_url(path) else ' on disk'}")
    ledger = facts["annotations"].get("ledger")
    if isinstance(ledger, dict):  # another program may have written this ledger
        known = counts(ledger, "offered", "stored", "dropped", "failed")
        print(f"  ledger   {known or 'in an unknown format'}")
        for label, text in ledger_lines(ledger):
            print(f"  {label:8} {text}")
    for text in run_lines(facts["annotations"].get("runs")):
        print(f"  run      {text}")
    if facts["status"] == "incomplete" and not facts["being_written"]:
        print(f"  next     exengine recover {shlex.quote(path)}")
    if facts["problem"]:
        print(f"  problem  {facts['problem']}")
    if "frame_list" in facts:
        _print_frames(facts["frame_list"], list(facts["axes"]))
    if "exported" in facts:
        print(f"  exported {facts['rows']} rows: {facts['exported']}")


def _channel(channel: Mapping[str, Any]) -> str:
    return f"{channel['name']} (color {channel['color']})" if channel["color"] else channel["name"]


def _position(place: Mapping[str, Any]) -> str:
    at = [f"{axis} = {place[f'{axis}_um']:g} um" for axis in "xyz" if place[f"{axis}_um"] is not None]
    well = f"well {place['row']}{place['column']}" if place["row"] is not None else ""
    return f"{place['name']}: {', '.join(filter(None, [well, *at]))}".removesuffix(": ")


def _print_frames(frames: list[dict[str, Any]], axes: list[str]) -> None:
    def cells(frame: dict[str, Any]) -> list[str]:
        text = frame.get("problem") or json.dumps(frame["metadata"], ensure_ascii=False)
        cut = text if len(text) <= _WIDTH_OF_METADATA else f"{text[: _WIDTH_OF_METADATA - 3]}..."
        return [*(str(frame["coordinates"].get(axis, "")) for axis in axes), cut]

    print()
    print_table([*axes, "metadata"], map(cells, frames))


class OpenDataset:
    """Context manager that opens a dataset, and closes it without finishing it."""

    def __init__(self, path: str) -> None:
        self._dataset = open_dataset(path)

    def __enter__(self) -> DataStorage:
        return self._dataset

    def __exit__(self, *_: object) -> None:
        self._dataset.close()


def describe(dataset: DataStorage, path: str) -> dict[str, Any]:
    """Return the facts about a dataset as a JSON-serializable dict."""
    backend = dataset.backend_name or type(dataset).__name__
    facts: dict[str, Any] = {
        "path": path,
        "status": _or_none(lambda: dataset.status.value),
        "reason": dataset.status_reason,
        "being_written": not dataset.is_finished() if is_url(path) else has_writer(path),
        "backend": backend,
        "backend_version": _version_of(backend),
        "frames": _or_none(lambda: len(dataset)),
        "missing": missing_frames(dataset),
        "axes": _or_none(lambda: dict(dataset.axes)) or {},
        "shape": None,
        "dtype": None,
        "resolution_levels": dataset.resolution_levels if len(dataset.resolution_levels) > 1 else (),
        "bytes": _bytes_at(path),
        "summary_metadata": _or_none(lambda: dataset.summary_metadata),
        "annotations": dataset.annotations,
        "problem": "",
    }
    facts.update(_facts_of(plan_of(dataset)))
    try:
        for coordinates in dataset:
            example = dataset.get_data(coordinates)
            facts["shape"], facts["dtype"] = list(example.shape), str(example.dtype)
            break
    except ExEngineError as error:
        facts["problem"] = str(error)
    return facts


def _facts_of(plan: SourcePlan) -> dict[str, Any]:
    size = plan.pixel_size_um
    units = {"time": plan.interval_s, "z": plan.z_step_um, "y": size, "x": size}
    return {
        "pixel_size_um": None if size is None else list(size),
        "z_step_um": plan.z_step_um,
        "interval_s": plan.interval_s,
        "units": {axis: UNITS[axis] for axis, known in units.items() if known is not None},
        "channels": [asdict(channel) for channel in plan.channels],
        "stage_positions": [asdict(place) for place in plan.stage_positions],
    }


def _version_of(backend: str) -> str:
    """Return the name and version of a backend's distribution, or ``""`` if the backend is not installed."""
    record = plugins.BACKENDS.records().get(backend)
    return f"{record.distribution} {record.version}" if record is not None else ""


def _or_none(read: Any) -> Any:
    try:
        return read()
    except UnsupportedOperationError:
        return None


def _bytes_at(path: str) -> int:
    if is_url(path):
        cls = remote_reader(path)
        assert issubclass(cls, RemoteDatasets)
        return cls.bytes_at(path)
    return sum(os.path.getsize(file) for file in paths_of_dataset(path) if os.path.isfile(file))
