"""The backends of ``broken_backends.py``, installed for a test, and the kit's results for one of them."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from exengine.kernel.registry import plugins
from exengine.testing import reports_of
from exengine.testing.results import make_results

SOURCE = Path(__file__).parents[2] / "backends" / "broken_backends.py"


@pytest.fixture(scope="module")  # one of the backends recognizes everything, which other tests must not see
def module(tmp_path_factory):
    """Return the module with all backends, which a temporary distribution registers."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(SOURCE, site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        loaded = importlib.import_module("broken_backends")
        limited = (loaded.Resuming, loaded.Limited, loaded.WrongVariant, loaded.MisspeltVariant)
        classes = {cls.__name__: cls for cls in (loaded.Plain, loaded.Disk, *limited, *loaded.FAULTS)}
        info = site / "broken_backends-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-backends\nVersion: 2.5\n")
        lines = "".join(f"{name.lower()} = broken_backends:{name}\n" for name in classes)
        (info / "entry_points.txt").write_text(f"[exengine.storage_backends]\n{lines}")
        plugins.BACKENDS.refresh()
        yield loaded
        sys.modules.pop("broken_backends", None)
    plugins.BACKENDS.refresh()


@pytest.fixture
def results_of(module, tmp_path):
    """Return a function that runs the tests of the kit for some labels or codes, and returns the results."""

    def run(name, *wanted, without=()):
        cls = plugins.BACKENDS.load(name.lower())
        reports = reports_of(cls, tmp_path, *wanted, name=name.lower(), without=without)
        return make_results(name, list(reports))

    return run
