"""Writes the same frames once with one writer and prints the figures, for ``bench_zarr.py``.

``python benchmarks/zarr_worker.py WRITER FOLDER SIZE COUNT CODEC``. Every writer receives one frame after
another, in its best chunking that was found, ends with an fsync of all files, and is read back.
"""

import importlib.metadata
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

METADATA = {"exposure_ms": 10.0, "camera": "Camera", "position_um": [1.0, 2.0, 3.0]}
LEVELS = {"blosc-lz4": 5, "zstd": 1}
Put = Callable[[int, np.ndarray], None]


def frames_of(size: int) -> list[np.ndarray]:
    """Return 12-bit frames with photon noise and read noise, which compress as those of a camera do."""
    random = np.random.default_rng(1)
    y, x = np.indices((size, size)) / size
    signal = 200 + 1500 * np.exp(-((y - 0.5) ** 2 + (x - 0.5) ** 2) * 8)
    return [
        np.clip(random.poisson(signal) + random.normal(0, 3, signal.shape), 0, 4095).astype(np.uint16)
        for _ in range(16)
    ]


def sync(folder: Path) -> None:
    """Sync every file of a dataset."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def together(size: int) -> int:
    """Return how many frames share a chunk of about 128 KiB."""
    return max(1, 2**17 // (size * size * 2))


def raw(folder: Path, size: int, count: int, codec: str) -> tuple[Put, Callable[[], None]]:
    folder.mkdir()
    descriptor = os.open(folder / "frames.raw", os.O_CREAT | os.O_WRONLY)

    def finish() -> None:
        os.fsync(descriptor)
        os.close(descriptor)

    return lambda _, frame: os.write(descriptor, frame) and None, finish


def exengine_backend(name: str, batch: int = 1) -> Any:
    def make(folder: Path, size: int, count: int, codec: str) -> tuple[Put, Callable[[], None]]:
        import exengine
        from exengine.base_classes import PlannedAxis, SourcePlan

        options = {"codec": codec} if name == "ome-zarr" and codec != "none" else {}
        storage = exengine.open_storage(name, folder, **options)
        storage.expect(SourcePlan(axes=(PlannedAxis("time", length=count),), frames=count))
        waiting: list[Any] = []

        def put(number: int, frame: np.ndarray) -> None:
            if batch == 1:
                storage.put({"time": number}, frame, METADATA)
                return
            waiting.append(({"time": number}, frame, METADATA))
            if len(waiting) == batch:
                storage.put_many(waiting)
                waiting.clear()

        def finish() -> None:
            storage.put_many(waiting)
            storage.finish()
            storage.close()

        return put, finish

    return make


def zarr_python(folder: Path, size: int, count: int, codec: str) -> tuple[Put, Callable[[], None]]:
    import zarr
    from zarr.codecs import BloscCodec, ZstdCodec

    compressors = {"none": None, "blosc-lz4": BloscCodec(cname="lz4"), "zstd": ZstdCodec(level=1)}[codec]
    # A shard would be written anew for each frame, so each frame is a file of its own.
    array = zarr.create_array(
        folder, shape=(count, size, size), chunks=(1, size, size), dtype="uint16", compressors=compressors
    )

    def put(number: int, frame: np.ndarray) -> None:
        array[number] = frame

    return put, lambda: sync(folder)


def tensorstore_writer(folder: Path, size: int, count: int, codec: str) -> tuple[Put, Callable[[], None]]:
    import tensorstore

    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if codec == "blosc-lz4":
        configuration = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
        codecs.append({"name": "blosc", "configuration": configuration})
    elif codec == "zstd":
        codecs.append({"name": "zstd", "configuration": {"level": 1}})
    array = tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": str(folder)},
            "metadata": {
                "shape": [count, size, size],
                "data_type": "uint16",
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, size, size]}},
                "codecs": codecs,
            },
            "create": True,
        }
    ).result()
    pending: list[Any] = []

    def put(number: int, frame: np.ndarray) -> None:
        pending.append(array[number].write(frame))
        if len(pending) > 64:
            pending.pop(0).result()

    def finish() -> None:
        for write in pending:
            write.result()
        sync(folder)

    return put, finish


def acquire_zarr(folder: Path, size: int, count: int, codec: str) -> tuple[Put, Callable[[], None]]:
    import acquire_zarr as aqz

    compression = None
    if codec != "none":
        kind = aqz.CompressionCodec.BLOSC_LZ4 if codec == "blosc-lz4" else aqz.CompressionCodec.BLOSC_ZSTD
        compression = aqz.CompressionSettings(
            compressor=aqz.Compressor.BLOSC1, codec=kind, level=LEVELS[codec], shuffle=1
        )
    chunk = together(size)
    stream = aqz.ZarrStream(
        aqz.StreamSettings(
            store_path=str(folder),
            arrays=[
                aqz.ArraySettings(
                    dimensions=[
                        aqz.Dimension(
                            name="t",
                            kind=aqz.DimensionType.TIME,
                            array_size_px=0,
                            chunk_size_px=chunk,
                            shard_size_chunks=max(1, min(4096, 2**28 // (size * size * 2)) // chunk),
                        ),
                        aqz.Dimension(
                            name="y", kind=aqz.DimensionType.SPACE, array_size_px=size, chunk_size_px=size,
                            shard_size_chunks=1,
                        ),
                        aqz.Dimension(
                            name="x", kind=aqz.DimensionType.SPACE, array_size_px=size, chunk_size_px=size,
                            shard_size_chunks=1,
                        ),
                    ],
                    data_type=aqz.DataType.UINT16,
                    compression=compression,
                )
            ],
        )
    )  # fmt: skip

    def finish() -> None:
        stream.close()
        sync(folder)

    return lambda _, frame: stream.append(frame), finish


def hdf5(folder: Path, size: int, count: int, codec: str) -> tuple[Put, Callable[[], None]]:
    import h5py

    folder.mkdir()
    file = h5py.File(folder / "frames.h5", "w")
    dataset = file.create_dataset("frames", (count, size, size), "uint16", chunks=(1, size, size))

    def put(number: int, frame: np.ndarray) -> None:
        dataset[number] = frame

    def finish() -> None:
        file.close()
        sync(folder)

    return put, finish


WRITERS: dict[str, Any] = {
    "raw": raw,
    "ome-zarr": exengine_backend("ome-zarr"),
    "ome-zarr, batches": exengine_backend("ome-zarr", 32),
    "ndtiff": exengine_backend("ndtiff"),
    "zarr-python": zarr_python,
    "tensorstore": tensorstore_writer,
    "acquire-zarr": acquire_zarr,
    "h5py": hdf5,
}


def read_back(folder: Path, writer: str, size: int, count: int) -> np.ndarray:
    """Return the last frame that is in the dataset, with another program if there is one."""
    if writer == "raw":
        data = np.fromfile(folder / "frames.raw", np.uint16, offset=(count - 1) * size * size * 2)
        return data.reshape(size, size)
    if writer == "h5py":
        import h5py

        with h5py.File(folder / "frames.h5") as file:
            return np.asarray(file["frames"][count - 1])
    if writer == "ndtiff":
        import exengine

        with exengine.open_dataset(folder) as dataset:
            return dataset[{"time": count - 1}]
    import zarr

    node = zarr.open(folder, mode="r")
    array = node if isinstance(node, zarr.Array) else node["0"]
    return np.asarray(array[count - 1])


def main() -> None:
    writer, place, size, count, codec = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5]), sys.argv[5]
    kept = place.parent / f"frames-{size}.npy"  # generating them takes longer than writing them
    if not kept.exists():
        np.save(kept, frames_of(size))
    frames = list(np.load(kept))
    folder = place / "dataset.zarr"
    warm = place / "warm.zarr"
    for target, number_of_frames in ((warm, 3), (folder, count)):
        put, finish = WRITERS[writer](target, size, number_of_frames, codec)
        before = resource.getrusage(resource.RUSAGE_SELF)
        begin = time.perf_counter()
        for number in range(number_of_frames):
            put(number, frames[number % 16])
        finish()
        whole = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_SELF)
    np.testing.assert_array_equal(read_back(folder, writer, size, count), frames[(count - 1) % 16])
    files = [path for path in folder.rglob("*") if path.is_file()]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        json.dumps(
            {
                "whole_us": whole / count * 1e6,
                "cpu_us": cpu / count * 1e6,
                "peak_mib": after.ru_maxrss / 1024,
                "files": len(files),
                "bytes_per_frame": sum(path.stat().st_blocks * 512 for path in files) / count,
                "version": importlib.metadata.version(writer.split(",")[0]) if writer in PACKAGES else "",
            }
        )
    )
    shutil.rmtree(folder)
    shutil.rmtree(warm)


PACKAGES = ("tensorstore", "acquire-zarr", "h5py")

if __name__ == "__main__":
    main()
