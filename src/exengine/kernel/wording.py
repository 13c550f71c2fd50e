"""Wording for messages: similar names, articles, lists, sizes and durations."""

from collections.abc import Iterable, Sequence


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` if a known name resembles this name, otherwise an empty string.

    Examples
    --------
    >>> did_you_mean("ndtif", ["ndtiff", "ndram"])
    " (did you mean 'ndtiff'?)"
    """
    near = near_names(name, known)
    return f" (did you mean {either(map(repr, near))}?)" if near else ""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to two known names that resemble this name, the most similar first.

    A section that the names share, such as ``storage.``, does not count as a resemblance.

    Examples
    --------
    >>> near_names("storage.pth", ["storage.path", "storage.options.NAME"])
    ['storage.path']
    """
    import difflib

    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    name = name.lower().replace("-", "_")
    section = name[: name.rfind(".") + 1]
    inside = {low.removeprefix(section): low for low in folded if low.startswith(section)}
    near = difflib.get_close_matches(name.removeprefix(section), inside, n=2, cutoff=0.5 if section else 0.6)
    if near or not section:
        return [folded[inside[match]] for match in near]
    outside = [low for low in folded if not low.startswith(section)]
    return [folded[match] for match in difflib.get_close_matches(name, outside, n=1, cutoff=0.6)]


def a(noun: str) -> str:
    """Return a noun with its indefinite article.

    Examples
    --------
    >>> a("int"), a("list")
    ('an int', 'a list')
    """
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def either(choices: Iterable[object]) -> str:
    """Return alternatives, joined by "or".

    Examples
    --------
    >>> either([2, 3])
    '2 or 3'
    """
    return " or ".join(map(str, choices))


def listed(names: Iterable[object]) -> str:
    """Return names, joined by commas, or ``none`` if there are none.

    Examples
    --------
    >>> listed(["ndram", "ndtiff"]), listed([])
    ('ndram, ndtiff', 'none')
    """
    return ", ".join(map(str, names)) or "none"


def human_bytes(size: float) -> str:
    """Return a size in human-readable form.

    Examples
    --------
    >>> human_bytes(52428800)
    '52.4 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_time(seconds: float) -> str:
    """Return a duration in human-readable form.

    Examples
    --------
    >>> human_time(3.21), human_time(4000)
    ('3.2 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def human_count(number: int, noun: str) -> str:
    """Return a number with its noun, in the singular or the plural.

    Examples
    --------
    >>> human_count(1, "frame"), human_count(12000, "frame")
    ('1 frame', '12,000 frames')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def html_table(caption: str, rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table in HTML for notebooks. All text is escaped.

    Examples
    --------
    >>> html_table("a < b", [("frames", "3")])
    '<table><caption>a &lt; b</caption><tbody><tr><th scope="row">frames</th><td>3</td></tr></tbody></table>'
    """
    from html import escape

    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = (
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    thead = f"<thead><tr>{top}</tr></thead>" if top else ""
    return f"<table><caption>{escape(caption)}</caption>{thead}<tbody>{''.join(lines)}</tbody></table>"
