"""OME-Zarr beside its peers: the same frames, the same codec, put one by one, with fsync at the end."""

import json
import statistics
import subprocess
import sys
import tempfile

from harness import HERE, VOID_ABOVE, temporary
from report import Table, pace

TITLE = "OME-Zarr, beside raw writes and other libraries"
SIZES = {64: 20_000, 512: 600, 2048: 60, 50: 20_000, 100: 10_000}  # pixels along y and x: frames
PEERS = ("zarr-python", "tensorstore", "acquire-zarr")
ONE_FILE_PER_FRAME = ("zarr-python", "tensorstore")  # their time per frame is the same with fewer frames
GOALS = {50: 0.4, 64: 0.4, 100: 0.4, 512: 0.85, 2048: 0.85}  # the fraction of the speed of raw writes


def run(writer: str, folder: str, size: int, count: int, codec: str) -> dict[str, float] | None:
    """Return the figures of one writer; None if it is not installed or cannot use the codec."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, str(HERE / "zarr_worker.py"), writer, place, str(size), str(count), codec]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"     {writer} {size} {codec}: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def interleaved(
    writers: list[str], folder: str, size: int, count: int, codec: str, rounds: int
) -> dict[str, dict[str, float]]:
    """Return the median figures of each writer; the writers run in turn, in a rotating order."""
    found: dict[str, list[dict[str, float]]] = {writer: [] for writer in writers}
    for number in range(rounds):
        turn = number % len(writers)
        for writer in writers[turn:] + writers[:turn]:
            fewer = count // 10 if writer in ONE_FILE_PER_FRAME and count > 2000 else count
            figures = run(writer.split("#")[0], folder, size, fewer, codec)
            if figures is not None:
                found[writer].append(figures)
    return {
        writer: {key: statistics.median(r[key] for r in results) for key in results[0] if key != "version"}
        for writer, results in found.items()
        if results
    }


def main(table: Table, quick: bool) -> None:
    rounds = 3 if quick else 7
    rows: list[dict[str, object]] = []
    with temporary() as folder:
        for size, count in SIZES.items():
            for codec in ("none", "blosc-lz4", "zstd"):
                writers = ["ome-zarr", "ome-zarr, batches", *PEERS]
                if codec == "none":
                    writers += ["ndtiff", "h5py", "raw#1", "raw#2"]
                elif size not in (512, 2048):
                    continue
                found = interleaved(writers, folder, size, count // (4 if quick else 1), codec, rounds)
                rows += [
                    {"writer": writer, "size": size, "codec": codec, **figures}
                    for writer, figures in found.items()
                ]
                add_rows(table, found, size, codec)
    saved = HERE / "results" / "zarr.json"
    saved.parent.mkdir(exist_ok=True)
    saved.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print("    ", {key: round(v, 1) if isinstance(v, float) else v for key, v in row.items()})


def add_rows(table: Table, found: dict[str, dict[str, float]], size: int, codec: str) -> None:
    """Add the ratios of one size and codec to the table."""
    ours = found["ome-zarr"]["whole_us"]
    peers = {name: found[name]["whole_us"] for name in PEERS if name in found}
    best = min(peers, key=peers.__getitem__)
    note = f"{best} {pace(peers[best])}"
    if codec != "none":
        quickest = min(ours, found["ome-zarr, batches"]["whole_us"])
        goal = 1.3 if codec == "blosc-lz4" else 1.0
        table.add(
            f"ome-zarr {size}x{size} {codec}, speed / best peer", peers[best] / quickest, "x", goal,
            most=False, measured=pace(quickest, size), note=note,
        )  # fmt: skip
        return
    first, second = found["raw#1"]["whole_us"], found["raw#2"]["whole_us"]
    raw, apart = (first + second) / 2, abs(first - second) / min(first, second)
    void = f"raw differs from itself by {apart:.0%}" if apart > VOID_ABOVE else ""

    def add(us: float, what: str, other_us: float, other: str, goal: float, void: str = "") -> None:
        table.add(
            f"ome-zarr {size}x{size}, {what}", other_us / us, "x", goal,
            most=False, measured=pace(us, size), note=f"{other} {pace(other_us)}", void=void,
        )  # fmt: skip

    add(ours, "speed / raw + fsync", raw, "raw", GOALS[size], void)
    add(ours, "speed / best peer", peers[best], best, 3.0 if size < 512 else 1.0)
    if size < 512:
        add(found["ome-zarr, batches"]["whole_us"], "batches / raw + fsync", raw, "raw", 0.8, void)
        add(ours, "speed / ndtiff", found["ndtiff"]["whole_us"], "ndtiff", 1.0)


if __name__ == "__main__":
    main(Table(), "--quick" in sys.argv)
