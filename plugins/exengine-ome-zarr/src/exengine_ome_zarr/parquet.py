"""Writes the metadata of all frames as a Parquet table, if pyarrow is installed.

The table is derived from ``frames.jsonl`` when the dataset is finished. It has a column for each axis, a
column for each number in the metadata, and a column with the whole metadata as JSON.
"""

import os
from typing import Any

import orjson

from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.files import FRAMES, TABLE, temporary

_BATCH_LINES = 20_000
_MOST_COLUMNS = 200


def write_table(folder: str) -> bool:
    """Write the table; return whether it was written.

    The table is optional: a dataset is complete without it.

    Raises
    ------
    OSError
        If the table cannot be written to disk.
    """
    try:
        import pyarrow  # type: ignore[import-not-found, unused-ignore]
        import pyarrow.parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return False
    new = temporary(folder)
    writer: Any = None
    try:
        # Python opens the file, so that disk errors have an error number; errors from pyarrow have none.
        with open(os.path.join(folder, FRAMES), "rb") as lines, open(new, "wb") as table:
            schema: Any = None
            columns: dict[str, tuple[str, str]] = {}
            while batch := lines.readlines(_BATCH_LINES * 500):
                rows = [orjson.loads(line) for line in batch if len(line) < sizes.MAX_METADATA_BYTES]
                if writer is None:
                    columns = _columns(rows)
                    kinds = {"int": pyarrow.int64(), "str": pyarrow.string(), "float": pyarrow.float64()}
                    fields = [(name, kinds[kind]) for name, (_, kind) in columns.items()]
                    schema = pyarrow.schema([*fields, ("metadata", pyarrow.string())])
                    writer = pyarrow.parquet.ParquetWriter(table, schema, compression="zstd")
                writer.write_table(pyarrow.table(_values(rows, columns), schema=schema))
            if writer is None:
                return False
            writer.close()
            table.flush()
            os.fsync(table.fileno())
        os.rename(new, os.path.join(folder, TABLE))
    except OSError:
        raise
    except Exception:  # for example, if the types of values differ between frames
        return False
    finally:
        if writer is not None:
            writer.is_open = False  # otherwise, the writer's destructor could write to the closed file
        if os.path.exists(new):
            os.unlink(new)
    return True


def _columns(rows: list[Any]) -> dict[str, tuple[str, str]]:
    """Return the source and type of each column: one column per axis, and one per number in the metadata."""
    columns = {
        axis: ("coordinates", "int" if all(type(row["coordinates"][axis]) is int for row in rows) else "str")
        for axis in rows[0]["coordinates"]
    }
    for row in rows[:100]:
        metadata = row["metadata"]
        for key, value in metadata.items() if isinstance(metadata, dict) else ():
            if type(value) in (int, float) and key not in columns and len(columns) < _MOST_COLUMNS:
                columns[key] = ("metadata", "float")
    columns.pop("metadata", None)
    return columns


def _values(rows: list[Any], columns: dict[str, tuple[str, str]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, (source, kind) in columns.items():
        values: list[Any] = []
        for row in rows:
            value = row[source].get(name) if isinstance(row[source], dict) else None
            if kind == "float":
                values.append(float(value) if isinstance(value, int | float) else None)
            else:
                values.append(str(value) if kind == "str" else value)
        found[name] = values
    found["metadata"] = [orjson.dumps(row["metadata"]).decode() for row in rows]
    return found
