"""The frames of a dataset as a table: one row per frame, with its coordinates and metadata.

Nested metadata is stored in columns with dots in their names, and lists are stored as JSON strings. To write
a file, all metadata is read twice, so that memory use does not grow with the number of frames.
"""

import csv
import json
import os
from collections.abc import Iterator
from typing import Any, Literal

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import (
    DatasetAccessError,
    DatasetExistsError,
    ExEngineError,
    UnsupportedOperationError,
    from_os,
)

Format = Literal["csv", "parquet"]
PROBLEM = "problem"
"""The column with the reason why the metadata of a frame cannot be read."""
_ROWS_AT_ONCE = 65536


def rows(dataset: DataStorage) -> Iterator[tuple[dict[str, int | str], Any, str]]:
    """Yield the coordinates and metadata of each frame, and the reason if the metadata cannot be read."""
    for coordinates in dataset:
        metadata, problem = None, ""
        try:
            metadata = dataset.get_metadata(coordinates)
        except ExEngineError as error:
            problem = str(error)
        yield coordinates.coordinate_dict, metadata, problem


def flattened(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each column for a frame's metadata.

    Examples
    --------
    >>> list(flattened({"camera": {"gain": 2}, "roi": [0, 1], "note": None}))
    [('camera.gain', 2), ('roi', '[0, 1]'), ('note', None)]
    """
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from flattened(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, dict | list):
        if name or value:
            yield name or "metadata", json.dumps(value, ensure_ascii=False)
    elif name or value is not None:
        yield name or "metadata", value


class _Columns:
    """The columns of a table, in the order in which they first appear; the axes come first."""

    def __init__(self, dataset: DataStorage) -> None:
        self.axes = list(dataset.axes)
        found: dict[str, None] = {}
        self._has_problems = False
        for _, metadata, problem in rows(dataset):
            found.update((name, None) for name, _ in flattened(metadata))
            self._has_problems |= bool(problem)
        # Metadata often has keys that are also names of axes; their columns get different names.
        taken = {*self.axes, PROBLEM}
        self._metadata = {name: name if name not in taken else f"metadata.{name}" for name in found}

    @property
    def names(self) -> list[str]:
        return [*self.axes, *self._metadata.values(), *([PROBLEM] if self._has_problems else [])]

    def row(self, coordinates: dict[str, int | str], metadata: Any, problem: str) -> dict[str, Any]:
        row: dict[str, Any] = dict(coordinates)
        row.update((self._metadata[name], value) for name, value in flattened(metadata))
        if problem:
            row[PROBLEM] = problem
        return row


def export(dataset: DataStorage, path: str, kind: Format) -> int:
    """Write the table to a new file, and return the number of rows.

    Parameters
    ----------
    dataset : DataStorage
    path : str
    kind : {'csv', 'parquet'}

    Raises
    ------
    DatasetExistsError
        If the file exists.
    UnsupportedOperationError
        If pyarrow is needed and not installed.
    DatasetAccessError
        If the file cannot be written.
    """
    write = _write_csv if kind == "csv" else _parquet_writer()
    if os.path.lexists(path):
        raise DatasetExistsError(f"{path} already exists; choose another file with -o")
    try:
        return write(dataset, _Columns(dataset), path)
    except OSError as error:
        if isinstance(error, ExEngineError):
            raise
        raise from_os(DatasetAccessError, f"cannot write {path}: {error.strerror or error}", error) from error


def _write_csv(dataset: DataStorage, columns: _Columns, path: str) -> int:
    with open(path, "x", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns.names, restval="")
        writer.writeheader()
        writer.writerows(columns.row(*row) for row in rows(dataset))
    return len(dataset)


def _parquet_writer() -> Any:
    try:
        import pyarrow as pa  # type: ignore[import-not-found, unused-ignore]
        from pyarrow import parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UnsupportedOperationError(
            "Parquet needs pyarrow; install it with pip install pyarrow, or export to CSV"
        ) from None

    def write(dataset: DataStorage, columns: _Columns, path: str) -> int:
        kinds: dict[str, set[type]] = {name: set() for name in columns.names}
        for row in rows(dataset):
            for name, value in columns.row(*row).items():
                kinds[name].add(str if _is_large(value) else type(value))
        types = {name: _arrow_type(pa, found - {type(None)}) for name, found in kinds.items()}
        schema = pa.schema(list(types.items()))
        with open(path, "xb") as file, parquet.ParquetWriter(file, schema) as writer:
            batch: list[dict[str, Any]] = []
            for row in rows(dataset):
                batch.append(
                    {name: _as_arrow(value, types[name], pa) for name, value in columns.row(*row).items()}
                )
                if len(batch) == _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(batch, schema))
                    batch = []
            writer.write_table(pa.Table.from_pylist(batch, schema))
        return len(dataset)

    return write


def _is_large(value: Any) -> bool:
    """Return whether a value is an integer with more than 64 bits."""
    return type(value) is int and not -(2**63) <= value < 2**63


def _arrow_type(pa: Any, kinds: set[type]) -> Any:
    """Return the type of a column: text, unless all of its values are numbers or all are bools."""
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds and kinds <= {int, float} else pa.string()


def _as_arrow(value: Any, kind: Any, pa: Any) -> Any:
    if value is None:
        return None
    if kind == pa.string():
        return value if isinstance(value, str) else json.dumps(value)
    return float(value) if kind == pa.float64() else value
