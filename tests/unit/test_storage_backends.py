"""``from exengine.storage_backends.<name> import SomeStorage``: the plugin's own module, under its known path."""

import importlib
import pickle
import sys

import pytest

import exengine.storage_backends

PACKAGE = "exengine.storage_backends"


@pytest.fixture(autouse=True)
def _nothing_was_imported_before(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_alias_is_the_module_of_the_plugin(installed):
    from exengine.storage_backends.memory import MemoryStorage

    assert sys.modules[f"{PACKAGE}.memory"] is sys.modules["exengine_memory"]
    assert MemoryStorage is installed.load("memory")
    assert MemoryStorage.__module__ == "exengine_memory"


def test_both_imports_give_one_module_in_either_order(installed):
    import exengine_disk

    assert importlib.import_module(f"{PACKAGE}.disk") is exengine_disk
    assert importlib.import_module(f"{PACKAGE}.memory") is importlib.import_module("exengine_memory")


def test_the_module_keeps_its_own_name(installed):
    module = importlib.import_module(f"{PACKAGE}.memory")
    assert module.__name__ == "exengine_memory" and module.__spec__.name == "exengine_memory"


def test_an_object_of_an_aliased_class_can_be_pickled(installed):
    from exengine.storage_backends.memory import MemoryStorage

    copy = pickle.loads(pickle.dumps(MemoryStorage(gain=3)))
    assert type(copy) is MemoryStorage and copy.gain == 3


def test_names_with_dashes_are_written_with_underscores(installed, make_distribution):
    make_distribution("my-store", {"my-store": "my_store:X"}, "X = 5")
    installed.refresh()
    assert importlib.import_module(f"{PACKAGE}.my_store").X == 5


def test_a_submodule_is_the_same_through_the_alias(installed, make_distribution):
    make_distribution("pkg", {"store": "pkg:X"}, "X = 5", module="pkg/__init__")
    make_distribution("pkg-rest", None, "class Inner: ...", module="pkg/sub")
    installed.refresh()
    by_alias = importlib.import_module(f"{PACKAGE}.store.sub")
    import pkg.sub

    assert by_alias is pkg.sub
    assert by_alias.Inner is pkg.sub.Inner


def test_a_real_package_in_the_folder_comes_first(installed, tmp_path, monkeypatch):
    folder = tmp_path / "by_hand"
    (folder / "memory").mkdir(parents=True)
    (folder / "memory" / "__init__.py").write_text("from .storage import MyStorage\n")
    (folder / "memory" / "storage.py").write_text("class MyStorage: ...\n")
    monkeypatch.setattr(
        exengine.storage_backends, "__path__", [*exengine.storage_backends.__path__, str(folder)]
    )
    from exengine.storage_backends.memory import MyStorage

    assert MyStorage.__module__ == f"{PACKAGE}.memory.storage"


def test_an_unknown_name_is_an_import_error_with_a_near_name(installed):
    with pytest.raises(ModuleNotFoundError, match="did you mean 'memory'") as info:
        importlib.import_module(f"{PACKAGE}.memry")
    assert info.value.name == f"{PACKAGE}.memry"


def test_a_backend_of_ours_that_is_not_installed_is_an_import_error_with_the_way_to_get_it(installed):
    with pytest.raises(ImportError, match=r"pip install \./plugins/exengine-ndstorage"):
        importlib.import_module(f"{PACKAGE}.ndtiff")


def test_a_name_in_conflict_is_an_import_error_that_names_both(installed, make_distribution):
    make_distribution("rival", {"memory": "rival:X"}, "X = 5")
    installed.refresh()
    with pytest.raises(ImportError, match=r"exengine-memory 1.0 and rival 1.0 both register"):
        importlib.import_module(f"{PACKAGE}.memory")


@pytest.mark.parametrize("target", ["no target", "odd"])
def test_a_plugin_with_a_bad_target_is_an_import_error_that_says_why(installed, make_distribution, target):
    make_distribution("odd", {"odd": target})
    installed.refresh()
    with pytest.raises(
        ImportError, match="cannot be imported, because odd is broken: .* is not a valid target"
    ):
        importlib.import_module(f"{PACKAGE}.odd")


def test_a_plugin_that_fails_at_import_fails_through_the_alias_too(installed, make_distribution):
    make_distribution("odd", {"odd": "odd:X"}, "import a_module_that_does_not_exist")
    installed.refresh()
    for _ in range(2):
        with pytest.raises(ImportError, match="a_module_that_does_not_exist"):
            importlib.import_module(f"{PACKAGE}.odd")
        with pytest.raises(ImportError):
            installed.load("odd")
    assert f"{PACKAGE}.odd" not in sys.modules


def test_an_alias_imports_no_other_plugin(installed, make_distribution):
    make_distribution("odd", {"odd": "odd:X"}, "raise AssertionError('it was imported')")
    installed.refresh()
    importlib.import_module(f"{PACKAGE}.memory")
    assert "exengine_disk" not in sys.modules


def test_the_old_path_of_the_two_backends_says_how_to_get_them(installed):
    with pytest.raises(
        ImportError, match=r"are in the plugin exengine-ndstorage, which cannot be imported: .*pip install"
    ):
        importlib.import_module(f"{PACKAGE}.ndtiff_and_ndram")


def test_the_old_path_of_the_two_backends_leads_to_their_classes(installed, make_distribution):
    make_distribution(
        "exengine-ndstorage",
        {"ndtiff": "fake_nd:NDTiffStorage", "ndram": "fake_nd:NDRAMStorage"},
        "class NDTiffStorage: ...\nclass NDRAMStorage: ...",
        module="fake_nd",
    )
    installed.refresh()
    old = importlib.import_module(f"{PACKAGE}.ndtiff_and_ndram")
    older = importlib.import_module(f"{PACKAGE}.ndtiff_and_ndram.NDTiffandRAM")
    fake = sys.modules["fake_nd"]
    assert old.NDTiffStorage is older.NDTiffStorage is fake.NDTiffStorage
    assert old.NDRAMStorage is older.NDRAMStorage is fake.NDRAMStorage


def test_the_finder_stands_at_the_end_and_once():
    finders = [getattr(finder, "__name__", "") for finder in sys.meta_path]
    assert finders.count("_AliasFinder") == 1
    assert finders.index("_AliasFinder") > finders.index("PathFinder")


def test_other_imports_are_no_concern(installed, monkeypatch):
    def find(name):
        raise AssertionError(f"asked for {name}")

    monkeypatch.setattr(installed, "find", find)
    with pytest.raises(ModuleNotFoundError, match="No module named 'a_module_that_does_not_exist'"):
        importlib.import_module("a_module_that_does_not_exist")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{PACKAGE}._private")
