"""A sample of the planted faults, each with the test of the kit that finds it."""

import ast
import random
import sys
from pathlib import Path

import pytest

SEED, COUNT = 20_261, 8


def quick_faults():
    """Return the names of the faults that the quick kit finds, from the source, which cannot be imported yet."""
    found = []
    for node in ast.parse(Path(__file__).with_name("faults.py").read_text(encoding="utf-8")).body:
        calls = node.decorator_list if isinstance(node, ast.ClassDef) else []
        calls = [call for call in calls if call.func.id == "fault"]
        found += [node.name for call in calls if "thorough" not in {word.arg for word in call.keywords}]
    return found


QUICK = quick_faults()


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
    assert [cls.__name__ for cls, fault in FAULTS.items() if not fault.thorough] == QUICK
    assert len(QUICK) >= planted.LEAST_QUICK
    assert all(kinds.count(kind) >= 3 for kind in set(kinds))


@pytest.mark.parametrize("name", random.Random(SEED).sample(QUICK, COUNT))
def test_the_kit_finds_a_sample_of_the_faults(name, planted, tmp_path):
    import faults

    found = planted.examine(name, tmp_path, getattr(faults, name), own_tests=True)
    assert planted.faults_of([found], times=False, all_of_them=False) == []
