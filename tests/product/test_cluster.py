"""A dask.distributed cluster of two worker processes: it computes with ``as_array``, and reads for conversions.

The results are the same as without the cluster, also if a worker is killed in the middle.
"""

import contextlib
import json
import sys
import time

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedChannel, SourcePlan
from exengine.cli.main import main
from exengine.datasets.conversion import cluster as clusters
from exengine.datasets.conversion import copy as copying
from exengine.datasets.conversion import source as sources
from exengine.errors import ClusterError, DatasetAccessError, DatasetDamagedError

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
psutil = pytest.importorskip("psutil", reason="it is installed with dask.distributed")

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as running:
        yield running


@pytest.fixture
def small_tasks(monkeypatch):
    monkeypatch.setattr(sources, "_MOST_TASK_FRAMES", 4)


def write(path, backend="ndtiff", times=12):
    """Write frames of two channels, of which every seventh is missing; return them by their coordinates."""
    frames = {}
    with exengine.open_storage(backend, path, summary_metadata={"name": "demo"}) as storage:
        storage.expect(SourcePlan(channels=(PlannedChannel("FITC", "00FF00"), PlannedChannel("DAPI"))))
        for number, (time_, channel, z) in enumerate(np.ndindex(times, 2, 3)):
            if number % 7 != 3:
                y, x = np.indices((32, 48), np.uint16)
                pixels = y * 48 + x + 200 * number
                axes = {"time": time_, "channel": ("FITC", "DAPI")[channel], "z": z}
                storage.put(axes, pixels, {"number": number, "text": "µ"})
                frames[tuple(axes.values())] = pixels
    return frames


def content(path):
    """Return all that a dataset contains."""
    with exengine.open_dataset(path) as dataset:
        frames = [
            (dict(axes), dataset[axes].dtype, dataset[axes].tobytes(), json.dumps(dataset.get_metadata(axes)))
            for axes in dataset
        ]
        return frames, dict(dataset.axes), dataset.summary_metadata, dataset.annotations, dataset.status


def running_workers(cluster):
    """Return the processes of the workers that have not been killed."""
    processes = []
    for nanny in cluster.workers.values():
        if nanny.pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(nanny.pid)
                processes += [process] if process.status() != psutil.STATUS_ZOMBIE else []
    return processes


def kill_one_worker(cluster):
    """Kill a worker; return whether there was one."""
    for process in running_workers(cluster):
        process.kill()
        process.wait(10)
        return True
    return False


# -- computing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["ndtiff", "ome-zarr"])
def test_workers_of_a_cluster_in_other_processes_compute_the_same(cluster, backend, tmp_path):
    frames = write(tmp_path / "data", backend)
    with distributed.Client(cluster), exengine.open_dataset(tmp_path / "data") as storage:
        projection = storage.to_xarray()["image"].max("z").compute()
        assert np.array_equal(projection, storage.as_array(missing=0).max(2).compute())
    assert np.array_equal(projection.sel(time=0, channel="DAPI"), frames[0, "DAPI", 2])


def test_a_worker_that_is_killed_in_the_middle_does_not_change_a_projection(cluster, tmp_path):
    frames = write(tmp_path / "data")

    def slowly(block):  # a function inside another one is sent to the workers by value
        time.sleep(0.02)
        return block

    with distributed.Client(cluster) as client, exengine.open_dataset(tmp_path / "data") as storage:
        array = storage.as_array(missing=0)
        running = client.compute(array.map_blocks(slowly, dtype=array.dtype).max(axis=2))
        while not any(client.processing().values()):
            time.sleep(0.001)
        time.sleep(0.2)
        assert not running.done()
        assert kill_one_worker(cluster)
        projection = running.result(timeout=60)
        channels = storage.axes["channel"]
    for time_, channel in np.ndindex(12, 2):
        stack = [frames.get((time_, channels[channel], z), np.zeros((32, 48))) for z in range(3)]
        assert np.array_equal(projection[time_, channel], np.max(stack, axis=0))


# -- converting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("here", "there"), [("ndtiff", "ome-zarr"), ("hdf5", "ome-tiff")])
def test_workers_read_the_frames_of_a_conversion_with_the_same_result(
    here, there, cluster, small_tasks, tmp_path
):
    suffix = {"hdf5": ".h5", "ome-tiff": ".ome.tif"}
    source = tmp_path / f"source{suffix.get(here, '')}"
    path = tmp_path / f"result{suffix.get(there, '')}"
    write(source, here)
    exengine.convert(source, path, backend=there)
    plain = content(path)
    exengine.convert(source, path, backend=there, if_exists="overwrite", dask=cluster.scheduler_address)
    assert content(path) == plain


def test_the_process_that_converts_reads_no_more_than_the_first_frame(
    cluster, small_tasks, tmp_path, monkeypatch
):
    write(tmp_path / "source")
    with exengine.open_dataset(tmp_path / "source") as storage:
        reader = type(storage)
    read, get_data = [], reader.get_data
    monkeypatch.setattr(
        reader, "get_data", lambda self, axes: (read.append(dict(axes)), get_data(self, axes))[1]
    )
    seen = []
    report = exengine.convert(
        tmp_path / "source",
        tmp_path / "result",
        backend="ndtiff",
        dask=cluster.scheduler_address,
        on_progress=lambda phase, done, total: seen.append((phase, done)),
    )
    assert report.verified and report.frames == 62
    assert {tuple(axes.values()) for axes in read} == {(0, "FITC", 0)}
    for phase in ("checked", "compared"):
        assert [done for each, done in seen if each == phase] == list(range(1, 63))


