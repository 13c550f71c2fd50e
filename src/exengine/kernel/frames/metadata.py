"""Checks and copies frame metadata, and converts it to plain JSON (promise P9).

A single recursive pass rejects values that JSON cannot represent, with a message that gives their location,
and returns a copy that shares nothing with the caller's objects.
"""

from typing import Any

import numpy as np

from exengine.kernel.errors import MetadataError
from exengine.kernel.wording import a

MAX_DEPTH = 64
"""The maximum nesting depth of lists and dicts."""


def clean_metadata(value: Any) -> Any:
    """Return a copy of a JSON value, in plain Python types.

    Parameters
    ----------
    value : JSON value
        None, a bool, int, float, str or list, or a dict with str keys. Tuples become lists; numpy scalars and
        arrays become numbers and lists.

    Returns
    -------
    JSON value
        A copy, which the caller owns.

    Raises
    ------
    MetadataError
        For NaN, infinity, bytes, sets, keys that are not str, text that is not valid Unicode, any other kind
        of object, and nesting deeper than ``MAX_DEPTH`` (cycles included). The message gives the location.

    Examples
    --------
    >>> import numpy as np
    >>> clean_metadata({"exposure_ms": np.float32(0.5), "roi": (0, 0, 512, 512)})
    {'exposure_ms': 0.5, 'roi': [0, 0, 512, 512]}
    """
    kind = type(value)
    if kind is dict:
        return _clean_dict(value, MAX_DEPTH, ())
    return _clean(value, MAX_DEPTH, ())


_PLAIN = frozenset((bool, type(None)))
_INT_LIMIT = 10**4000  # Python refuses to parse or print numbers with more than 4,300 digits


def _clean_dict(mapping: dict[Any, Any], depth: int, place: tuple[Any, ...]) -> dict[str, Any]:
    if not depth:
        raise _refusal(place, f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    copy = {}
    for key, value in mapping.items():
        if type(key) is not str:
            key = _clean_key(key, place)
        elif not key.isascii():
            _check_text(key, place)
        kind = type(value)
        if kind is int:
            copy[key] = value if -_INT_LIMIT < value < _INT_LIMIT else _clean(value, depth - 1, (*place, key))
        elif kind in _PLAIN or (kind is str and value.isascii()) or (kind is float and value - value == 0.0):
            copy[key] = value
        else:
            copy[key] = _clean(value, depth - 1, (*place, key))
    if len(copy) != len(mapping):
        raise _refusal(place, "has two keys with the same text")
    return copy


def _clean(value: Any, depth: int, place: tuple[Any, ...]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        if -_INT_LIMIT < value < _INT_LIMIT:
            return value
        raise _refusal(place, "is a number with more than 4,000 digits, which JSON readers reject")
    if kind is str:
        return _check_text(value, place)
    if kind is float:
        if value - value == 0.0:  # neither NaN nor infinite
            return value
        raise _refusal(place, f"is {value}, which JSON cannot represent; use None instead")
    if not depth:
        raise _refusal(place, f"is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, dict):
        return _clean_dict(value, depth, place)
    if isinstance(value, (list, tuple)):
        return [_clean(item, depth - 1, (*place, number)) for number, item in enumerate(value)]
    if isinstance(value, np.floating):
        return _clean(float(value), depth, place)  # item() of a longdouble returns a longdouble
    if isinstance(value, np.generic) and value.dtype.kind in "biuU":
        return _clean(value.item(), depth, place)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU" and type(value) is np.ndarray:
        return _clean(value.tolist(), depth, place)
    # Subclasses, such as an IntEnum or a str subclass, become their base type.
    for plain in (str, bool, int, float):
        if isinstance(value, plain):
            return _clean(plain.__str__(value) if plain is str else plain(value), depth, place)
    raise _refusal(place, f"is {a(kind.__name__)}, which JSON cannot represent")


def _clean_key(key: Any, place: tuple[Any, ...]) -> str:
    if isinstance(key, str):
        return _check_text(str.__str__(key), place)
    raise _refusal(place, f"has the key {key!r:.40}, but keys must be str, got {type(key).__name__}")


def _check_text(text: str, place: tuple[Any, ...]) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refusal(
            place, f"contains {text!r:.40}, which has an unpaired surrogate and is not valid text"
        ) from None
    return text


def _refusal(place: tuple[Any, ...], what: str) -> MetadataError:
    where = "metadata" + "".join(f"[{part!r:.40}]" for part in place[:8])
    if len(place) > 8:
        where += "[...]"
    return MetadataError(f"{where} {what}. Metadata must be a JSON value; nothing was stored")
