"""Maps the frames of a run to coordinates, so that no two frames of the run have the same coordinates.

A sequence is checked before the run. The events of a generator are not known in advance, and some may have
the same index or no index.
"""

from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING

from exengine.base_classes import CoordinatesLike, DataCoordinates, event_coordinates, snapshot

if TYPE_CHECKING:
    import useq

CAMERA = "cam"
"""The axis of ``useq.MDAEvent.index`` that distinguishes the frames of several cameras."""

REPEAT = "repeat"
"""The axis that is added to a frame if an earlier frame of the run has the same coordinates."""

ToCoordinates = Callable[["useq.MDAEvent"], CoordinatesLike]


class FrameCoordinates:
    """The coordinates of the frames of one run.

    Parameters
    ----------
    repeated : container of str
        The channels that a sequence contains more than once. The exposure time is part of their position.
    convert : callable, optional
        Returns the coordinates of an event. By default, the ``index`` of the event is used.
    """

    def __init__(self, repeated: Container[str] = (), convert: ToCoordinates | None = None) -> None:
        self._repeated = repeated
        self._convert = convert
        self._used: dict[DataCoordinates, int] = {}

    def of(self, event: "useq.MDAEvent", camera: str, number: int) -> DataCoordinates:
        """Return the coordinates of an event's frame.

        Parameters
        ----------
        event : useq.MDAEvent
        camera : str
            The label of the camera. If the event uses several cameras, the label becomes the position on the
            axis ``camera``.
        number : int
            The number of the event in the run. If the event has no index, the number becomes the position on
            the axis ``time``.
        """
        if self._convert is not None:
            coordinates = snapshot(self._convert(event))
        elif set(event.index) <= {CAMERA}:
            coordinates = DataCoordinates(time=number)
        else:
            coordinates = event_coordinates(event, self._repeated)
        if CAMERA not in event.index:
            return coordinates
        return coordinates.replace(camera=camera or event.index[CAMERA])

    def expected(
        self, event: "useq.MDAEvent", cameras: tuple[str, ...], number: int
    ) -> Iterator[DataCoordinates]:
        """Yield the coordinates of the frame that each camera takes for an event."""
        if len(cameras) < 2:
            yield self.of(event, "", number)
            return
        for index, label in enumerate(cameras):
            yield self.of(event.model_copy(update={"index": {**event.index, CAMERA: index}}), label, number)

    def unused(self, coordinates: DataCoordinates) -> DataCoordinates:
        """Return the coordinates. If an earlier frame has them, add a number on the axis ``repeat``."""
        before = self._used.get(coordinates)
        if before is None:
            self._used[coordinates] = 0
            return coordinates
        self._used[coordinates] = number = before + 1
        return coordinates.replace(**{REPEAT: number})
