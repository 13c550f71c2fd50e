"""``exengine info PATH``: shows the contents and the status of a dataset."""

import argparse
import os
import shlex
from typing import Any

from exengine.cli.ledger_text import ledger_lines
from exengine.cli.output import counts, print_json
from exengine.datasets.opening import open_dataset, remote_reader
from exengine.kernel.axes import summarize_positions
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError, UnsupportedOperationError
from exengine.kernel.storage.manifest import has_writer
from exengine.kernel.storage.remote import RemoteDatasets, is_url
from exengine.kernel.wording import human_bytes


def run(options: argparse.Namespace) -> int:
    """Describe a dataset without changing it."""
    with OpenDataset(options.path) as dataset:
        facts = describe(dataset, options.path)
    if options.json:
        print_json(facts)
        return 0
    reason = f" ({facts['reason']})" if facts["reason"] else ""
    print(f"{options.path}\n  status   {facts['status']}{reason}\n  backend  {facts['backend']}")
    print(f"  frames   {facts['frames']}")
    for axis, values in facts["axes"].items():
        print(f"  axis     {axis}: {len(values)} ({summarize_positions(values)})")
    if facts["shape"]:
        print(f"  pixels   {' x '.join(map(str, facts['shape']))} {facts['dtype']}")
    if facts["resolution_levels"]:
        print(f"  levels   {', '.join(map(str, facts['resolution_levels']))}")
    print(f"  size     {human_bytes(facts['bytes'])}{'' if is_url(options.path) else ' on disk'}")
    ledger = facts["annotations"].get("ledger")
    if isinstance(ledger, dict):  # another program may have written this ledger
        print(f"  ledger   {counts(ledger, 'offered', 'stored', 'failed') or 'in an unknown format'}")
        for label, text in ledger_lines(ledger):
            print(f"  {label:8} {text}")
    if facts["status"] == "incomplete" and not facts["being_written"]:
        print(f"  next     exengine recover {shlex.quote(options.path)}")
    if facts["problem"]:
        print(f"  problem  {facts['problem']}")
    return 0


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
    facts: dict[str, Any] = {
        "path": path,
        "status": _or_none(lambda: dataset.status.value),
        "reason": dataset.status_reason,
        "being_written": not dataset.is_finished() if is_url(path) else has_writer(path),
        "backend": dataset.backend_name or type(dataset).__name__,
        "frames": _or_none(lambda: len(dataset)),
        "axes": _or_none(lambda: dict(dataset.axes)) or {},
        "shape": None,
        "dtype": None,
        "resolution_levels": dataset.resolution_levels if len(dataset.resolution_levels) > 1 else (),
        "bytes": _bytes_at(path),
        "summary_metadata": _or_none(lambda: dataset.summary_metadata),
        "annotations": dataset.annotations,
        "problem": "",
    }
    try:
        for coordinates in dataset:
            example = dataset.get_data(coordinates)
            facts["shape"], facts["dtype"] = list(example.shape), str(example.dtype)
            break
    except ExEngineError as error:
        facts["problem"] = str(error)
    return facts


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
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
        if os.path.isfile(os.path.join(folder, name))
    )
