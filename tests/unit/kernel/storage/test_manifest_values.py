"""A manifest that was read: typed, frozen, and read once per opening."""

import os
import pickle

import numpy as np
import pytest

from exengine.datasets.opening import open_dataset
from exengine.kernel.data_storage_base import DatasetStatus
from exengine.kernel.storage.manifest import Manifest, handed_over, read_manifest, write_manifest
from exengine.kernel.system import files

CONTENT = {
    "format": "exengine-dataset",
    "format_version": 1,
    "backend": "disk",
    "status": "aborted",
    "reason": "the user has stopped it",
    "frames": 2,
    "annotations": {"config": {"loops": [1, 2]}},
}


def test_a_manifest_has_the_types_of_python_and_the_values_of_its_file():
    manifest = Manifest(CONTENT)
    assert (manifest.backend, manifest.status, manifest.frames) == ("disk", DatasetStatus.ABORTED, 2)
    assert (manifest.reason, manifest.files, manifest.facts) == ("the user has stopped it", None, {})
    assert dict(manifest) == CONTENT and manifest.get("created") is None


def test_a_manifest_cannot_be_changed_through_what_it_returns():
    manifest = Manifest(CONTENT)
    manifest.annotations["config"]["loops"].append(3)
    manifest["annotations"]["config"]["loops"].append(4)
    assert manifest.annotations == {"config": {"loops": [1, 2]}}
    with pytest.raises(AttributeError, match="cannot be changed"):
        manifest.status = DatasetStatus.COMPLETE


def test_a_manifest_survives_pickling():
    manifest = pickle.loads(pickle.dumps(Manifest(CONTENT)))
    assert dict(manifest) == CONTENT and manifest.status is DatasetStatus.ABORTED


def test_a_manifest_that_is_handed_over_is_returned_once_and_for_its_folder_only(tmp_path):
    write_manifest(str(tmp_path), CONTENT, durable=False)
    handed = read_manifest(tmp_path)
    with handed_over(str(tmp_path), handed):
        assert read_manifest(tmp_path / "other") is None
        assert read_manifest(tmp_path) is handed
        again = read_manifest(tmp_path)
        assert again == handed and again is not handed
    with handed_over(str(tmp_path), handed):
        pass
    assert read_manifest(tmp_path) is not handed


def test_a_manifest_that_was_replaced_after_it_was_read_is_read_again(tmp_path):
    write_manifest(str(tmp_path), CONTENT, durable=False)
    handed = read_manifest(tmp_path)
    write_manifest(str(tmp_path), {**CONTENT, "status": "incomplete"}, durable=False)
    with handed_over(str(tmp_path), handed):
        assert read_manifest(tmp_path).status is DatasetStatus.INCOMPLETE


def test_opening_a_dataset_reads_its_manifest_once(disk_storage, tmp_path, monkeypatch):
    with disk_storage(tmp_path / "data") as storage:
        storage.put({"time": 0}, np.zeros((2, 2)), None)
    opened = []
    real = files.open_regular

    def counting(path, *arguments, **named):
        opened.append(os.path.basename(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(files, "open_regular", counting)
    dataset = open_dataset(tmp_path / "data")
    assert opened.count("exengine.json") == 1
    assert dataset.manifest.status is dataset.status is DatasetStatus.COMPLETE
