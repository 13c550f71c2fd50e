"""Compares the readable frames of a dataset with those that its writer acknowledged.

The judge computes the expected frames itself, from their numbers. It only reads frames from the storage, and
trusts none of its counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from writer import Job, metadata_of

from exengine.errors import CoordinatesNotFoundError, DatasetDamagedError, ExEngineError


@dataclass
class Said:
    """The reports of a writer; see ``writer.py``.

    Attributes
    ----------
    put, synced : int
        The numbers of frames that were acknowledged as written and as synced.
    created, finished, closed : bool
    errors : list of (call, type, errno name, message)
    """

    put: int = 0
    synced: int = 0
    created: bool = False
    finished: bool = False
    closed: bool = False
    errors: list[tuple[str, str, str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[str]) -> "Said":
        """Parse the lines of a writer; ignore a truncated last line."""
        said = cls()
        for line in lines:
            if not line.endswith("\n"):
                break
            word, _, rest = line.strip().partition(" ")
            if word in ("put", "synced"):
                setattr(said, word, int(rest) + 1)
            elif word in ("created", "finished", "closed"):
                setattr(said, word, True)
            elif word == "error":
                call, kind, number, message = [*rest.split(" ", 3), ""][:4]
                said.errors.append((call, kind, number, message))
        return said


@dataclass
class Verdict:
    """The state of a job's frames.

    Attributes
    ----------
    readable : list of int
        Frames that are present and bit-equal, with their metadata.
    absent : list of int
        Frames that are missing.
    damaged : list of int
        Frames that are reported as damaged.
    wrong : list of int
        Frames that were returned with wrong pixels or metadata, which must never happen.
    status : str
        The status of the dataset; empty if it cannot be opened.
    listed : int
        The number of frames that the dataset lists; -1 if it does not list frames.
    strange : list of str
        Listed coordinates that are not part of the job.
    problem : str
        The reason why it cannot be opened, or an exception other than an ExEngineError.
    """

    readable: list[int] = field(default_factory=list)
    absent: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    status: str = ""
    listed: int = -1
    strange: list[str] = field(default_factory=list)
    problem: str = ""

    def lost(self, acknowledged: int) -> list[int]:
        """Return the frames that were acknowledged and cannot be read."""
        return sorted(set(range(acknowledged)) - set(self.readable))


def judge(job: Job, path: str | None = None) -> Verdict:
    """Open the dataset of a job, read every possible frame, and compare.

    Parameters
    ----------
    job : Job
    path : str, optional
        The path of the dataset, if it differs from that of the job.
    """
    verdict = Verdict()
    try:
        dataset = _open(job, job.path if path is None else path)
    except ExEngineError as error:
        verdict.problem = f"{type(error).__name__}: {error}"
        verdict.absent = list(range(job.count))
        return verdict
    except Exception as error:
        verdict.problem = f"foreign {type(error).__name__}: {error}"
        verdict.absent = list(range(job.count))
        return verdict
    try:
        verdict.status = str(dataset.status)
        _list(job, dataset, verdict)
        for number in range(job.count):
            try:
                pixels = dataset.get_data(job.axes(number))
                metadata = dataset.get_metadata(job.axes(number))
            except CoordinatesNotFoundError:
                verdict.absent.append(number)
            except DatasetDamagedError:
                verdict.damaged.append(number)
            except Exception as error:
                verdict.damaged.append(number)
                verdict.problem = f"foreign {type(error).__name__}: {error}"
            else:
                wanted = job.pixels(number)
                good = pixels.dtype == wanted.dtype and np.array_equal(pixels, wanted)
                (verdict.readable if good and metadata == metadata_of(number) else verdict.wrong).append(
                    number
                )
    finally:
        dataset.close()
    return verdict


def _list(job: Job, dataset, verdict: Verdict) -> None:  # type: ignore[no-untyped-def]  # of either library
    if job.backend == "ndstorage":
        return
    wanted = {tuple(sorted(job.axes(number).items())) for number in range(job.count)}
    listed = [dict(coordinates) for coordinates in dataset]
    verdict.listed = len(listed)
    verdict.strange = [str(axes) for axes in listed if tuple(sorted(axes.items())) not in wanted]


def _open(job: Job, path: str):  # type: ignore[no-untyped-def]  # of either library
    if job.backend == "ndstorage":
        return _NdstorageReader(path)
    import exengine

    return exengine.open_dataset(path)


class _NdstorageReader:
    """A dataset opened directly with the ``ndstorage`` library."""

    status = "unknown"

    def __init__(self, path: str) -> None:
        import contextlib
        import io

        import ndstorage

        with contextlib.redirect_stdout(io.StringIO()):
            self._dataset = ndstorage.Dataset(path)

    def get_data(self, axes):  # type: ignore[no-untyped-def]
        if not self._dataset.has_image(**axes):
            raise CoordinatesNotFoundError(str(axes))
        return self._dataset.read_image(**axes)

    def get_metadata(self, axes):  # type: ignore[no-untyped-def]
        metadata = self._dataset.read_metadata(**axes)
        # The library adds its own entries.
        return {key: metadata[key] for key in ("number", "exposure_ms", "stage") if key in metadata}

    def close(self) -> None:
        self._dataset.close()
