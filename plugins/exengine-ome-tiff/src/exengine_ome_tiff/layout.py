"""Arranges frames as OME Images, each with the dimensions T, C and Z."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exengine.base_classes import FrameToBuild

Position = int | str
DIMENSIONS = ("T", "C", "Z")
_NAMES = {"time": "T", "channel": "C", "z": "Z"}
POSITION = "position"


@dataclass
class Image:
    """An Image of the file.

    Attributes
    ----------
    fixed : dict of str to int or str
        The positions that all frames share, on the axes that are not dimensions of the Image.
    axes : dict of str to str
        Maps ``T``, ``C`` and ``Z`` to the axes that they represent.
    shape : tuple of int
        The shape of a frame.
    dtype : str
    positions : dict of str to list
        Maps ``T``, ``C`` and ``Z`` to the positions on these axes: integers in ascending order, then names
        in order of arrival.
    frames : list of (int, tuple of int)
        The number of each frame and its indices on T, C and Z.
    """

    fixed: dict[str, Position]
    axes: dict[str, str]
    shape: tuple[int, ...]
    dtype: str
    positions: dict[str, list[Position]] = field(default_factory=dict)
    frames: list[tuple[int, tuple[int, int, int]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the Image, for example the name of the stage position."""
        if [*self.fixed] == [POSITION]:
            return str(self.fixed[POSITION])
        return ", ".join(f"{axis} {position}" for axis, position in self.fixed.items()) or "image"

    @property
    def lengths(self) -> tuple[int, int, int]:
        """The lengths of T, C and Z; 1 for a dimension that represents no axis."""
        t, c, z = (len(self.positions.get(dimension, "1")) for dimension in DIMENSIONS)
        return t, c, z


def arrange(frames: Sequence[FrameToBuild]) -> list[Image]:
    """Arrange frames in Images, each of which contains the frames of one stage position.

    ``time``, ``channel`` and ``z`` become T, C and Z. Without ``time``, the longest other axis becomes T.
    Frames that differ in their positions on the remaining axes, or in their axes, shapes or dtypes, are in
    separate Images. A time point has the same index in all Images with the same axes; each Image contains
    only the channels and planes of its own frames.
    """
    kinds: dict[object, list[int]] = {}
    for number, frame in enumerate(frames):
        key = (frozenset(frame.coordinates.coordinate_dict), frame.shape, frame.dtype)
        kinds.setdefault(key, []).append(number)
    return [image for numbers in kinds.values() for image in _of_one_kind(frames, numbers)]


def _of_one_kind(frames: Sequence[FrameToBuild], numbers: list[int]) -> Iterable[Image]:
    coordinates = {number: frames[number].coordinates.coordinate_dict for number in numbers}
    axes = {dimension: axis for axis, dimension in _NAMES.items() if axis in coordinates[numbers[0]]}
    others = [axis for axis in coordinates[numbers[0]] if axis not in _NAMES]
    if "T" not in axes:
        length = {axis: len({each[axis] for each in coordinates.values()}) for axis in others}
        longest = max((axis for axis in others if axis != POSITION), key=length.__getitem__, default=None)
        if longest is not None:
            others.remove(longest)
            axes["T"] = longest
    images: dict[tuple[Position, ...], Image] = {}
    members: dict[tuple[Position, ...], list[int]] = {}
    for number in numbers:
        key = tuple(coordinates[number][axis] for axis in others)
        if key not in images:
            frame = frames[number]
            images[key] = Image(dict(zip(others, key, strict=True)), axes, frame.shape, frame.dtype)
        members.setdefault(key, []).append(number)
    index: dict[str, dict[Position, int]] = {}
    if "T" in axes:
        index["T"] = _ranked(coordinates[number][axes["T"]] for number in numbers)
    for key, image in images.items():
        for dimension, axis in axes.items():
            if dimension != "T":
                index[dimension] = _ranked(coordinates[number][axis] for number in members[key])
            image.positions[dimension] = [*index[dimension]]
        for number in members[key]:
            t, c, z = (
                index[dimension][coordinates[number][axes[dimension]]] if dimension in axes else 0
                for dimension in DIMENSIONS
            )
            image.frames.append((number, (t, c, z)))
    return images.values()


def _ranked(positions: Iterable[Position]) -> dict[Position, int]:
    found = dict.fromkeys(positions)
    ints = sorted(position for position in found if isinstance(position, int))
    names = [position for position in found if isinstance(position, str)]
    ordered: list[Position] = [*ints, *names]
    return {position: rank for rank, position in enumerate(ordered)}
