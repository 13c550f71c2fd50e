"""Reads the finished datasets of single-file backends with the libraries of their formats."""

import json
import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from writer import Job, metadata_of


class Library(NamedTuple):
    """A library, and a function that compares what it finds in a file with the frames that were written."""

    name: str
    faults: Callable[[Job, list[int], str], list[str]]


def faults_by_h5py(job: Job, readable: list[int], path: str) -> list[str]:
    """Return how the frames that h5py finds in a finished file differ from those that were written."""
    import h5py

    with h5py.File(path, "r") as file:
        table = file["frames"]
        found = [json.loads(text) for text in table["coordinates"][:]]
        faults = [] if found == [job.axes(n) for n in readable] else [f"the coordinates are {found}"]
        for number, name, index, metadata in zip(
            readable, table["dataset"][:], table["index"][:], table["metadata"][:], strict=False
        ):
            if not np.array_equal(file[name][tuple(index)], job.pixels(number)):
                faults.append(f"frame {number} differs")
            if json.loads(metadata) != metadata_of(number):
                faults.append(f"the metadata of frame {number} differ")
    return faults


def faults_by_tifffile(job: Job, readable: list[int], path: str) -> list[str]:
    """Return how the frames that tifffile finds in a finished file differ from those that were written."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it warns of frames that do not exist
    with tifffile.TiffFile(path) as file:
        if len(file.pages) != max(len(readable), 1) or file.is_ome != bool(readable):
            return [f"there are {len(file.pages)} pages for {len(readable)} frames"]
        faults = []
        for page, number in zip(file.pages, readable, strict=False):
            record = json.loads(page.aspage().tags[65400].value)
            if (record["c"], record["m"]) != (job.axes(number), metadata_of(number)):
                faults.append(f"the metadata of page {page.index} are {record}")
            if not np.array_equal(page.asarray(), job.pixels(number)):
                faults.append(f"frame {number} differs")
        planes = sum(each is not None for series in file.series for each in series.pages) if readable else 0
        return faults if planes == len(readable) else [*faults, f"the OME-XML lists {planes} planes"]


LIBRARIES = {"hdf5": Library("h5py", faults_by_h5py), "ome-tiff": Library("tifffile", faults_by_tifffile)}
"""The library for each backend whose datasets are one file."""


def faults_by_library(job: Job, readable: list[int], path: str) -> list[str]:
    """Return how a finished file differs from the frames that were written, according to its library."""
    library = LIBRARIES[job.backend]
    try:
        found = library.faults(job, readable, path)
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    return [f"{library.name}: {fault}" for fault in found]
