"""Datasets are made and opened: what is at the path, which backend, and nothing destroyed."""

import dataclasses
import json
import os

import numpy as np
import pytest

from exengine.datasets.creation import StoragePlan, open_storage
from exengine.datasets.opening import open_dataset
from exengine.kernel.errors import (
    ConfigError,
    ContractError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    DatasetLockedError,
    DatasetNotFoundError,
    OptionError,
    PluginBrokenError,
    PluginError,
    PluginNotFoundError,
    UnsupportedOperationError,
)
from exengine.kernel.storage import manifest
from exengine.kernel.system import files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def make_dataset(path, value=1, **options):
    with open_storage("disk", path, **options) as storage:
        storage.put({"time": 0}, np.full((3, 4), value, np.uint8), {"value": value})
        return storage.path


def value_at(path):
    with open_dataset(path) as dataset:
        return int(dataset.get_data({"time": 0})[0, 0])


def tree(folder):
    """Return every file below a folder, with its content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# -- making --------------------------------------------------------------------------------------


def test_a_backend_that_keeps_nothing_needs_no_path(installed):
    storage = open_storage("memory", gain=3)
    assert (type(storage).__name__, storage.gain) == ("MemoryStorage", 3)


def test_a_path_is_set_aside_where_the_backend_has_no_use_for_it(installed, path):
    assert open_storage("memory", path).frames == {}
    assert not path.exists()


def test_a_persistent_backend_makes_its_dataset_at_the_path_exactly(installed, path):
    assert make_dataset(path / "below" / "it") == os.path.realpath(path / "below" / "it")
    assert os.listdir(path) == ["below"]


def test_a_persistent_backend_without_a_path_is_refused(installed):
    for path in (None, ""):
        with pytest.raises(
            ConfigError,
            match=r"backend 'disk' writes to disk and needs a path; set storage\.path, or pass --path",
        ):
            open_storage("disk", path)


def test_without_a_backend_the_installed_ones_are_named(installed):
    with pytest.raises(ConfigError, match=r"no backend is selected; .* Installed: disk, memory"):
        open_storage()


def test_an_unknown_backend_is_refused_with_a_near_one_and_nothing_is_written(installed, path):
    with pytest.raises(PluginNotFoundError, match="did you mean 'disk'"):
        open_storage("disc", path)
    assert not path.exists()


def test_wrong_options_are_refused_and_nothing_is_written(installed, path):
    for options in ({"fail_at": "often"}, {"fail_it": 1}):
        with pytest.raises(OptionError, match="fail_at"):
            open_storage("disk", path / "below", **options)
    assert not path.exists()


def test_the_environment_and_the_users_folder_do_not_touch_what_python_asks_for(installed, monkeypatch):
    monkeypatch.setenv("EXENGINE_STORAGE__BACKEND", "disk")
    monkeypatch.setenv("EXENGINE_STORAGE__OPTIONS__GAIN", "7")
    assert open_storage("memory").gain == 1
    monkeypatch.setenv("EXENGINE_NONSENSE__X", "1")
    assert open_storage("memory").gain == 1


def test_a_config_says_all_of_it(installed, tmp_path, path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text(f"storage: {{backend: memory, path: {path}, options: {{gain: 4}}}}")
    assert open_storage(config=file).gain == 4
    assert open_storage(config={"storage": {"backend": "memory", "options": {"gain": 5}}}).gain == 5
    monkeypatch.setenv("EXENGINE_STORAGE__OPTIONS__GAIN", "6")
    assert open_storage(config=file).gain == 6


@pytest.mark.parametrize("more", [("memory",), ("memory", "path")])
def test_a_config_and_a_backend_at_once_are_refused(installed, more):
    with pytest.raises(ConfigError, match="either a config, or a backend"):
        open_storage(*more, config={"storage": {"backend": "memory"}})
    with pytest.raises(ConfigError, match="either a config, or a backend"):
        open_storage(config={"storage": {"backend": "memory"}}, gain=1)
    with pytest.raises(ConfigError, match="either a config, or a backend"):
        open_storage(config={"storage": {"backend": "memory"}}, if_exists="number")


def test_the_plan_knows_everything_and_makes_nothing(installed, path):
    from exengine.config.layers import resolve

    plan = StoragePlan.from_config(
        resolve({"storage": {"backend": "disk", "path": path, "options": {"fail_at": 2}}})
    )
    assert (plan.name, plan.path, plan.options, plan.if_exists) == (
        "disk",
        str(path),
        {"fail_at": 2},
        "error",
    )
    assert plan.takes("fail_at") and not plan.takes("path")
    assert not path.exists()


# -- what is at the path -------------------------------------------------------------------------


@pytest.mark.parametrize("if_exists", ["error", "number", "overwrite"])
def test_an_empty_folder_is_taken(installed, path, if_exists):
    path.mkdir()
    assert make_dataset(path, if_exists=if_exists) == os.path.realpath(path)


def test_a_dataset_a_file_and_a_folder_with_files_are_refused_and_stay(installed, tmp_path):
    make_dataset(tmp_path / "dataset")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path / "folder"), tree(tmp_path / "dataset")
    for name in ("dataset", "file", "folder", "dangling"):
        with pytest.raises(DatasetExistsError, match="already exists") as info:
            open_storage("disk", tmp_path / name)
        assert isinstance(info.value, FileExistsError)
    assert (tree(tmp_path / "folder"), tree(tmp_path / "dataset")) == before
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "nowhere").exists()


def test_an_unknown_way_to_go_on_is_refused(installed, path):
    with pytest.raises(ConfigError, match="the allowed values are error, number, overwrite"):
        open_storage("disk", path, if_exists="replace")


def test_numbers_count_up_and_the_path_is_reported(installed, path):
    paths = [make_dataset(path, value, if_exists="number") for value in range(4)]
    assert [os.path.basename(each) for each in paths] == ["data", "data_1", "data_2", "data_3"]
    assert [value_at(each) for each in paths] == [0, 1, 2, 3]


def test_numbers_come_before_the_suffix_of_the_format(installed, tmp_path):
    paths = [make_dataset(tmp_path / "data.disk", if_exists="number") for _ in range(2)]
    assert [os.path.basename(each) for each in paths] == ["data.disk", "data_1.disk"]


def test_numbers_pass_over_a_dataset_that_is_being_written(installed, path):
    with open_storage("disk", path), open_storage("disk", path, if_exists="number") as second:
        assert os.path.basename(second.path) == "data_1"


def test_numbers_do_not_hide_that_the_folder_cannot_be_used(installed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetAccessError):
        open_storage("disk", tmp_path / "file" / "data", if_exists="number")


# -- overwriting ---------------------------------------------------------------------------------


def test_overwriting_replaces_a_dataset_and_leaves_nothing_of_it(installed, path):
    with open_storage("disk", path) as storage:
        for time in range(3):
            storage.put({"time": time}, np.ones((3, 4), np.uint8), {})
    make_dataset(path, 2, if_exists="overwrite")
    assert value_at(path) == 2
    assert sorted(os.listdir(path)) == ["0.json", "0.npy", "exengine.json", "exengine.lock"]
    assert os.listdir(path.parent).count("data") == 1
    assert [name for name in os.listdir(path.parent) if name.startswith(".")] == []


def test_overwriting_where_nothing_is_makes_a_dataset(installed, path):
    make_dataset(path, 1, if_exists="overwrite")
    assert value_at(path) == 1


def test_overwriting_through_a_link_replaces_what_it_leads_to(installed, tmp_path, path):
    make_dataset(path, 1)
    (tmp_path / "link").symlink_to(path)
    make_dataset(tmp_path / "link", 2, if_exists="overwrite")
    assert value_at(path) == value_at(tmp_path / "link") == 2


def test_what_is_no_dataset_is_never_overwritten(installed, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, why in (("folder", "has no manifest exengine.json"), ("file", "the path is a file")):
        with pytest.raises(DatasetExistsError, match=f"{name} was not deleted: .*{why}"):
            open_storage("disk", tmp_path / name, if_exists="overwrite")
    assert tree(tmp_path)["folder/thesis.txt"] == tree(tmp_path)["file"] == b"mine"


def test_a_dataset_that_holds_another_one_is_not_overwritten(installed, path):
    make_dataset(path, 1)
    make_dataset(path / "analysis" / "second", 2)
    before = tree(path)
    with pytest.raises(
        DatasetExistsError,
        match="was not deleted: the folder contains another dataset, .*analysis.second, which is not",
    ):
        open_storage("disk", path, if_exists="overwrite")
    assert tree(path) == before


def test_a_dataset_that_is_being_written_is_not_overwritten(installed, path):
    with open_storage("disk", path) as storage:
        storage.put({"time": 0}, np.ones((2, 2)), {})
        with pytest.raises(DatasetLockedError, match="being written"):
            open_storage("disk", path, if_exists="overwrite")
        storage.put({"time": 1}, np.ones((2, 2)), {})
    assert len(open_dataset(path)) == 2


def test_the_old_dataset_comes_back_when_the_new_one_cannot_be_made(installed, path, monkeypatch):
    make_dataset(path, 1)
    before = tree(path)

    def create(*_, **__):
        raise DatasetAccessError("not today")

    monkeypatch.setattr(installed.load("disk"), "create", create)
    with pytest.raises(DatasetAccessError, match="not today"):
        open_storage("disk", path, if_exists="overwrite")
    monkeypatch.undo()
    assert tree(path) == before
    assert os.listdir(path.parent).count("data") == 1
    assert [name for name in os.listdir(path.parent) if name.startswith(".data")] == []


@pytest.mark.parametrize("frames", [0, 1])
def test_the_old_dataset_comes_back_when_the_new_one_fails_after_its_claim(
    frames, installed, path, monkeypatch
):
    make_dataset(path, 3)
    before, cls = tree(path), installed.load("disk")
    real = cls.create

    def create(*place, **options):
        storage = real(*place, **options)
        for time in range(frames):
            storage.put({"time": time}, np.ones((2, 2)), {})
        storage.abort("no room", failed=True)
        storage.close()
        raise DatasetAccessError("not today")

    with monkeypatch.context() as patch:
        patch.setattr(cls, "create", create)
        with pytest.raises(DatasetAccessError, match="not today") as caught:
            open_storage("disk", path, if_exists="overwrite")
    aside = [path.parent / name for name in os.listdir(path.parent) if ".replaced-" in name]
    if frames:  # nobody deletes them, and the error says where the old ones are
        assert len(open_dataset(path)) == 1 and tree(aside[0]) == before
        assert str(aside[0]) in caught.value.__notes__[0]
    else:
        assert tree(path) == before and aside == []


def test_a_new_dataset_stands_also_when_the_old_one_cannot_be_deleted(installed, path, monkeypatch):
    make_dataset(path, 3)

    def unlink(name, **_):
        raise PermissionError(13, "Permission denied", name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        with pytest.warns(UserWarning, match=r"could not be deleted and is now at .*\.replaced-"):
            storage = open_storage("disk", path, if_exists="overwrite")
    storage.put({"time": 0}, np.ones((2, 2)), {})
    storage.finish()
    storage.close()
    assert (len(open_dataset(path)), open_dataset(path).status) == (1, "complete")


def test_a_dataset_that_was_opened_by_a_relative_path_stays_open_in_another_folder(
    installed, path, tmp_path, monkeypatch
):
    make_dataset(path, 2)
    monkeypatch.chdir(path.parent)
    dataset = open_dataset(path.name)
    monkeypatch.chdir(tmp_path.anchor)
    assert dataset.path == str(path) and len(dataset.get_data({"time": 0})) > 0


def test_the_longest_suffix_of_a_format_counts(installed, tmp_path, monkeypatch):
    cls = installed.load("disk")
    monkeypatch.setattr(
        cls, "capabilities", dataclasses.replace(cls.capabilities, path_suffixes=(".ome.disk", ".disk"))
    )
    make_dataset(tmp_path / "a.ome.disk", 1)
    with open_storage("disk", tmp_path / "a.ome.disk", if_exists="number") as storage:
        assert os.path.basename(storage.path) == "a_1.ome.disk"


OVERWRITE = """
import sys, time
import numpy as np
from exengine import open_storage
from exengine.errors import DatasetLockedError

