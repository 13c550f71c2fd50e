"""The share of one job in the work of a job array."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from exengine.kernel.errors import OptionError

_Item = TypeVar("_Item")

_UNITS = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Units:
    """One job of a job array, which does its share of the work.

    Attributes
    ----------
    number : int
        The number of the job, from 1.
    count : int
        The number of jobs.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the share that a text such as ``2/8`` describes.

        Raises
        ------
        OptionError

        Examples
        --------
        >>> Units.parse("2/8")
        Units(number=2, count=8)
        """
        match = _UNITS.fullmatch(text.strip())
        found = cls(*map(int, match.groups())) if match else None
        if found is None or not 1 <= found.number <= found.count:
            raise OptionError(
                f"units must have the form i/n with i from 1 to n, such as 2/8 for the second of 8 jobs, got "
                f"{text!r:.50}"
            )
        return found

    def share_of(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Return the items of this job. Each item belongs to exactly one of the jobs.

        Examples
        --------
        >>> [Units(number, 2).share_of(["a", "b", "c"]) for number in (1, 2)]
        [['a', 'c'], ['b']]
        """
        return items[self.number - 1 :: self.count]
