"""The backend that a campaign tests, with its options.

Each campaign accepts ``--backend NAME`` and ``--option KEY=VALUE``, and keeps its figures for each such variant
by itself.
"""

import argparse
from dataclasses import dataclass, field
from typing import Any

DEFAULT = "ndtiff"
NDSTORAGE = "ndstorage"
"""The library alone, the control that must lose frames."""


@dataclass(frozen=True)
class Variant:
    """A backend and its options.

    Attributes
    ----------
    backend : str
    options : dict
        Set in every dataset of the campaign.
    """

    backend: str = DEFAULT
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """The end of the names of result files: empty for the default, otherwise such as ``ome-zarr-none``."""
        if self.backend == DEFAULT and not self.options:
            return ""
        values = [str(value) for value in self.options.values()]
        if self.backend == "ome-zarr" and not values:
            values = ["none"]
        return "-".join([self.backend, *values])

    @property
    def arguments(self) -> str:
        """The arguments that select this variant, with a leading space."""
        if self.backend == DEFAULT and not self.options:
            return ""
        pairs = "".join(f" --option {key}={value}" for key, value in self.options.items())
        return f" --backend {self.backend}{pairs}"

    @property
    def is_live(self) -> bool:
        """Whether programs that know nothing of ExEngine see each frame at once."""
        return self.backend == "ome-zarr" and self.options.get("codec", "none") == "none"

    def with_files(self, file_bytes: int, frame_bytes: int, **more: Any) -> dict[str, Any] | None:
        """Return options that make the backend begin a new file after about this many bytes.

        Parameters
        ----------
        file_bytes : int
        frame_bytes : int
            The size of a frame.
        **more
            Options of ``ome-zarr`` only.
        """
        if self.backend == "ndtiff":
            return {"max_file_bytes": max(4096, file_bytes), **self.options}
        if self.backend == "ome-zarr":
            # Files that a frame of ndtiff fills once hold two frames here: a shard that grows is harder.
            return {"shard": max(1, min(file_bytes // frame_bytes, 2**20)), **more, **self.options}
        return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select a variant."""
    parser.add_argument("--backend", default=DEFAULT, help="ndstorage: the control, which must lose frames")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the backend"
    )


def variant_of(given: argparse.Namespace) -> Variant:
    """Return the variant that the arguments select."""
    options: dict[str, Any] = {}
    for pair in given.option:
        key, _, value = pair.partition("=")
        options[key] = int(value) if value.lstrip("-").isdigit() else value
    return Variant(given.backend, options)