def test_a_worker_that_is_killed_in_the_middle_does_not_change_a_conversion(
    cluster, small_tasks, tmp_path, monkeypatch
):
    monkeypatch.setattr(copying, "_MOST_FRAMES", 4)
    monkeypatch.setattr(copying, "_POLL_S", 0.001)
    write(tmp_path / "source", times=40)
    plain = tmp_path / "result.ome.zarr"
    exengine.convert(tmp_path / "source", plain, backend="ome-zarr")
    killed = {}

    def kill_once_in_each_phase(phase, done, total):
        if phase not in killed and 0 < done < total // 2:
            killed[phase] = kill_one_worker(cluster)

    expected = content(plain)
    report = exengine.convert(
        tmp_path / "source",
        plain,
        backend="ome-zarr",
        if_exists="overwrite",
        dask=cluster.scheduler_address,
        on_progress=kill_once_in_each_phase,
    )
    assert killed == {"checked": True, "converted": True, "compared": True}
    assert report.verified and content(plain) == expected
    assert exengine.verify(plain).ok


def test_a_damaged_frame_is_named_as_without_a_cluster(cluster, small_tasks, tmp_path):
    frames = write(tmp_path / "source")
    tiff = tmp_path / "source" / "NDTiffStack.tif"
    stored = bytearray(tiff.read_bytes())
    stored[stored.find(frames[7, "DAPI", 1].tobytes())] ^= 1
    tiff.write_bytes(stored)
    messages = []
    for dask in (None, cluster.scheduler_address):
        for verify in (True, False):
            with pytest.raises(
                DatasetDamagedError, match=r"1 of 62 frames .* the first at \{'time': 7"
            ) as error:
                exengine.convert(
                    tmp_path / "source",
                    tmp_path / "out" / "result",
                    backend="ome-zarr",
                    dask=dask,
                    verify=verify,
                )
            messages.append(str(error.value))
            assert not list((tmp_path / "out").iterdir())
    assert len(set(messages)) == 1


def test_an_interrupted_conversion_continues_without_the_cluster(cluster, small_tasks, tmp_path):
    def interrupt(phase, done, total):
        if phase == "converted" and done:
            raise KeyboardInterrupt

    write(tmp_path / "source", times=40)
    settings = {"backend": "ome-zarr"}
    path = tmp_path / "result.ome.zarr"
    with pytest.raises(KeyboardInterrupt):
        exengine.convert(
            tmp_path / "source", path, **settings, dask=cluster.scheduler_address, on_progress=interrupt
        )
    assert not path.exists()
    report = exengine.convert(tmp_path / "source", path, **settings)
    assert report.resumed_at > 0 and report.verified


def test_the_datasets_of_a_pattern_are_converted_with_one_connection(cluster, tmp_path, capsys, monkeypatch):
    for name in ("a", "b"):
        write(tmp_path / "data" / name, times=1)
    connected = []

    class CountedClient(distributed.Client):
        def __init__(self, *given, **named):
            connected.append(given)
            super().__init__(*given, **named)

    monkeypatch.setattr(distributed, "Client", CountedClient)
    command = ["convert", f"{tmp_path}/data/*", f"{tmp_path}/out", "--backend", "ome-zarr"]
    code = main([*command, "--dask", cluster.scheduler_address])
    assert code == 0 and "2 converted, 0 failed" in capsys.readouterr().out
    assert connected == [(cluster.scheduler_address,)]
    assert content(tmp_path / "out" / "b.ome.zarr")[0] == content(tmp_path / "data" / "b")[0]


# -- without a cluster -----------------------------------------------------------------------------


def test_a_cluster_that_cannot_be_reached_is_reported_in_one_line_before_anything_is_written(
    tmp_path, capsys, monkeypatch
):
    write(tmp_path / "data" / "source", times=1)
    assert clusters._CONNECT_S <= 8
    monkeypatch.setattr(clusters, "_CONNECT_S", 0.3)
    for source in ("source", "*"):
        for address in ("tcp://127.0.0.1:1", "nonsense://x"):
            command = ["convert", f"{tmp_path}/data/{source}", f"{tmp_path}/out", "--backend", "ome-zarr"]
            code = main([*command, "--dask", address])
            out, err = capsys.readouterr()
            assert code == 1 and out == "" and len(err.splitlines()) == 1
            assert f"no dask scheduler can be reached at {address}" in err and "tcp://scheduler:8786" in err
            assert not (tmp_path / "out").exists()


def test_without_dask_the_error_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    write(tmp_path / "source", times=1)
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["convert", f"{tmp_path}/source", f"{tmp_path}/out", "--backend", "ome-zarr"]
    assert main([*command, "--dask", "tcp://scheduler:8786"]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "pip install 'exengine[dask]'" in err
    assert not (tmp_path / "out").exists()


def test_a_worker_that_does_not_find_the_dataset_says_so(cluster):
    def nowhere():
        return exengine.open_dataset("/nowhere/data")

    with (
        clusters.Cluster(cluster.scheduler_address) as connected,
        pytest.raises(DatasetAccessError, match=r"cannot open a dataset: .*/nowhere/data.* same paths"),
    ):
        list(connected.in_order(lambda datasets, item: item, [nowhere], range(3), 1))


def test_a_cluster_that_ends_or_has_no_worker_is_reported(tmp_path, monkeypatch, small_tasks):
    write(tmp_path / "source", times=40)
    with distributed.LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0"
    ) as without_workers:
        monkeypatch.setattr(clusters, "_WITHOUT_WORKERS_S", 0.1)
        with pytest.raises(ClusterError, match="has had no worker for"):
            exengine.convert(
                tmp_path / "source",
                tmp_path / "out",
                backend="ome-zarr",
                dask=without_workers.scheduler_address,
            )
