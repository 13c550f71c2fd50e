"""Selects the frames to convert by their positions, and renames axes."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from exengine.kernel.axes import check_name, summarize_positions
from exengine.kernel.data_coords import DataCoordinates, of_checked_axes
from exengine.kernel.errors import CoordinatesError, OptionError
from exengine.kernel.wording import did_you_mean, listed

Choice: TypeAlias = int | str | range | slice | Sequence[int | str]
"""The positions selected on an axis: one, several, or the integers in a range."""

_SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(\d+))?")


class Selection:
    """The frames of a dataset to convert, and the names of their axes in the result.

    Parameters
    ----------
    axes : mapping of str to list of int or str
        The positions on each axis of the dataset.
    select : mapping of str to choice
        The selected positions of some axes. Frames that lack such an axis are not selected.
    rename : mapping of str to str
        The new names of some axes.

    Raises
    ------
    OptionError
        If the dataset has no such axis or position, or two axes would have the same name.

    Examples
    --------
    >>> axes = {"time": [0, 1, 2], "channel": ["DAPI", "FITC"]}
    >>> selection = Selection(axes, {"channel": "DAPI", "time": range(2)}, {"time": "t"})
    >>> frames = [DataCoordinates(time=t, channel=c) for t in range(3) for c in ("DAPI", "FITC")]
    >>> [dict(new) for _, new in selection.pairs(frames)]
    [{'t': 0, 'channel': 'DAPI'}, {'t': 1, 'channel': 'DAPI'}]
    """

    def __init__(
        self,
        axes: Mapping[str, Sequence[int | str]],
        select: Mapping[str, Choice],
        rename: Mapping[str, str],
    ) -> None:
        for axis in (*select, *rename):
            if axis not in axes:
                raise OptionError(
                    f"the dataset has no axis {axis!r}{did_you_mean(axis, axes)}; its axes are {listed(axes)}"
                )
        self.chosen = {axis: _positions(axis, axes[axis], choice) for axis, choice in select.items()}
        self.rename = {old: new for old, new in rename.items() if old != new}
        names = [self.rename.get(axis, axis) for axis in axes]
        for new in names:
            if names.count(new) > 1:
                raise OptionError(f"two axes would have the name {new!r}; give one of them a different name")
        try:
            for new in self.rename.values():
                check_name(new)
        except CoordinatesError as error:
            raise OptionError(str(error)) from None

    @property
    def is_whole(self) -> bool:
        """Whether all frames are selected, and no axis is renamed."""
        return not self.chosen and not self.rename

    def pairs(self, frames: Iterable[DataCoordinates]) -> Iterator[tuple[DataCoordinates, DataCoordinates]]:
        """Yield each selected frame's coordinates in the dataset, and its coordinates in the result."""
        sets = {axis: frozenset(positions) for axis, positions in self.chosen.items()}
        rename = self.rename
        for coordinates in frames:
            axes = coordinates.__dict__
            if any(axes.get(axis) not in positions for axis, positions in sets.items()):
                continue
            if rename:
                renamed = {rename.get(axis, axis): position for axis, position in axes.items()}
                yield coordinates, of_checked_axes(renamed)
            else:
                yield coordinates, coordinates


def parse_choice(text: str, known: Sequence[int | str]) -> list[int | str]:
    """Return the positions that a string selects: ``DAPI``, ``0,3,7``, or ``0:5`` for 0 to 4.

    A position that equals the whole string takes precedence, so a name may contain commas and colons.

    Parameters
    ----------
    text : str
    known : sequence of int or str
        The positions on the axis.

    Raises
    ------
    OptionError
        If a part of the string is not a position.

    Examples
    --------
    >>> parse_choice("0:5:2", range(9)), parse_choice("DAPI,FITC", ["DAPI", "FITC", "Cy5"])
    ([0, 2, 4], ['DAPI', 'FITC'])
    """
    whole = [position for position in known if str(position) == text]
    if whole:
        return whole
    match = _SLICE.fullmatch(text)
    if match:
        begin, end, step = (int(part) if part else None for part in match.groups())
        return _in_slice(slice(begin, end, step), known)
    found: list[int | str] = []
    for part in map(str.strip, text.split(",")):
        same = [position for position in known if str(position) == part]
        if not same and _SLICE.fullmatch(part):
            same = parse_choice(part, known)
        if not same:
            raise OptionError(f"{part!r} is not a position")
        found += same
    return found


def _in_slice(choice: slice, known: Sequence[int | str]) -> list[int | str]:
    """Return the integers from ``start`` up to, but not including, ``stop``."""
    numbers = [position for position in known if isinstance(position, int)]
    if not numbers:
        return []
    begin = min(numbers) if choice.start is None else choice.start
    end = max(numbers) + 1 if choice.stop is None else choice.stop
    step = choice.step or 1
    return [number for number in numbers if begin <= number < end and (number - begin) % step == 0]


def _positions(axis: str, known: Sequence[int | str], choice: Choice) -> list[int | str]:
    """Return the selected positions of an axis, in their order on the axis."""
    if isinstance(choice, str):
        try:
            found = parse_choice(choice, known)
        except OptionError as error:
            raise _refusal(axis, str(error), known) from None
    elif isinstance(choice, slice):
        found = _in_slice(choice, known)
    else:
        wanted = [choice] if isinstance(choice, int) else list(choice)
        absent = [position for position in wanted if position not in known]
        if absent and not isinstance(choice, range):
            raise _refusal(axis, f"{absent[0]!r} is not a position", known)
        found = [position for position in wanted if position in known]
    if not found:
        raise _refusal(axis, f"{choice!r:.80} contains no position", known)
    kept = set(found)
    return [position for position in known if position in kept]


def _refusal(axis: str, what: str, known: Sequence[int | str]) -> OptionError:
    near = did_you_mean(what.split("'")[1], map(str, known)) if "'" in what else ""
    return OptionError(
        f"select {axis}: {what}{near}; positions on the axis: {summarize_positions(list(known))}"
    )
