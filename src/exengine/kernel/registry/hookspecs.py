"""The hooks that ExEngine calls in observers and extensions, and the marker for implementations.

Each function below is a specification: its name and its parameters are the contract. An implementation is
a function of the same name, marked with :data:`exengine.hookimpl`, in a module or an object registered
under the entry-point group ``exengine.hooks``; it may leave out parameters that it does not use.
:mod:`exengine.kernel.registry.hooks` loads implementations, and describes how their errors are handled.
"""

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from exengine.kernel.data_coords import DataCoordinates
    from exengine.kernel.data_storage_base import DataStorage
    from exengine.kernel.frames.ledger import Ledger

PROJECT = "exengine"

hookspec = pluggy.HookspecMarker(PROJECT)

hookimpl = pluggy.HookimplMarker(PROJECT)
"""``@exengine.hookimpl`` marks a function as the implementation of the hook that has its name."""


@hookspec
def exengine_storage_opened(storage: "DataStorage", backend: str, path: str | None) -> None:
    """Observe the start of an acquisition: its storage exists, and no frame has arrived yet.

    Parameters
    ----------
    storage : DataStorage
        For reading. Another thread puts frames at the same time: do not put, finish or close.
    backend : str
        Name in the config.
    path : str or None
        Path of the dataset; None if it is in memory.
    """


@hookspec
def exengine_frames_stored(coordinates: "list[DataCoordinates]") -> None:
    """Observe the frames stored since the last call, at most a few times per second.

    Parameters
    ----------
    coordinates : list of DataCoordinates
        Coordinates of these frames, in the order in which they were stored; never empty. The list
        belongs to the observer. An observer slower than the acquisition receives fewer, longer lists.
    """


@hookspec
def exengine_acquisition_finished(ledger: "Ledger", status: str, path: str | None) -> None:
    """Observe the end of an acquisition, also of a failed one; its dataset is finished, and not yet closed.

    Parameters
    ----------
    ledger : Ledger
        The fate of every frame; a copy.
    status : str
        ``complete``, ``aborted`` or ``failed``; ``incomplete`` if its end could not be written.
    path : str or None
        Path of the dataset; None if it was in memory.
    """


@hookspec
def exengine_docs_sections(name: str, cls: type) -> list[tuple[str, str]]:  # type: ignore[empty-body]
    """Return extra sections for the page of a plugin in the HTML documentation.

    Parameters
    ----------
    name : str
        Name of the backend or frame source.
    cls : type

    Returns
    -------
    list of (str, str)
        Title and reStructuredText of each section; an empty list adds none. Underline headings
        inside the text with ``-``.
    """


def checked_sections(returned: Any) -> list[tuple[str, str]]:
    """Return the sections that an implementation of :func:`exengine_docs_sections` has returned.

    Raises
    ------
    TypeError
        If it returned anything else; None counts as no sections.
    """
    sections = []
    for pair in returned or ():
        title, text = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (None, None)
        if not isinstance(title, str) or not isinstance(text, str):
            raise TypeError(f"it must return a list of (title, text), and returned {pair!r:.60}")
        sections.append((title, text))
    return sections
