"""Validation and canonical form of axis names and positions.

An axis has a name, which is also an attribute of coordinates, and positions, each of which is a 64-bit int or
a str. :mod:`exengine.kernel.data_coords` builds on this module.
"""

import operator
from collections.abc import Iterable
from typing import Any

from exengine.kernel.errors import CoordinatesError

INT_LIMIT = 2**63
"""Integer positions satisfy ``-INT_LIMIT <= value < INT_LIMIT`` (64 bits, signed)."""

checked_names: set[str] = {"time", "channel", "z", "position", "row", "column"}
"""Axis names that are known to be valid."""

_MAX_CHECKED_NAMES = 4096
_reserved_names: set[str] = set()


def reserve_names(names: Iterable[str]) -> None:
    """Reserve the attribute names of coordinates, so that no axis can have one of these names."""
    _reserved_names.update(names)


def checked(axes: "dict[str, Any]") -> "dict[str, int | str]":
    """Check the names in a dict of axes, convert its positions to canonical form, and return the dict."""
    if checked_names.issuperset(axes):
        for value in axes.values():
            if type(value) is int:
                if -INT_LIMIT <= value < INT_LIMIT:
                    continue
            elif type(value) is str and value.isascii():
                continue
            break
        else:
            return axes
    for name, value in axes.items():
        if name not in checked_names:
            check_name(name)
        axes[name] = position_of(name, value)
    return axes


def check_name(name: object) -> str:
    """Return the name of an axis as a plain str, or reject it."""
    if isinstance(name, str):
        name = str.__str__(name)  # a subclass, such as an enum or a numpy str, becomes a plain str
    else:
        raise CoordinatesError(f"an axis name must be a str, got {type(name).__name__}: {name!r:.80}")
    if not name or name.startswith("_") or name in _reserved_names:
        raise CoordinatesError(
            f"{name!r} cannot be an axis name, because it is empty, starts with '_' or is a method of "
            "DataCoordinates; choose another name, such as 'time', 'position' or 'angle'"
        )
    _check_text(name, name)
    if len(checked_names) < _MAX_CHECKED_NAMES:
        checked_names.add(name)
    return name


def _check_text(axis: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CoordinatesError(
            f"axis {axis!r}: {text!r:.80} contains an unpaired surrogate and is not valid text"
        ) from None
    return text


def position_of(axis: str, value: object) -> "int | str":
    """Return the canonical form of a position, or reject the position."""
    if type(value) is int and -INT_LIMIT <= value < INT_LIMIT:
        return value
    if isinstance(value, str):
        return _check_text(axis, str.__str__(value))
    if type(value).__name__ not in ("bool", "bool_"):  # numpy has its own bool type
        number = None
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            is_integer = None if isinstance(value, type) else getattr(value, "is_integer", None)
            if callable(is_integer) and is_integer():
                number = int(value)  # type: ignore[call-overload]
        if number is not None:
            if -INT_LIMIT <= number < INT_LIMIT:
                return number
            raise CoordinatesError(f"axis {axis!r}: an int position must fit in 64 bits")
    raise CoordinatesError(
        f"axis {axis!r}: a position must be an int or a str, got {type(value).__name__}: {value!r:.80}"
    )


def position_order(value: int | str) -> tuple[int, int]:
    """Return a sort key that puts integers first, in ascending order, and leaves names in order of arrival.

    Examples
    --------
    >>> sorted([0, "B", -1, "A", 1], key=position_order)
    [-1, 0, 1, 'B', 'A']
    """
    return (0, value) if isinstance(value, int) else (1, 0)  # the sort is stable, so names keep their order


def positions_on_axes(all_axes: Iterable[Any]) -> "dict[str, list[int | str]]":
    """Return the positions on each axis, in the order of :func:`position_order`."""
    found: dict[str, dict[int | str, None]] = {}
    for axes in all_axes:
        for axis, position in axes.items():
            found.setdefault(axis, {})[position] = None
    return {axis: sorted(positions, key=position_order) for axis, positions in found.items()}


def summarize_positions(values: list[int | str], most: int = 8) -> str:
    """Return a short description of the positions on an axis.

    Examples
    --------
    >>> summarize_positions([0, 1, 2, 3])
    '0 - 3'
    >>> summarize_positions(["DAPI", "FITC"])
    "'DAPI', 'FITC'"
    """
    numbers = sorted(value for value in values if type(value) is int)
    if len(numbers) == len(values) and len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} - {numbers[-1]}"
    shown = ", ".join(repr(value) for value in values[:most])
    return shown if len(values) <= most else f"{shown}, ... ({len(values)} in total)"