print("ready", flush=True)
sys.stdin.readline()
try:
    storage = open_storage("disk", sys.argv[1], if_exists="overwrite")
except DatasetLockedError:
    print("refused", flush=True)
else:
    storage.put({"time": 0}, np.full((2, 2), int(sys.argv[2]), np.uint16), {})
    print("wrote", flush=True)
    sys.stdin.readline()
    storage.finish()
    storage.close()
"""


def test_of_many_that_overwrite_one_dataset_one_writes_and_keeps_its_place(installed, path, start_python):
    make_dataset(path, 9)
    for _ in range(4):
        children = [start_python(OVERWRITE, path, number) for number in range(4)]
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("\n")
            child.stdin.flush()
        told = [child.stdout.readline().strip() for child in children]
        writer = told.index("wrote")
        assert sorted(told) == ["refused", "refused", "refused", "wrote"]
        children[writer].stdin.write("\n")
        children[writer].stdin.flush()
        assert [child.wait(60) for child in children] == [0] * 4
        assert value_at(path) == writer
        assert [name for name in os.listdir(path.parent) if name.startswith(".data")] == []


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_while_the_old_one_is_moved_brings_it_back(installed, path, monkeypatch, after):
    make_dataset(path, 1)
    before = tree(path)
    rename = files.rename_to_free_name

    def interrupted(old, new, **where):
        monkeypatch.undo()
        if after:
            rename(old, new, **where)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "rename_to_free_name", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_storage("disk", path, if_exists="overwrite")
    assert tree(path) == before
    assert [name for name in os.listdir(path.parent) if name.startswith(".data")] == []


def test_what_was_being_overwritten_when_its_process_was_killed_is_found(installed, path):
    make_dataset(path, 1)
    path.rename(path.parent / ".data.replaced-1-2")
    with pytest.raises(
        DatasetNotFoundError,
        match=r"overwriting it was interrupted, and the old dataset is now at .*\.data\.replaced-1-2",
    ):
        open_dataset(path)


def test_wrong_options_leave_the_old_dataset_alone(installed, path):
    make_dataset(path, 1)
    before = tree(path)
    with pytest.raises(OptionError):
        open_storage("disk", path, if_exists="overwrite", fail_at="often")
    assert tree(path) == before


# -- opening -------------------------------------------------------------------------------------


def test_a_dataset_opens_with_the_backend_that_its_manifest_names(installed, path):
    make_dataset(path, 5)
    dataset = open_dataset(path)
    assert (type(dataset).__name__, dataset.status, len(dataset)) == ("DiskReader", "complete", 1)
    assert value_at(path) == 5 and value_at(str(path)) == 5


def test_opening_writes_nothing(installed, path):
    storage = open_storage("disk", path)
    storage.put({"time": 0}, np.ones((2, 2)), {})
    storage.close()
    before = tree(path)
    times = {name: (path / name).stat().st_mtime_ns for name in os.listdir(path)}
    open_dataset(path).close()
    assert tree(path) == before
    assert {name: (path / name).stat().st_mtime_ns for name in os.listdir(path)} == times


def test_without_a_manifest_the_backends_are_asked(installed, path):
    make_dataset(path, 5)
    (path / manifest.MANIFEST_NAME).unlink()
    assert value_at(path) == 5


def test_the_backend_can_be_named(installed, path):
    make_dataset(path, 5)
    assert type(open_dataset(path, backend="exengine-disk:disk")).__name__ == "DiskReader"
    with pytest.raises(UnsupportedOperationError, match="MemoryStorage cannot open"):
        open_dataset(path, backend="memory")
    with pytest.raises(PluginNotFoundError):
        open_dataset(path, backend="disc")


@pytest.mark.parametrize(
    "fault", ["raise RuntimeError", "raise SystemExit", "return self", "import nowhere", "1 / 0"]
)
def test_a_plugin_that_fails_when_it_is_asked_has_no_say(installed, make_distribution, path, fault):
    import textwrap

    source = textwrap.dedent(
        f"""
        from exengine_memory import MemoryStorage
        class Odd(MemoryStorage):
            '''Be odd.'''
            def __init__(self): ...
            @classmethod
            def can_open(cls, path): {fault}
        """
    )
    make_distribution("aaa-odd", {"aaa-odd": "aaa_odd:Odd"}, source)
    make_distribution("aab-broken", {"aab-broken": "aab_broken:Odd"}, "raise SystemExit")
    installed.refresh()
    make_dataset(path, 5)
    (path / manifest.MANIFEST_NAME).unlink()
    assert value_at(path) == 5


def test_a_dataset_of_a_class_without_a_name_is_found_by_the_class(installed, path, monkeypatch):
    monkeypatch.setattr(installed.load("disk"), "backend_name", "")
    make_dataset(path, 5)
    assert manifest.read_manifest(path)["backend"] == "exengine_disk:DiskStorage"
    assert value_at(path) == 5


def test_a_manifest_that_names_a_module_imports_nothing(installed, path, make_distribution):
    make_dataset(path)
    make_distribution("evil", None, "raise AssertionError('it was imported')")
    content = json.loads((path / "exengine.json").read_text())
    (path / "exengine.json").write_text(json.dumps({**content, "backend": "evil:Store"}))
    with pytest.raises(
        PluginError,
        match=r"was written by the backend 'evil:Store', which cannot be used: no backend is called",
    ):
        open_dataset(path)


def test_a_dataset_of_a_backend_that_is_not_installed_says_which(installed, path):
    make_dataset(path)
    content = json.loads((path / "exengine.json").read_text())
    (path / "exengine.json").write_text(json.dumps({**content, "backend": "ndtiff"}))
    with pytest.raises(
        PluginNotFoundError, match=r"data was written by the backend 'ndtiff', which .*exengine-ndstorage"
    ):
        open_dataset(path)


@pytest.mark.parametrize(
    ("source", "error"), [("raise ImportError('no')", PluginBrokenError), ("class Odd: ...", ContractError)]
)
def test_a_dataset_of_a_backend_that_is_broken_says_so(installed, make_distribution, path, source, error):
    make_dataset(path)
    make_distribution("odd", {"odd": "odd:Odd"}, source)
    installed.refresh()
    content = json.loads((path / "exengine.json").read_text())
    (path / "exengine.json").write_text(json.dumps({**content, "backend": "odd"}))
    with pytest.raises(error, match="data was written by the backend 'odd'"):
        open_dataset(path)


def test_nothing_at_the_path_is_answered_with_a_near_name(installed, path):
    make_dataset(path)
    with pytest.raises(DatasetNotFoundError, match="dta does not exist .did you mean 'data'") as info:
        open_dataset(path.parent / "dta")
    assert isinstance(info.value, FileNotFoundError)


@pytest.mark.parametrize("odd", ["nowhere/at/all", "", "a\0b", "x" * 5000])
def test_a_path_that_cannot_be_is_not_found(installed, tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetNotFoundError):
        open_dataset(odd)


def test_what_is_no_dataset_is_answered_with_the_datasets_in_it(installed, path):
    make_dataset(path)
    with pytest.raises(
        DatasetNotFoundError, match=r"no installed backend recognizes .* It contains datasets: data\."
    ):
        open_dataset(path.parent)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": "other"}']
)
def test_a_manifest_that_cannot_be_understood_is_damage(installed, path, content):
    make_dataset(path)
    (path / manifest.MANIFEST_NAME).write_bytes(content)
    with pytest.raises(DatasetDamagedError, match="is not a valid manifest"):
        open_dataset(path)


def test_whatever_a_backend_raises_when_it_opens_becomes_an_error_of_ours(installed, path, monkeypatch):
    make_dataset(path)

    def open_(path):
        raise IndexError("list index out of range")

    monkeypatch.setattr(installed.load("disk"), "open", open_)
    with pytest.raises(
        DatasetDamagedError, match="data cannot be read: IndexError: list index out of range"
    ) as info:
        open_dataset(path)
    assert isinstance(info.value.__cause__, IndexError)
