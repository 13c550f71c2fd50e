"""Code, pickles, datasets and plugins of before go on working: names have their addresses, files their readers."""

import base64
import importlib
import json
import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.kernel.registry import names

OF_0_4 = {
    "exengine.data": ("DataCoordinates", "DataCoordinatesIterator", "DataHandler"),
    "exengine.notifications": ("DataStoredNotification", "NotificationCategory"),
    "exengine.base_classes": ("DataStorage",),
    "exengine.kernel.data_coords": ("DataCoordinates", "DataCoordinatesIterator"),
    "exengine.kernel.data_handler": ("DataHandler",),
    "exengine.kernel.data_storage_base": ("DataStorage",),
    "exengine.storage_backends.ndtiff_and_ndram": ("NDTiffStorage", "NDRAMStorage"),
    "exengine.storage_backends.ndtiff_and_ndram.NDTiffandRAM": ("NDTiffStorage", "NDRAMStorage"),
}
"""The import paths of ExEngine 0.4.0's storage part."""

OF_1_0 = {
    "exengine": (
        *("Acquisition", "DataCoordinates", "DataCoordinatesIterator", "DataHandler", "DataStorage"),
        *("DatasetReader", "DatasetStatus", "ExEngineError", "FrameSource", "IndexedStorage", "Ledger"),
        *("LostFrame", "ManagedStorage", "RecoverReport", "SourcePlan", "StorageCapabilities"),
        *("VerifyReport", "acquire", "backends", "errors", "hookimpl", "open_dataset", "open_storage"),
        *("recover", "sources", "verify", "__version__"),
    ),
    "exengine.base_classes": (
        *("DataStorage", "DatasetReader", "FrameSource", "IndexedStorage", "ManagedStorage"),
        *("SourcePlan", "StorageCapabilities"),
    ),
    "exengine.errors": ("ExEngineError", "CoordinatesNotFoundError", "StorageFailedError", "SourceError"),
    "exengine.testing": ("StorageConformance", "read_results", "run_conformance"),
    "exengine.kernel.records": ("PluginRecord",),
    "exengine.kernel.errors": ("ExEngineError",),
    "exengine.sphinxext": ("setup",),
    "exengine.cli.main": ("main",),
    "exengine_ndstorage": ("NDTiffStorage", "NDRAMStorage"),
    "exengine_ndstorage.ndtiff": ("NDTiffStorage",),
    "exengine_ndstorage.ndram": ("NDRAMStorage",),
    "exengine_micromanager": ("MicroManagerSource",),
    "exengine.storage_backends.ndtiff": ("NDTiffStorage",),
    "exengine.storage_backends.ndram": ("NDRAMStorage",),
    "exengine.frame_sources.simulated": ("SimulatedSource",),
}
"""The documented names of version 1.0 before its modules moved."""

OF_THE_TEMPLATE = {
    "exengine.kernel.contract": ("check_class", "exengine.testing"),
    "exengine.kernel.coordinate_index": ("CoordinateIndex", "exengine.base_classes"),
    "exengine.kernel.manifest": ("read_manifest", "exengine.base_classes"),
    "exengine.kernel.platform": ("open_regular", "exengine.base_classes"),
}
"""The import paths that the first template of a plugin wrote: name, and the door that has it now."""

PICKLES = json.loads(Path(__file__).with_name("pickles_before.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for table in (OF_0_4, OF_1_0) for module, names in table.items() for name in names],
)
def test_a_documented_name_is_imported_from_where_it_was(module, name):
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("module", OF_THE_TEMPLATE)
def test_a_path_of_the_first_template_warns_and_names_the_door(module, monkeypatch):
    name, door = OF_THE_TEMPLATE[module]
    monkeypatch.delitem(importlib.sys.modules, module, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{module} has moved; import from {door} instead"):
        moved = importlib.import_module(module)
    assert getattr(moved, name) is getattr(importlib.import_module(door), name)


def test_a_module_that_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("exengine.kernel.nonsense")


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_made_before_loads(name):
    loaded = pickle.loads(base64.b64decode(PICKLES[name]))
    expected = {
        "coordinates": exengine.DataCoordinates(time=5, channel="DAPI", z=3),
        "status": exengine.DatasetStatus.COMPLETE,
        "capabilities": exengine.StorageCapabilities(persistent=True, dtypes=("uint8",)),
        "lost": exengine.LostFrame({"time": 1}, "CRC"),
    }
    if name in expected:
        assert loaded == expected[name]
    facts = {
        "ledger": lambda: (
            (loaded.offered, loaded.stored, loaded.failed, len(loaded.not_stored)) == (3, 2, 1, 1)
        ),
        "record": lambda: (
            (loaded.name, loaded.distribution, loaded.state) == ("ndtiff", "exengine-ndstorage", "found")
        ),
        "verify": lambda: (loaded.frames, len(loaded.damaged), loaded.ok) == (3, 1, False),
        "recover": lambda: (loaded.source, loaded.frames, loaded.total, loaded.ok) == ("data", 2, 3, False),
        "error": lambda: isinstance(loaded, exengine.errors.CoordinatesExistError) and str(loaded) == "there",
        "plan": lambda: (loaded.frames, loaded.shape, loaded.dtype) == (3, (4, 4), "uint8"),
        "finding": lambda: (loaded.code, loaded.message) == ("EX101", "no class"),
    }
    assert name in expected or facts[name]()


OLD_MANIFEST = {
    "format": "exengine-dataset",
    "format_version": 1,
    "backend": "ndtiff",
    "created": "2026-11-01T10:00:00Z",
    "annotations": {"ledger": {"offered": 3, "stored": 3, "failed": 0}},
}


@pytest.fixture
def old(tmp_path):
    """Make a dataset as earlier releases left it: its manifest does not name its files."""

    def make(status, **more):
        path = tmp_path / "old"
        with exengine.open_storage("ndtiff", path) as storage:
            for number in range(3):
                storage.put({"time": number}, np.full((8, 8), number, np.uint16), {"number": number})
        facts = json.loads((path / "exengine.json").read_text())["facts"]
        content = {
            **OLD_MANIFEST,
            "status": status,
            **({"facts": facts} if status == "complete" else {}),
            **more,
        }
        (path / "exengine.json").write_text(json.dumps(content))
        return path

    return make


def test_a_finished_dataset_of_before_opens_and_verifies_and_can_be_overwritten(old):
    path = old("complete", frames=3)
    with exengine.open_dataset(path) as dataset:
        assert (dataset.status, len(dataset), dataset.manifest.files) == ("complete", 3, None)
    assert exengine.verify(path).ok
    exengine.open_storage("ndtiff", path, if_exists="overwrite").close()
    assert len(exengine.open_dataset(path)) == 0


def test_a_dataset_of_before_whose_writer_died_is_recovered(old, tmp_path):
    report = exengine.recover(old("incomplete"), output=tmp_path / "recovered")
    assert (report.frames, report.ok) == (3, True)
    assert exengine.verify(report.path).ok


def test_every_plugin_of_this_repository_is_offered_to_someone_who_names_it():
    offered = {}
    for project in sorted((Path(__file__).parents[2] / "plugins").glob("*/pyproject.toml")):
        stated = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        for group, stated_names in stated["entry-points"].items():
            offered |= {(name, group): stated["name"] for name in stated_names}
    assert offered == names.PROVIDERS
