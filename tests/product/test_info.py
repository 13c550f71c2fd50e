"""``exengine info``: what a dataset is, its frames as a table, and the table as a file."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import exengine
from exengine.base_classes import PlannedChannel, PlannedPosition, SourcePlan
from exengine.cli.main import main

PLAN = SourcePlan(
    pixel_size_um=(0.65, 0.5),
    z_step_um=2.0,
    interval_s=30.0,
    channels=(PlannedChannel("DAPI", "0000FF"), PlannedChannel("FITC")),
    stage_positions=(PlannedPosition(name="left", x_um=10.0, y_um=-5.0),),
)


def write(path, backend="ome-zarr", plan=PLAN, summary=None):
    with exengine.open_storage(backend, path, summary_metadata=summary or {}) as storage:
        storage.expect(plan)
        for time in range(3):
            for channel in ("DAPI", "FITC"):
                for z in (0, 1):
                    if (time, channel) != (1, "FITC"):
                        metadata = {
                            "time": f"12:0{time}",
                            "camera": {"gain": time, "name": "é, ü"},
                            "roi": [0, z],
                        }
                        axes = {"position": "left", "time": time, "channel": channel, "z": z}
                        storage.put(axes, np.zeros((8, 9), np.uint16), metadata)
        storage.annotate("ledger", {"offered": 10, "stored": 10, "dropped": 0, "failed": 0})
    return path


@pytest.fixture(params=["data.ome.zarr"])
def dataset(tmp_path, request):
    return write(tmp_path / request.param)


def run(capsys, *arguments):
    code = main(["info", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_it_shows_axes_sizes_channels_positions_and_missing_frames(dataset, capsys):
    code, out, err = run(capsys, dataset)
    assert (code, err) == (0, "")
    for line in (
        "status   complete",
        "backend  ome-zarr (exengine-ome-zarr 1.0.0)",
        "frames   10\n",
        "missing  2 of the 12 combinations",
        "axis     time: 3 (0 - 2), 30 s apart",
        "axis     channel: 2 ('DAPI', 'FITC')",
        "axis     z: 2 (0, 1), 2 um apart",
        "pixels   8 x 9 uint16, 0.65 x 0.5 um each",
        "channel  DAPI (color 0000FF)",
        "channel  FITC\n",
        "position left: x = 10 um, y = -5 um",
        "ledger   10 offered, 10 stored, 0 dropped, 0 failed",
    ):
        assert line in out


def test_json_keeps_its_keys_and_has_the_same_facts(dataset, capsys):
    code, out, _ = run(capsys, dataset, "--json")
    facts = json.loads(out)
    assert code == 0
    assert {"path", "status", "reason", "being_written", "backend", "frames", "axes", "shape", "dtype"} < set(
        facts
    )
    assert {"resolution_levels", "bytes", "summary_metadata", "annotations", "problem"} < set(facts)
    assert (facts["frames"], facts["missing"]) == (10, 2)
    assert facts["pixel_size_um"] == [0.65, 0.5] and facts["z_step_um"] == 2.0 and facts["interval_s"] == 30.0
    assert facts["channels"] == [{"name": "DAPI", "color": "0000FF"}, {"name": "FITC", "color": None}]
    assert facts["units"] == {"time": "second", "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    assert facts["stage_positions"][0]["x_um"] == 10.0
    assert "frame_list" not in facts


def test_unknown_facts_are_left_out_and_not_invented(tmp_path, capsys):
    with exengine.open_storage("ndtiff", tmp_path / "plain") as storage:
        storage.put({"time": 0}, np.zeros((4, 4), np.uint16), None)
        storage.put({"z": 0}, np.zeros((4, 4), np.uint16), None)
    _, out, _ = run(capsys, tmp_path / "plain", "--json")
    facts = json.loads(out)
    assert [facts[name] for name in ("missing", "pixel_size_um", "z_step_um", "interval_s")] == [None] * 4
    assert facts["units"] == {} and facts["channels"] == []
    _, out, _ = run(capsys, tmp_path / "plain")
    assert "missing" not in out and "um" not in out.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ({"PixelSize_um": 0.325, "z-step_um": 1.5, "Interval_ms": 500}, ([0.325, 0.325], 1.5, 0.5)),
        ({"pixel_size_um": [0.5, 0.25]}, ([0.5, 0.25], None, None)),
        ({"PixelSize_um": 0, "z-step_um": -1, "Interval_ms": "fast"}, (None, None, None)),
        ({"PixelSize_um": True}, (None, None, None)),
    ],
)
def test_metadata_of_micro_manager_give_the_pixel_size(summary, expected, tmp_path, capsys):
    write(tmp_path / "data", "ndtiff", SourcePlan(), summary)
    facts = json.loads(run(capsys, tmp_path / "data", "--json")[1])
    assert (facts["pixel_size_um"], facts["z_step_um"], facts["interval_s"]) == expected


# -- the frames ------------------------------------------------------------------------------------


def test_frames_are_listed_with_their_metadata(dataset, capsys):
    code, out, _ = run(capsys, dataset, "--frames")
    table = out[out.index("position  time") :].splitlines()
    assert code == 0 and len(table) == 11
    assert table[0].split() == ["position", "time", "channel", "z", "metadata"]
    assert table[1].startswith("left      0     DAPI     0  {") and '"gain": 0' in table[1]
    facts = json.loads(run(capsys, dataset, "--frames", "--json")[1])
    assert len(facts["frame_list"]) == 10 and facts["frames"] == 10
    assert facts["frame_list"][-1] == {
        "coordinates": {"position": "left", "time": 2, "channel": "FITC", "z": 1},
        "metadata": {"time": "12:02", "camera": {"gain": 2, "name": "é, ü"}, "roi": [0, 1]},
    }


COLUMNS = ["position", "time", "channel", "z", "metadata.time", "camera.gain", "camera.name", "roi"]


def test_the_table_is_exported_as_csv(dataset, capsys, tmp_path):
    code, out, _ = run(capsys, dataset, "--export", "csv")
    path = Path(f"{dataset}.frames.csv")
    assert code == 0 and f"exported 10 rows: {path}" in out
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == COLUMNS and len(table) == 10
    assert table[-1] == dict(
        zip(COLUMNS, ["left", "2", "FITC", "1", "12:02", "2", "é, ü", "[0, 1]"], strict=True)
    )


def test_the_table_is_exported_as_parquet(dataset, capsys, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    code, _, _ = run(capsys, dataset, "--export", "parquet", "-o", tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet")
    assert code == 0 and table.column_names == COLUMNS
    assert [str(table.schema.field(name).type) for name in COLUMNS] == [
        "string", "int64", "string", "int64", "string", "int64", "string", "string",
    ]  # fmt: skip
    assert table.to_pylist()[-1]["camera.gain"] == 2


def test_columns_with_several_types_and_large_numbers_are_exported(capsys, tmp_path):
    values = [1, 2.5, None, True, "text", 2**70, {"a": {}}, []]
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        for number, value in enumerate(values):
            storage.put(
                {"time": number},
                np.zeros((4, 4), np.uint16),
                {"v": value, "n": [1, 2.5][number % 2], "l": 2**70},
            )
        storage.put({"time": 99}, np.zeros((4, 4), np.uint16), "only text")
    assert run(capsys, tmp_path / "data", "--export", "csv", "-o", tmp_path / "t.csv")[0] == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["v"] for row in csv.DictReader(file)] == [
            "1",
            "2.5",
            "",
            "True",
            "text",
            str(2**70),
            "",
            "[]",
            "",
        ]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    assert run(capsys, tmp_path / "data", "--export", "parquet", "-o", tmp_path / "t.parquet")[0] == 0
    table = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["v"] for row in table][:6] == ["1", "2.5", None, "true", "text", str(2**70)]
    assert table[1]["n"] == 2.5 and table[0]["l"] == str(2**70) and table[-1]["metadata"] == "only text"


def test_a_frame_with_damaged_metadata_is_listed_with_the_reason(tmp_path, capsys):
    write(tmp_path / "data", "ndtiff", SourcePlan())
    tiff = tmp_path / "data" / "NDTiffStack.tif"
    tiff.write_bytes(tiff.read_bytes().replace(b'"gain":2', b'"gain":3', 1))
    facts = json.loads(run(capsys, tmp_path / "data", "--frames", "--json")[1])
    (bad,) = [frame for frame in facts["frame_list"] if "problem" in frame]
    assert bad["coordinates"]["time"] == 2 and "metadata" in bad["problem"]
    assert run(capsys, tmp_path / "data", "--export", "csv", "-o", tmp_path / "t.csv")[0] == 0
    assert "problem" in (tmp_path / "t.csv").read_text().splitlines()[0]


def test_an_existing_file_is_kept_and_a_useless_option_refused(dataset, capsys, tmp_path):
    (tmp_path / "thesis.csv").write_text("precious")
    code, _, err = run(capsys, dataset, "--export", "csv", "-o", tmp_path / "thesis.csv")
    assert code == 1 and "already exists" in err and (tmp_path / "thesis.csv").read_text() == "precious"
    code, _, err = run(capsys, dataset, "-o", tmp_path / "x.csv")
    assert code == 2 and "--export" in err
    code, _, err = run(capsys, dataset, "--export", "csv", "-o", tmp_path / "no" / "x.csv")
    assert code == 1 and "cannot write" in err
