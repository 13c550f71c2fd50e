"""Assigns the axes of an acquisition to the dimensions of OME-Zarr: the images, t, c and z."""

from collections.abc import Iterable
from typing import Literal, TypeAlias

from exengine.errors import CoordinatesError
from exengine_ome_zarr.format.layout import ROLES

ExtraAxes: TypeAlias = Literal["refuse", "fold", "split"]


def assign_roles(axes: Iterable[str], extra_axes: ExtraAxes) -> dict[str, tuple[str, ...]]:
    """Return the axes that form each dimension.

    The axes ``time``, ``channel``, ``z`` and ``position`` have their own dimensions. If there is no axis
    ``channel``, one axis with another name takes its place. Further axes are combined with the channel
    (``fold``) or with the position (``split``).

    Parameters
    ----------
    axes : iterable of str
    extra_axes : {'refuse', 'fold', 'split'}

    Raises
    ------
    CoordinatesError
        If there are further axes, and ``extra_axes`` is ``'refuse'``.

    Examples
    --------
    >>> assign_roles(["time", "phase"], "refuse")
    {'t': ('time',), 'c': ('phase',)}
    """
    roles: dict[str, tuple[str, ...]] = {}
    others = []
    for axis in axes:
        if axis in ROLES:
            roles[ROLES[axis]] = (axis,)
        else:
            others.append(axis)
    if others and "c" not in roles:
        roles["c"] = (others.pop(0),)
    if others:
        if extra_axes == "refuse":
            raise CoordinatesError(
                f"OME-Zarr has no dimension for the {'axes' if len(others) > 1 else 'axis'} "
                f"{', '.join(map(repr, others))}; set the option extra_axes to 'fold' to combine such "
                "axes with the channel, or to 'split' to make an image for each of their positions"
            )
        dim = "c" if extra_axes == "fold" else "p"
        roles[dim] = (*roles.get(dim, ()), *others)
    return roles
