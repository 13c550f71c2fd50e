"""The xarray engine ``exengine``: ``xarray.open_dataset(path, engine="exengine")``."""

import os
from collections.abc import Iterable
from typing import Any, ClassVar

from xarray.backends import BackendEntrypoint  # type: ignore[import-not-found, unused-ignore]

from exengine.datasets.opening import open_dataset
from exengine.kernel.storage.manifest import MANIFEST_NAME
from exengine.kernel.storage.xarray_view import to_dataset


class ExEngineEntrypoint(BackendEntrypoint):  # type: ignore[misc, unused-ignore]
    """Opens the datasets of every installed backend."""

    description = "Open datasets in any format that an installed ExEngine backend can read"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = ("filename_or_obj", "drop_variables", "backend")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        backend: str | None = None,
    ) -> Any:
        """Return a Dataset that reads frames lazily; see :meth:`exengine.DataStorage.to_xarray`.

        Parameters
        ----------
        filename_or_obj : path
        drop_variables : str or iterable of str, optional
            The variables and coordinates to leave out.
        backend : str, optional
            As for :func:`exengine.open_dataset`.
        """
        storage = open_dataset(filename_or_obj, backend=backend)
        try:
            dataset = to_dataset(storage)
            dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
            dataset = dataset.drop_vars(dropped, errors="ignore")
        except BaseException:
            storage.close()
            raise
        dataset.set_close(storage.close)
        return dataset

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether a path is a dataset that ExEngine wrote."""
        is_path = isinstance(filename_or_obj, str | os.PathLike)
        return is_path and os.path.isfile(os.path.join(filename_or_obj, MANIFEST_NAME))
