"""Compares the result of a conversion with its source before the result is published."""

import itertools
from collections.abc import Iterator
from typing import Any

from exengine.datasets.conversion.source import SourceFrames, in_order
from exengine.datasets.verification import OnProgress
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.errors import DatasetDamagedError, UnsupportedOperationError, message_of

_MOST_NAMED = 5  # maximum number of differences in one message


def compare(source: SourceFrames, result: DataStorage, on_progress: OnProgress) -> None:
    """Compare the frames, the axes, and the summary metadata of a result with those of its source.

    Pixels are compared by their checksums, and metadata value by value.

    Raises
    ------
    DatasetDamagedError
        If anything differs. The message lists the first differences.
    """
    found = [
        *_differing_frames(source, result, 0, source.count, on_progress),
        *_differing_facts(source, result),
    ]
    if found:
        more = f"; differences not listed: {len(found) - _MOST_NAMED}" if len(found) > _MOST_NAMED else ""
        raise DatasetDamagedError(
            f"the result differs from {source.path}, so it was not published: "
            f"{'; '.join(found[:_MOST_NAMED])}{more}"
        )


def same_frames(source: SourceFrames, result: DataStorage, begin: int, end: int) -> bool:
    """Return whether the first ``end`` frames of a result equal those of the source.

    The coordinates of all these frames are compared. From frame ``begin`` on, pixels and metadata are also
    compared.
    """
    for number, ((_, new), found) in enumerate(zip(source.pairs(), result, strict=False)):
        if number == end:
            break
        if new != found:
            return False
    return not any(_differing_frames(source, result, begin, end, lambda done, total: None))


def _differing_frames(
    source: SourceFrames, result: DataStorage, begin: int, end: int, on_progress: OnProgress
) -> Iterator[str]:
    def compare_frame(item: tuple[int, tuple[DataCoordinates, DataCoordinates]]) -> list[str]:
        number, (coordinates, new) = item
        found = []
        try:
            if source.differs(number, coordinates, result.get_data(new)):
                found.append(f"the pixels at {new.coordinate_dict} differ")
            if source.without_metadata:
                return found
            here, there = source.dataset.get_metadata(coordinates), result.get_metadata(new)
            found += [
                f"the metadata at {new.coordinate_dict} differ: {what}" for what in differences(here, there)
            ]
        except Exception as error:  # any error, even from a library that the backend uses
            found.append(f"the frame at {new.coordinate_dict} cannot be compared: {message_of(error)}")
        return found

    threads = source.threads if result.capabilities.concurrent_readers else 1
    frames = itertools.islice(enumerate(source.pairs()), begin, end)
    for number, found in enumerate(in_order(compare_frame, frames, threads), begin + 1):
        yield from found
        on_progress(number, source.count)


def _differing_facts(source: SourceFrames, result: DataStorage) -> Iterator[str]:
    if len(result) != source.count:
        yield f"it has {len(result)} frames instead of {source.count}"
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


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield the differences between two JSON values. Numbers of different types differ, as do 1 and true.

    Examples
    --------
    >>> list(differences({"a": [1, 2], "b": 1}, {"a": [1, 3], "b": True}))
    ['a[1] is 3 instead of 2', 'b is True instead of 1']
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            at = f"{where}.{key}" if where else str(key)
            if key not in other:
                yield f"{at} is missing"
            elif key not in one:
                yield f"{at} was added"
            else:
                yield from differences(one[key], other[key], at)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (each, its) in enumerate(zip(one, other, strict=True)):
            yield from differences(each, its, f"{where}[{number}]")
    elif type(one) is not type(other) or one != other:
        yield f"{where or 'the value'} is {other!r:.100} instead of {one!r:.100}"
