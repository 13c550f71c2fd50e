"""What the plan shows to be impossible is found before anything is created or overwritten (S3)."""

import dataclasses
import os

import pytest

from exengine.acquisition import run as acquisition_module
from exengine.acquisition import space
from exengine.acquisition.run import Acquisition
from exengine.kernel.errors import (
    ConfigError,
    CoordinatesError,
    DatasetAccessError,
    ExEngineError,
    StorageFullError,
    UnsupportedDataError,
)
from exengine.kernel.frame_source_base import FrameSource, SourcePlan
from exengine.kernel.system import memory

pytest.importorskip("exengine_ndstorage", reason="the plans are those for ndtiff and ndram")
MIXED = [{"x": 0, "y": 0, "name": "A1"}, {"x": 10, "y": 0}]


def config(backend, path=None, sequence=None, options=None, **storage):
    return {
        "storage": {"backend": backend, **({"path": str(path)} if path else {}), **storage},
        "source": {"name": "simulated", "options": {"width": 64, "height": 48, **(options or {})}},
        "sequence": sequence or {"time_plan": {"interval": 0, "loops": 3}},
    }


def test_coordinates_that_the_backend_does_not_take_are_refused_and_the_old_dataset_stays(tmp_path):
    path = tmp_path / "data"
    with Acquisition(config("ndtiff", path)) as run:
        run.run()
    before = {name: (path / name).read_bytes() for name in os.listdir(path)}
    with pytest.raises(CoordinatesError, match="position.*'A1'|'position'"):
        Acquisition(config("ndtiff", path, {"stage_positions": MIXED}, if_exists="overwrite"))
    assert {name: (path / name).read_bytes() for name in os.listdir(path)} == before


def test_the_same_coordinates_go_where_the_backend_takes_them():
    with Acquisition(config("ndram", sequence={"stage_positions": MIXED})) as run:
        assert run.run().stored == 2


class Planned(FrameSource):
    """A source that says what it will give, and gives nothing."""

    plan = SourcePlan()

    def prepare(self, sequence, /):
        return self.plan

    def run(self, sink, /):
        return


@pytest.mark.parametrize(
    ("layouts", "refused"),
    [
        ((((4, 4), "uint8"), ((4, 4, 3), "uint16")), UnsupportedDataError),
        ((((4, 4), "uint8"), ((4, 4), "uint32")), UnsupportedDataError),
        ((((4, 4), "uint8"), ((4, 4, 3), "uint8")), None),
        ((((100_000, 100_000), "uint8"),), UnsupportedDataError),
    ],
)
def test_shape_and_dtype_are_checked_together_for_every_layout(tmp_path, monkeypatch, layouts, refused):
    monkeypatch.setattr(acquisition_module, "_make_source", lambda config: Planned())
    monkeypatch.setattr(Planned, "plan", SourcePlan(layouts=layouts))
    if refused is None:
        Acquisition(config("ndtiff", tmp_path / "data")).close()
        return
    with pytest.raises(refused):
        Acquisition(config("ndtiff", tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_more_memory_than_there_is_is_refused_and_a_setting_overrides_it(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    with pytest.raises(StorageFullError, match=r"kB of memory.*available.*storage\.check_space"):
        Acquisition(config("ndram"))
    with Acquisition(config("ndram", check_space=False)) as run:
        assert run.run().stored == 3


def test_the_bound_of_the_backend_is_known_before_the_run():
    with pytest.raises(StorageFullError, match="max_bytes"):
        Acquisition(
            config("ndram", options=None)
            | {"storage": {"backend": "ndram", "options": {"max_bytes": 10_000}}}
        )


@pytest.mark.parametrize("value", ["false", "no", False])
def test_the_setting_also_overrides_the_space_on_the_disk(tmp_path, monkeypatch, value):
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: type("u", (), {"free": 10}))
    with pytest.raises(DatasetAccessError, match=r"storage\.check_space"):
        Acquisition(config("ndtiff", tmp_path / "data"))
    Acquisition(config("ndtiff", tmp_path / "data", check_space=value)).close()


def test_what_is_checked_beforehand_is_what_put_refuses(tmp_path):
    import numpy as np

    from exengine_ndstorage.ndtiff import NDTiffStorage

    for number, coordinates in enumerate(
        ([{"a": 1}, {"a": "x"}], [{"a": 2**31}], [{"a": -(2**31) - 1}], [{"self": 1}], [{"a" * 9000: 1}],
         [{f"a{n}": 0 for n in range(200)}], [{"a": -1, "b": "µ"}]),
    ):  # fmt: skip

        def beforehand(coordinates=coordinates):
            NDTiffStorage.check_plan([((4, 4), "uint8")], coordinates)

        def put(coordinates=coordinates, number=number):
            with NDTiffStorage(tmp_path / str(number)) as storage:
                for one in coordinates:
                    storage.put(one, np.zeros((4, 4), "uint8"), {})

        outcomes = []
        for action in (beforehand, put):
            try:
                action()
                outcomes.append(None)
            except ExEngineError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1], coordinates


def test_a_url_is_not_a_path_of_a_backend_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="s3://bucket/x.*path of a folder"):
        Acquisition(config("ndtiff", "s3://bucket/x"))
    assert os.listdir(tmp_path) == []


