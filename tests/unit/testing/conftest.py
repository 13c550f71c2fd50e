"""The backends of ``broken_backends.py``, installed for a test, and what the kit says of one of them."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from exengine.kernel.registry import plugins
from exengine.testing.conformance import StorageConformance
from exengine.testing.kit.run import judge
from exengine.testing.promises import marks_of
from exengine.testing.results import make_results
from exengine.testing.subject import Subject

SOURCE = Path(__file__).parents[2] / "backends" / "broken_backends.py"


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    """Return the module with all backends, which a made-up distribution registers."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(SOURCE, site)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        loaded = importlib.import_module("broken_backends")
        classes = {cls.__name__: cls for cls in (loaded.Plain, loaded.Disk, *loaded.FAULTS)}
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
    """Return what runs the tests of the kit that are about some labels or codes, and gives the results."""

    def run(name, *wanted, without=()):
        cls = plugins.BACKENDS.load(name.lower())
        reports = []
        for test in [test for test in dir(StorageConformance) if test.startswith("test_")]:
            function = getattr(StorageConformance, test)
            labels, code = marks_of(function)
            if (wanted and not {*labels, code} & set(wanted)) or test in without:
                continue
            folder = tmp_path / f"{name}-{test}"[:100]
            folder.mkdir()
            subject = Subject(cls.create, cls, folder, name.lower(), {})
            error = None
            try:
                function(StorageConformance(), subject)
            except (Exception, pytest.skip.Exception) as raised:
                error = raised
            finally:
                subject.close_all()
            reports.append(judge(test, (labels, code), error, subject.not_promised_by))
        return make_results(name, reports)

    return run
