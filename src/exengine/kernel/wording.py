"""Near names: what an unknown name may have meant."""

from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a near name, else an empty text.

    Examples
    --------
    >>> did_you_mean("ndtif", ["ndtiff", "ndram"])
    "; did you mean 'ndtiff'?"
    """
    near = near_names(name, known)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to two known names that resemble this one, the nearest first."""
    import difflib

    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    key = name.lower().replace("-", "_")
    return [folded[match] for match in difflib.get_close_matches(key, folded, n=2, cutoff=0.6)]
