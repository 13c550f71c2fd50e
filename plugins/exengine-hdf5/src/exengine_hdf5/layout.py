"""Arranges frames in HDF5 datasets: frames with the same axes and layout form one N-dimensional dataset."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from exengine.base_classes import FrameToBuild

Position = int | str


@dataclass
class Image:
    """A dataset in the file.

    Attributes
    ----------
    name : str
        ``image``, ``image_1`` ...
    axes : tuple of str
        The leading axes, in order of arrival; the axes of a frame follow them.
    shape : tuple of int
        The shape of a frame.
    dtype : str
    positions : dict of str to list
        The positions on each axis: integers in ascending order, then names in order of arrival.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    positions: dict[str, list[Position]] = field(default_factory=dict)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of positions on each leading axis."""
        return tuple(len(self.positions[axis]) for axis in self.axes)


class Arrangement:
    """The arrangement of a sequence of frames in HDF5 datasets.

    Parameters
    ----------
    frames : sequence of FrameToBuild

    Attributes
    ----------
    images : list of Image
    places : list of (int, tuple of int)
        For each frame, the number of its dataset and its indices in that dataset.
    """

    def __init__(self, frames: Iterable[FrameToBuild]) -> None:
        known: dict[object, int] = {}
        self.images: list[Image] = []
        numbers = []
        seen: list[dict[str, dict[Position, None]]] = []
        every = list(frames)
        for frame in every:
            axes = frame.coordinates.coordinate_dict
            key = (frozenset(axes), frame.shape, frame.dtype)
            number = known.setdefault(key, len(self.images))
            if number == len(self.images):
                name = f"image_{number}" if number else "image"
                self.images.append(Image(name, tuple(axes), frame.shape, frame.dtype))
                seen.append({axis: {} for axis in axes})
            for axis, position in axes.items():
                seen[number][axis][position] = None
            numbers.append(number)
        index: list[dict[str, dict[Position, int]]] = []
        for image, positions in zip(self.images, seen, strict=True):
            for axis, found in positions.items():
                ints = sorted(position for position in found if isinstance(position, int))
                image.positions[axis] = [*ints, *(p for p in found if isinstance(p, str))]
            index.append(
                {axis: {p: at for at, p in enumerate(each)} for axis, each in image.positions.items()}
            )
        self.places: list[tuple[int, tuple[int, ...]]] = []
        for number, frame in zip(numbers, every, strict=True):
            at = tuple(index[number][axis][frame.coordinates[axis]] for axis in self.images[number].axes)
            self.places.append((number, at))
