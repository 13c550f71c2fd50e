"""The format of ``h5-folder`` datasets, and the class that ``open_dataset`` returns.

``index.jsonl`` has one line per frame, in the order of arrival: the CRC-32 of its JSON, and the JSON itself,
which contains the CRC-32 of the HDF5 file of the frame. A frame without a complete line is not part of the
dataset.

HDF5 reads only bytes whose checksum is right. With damaged metadata of its own, the library may search for a
long time, return wrong values, or crash. The checksums keep such bytes away from it.
"""

import json
import os
import zlib
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from exengine import DataCoordinates, DatasetReader, DatasetStatus, StorageCapabilities
from exengine.base_classes import CoordinateIndex, open_regular, parse_json, read_manifest, status_of
from exengine.errors import DatasetAccessError, DatasetDamagedError, DatasetNotFoundError

INDEX_NAME, LINKS_NAME = "index.jsonl", "dataset.h5"


def frame_name(number: int) -> str:
    """Return the name of the file of a frame."""
    return f"frame-{number:09d}.h5"


class FrameReading:
    """The capabilities of the format, and the reading of a frame by its number. For both storage and reader."""

    capabilities = StorageCapabilities(
        persistent=True,
        dtypes=(
            *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
            *("float16", "float32", "float64", "complex64", "complex128"),
        ),
        string_axes=True,
        negative_indices=True,
        metadata=True,
        iterable=True,
        reopen=True,
        read_while_writing=True,
        concurrent_readers=True,
        checksums=True,
        safety_of_put="written",
        durable_flush=True,
        compression=("gzip",),
        readers=("h5py", "MATLAB"),
    )

    _folder: str
    _lines: list[bytes]
    """The JSON text of each frame, as stored in the index."""

    def read_frame(self, number: int) -> npt.NDArray[Any]:
        """Return the pixels of a frame, as a new array."""
        name, line = frame_name(number), json.loads(self._lines[number])
        image = _content(self._folder, name)
        if image is None or zlib.crc32(image) != line["crc32"]:
            raise DatasetDamagedError(
                f"{name}, with the frame at {line['coordinates']}, is damaged or missing"
            )
        with h5py.File.in_memory(image) as file:
            return np.asarray(file["pixels"][()])

    def read_frame_metadata(self, number: int) -> Any:
        """Return the metadata of a frame."""
        return json.loads(self._lines[number])["metadata"]


class H5FolderReader(FrameReading, DatasetReader):
    """An open ``h5-folder`` dataset, with the frames that it contained when it was opened."""

    backend_name = "h5-folder"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "H5FolderReader":
        """Read the index, and compare the dataset with what its writer recorded when it finished."""
        folder = os.path.realpath(os.path.expanduser(path))
        manifest, text = read_manifest(folder), _content(folder, INDEX_NAME)
        if manifest is None and text is None:
            raise DatasetNotFoundError(f"{folder} is not a dataset of h5-folder")
        index, lines, whole = CoordinateIndex(), list[bytes](), True
        for line in (text or b"").split(b"\n")[:-1]:  # what follows the last line break is incomplete
            crc, _, frame = line.partition(b" ")
            # If a line is damaged, only its frame is lost. The other frames remain readable.
            if crc == b"%08x" % zlib.crc32(frame) and index.add(_coordinates(frame)) is not None:
                lines.append(frame)
            else:
                whole = False
        if manifest is not None:
            whole &= manifest.frames in (None, len(lines))
            for name, crc32 in manifest.facts.items():
                content = _content(folder, name)
                whole &= content is not None and zlib.crc32(content) == crc32
        reader = cls(folder, index, status_of(manifest) if whole else DatasetStatus.DAMAGED, manifest)
        reader._folder, reader._lines = folder, lines
        return reader

    @property
    def summary_metadata(self) -> Any:
        """Metadata of the whole dataset."""
        return self.annotations.get("summary_metadata", {})


def _coordinates(line: bytes) -> dict[str, int | str]:
    return DataCoordinates(parse_json(line)["coordinates"]).coordinate_dict


def _content(folder: str, name: str) -> bytes | None:
    """Return the content of a file of the dataset; None if the file does not exist."""
    try:
        # Datasets are untrusted, so use open_regular, which rejects links, pipes and devices.
        with os.fdopen(open_regular(os.path.join(folder, name)), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetAccessError(f"{name} of {folder} cannot be read: {error}") from error
