"""Derives the axes of a plan from the coordinates of its frames."""

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.source_plan import PlannedAxis


class AxisCollector:
    """Derives axes from coordinates, which are added in the order in which the frames are acquired.

    Examples
    --------
    >>> collector = AxisCollector()
    >>> for time in range(2):
    ...     for channel in ("DAPI", "FITC"):
    ...         collector.add(DataCoordinates(channel=channel, time=time))
    >>> for axis in collector.axes():
    ...     print(axis.name, axis.positions)
    time (0, 1)
    channel ('DAPI', 'FITC')
    """

    def __init__(self) -> None:
        self._positions: dict[str, dict[int | str, None]] = {}
        self._first: dict[str, int | str] = {}
        self._unchanged: set[str] = set()
        self._changed: dict[str, int] = {}  # axis -> number of the frame at which the position first changed
        self._count = 0

    def add(self, coordinates: DataCoordinates) -> None:
        """Add the coordinates of the next frame."""
        axes = coordinates.__dict__
        known = self._positions
        for axis, position in axes.items():
            if axis in known:
                known[axis][position] = None
            else:
                known[axis] = {position: None}
                if self._count:
                    self._changed[axis] = self._count
        if not self._count:
            self._first, self._unchanged = dict(axes), set(axes)
        elif self._unchanged:
            changed = {axis for axis in self._unchanged if axes.get(axis) != self._first[axis]}
            self._changed.update(dict.fromkeys(changed, self._count))
            self._unchanged -= changed
        self._count += 1

    def axes(self) -> tuple[PlannedAxis, ...]:
        """Return the axes, outermost first: the later an axis first changes, the farther out it is.

        Axes that first change at the same frame keep the order of the coordinates, and so do axes that never
        change.
        """
        names = list(self._positions)
        slots = [slot for slot, name in enumerate(names) if name in self._changed]
        changing = sorted((names[slot] for slot in slots), key=lambda name: -self._changed[name])
        for slot, name in zip(slots, changing, strict=True):
            names[slot] = name
        return tuple(PlannedAxis(name, tuple(self._positions[name])) for name in names)
