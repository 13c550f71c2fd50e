"""The settings of a conversion. A second attempt uses them to recognize the progress of the first."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from exengine.datasets.content import paths_of_dataset
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import ExEngineError
from exengine.kernel.storage import manifest
from exengine.kernel.storage.description import CONVERSION
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system import files
from exengine.kernel.system.bounded import parse_json

_MOST_BYTES = 2**24


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that determines the content of the result.

    Attributes
    ----------
    source : str
        The path of the source.
    source_state : str
        A digest of the names, sizes and times of the files of the source.
    backend : str
    options : dict
        The options of the backend, without defaults.
    select : dict of str to list of int or str
    rename : dict of str to str
    allow_loss : bool
        Whether frames that the backend cannot store are left out.
    units : str
        The share of the frames, such as ``2/8``; empty if all frames are converted.
    """

    source: str
    source_state: str
    backend: str
    options: dict[str, Any]
    select: dict[str, list[int | str]]
    rename: dict[str, str]
    allow_loss: bool = False
    units: str = ""

    def with_units(self, units: str) -> Self:
        """Return the settings of one job that converts a share of the frames."""
        return replace(self, units=units)

    def encode(self) -> bytes:
        """Return the settings as JSON. Equal settings give identical bytes."""
        content = asdict(self)
        if not self.allow_loss:
            del content["allow_loss"]  # earlier versions had no such setting
        if not self.units:
            del content["units"]
        return json.dumps(content, sort_keys=True, default=str, indent=1).encode()

    @property
    def fingerprint(self) -> str:
        """A digest of the settings."""
        return hashlib.sha256(self.encode()).hexdigest()

    @classmethod
    def read(cls, path: str) -> Self | None:
        """Return the settings stored in a file, or None if the file is missing or not valid."""
        try:
            with os.fdopen(files.open_regular(path), "rb") as file:
                return cls(**parse_json(file.read(_MOST_BYTES)))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def differing(self, other: Self) -> list[str]:
        """Return the settings of ``other`` that differ from these, as phrases for a message."""
        phrases = {
            "source_state": "an earlier state of the source (the source has changed since then)",
            "source": f"the source {other.source}",
        }
        mine, its = json.loads(self.encode()), json.loads(other.encode())
        return [
            phrases.get(name, f"{name} {json.dumps(its.get(name, False))}")
            for name in {**mine, **its}
            if mine.get(name, False) != its.get(name, False)
        ]


def state_of(path: str, dataset: DataStorage) -> str:
    """Return a digest that changes if a dataset changes."""
    facts = list(_state_of_files(path)) if not is_url(path) else [path, len(dataset), str(dataset.status)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _state_of_files(path: str) -> Iterator[tuple[str, int, int]]:
    for file in paths_of_dataset(path):
        if not file.endswith(manifest.LOCK_NAME):
            status = os.lstat(file)
            yield os.path.relpath(file, path), status.st_size, status.st_mtime_ns


def published_note(path: str) -> dict[str, Any] | None:
    """Return the annotation of the conversion that produced a dataset; None if it was not converted."""
    try:
        content = manifest.read_manifest(path)
    except ExEngineError:
        return None
    note = content.annotations.get(CONVERSION) if content is not None else None
    if content is None or content.frames is None or not isinstance(note, dict):
        return None
    return note


def published_settings(path: str) -> str | None:
    """Return the fingerprint of the conversion that produced a dataset; None if it was not converted."""
    fingerprint = (published_note(path) or {}).get("fingerprint")
    return fingerprint if isinstance(fingerprint, str) else None
