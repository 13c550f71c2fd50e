"""A sample of the planted faults, each with the test of the kit that finds it."""

import random
import sys
from pathlib import Path

import pytest

SEED, COUNT = 20_261, 8


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return the runner, with the faults installed as backends."""
    from exengine.kernel.registry import plugins

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        import planted

        planted.install(tmp_path_factory.mktemp("site"))
        plugins.BACKENDS.refresh()
        yield planted
        for name in ("planted", "faults", "slabs"):
            sys.modules.pop(name, None)
    plugins.BACKENDS.refresh()


def test_there_are_enough_faults_of_each_kind(planted):
    from faults import FAULTS

    kinds = [fault.kind for fault in FAULTS.values()]
    assert len(kinds) >= planted.LEAST_FAULTS
    assert sum(not fault.thorough for fault in FAULTS.values()) >= planted.LEAST_QUICK
    assert all(kinds.count(kind) >= 3 for kind in set(kinds))


def test_the_kit_finds_a_sample_of_the_faults(planted, tmp_path):
    from faults import FAULTS

    quick = [cls for cls, fault in FAULTS.items() if not fault.thorough]
    chosen = random.Random(SEED).sample(quick, COUNT)
    found = [planted.examine(cls.__name__, tmp_path, cls, own_tests=True) for cls in chosen]
    assert planted.faults_of(found, times=False, all_of_them=False) == []
