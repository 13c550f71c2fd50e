"""The hooks: what ExEngine tells observers, and what it asks extensions; with the marker for them.

Each function below is a specification; its name and its parameters are the contract, and an
implementation may leave out parameters that it does not use. Implementations are functions of the
same name, marked with :data:`exengine.hookimpl`, in a module or an object that is registered under
the entry-point group ``exengine.hooks``. Who calls them, and what happens when one raises, is in
:mod:`exengine.kernel.registry.hooks`.
"""

from typing import TYPE_CHECKING

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
    """See that an acquisition has made its storage; frames are about to come.

    Parameters
    ----------
    storage : DataStorage
        To look at. Another thread puts frames meanwhile: neither put, finish nor close it.
    backend : str
        The name in the config.
    path : str or None
        Where the dataset lies; None for one that is in memory.
    """


@hookspec
def exengine_frames_stored(coordinates: "list[DataCoordinates]") -> None:
    """See which frames were stored since the last call; it comes a few times per second at most.

    Parameters
    ----------
    coordinates : list of DataCoordinates
        Of these frames, in the order in which they were stored; never empty. The list is the
        observer's own. An observer that is slower than the acquisition gets fewer, longer lists.
    """


@hookspec
def exengine_acquisition_finished(ledger: "Ledger", status: str, path: str | None) -> None:
    """See how an acquisition has ended, well or not; its dataset is finished, and not yet closed.

    Parameters
    ----------
    ledger : Ledger
        What became of every frame; a copy.
    status : str
        ``complete``, ``aborted`` or ``failed``; ``incomplete`` where not even its end could be written.
    path : str or None
        Where the dataset lies; None for one that was in memory.
    """


@hookspec
def exengine_docs_sections(name: str, cls: type) -> list[tuple[str, str]]:  # type: ignore[empty-body]
    """Return what else should stand on the page of a plugin in the HTML documentation.

    Parameters
    ----------
    name : str
        Of the backend or the frame source.
    cls : type
        Its class.

    Returns
    -------
    list of (str, str)
        Title and reStructuredText of each section; an empty list for none. Headings inside are
        underlined with ``-``.
    """