def test_a_dataset_in_the_home_folder_is_written_and_opened_by_its_short_path(tmp_path, monkeypatch):
    import exengine

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with Acquisition(config("ndtiff", "~/data")) as run:
        run.run()
    assert len(exengine.open_dataset("~/data")) == 3
    assert os.listdir(tmp_path) == ["data"]


def test_axes_are_in_the_order_of_the_array_before_and_after_reopening(tmp_path):
    import numpy as np

    import exengine

    storage = exengine.open_storage("ndtiff", tmp_path / "data")
    for z in (0, -1, 1, -2, 2):
        for name in ("B", "A"):
            storage.put({"z": z, "where": name}, np.full((2, 2), z + 10, "uint8"), {})
    expected = {"z": [-2, -1, 0, 1, 2], "where": ["B", "A"]}
    assert storage.axes == expected
    storage.finish()
    storage.close()
    with exengine.open_dataset(tmp_path / "data") as dataset:
        assert dataset.axes == expected
        array = dataset.as_array()
        assert [int(array[n, 0, 0, 0]) for n in range(5)] == [z + 10 for z in dataset.axes["z"]]


@pytest.mark.parametrize(
    ("planned", "message"),
    [
        ([{"time": 0}, {"time": 1, "z": 0}], "the same axes: the first had time, but this one has time, z"),
        ([{"time": 0, "channel": "a", "z": 0}], "limits the number of axes to 2"),
        ([{"time": 0, "z": 0}, {"time": 1, "z": 0}], None),
    ],
)
def test_planned_axes_that_the_backend_does_not_accept_are_refused(tmp_path, monkeypatch, planned, message):
    from exengine.base_classes import DataCoordinates
    from exengine_ndstorage.ndtiff import NDTiffStorage

    limited = dataclasses.replace(NDTiffStorage.capabilities, same_axes=True, most_axes=2)
    monkeypatch.setattr(NDTiffStorage, "capabilities_for", classmethod(lambda cls, *_: limited))
    monkeypatch.setattr(acquisition_module, "_make_source", lambda config: Planned())
    plan = SourcePlan(coordinates=lambda: map(DataCoordinates, planned))
    monkeypatch.setattr(Planned, "plan", plan)
    if message is None:
        Acquisition(config("ndtiff", tmp_path / "data")).close()
        return
    with pytest.raises(CoordinatesError, match=message):
        Acquisition(config("ndtiff", tmp_path / "data"))
    assert not (tmp_path / "data").exists()
