"""Converts several datasets, one after another, into one folder: all of them, or the share of one job."""

import contextlib
import glob
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from exengine.datasets.conversion.cluster import Cluster
from exengine.datasets.conversion.convert import ConvertReport, OnProgress, convert
from exengine.datasets.conversion.units import Units
from exengine.datasets.creation import StoragePlan
from exengine.datasets.opening import reader_class
from exengine.kernel.errors import DatasetNotFoundError, ExEngineError, OptionError, PluginError, message_of
from exengine.kernel.registry import plugins
from exengine.kernel.storage.remote import is_url
from exengine.kernel.system.files import expanded

if TYPE_CHECKING:
    from os import PathLike


@dataclass
class ManyReports:
    """The results of :func:`convert_many`.

    Attributes
    ----------
    done : list of ConvertReport
        One report for each dataset that was converted, in this run or an earlier one.
    failed : list of (source, path, message)
        The datasets that could not be converted.
    skipped : list of str
        The paths that match the pattern, but are not datasets.
    others : int
        The number of matching datasets that are left to the other jobs of a job array.
    """

    done: list[ConvertReport] = field(default_factory=list)
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    others: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the reports as a JSON-serializable dict."""
        return {
            "done": [report.to_dict() for report in self.done],
            "failed": [
                {"source": source, "path": path, "message": text} for source, path, text in self.failed
            ],
            "skipped": self.skipped,
            "others": self.others,
        }


def is_pattern(source: str) -> bool:
    """Return whether a source is a pattern such as ``data/*`` rather than the path of a dataset.

    Examples
    --------
    >>> is_pattern("data/*"), is_pattern("data/timelapse")
    (True, False)
    """
    return not is_url(source) and glob.has_magic(source) and not os.path.lexists(expanded(source))


def convert_many(
    pattern: str,
    folder: "str | PathLike[str]",
    *,
    backend: str,
    options: Mapping[str, Any] | None = None,
    units: Units | None = None,
    dask: str | None = None,
    on_dataset: Callable[[str], OnProgress] | None = None,
    **settings: Any,
) -> ManyReports:
    """Convert every dataset that matches a pattern. A failed conversion does not stop the others.

    Parameters
    ----------
    pattern : str
        A pattern such as ``data/*``. Matching paths that are not datasets are skipped.
    folder : path
        The folder of the results. Each has the name of its source, with the suffix of the backend.
    backend : str
        The name of the backend that writes the results.
    options : mapping, optional
        Options of the backend.
    units : Units, optional
        Convert only the share of one job. The datasets are sorted by their paths; job ``i`` of ``n`` converts
        every ``n``-th dataset, starting with the ``i``-th.
    dask : str, optional
        See :func:`exengine.convert`.
    on_dataset : callable, optional
        Called with the path of each source. Returns the ``on_progress`` for its conversion.
    **settings
        Other arguments of :func:`exengine.convert`.

    Returns
    -------
    ManyReports

    Raises
    ------
    DatasetNotFoundError
        If no dataset matches the pattern.
    OptionError
        If two results would have the same path, or the backend does not accept the options; with ``units``,
        also if a result would match the pattern.
    ClusterError
        If the scheduler cannot be reached.
    """
    found = ManyReports()
    sources = []
    for path in sorted(glob.glob(expanded(pattern))):
        try:
            reader_class(path)
        except DatasetNotFoundError:
            found.skipped.append(path)
            continue
        except ExEngineError:
            pass  # the conversion reports this error
        sources.append(path)
    if not sources:
        raise DatasetNotFoundError(f"no dataset matches {pattern!r:.200}")
    targets = _targets(sources, os.fspath(folder), backend)
    StoragePlan(backend, next(iter(targets)), options=dict(options or {}))  # rejects wrong options early
    if units is not None:
        _refuse_matching(targets, pattern)
        mine = set(units.share_of(sources))
        targets = {target: source for target, source in targets.items() if source in mine}
        found.others = len(sources) - len(targets)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(dask)) if dask is not None and targets else None
        _convert_each(found, targets, on_dataset, backend=backend, options=options, dask=cluster, **settings)
    return found


def _convert_each(
    found: ManyReports,
    targets: Mapping[str, str],
    on_dataset: Callable[[str], OnProgress] | None,
    **settings: Any,
) -> None:
    """Convert datasets, and add a report for each of them."""
    for target, source in targets.items():
        on_progress = None if on_dataset is None else on_dataset(source)
        try:
            report = convert(source, target, on_progress=on_progress, **settings)
        except ExEngineError as error:
            found.failed.append((source, target, message_of(error)))
        else:
            found.done.append(report)


def _refuse_matching(targets: Iterable[str], pattern: str) -> None:
    """Reject results that match the pattern, because they would change the shares of later jobs."""
    matching = os.path.abspath(expanded(pattern))
    for target in targets:
        if PurePath(os.path.abspath(expanded(target))).match(matching):
            raise OptionError(
                f"the result {target} would match {pattern!r:.200}, so jobs that start later would count it "
                "as a source; choose another folder"
            )


def _targets(sources: Iterable[str], folder: str, backend: str) -> dict[str, str]:
    """Return a dict that maps the path of each result to its source."""
    suffixes = plugins.BACKENDS.load(backend).capabilities.path_suffixes
    known = sorted((*_known_suffixes(), *suffixes), key=len, reverse=True)
    targets: dict[str, str] = {}
    for source in sources:
        name = os.path.basename(os.path.normpath(source))
        for suffix in known:
            if name.endswith(suffix) and name != suffix:
                name = name.removesuffix(suffix)
                break
        target = os.path.join(folder, name + (suffixes[0] if suffixes else ""))
        if target in targets:
            raise OptionError(
                f"{targets[target]} and {source} would both be converted to {target}; convert them "
                "separately, or rename one of them"
            )
        targets[target] = source
    return targets


def _known_suffixes() -> set[str]:
    """Return the suffixes of the datasets of all installed backends."""
    found: set[str] = set()
    for name in plugins.backends():
        try:
            found.update(plugins.BACKENDS.load(name).capabilities.path_suffixes)
        except PluginError:
            continue
    return found
