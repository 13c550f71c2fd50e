"""Compares the result of a conversion with its source before the result is published."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from exengine.datasets.conversion.frame_work import compare as compare_frame
from exengine.datasets.conversion.frame_work import differences
from exengine.datasets.conversion.source import SourceFrames
from exengine.datasets.verification import OnProgress
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetDamagedError, UnsupportedOperationError

_MOST_NAMED = 5  # maximum number of differences in one message


def compare(
    source: SourceFrames, result: DataStorage, reopen: Callable[[], DataStorage], on_progress: OnProgress
) -> None:
    """Compare the frames, the axes, and the summary metadata of a result with those of its source.

    Pixels are compared by their checksums, and metadata value by value. ``reopen`` opens the result a second
    time, on a worker of a cluster.

    Raises
    ------
    DatasetDamagedError
        If anything differs. The message lists the first differences.
    """
    found = [
        *_differing_frames(source, result, reopen, 0, source.count, on_progress),
        *_differing_facts(source, result),
    ]
    if found:
        more = f"; differences not listed: {len(found) - _MOST_NAMED}" if len(found) > _MOST_NAMED else ""
        raise DatasetDamagedError(
            f"the result differs from {source.path}, so it was not published: "
            f"{'; '.join(found[:_MOST_NAMED])}{more}"
        )


def same_frames(
    source: SourceFrames, result: DataStorage, reopen: Callable[[], DataStorage], begin: int, end: int
) -> bool:
    """Return whether the first ``end`` frames of a result equal those of the source.

    The coordinates of all these frames are compared. From frame ``begin`` on, pixels and metadata are also
    compared.
    """
    for number, ((_, new), found) in enumerate(zip(source.pairs(), result, strict=False)):
        if number == end:
            break
        if new != found:
            return False
    return not any(_differing_frames(source, result, reopen, begin, end, lambda done, total: None))


def _differing_frames(
    source: SourceFrames,
    result: DataStorage,
    reopen: Callable[[], DataStorage],
    begin: int,
    end: int,
    on_progress: OnProgress,
) -> Iterator[str]:
    work = partial(compare_frame, without_metadata=source.without_metadata)
    frames = itertools.islice(source.expected(), begin, end)
    for number, found in enumerate(source.each(work, frames, result=result, reopen=reopen), begin + 1):
        yield from found
        on_progress(number, source.count)


def _differing_facts(source: SourceFrames, result: DataStorage) -> Iterator[str]:
    if len(result) != source.count:
        yield f"the number of frames is {len(result)} instead of {source.count}"
    names = source.selection.rename
    for axis, positions in source.dataset.axes.items():
        kept = source.selection.chosen.get(axis)
        found = result.axes.get(names.get(axis, axis), [])
        if source.selection.chosen or not source.is_whole:
            # The result may lack some positions, because only frames outside the selection had them.
            allowed = positions if kept is None else kept
            if [position for position in allowed if position in found] != found:
                yield f"the positions on the axis {axis!r} are wrong: {found!r:.200}"
        elif found != positions:
            yield f"the positions on the axis {axis!r} are {found!r:.200} instead of {positions!r:.200}"
    if source.without_metadata:
        return
    for what in differences(summary_of(source.dataset), summary_of(result)):
        yield f"the summary metadata differ from those of the source: {what}"


def summary_of(dataset: DataStorage) -> Any:
    """Return the summary metadata of a dataset; an empty dict if it has none."""
    try:
        return dataset.summary_metadata or {}
    except UnsupportedOperationError:
        return {}
