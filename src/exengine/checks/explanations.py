"""The explanation of each code: why the rule exists, how to fix the fault, and wrong and right examples.

The text is in ``codes.toml``, next to this module, so that it is available offline. ``exengine explain``
prints it, and the documentation has a page for each code.
"""

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from exengine.kernel.errors import OptionError
from exengine.kernel.registry.codes import FAULTS
from exengine.kernel.wording import did_you_mean


@dataclass(frozen=True)
class Explanation:
    """The explanation of a code, written for plugin authors.

    Attributes
    ----------
    code, meaning : str
        The code, and the fault that it identifies.
    why, fix : str
        The reason for the rule, and what to do, as reStructuredText.
    language : {'python', 'toml', 'text'}
        The language of the examples. ``text`` is a list of files, one per line.
    wrong, right : str
        An example with exactly this fault, and one without a fault.
    """

    code: str
    meaning: str
    why: str
    fix: str
    language: Literal["python", "toml", "text"]
    wrong: str
    right: str

    def to_text(self) -> str:
        """Return the explanation as plain text for a terminal."""
        why, fix = (text.replace("``", "'") for text in (self.why, self.fix))
        parts = [f"{self.code}: {self.meaning}", "", f"Why: {why}", f"Fix: {fix}", ""]
        for name, example in (("Wrong", self.wrong), ("Right", self.right)):
            parts += [f"{name}:", *(f"    {line}".rstrip() for line in example.splitlines()), ""]
        return "\n".join(parts).rstrip()


@functools.cache
def explanations() -> dict[str, Explanation]:
    """Return the explanation of each code, in the order of the codes."""
    text = resources.files("exengine.checks").joinpath("codes.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    return {
        code: Explanation(
            code,
            meaning,
            found[code]["why"],
            found[code]["fix"],
            found[code].get("language", "python"),
            found[code]["wrong"].strip("\n"),
            found[code]["right"].strip("\n"),
        )
        for code, meaning in FAULTS.items()
    }


def explain(code: str) -> Explanation:
    """Return the explanation of a code. The code is not case-sensitive.

    Raises
    ------
    OptionError
        If the code does not exist; the message suggests similar codes.

    Examples
    --------
    >>> explain("ex202").meaning
    'an option is not documented'
    """
    known = explanations()
    name = code.strip().upper()
    if name not in known:
        first, last = min(known), max(known)
        raise OptionError(
            f"{code!r:.40} is not an ExEngine code{did_you_mean(name, known)}; the codes are {first} - "
            f"{last}, and 'exengine explain' lists them"
        )
    return known[name]
