"""``StorageConformance``: all of the kit's tests for a storage backend.

If you need more control than ``pytest --exengine-backend NAME`` offers, define a subclass in a test file and
give it one fixture::

    import pytest
    from exengine.testing import StorageConformance
    from my_package import MyStorage


    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def storage_factory(self):
            return MyStorage
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from exengine.kernel.data_storage_base import DataStorage
from exengine.kernel.registry import plugins
from exengine.testing.kit.capabilities import HonestCapabilities
from exengine.testing.kit.disk import DiskPromises
from exengine.testing.kit.end import EndPromises
from exengine.testing.kit.errors import ErrorPromises
from exengine.testing.kit.hostile import HostileInput
from exengine.testing.kit.options import OptionPromises
from exengine.testing.kit.overwrite import OverwritePromises
from exengine.testing.kit.processes import LivePromises, ProcessPromises
from exengine.testing.kit.put import PutPromises, simplest_fault
from exengine.testing.kit.read import ReadPromises
from exengine.testing.kit.recover import RecoveryPromises
from exengine.testing.kit.resources import ResourcePromises
from exengine.testing.kit.resume import ResumePromises
from exengine.testing.kit.security import SecurityPromises
from exengine.testing.promises import promise
from exengine.testing.subject import Subject

SIMPLEST = "test_the_simplest_put_stores_a_frame"
"""The test that must pass before any other is run."""


class StorageConformance(
    PutPromises,
    HostileInput,
    ReadPromises,
    EndPromises,
    OptionPromises,
    ErrorPromises,
    DiskPromises,
    OverwritePromises,
    SecurityPromises,
    RecoveryPromises,
    ResumePromises,
    ProcessPromises,
    LivePromises,
    ResourcePromises,
    HonestCapabilities,
):
    """Tests of a storage backend's promises and declared capabilities.

    Attributes
    ----------
    backend : str
        The name of an installed backend. If it is empty, the subclass must define ``storage_factory``.
    options : dict
        The options with which the backend is created.
    variant : str
        The name of one of the backend's ``variants``, whose options are used as well; empty for the defaults.
    """

    backend: ClassVar[str] = ""
    options: ClassVar[dict[str, Any]] = {}
    variant: ClassVar[str] = ""

    @pytest.fixture
    def storage_factory(self) -> Callable[..., DataStorage]:
        """Return a function that creates an empty storage.

        The function is called with the path if the backend is persistent, and without arguments otherwise.
        """
        if not self.backend:
            raise TypeError(
                f"{type(self).__name__} does not specify a backend; set `backend`, or define the fixture "
                "storage_factory"
            )
        cls, options = plugins.BACKENDS.load(self.backend), self._all_options()
        return lambda *place: cls.create(*place, **options)

    @pytest.fixture
    def subject(
        self,
        request: pytest.FixtureRequest,
        storage_factory: Callable[..., DataStorage],
        tmp_path: Path,
    ) -> Iterator[Subject]:
        """Return the backend under test. If it cannot store a single frame, most tests are skipped."""
        if self.backend:
            cls = plugins.BACKENDS.load(self.backend)
        else:
            cls = _class_made_by(storage_factory, tmp_path / "first")
        thorough = bool(request.config.getoption("exengine_thorough", False))
        options = self._all_options()
        subject = Subject(storage_factory, cls, tmp_path, self.backend, options, thorough=thorough)
        subject.has_failed = request.session.testsfailed > 0
        if request.function.__name__ != SIMPLEST and simplest_fault(subject):
            pytest.skip("the simplest put failed")
        yield subject
        subject.close_all()

    def _all_options(self) -> dict[str, Any]:
        if not self.variant:
            return dict(self.options)
        return {**plugins.BACKENDS.load(self.backend).variants[self.variant], **self.options}

    @promise("P1", "P2", "P3", "P4", "P5", "P9", "R1", "R4", "N1", "N4")
    def test_any_sequence_of_calls_does_to_the_storage_what_it_does_to_a_dict(self, subject: Subject) -> None:
        pytest.importorskip(
            "hypothesis", reason="hypothesis is not installed; install it with: pip install 'exengine[test]'"
        )
        from exengine.testing.kit.model import run_model

        # Reducing the sequence can take longer than all other tests, whose findings are simpler.
        run_model(subject, reduce=not subject.has_failed)


def _class_made_by(factory: Callable[..., DataStorage], path: Path) -> type[DataStorage]:
    if isinstance(factory, type):
        return factory
    storage = factory(path) if inspect.signature(factory).parameters else factory()
    storage.close()
    return type(storage)
