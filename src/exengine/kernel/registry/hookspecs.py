"""The hooks that ExEngine calls in observers and extensions, and the marker for their implementations.

Each function below is a specification; its name and parameters are the contract. An implementation is a
function with the same name, marked with :data:`exengine.hookimpl`. It belongs to a module or an object that
is registered in the entry-point group ``exengine.hooks``, and it can omit parameters that it does not use.
:mod:`exengine.kernel.registry.hooks` loads implementations and describes how their errors are handled.
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
"""``@exengine.hookimpl`` marks a function as an implementation of the hook with the same name."""


@hookspec
def exengine_storage_opened(storage: "DataStorage", backend: str, path: str | None) -> None:
    """Observe the start of an acquisition: its storage exists, but no frame has arrived yet.

    Parameters
    ----------
    storage : DataStorage
        Use it for reading only. Another thread puts frames at the same time, so do not call ``put``,
        ``finish`` or ``close``.
    backend : str
        Name of the backend, as in the config.
    path : str or None
        Path of the dataset; None if the dataset is in memory.
    """


@hookspec
def exengine_frames_stored(coordinates: "list[DataCoordinates]") -> None:
    """Observe the frames stored since the previous call; called at most a few times per second.

    Parameters
    ----------
    coordinates : list of DataCoordinates
        Coordinates of these frames, in the order in which they were stored. The list is never empty, and
        the observer may modify it. An observer that is slower than the acquisition receives fewer but
        longer lists.
    """


@hookspec
def exengine_acquisition_finished(ledger: "Ledger", status: str, path: str | None) -> None:
    """Observe the end of an acquisition, even if it failed; its dataset is finished but not closed.

    Parameters
    ----------
    ledger : Ledger
        A copy of the ledger, which records every frame.
    status : str
        ``complete``, ``aborted`` or ``failed``; ``incomplete`` if the end could not be recorded.
    path : str or None
        Path of the dataset; None if the dataset was in memory.
    """


@hookspec
def exengine_docs_sections(name: str, cls: type) -> list[tuple[str, str]]:  # type: ignore[empty-body]
    """Return extra sections for a plugin's page in the HTML documentation.

    Parameters
    ----------
    name : str
        Name of the backend or frame source.
    cls : type
        Class of the plugin.

    Returns
    -------
    list of (str, str)
        Title and reStructuredText of each section; an empty list adds no sections. Underline headings
        inside the text with ``-``.
    """


def checked_sections(returned: Any) -> list[tuple[str, str]]:
    """Check and return the sections returned by an implementation of :func:`exengine_docs_sections`.

    Raises
    ------
    TypeError
        If the implementation returned anything other than a list of sections or None. None counts as an
        empty list.
    """
    sections = []
    for pair in returned or ():
        title, text = pair if isinstance(pair, (tuple, list)) and len(pair) == 2 else (None, None)
        if not isinstance(title, str) or not isinstance(text, str):
            raise TypeError(
                f"the implementation must return a list of (title, text), but its list contains {pair!r:.60}"
            )
        sections.append((title, text))
    return sections
