"""Frame coordinates, and iterators over them.

This module is responsible for the canonical form of coordinates (axis name -> int or str), and for their
validation, their hash and their JSON form. It is not responsible for the coordinates that a dataset contains;
see :mod:`exengine.kernel.frames.coordinate_index`.

Coordinates are mutable until they are hashed. Hashing freezes them, because a key that changed after it was
added to a dict or a set could no longer be found there. The axes are stored in the instance's ``__dict__``,
which makes instances cheap to create and attribute access to an axis as fast as Python allows.
"""

from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sized,
    ValuesView,
)
from json import dumps as _json_dumps
from json import loads as _json_loads
from typing import Any

from exengine.kernel.axes import check_name, checked, checked_names, position_of, reserve_names
from exengine.kernel.errors import CoordinatesError, CoordinatesFrozenError, CoordinatesTypeError


class DataCoordinates:
    """The coordinates of a frame: a mapping from axis names to positions, each an int or a str.

    Parameters
    ----------
    coordinate_dict : mapping of str to int or str, optional
        All axes at once. The mapping is copied and never modified.
    time, channel, z : int or str, optional
        The axes that nearly every acquisition has, in this order. ``None`` means that the axis is absent.
    **axes : int or str
        Other axes by name. They follow the axes above.

    Raises
    ------
    CoordinatesError
        If axes are passed in both ways, or if a name or a position is invalid. This is also a ``ValueError``.

    Notes
    -----
    Floats with an integer value and numpy integers become ``int``; ``1.5`` and ``True`` are rejected. Two
    ``DataCoordinates`` are equal if their axes are equal, in any order; they also compare equal to dicts with
    the same axes. The attributes ``time``, ``channel`` and ``z`` are ``None`` if the axis is absent.

    Examples
    --------
    >>> c = DataCoordinates(time=5, channel="DAPI", z=3)
    >>> c.time, c["channel"]
    (5, 'DAPI')
    >>> c == {"z": 3, "time": 5, "channel": "DAPI"}
    True
    >>> c.replace(time=6)
    DataCoordinates({'time': 6, 'channel': 'DAPI', 'z': 3})
    """

    __slots__ = ("__dict__", "_hash")

    _hash: "int | None"  # None until the hash is computed; from then on, the axes are frozen

    # The attribute values of absent axes, as in ExEngine 0.4.0.
    time: "int | str | None" = None
    channel: "int | str | None" = None
    z: "int | str | None" = None

    def __init__(
        self,
        /,
        coordinate_dict: "Mapping[str, int | str] | None" = None,
        time: "int | str | None" = None,
        channel: "int | str | None" = None,
        z: "int | str | None" = None,
        **axes: "int | str | None",
    ) -> None:
        # A fast path for the most common case, in which the ints are nonnegative and have at most 30 bits.
        if (
            type(time) is int
            and type(channel) is str
            and type(z) is int
            and not (time | z) >> 30
            and channel.isascii()
            and not axes
            and coordinate_dict is None
        ):
            _set_hash(self, None)
            own = self.__dict__
            own["time"] = time
            own["channel"] = channel
            own["z"] = z
            return
        _set_hash(self, None)
        named = {"time": time, "channel": channel, "z": z, **axes}
        _set_axes(self, _axes_of_either(coordinate_dict, named))

    # -- changing axes, until hashed -------------------------------------------------------------

    def __setitem__(self, axis: str, position: "int | str") -> None:
        self._refuse_if_frozen(f"set {axis!r}")
        if type(axis) is not str or axis not in checked_names:
            axis = check_name(axis)
        self.__dict__[axis] = position_of(axis, position)

    def __delitem__(self, axis: str) -> None:
        self._refuse_if_frozen(f"delete {axis!r}")
        if axis not in self.__dict__:
            raise KeyError(axis)
        del self.__dict__[axis]

    def __setattr__(self, axis: str, position: "int | str") -> None:
        self[axis] = position

    def __delattr__(self, axis: str) -> None:
        if axis not in self.__dict__:
            raise AttributeError(axis)
        del self[axis]

    def _refuse_if_frozen(self, what: str) -> None:
        if self._hash is not None:
            raise CoordinatesFrozenError(
                f"cannot {what}: {self!r} was hashed, for example as a dict key, and is now frozen; create "
                "modified coordinates with .replace(axis=position)"
            )

    def replace(self, /, **axes: "int | str | None") -> "DataCoordinates":
        """Return new coordinates with some axes changed.

        Parameters
        ----------
        **axes : int, str or None
            New positions; ``None`` removes the axis.

        Returns
        -------
        DataCoordinates
            New coordinates, which are mutable until they are hashed.
        """
        changed = {**self.__dict__, **axes}
        return of_checked_axes(checked({name: at for name, at in changed.items() if at is not None}))

    # -- reading ---------------------------------------------------------------------------------

    @property
    def coordinate_dict(self) -> "dict[str, int | str]":
        """The axes as a new dict, in order."""
        return dict(self.__dict__)

    def __getitem__(self, axis: str) -> "int | str":
        return self.__dict__[axis]  # type: ignore[no-any-return]

    def __contains__(self, axis: object) -> bool:
        return axis in self.__dict__

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DataCoordinates):
            return self.__dict__ == other.__dict__
        if isinstance(other, Mapping):
            return self.__dict__ == dict(other)
        return NotImplemented

    def __hash__(self) -> int:
        value = self._hash
        if value is None:
            axes = self.__dict__
            if (
                len(axes) == 3
                and (time := self.time) is not None
                and (channel := self.channel) is not None
                and (z := self.z) is not None
            ):
                value = hash((time, channel, z))  # twice as fast as the general case
            else:
                value = hash(frozenset(axes.items()))
            _set_hash(self, value)
        return value

    def __repr__(self) -> str:
        return f"DataCoordinates({self.__dict__})"

    def __reduce__(self) -> "tuple[type[DataCoordinates], tuple[dict[str, int | str]]]":
        return DataCoordinates, (dict(self.__dict__),)

    # -- JSON ------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Return the axes as a JSON object, in order.

        Examples
        --------
        >>> DataCoordinates(time=0, channel="DAPI").to_json()
        '{"time": 0, "channel": "DAPI"}'
        """
        return _json_dumps(self.__dict__, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: "str | bytes") -> "DataCoordinates":
        """Create coordinates from a string that :meth:`to_json` returned.

        Raises
        ------
        CoordinatesError
            If the string is not a JSON object with valid axes.
        """
        try:
            axes = _json_loads(text)
        except (ValueError, RecursionError) as error:
            raise CoordinatesError(f"coordinates are not valid JSON: {error}") from None
        return of_checked_axes(_axes_of(axes))

    # -- the rest of the mapping interface --------------------------------------------------------

    def keys(self) -> KeysView[str]:
        """Return the axis names."""
        return self.__dict__.keys()

    def values(self) -> "ValuesView[int | str]":
        """Return the positions."""
        return self.__dict__.values()

    def items(self) -> "ItemsView[str, int | str]":
        """Return the pairs of axis name and position."""
        return self.__dict__.items()

    def get(self, axis: str, default: Any = None) -> Any:
        """Return the position on an axis, or the default if the axis is absent."""
        return self.__dict__.get(axis, default)

    def pop(self, axis: str, /, *default: Any) -> Any:
        """Remove an axis and return its position, or the default if the axis is absent."""
        if axis not in self.__dict__ and default:
            return default[0]
        position = self[axis]
        del self[axis]
        return position

    def popitem(self) -> "tuple[str, int | str]":
        """Remove the last axis and return it with its position."""
        if not self.__dict__:
            raise KeyError("the coordinates have no axes")
        axis = next(reversed(self.__dict__))
        return axis, self.pop(axis)

    def clear(self) -> None:
        """Remove every axis."""
        for axis in list(self.__dict__):
            del self[axis]

    def setdefault(self, axis: str, position: "int | str") -> "int | str":
        """Return the position on an axis; if the axis is absent, set it to this position first."""
        if axis not in self.__dict__:
            self[axis] = position
        return self[axis]

    def update(self, other: Any = (), /, **axes: "int | str") -> None:
        """Set several axes at once; if one of them is invalid, none is set."""
        changed = DataCoordinates({**self.__dict__, **dict(other), **axes})
        if changed.__dict__ != self.__dict__:
            self._refuse_if_frozen("update")
            self.__dict__.update(changed.__dict__)


# Registered rather than inherited, because every isinstance() would take twice as long with ABCMeta.
MutableMapping.register(DataCoordinates)

_new = DataCoordinates.__new__
_set_axes = DataCoordinates.__dict__["__dict__"].__set__
_set_hash = DataCoordinates.__dict__["_hash"].__set__
reserve_names(frozenset(dir(DataCoordinates)) - {"time", "channel", "z"})


def of_checked_axes(axes: "dict[str, int | str]") -> DataCoordinates:
    """Return coordinates with axes that are known to be valid; the dict is kept, not copied."""
    coordinates = _new(DataCoordinates)
    _set_hash(coordinates, None)
    _set_axes(coordinates, axes)
    return coordinates


def _axes_of_either(
    coordinate_dict: "Mapping[str, int | str] | None", named: "dict[str, int | str | None]"
) -> "dict[str, int | str]":
    """Return the axes, passed either as a mapping or by name, in canonical form."""
    named = {name: value for name, value in named.items() if value is not None}
    if coordinate_dict is None:
        return checked(named)
    if named:
        raise CoordinatesError(
            f"pass either a dict of all axes or the axes by name, not both; got a dict and {', '.join(named)}"
        )
    return _axes_of(coordinate_dict)


def _axes_of(mapping: object) -> "dict[str, int | str]":
    """Check the axes of coordinates or of a mapping, and return them as a new dict."""
    if isinstance(mapping, DataCoordinates):
        return dict(mapping.__dict__)
    if isinstance(mapping, Mapping):
        axes = dict(mapping.items())
    else:
        raise CoordinatesTypeError(
            f"coordinates must be DataCoordinates or a mapping of axis name to int or str, "
            f"got {type(mapping).__name__}: {mapping!r:.80}"
        )
    if set(map(type, axes)) != {str}:
        axes = {check_name(name): value for name, value in axes.items()}
    return checked(axes)


def snapshot(coordinates: object) -> DataCoordinates:
    """Return coordinates that no other code can change.

    Parameters
    ----------
    coordinates : DataCoordinates or mapping
        A caller's coordinates, which are neither modified nor hashed. They are copied unless they are frozen.

    Returns
    -------
    DataCoordinates
        A copy, or the same object if it is frozen and therefore cannot change.

    Raises
    ------
    CoordinatesError
        If the coordinates are invalid.
    """
    if type(coordinates) is DataCoordinates:
        return coordinates if coordinates._hash is not None else of_checked_axes(dict(coordinates.__dict__))
    return of_checked_axes(_axes_of(coordinates))


class DataCoordinatesIterator:
    """An iterable of coordinates, created from various kinds of input; see :meth:`create`.

    A list, tuple, set or other sized collection is copied and checked immediately. It can be iterated any
    number of times, even in nested loops. A generator is a stream, which can be read only once.
    """

    __slots__ = ("_cursor", "_known", "_stream")

    def __init__(self) -> None:
        raise CoordinatesTypeError("use DataCoordinatesIterator.create(...)")

    @classmethod
    def create(cls, coordinates: object) -> "DataCoordinatesIterator":
        """Create an iterator from coordinates, from a dict, or from an iterable of either.

        Parameters
        ----------
        coordinates : DataCoordinates, mapping, iterable of these, or DataCoordinatesIterator
            The input; a ``DataCoordinatesIterator`` is returned unchanged.

        Returns
        -------
        DataCoordinatesIterator

        Raises
        ------
        CoordinatesError
            If an item is invalid. With a generator, the error is raised when the item is reached.

        Examples
        --------
        >>> it = DataCoordinatesIterator.create([{"time": 0}, {"time": 1}])
        >>> it.is_finite(), [c.time for c in it]
        (True, [0, 1])
        """
        if isinstance(coordinates, cls):
            return coordinates
        if isinstance(coordinates, Mapping):
            coordinates = (coordinates,)
        if not isinstance(coordinates, Iterable) or isinstance(coordinates, (str, bytes)):
            raise CoordinatesTypeError(
                f"pass coordinates, a dict or an iterable of these; got {type(coordinates).__name__}"
            )
        instance = object.__new__(cls)
        if isinstance(coordinates, Sized):
            instance._known = tuple(snapshot(item) for item in coordinates)
            instance._stream = None
            instance._cursor = iter(instance._known)
        else:
            instance._known = None
            instance._stream = map(snapshot, coordinates)
            instance._cursor = instance._stream
        return instance

    _known: "tuple[DataCoordinates, ...] | None"
    _stream: "Iterator[DataCoordinates] | None"
    _cursor: "Iterator[DataCoordinates]"

    def is_finite(self) -> bool:
        """Return whether all coordinates are known. If so, the iterator is finite."""
        return self._known is not None

    def might_produce_coordinates(self, coordinates: object) -> "bool | None":
        """Return whether the iterator yields these coordinates.

        Parameters
        ----------
        coordinates : DataCoordinates or mapping

        Returns
        -------
        bool or None
            None if the answer is unknown, as with a generator.
        """
        if self._known is None:
            return None
        return snapshot(coordinates) in self._known

    def __iter__(self) -> Iterator[DataCoordinates]:
        return iter(self._known) if self._known is not None else self._cursor

    def __next__(self) -> DataCoordinates:
        return next(self._cursor)

    def __repr__(self) -> str:
        if self._known is None:
            return "DataCoordinatesIterator(dynamic)"
        return f"DataCoordinatesIterator({', '.join(map(repr, self._known))})"
