"""``verify``: every frame, the ledger and the structure, and an honest word where nothing can be compared."""

import hashlib

import numpy as np
import pytest

from exengine.acquisition.run import acquire
from exengine.datasets.verification import LostFrame, verify
from exengine.kernel.errors import DatasetNotFoundError


def damage(path, number):
    file = path / f"{number}.raw"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def digest(folder):
    files = sorted(folder.rglob("*"))
    return hashlib.sha256(
        repr(
            [(file, file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in files]
        ).encode()
    ).digest()


def test_a_whole_dataset_is_ok_and_every_frame_was_read(make, path):
    make()
    report = verify(path)
    assert report.ok
    assert (report.path, report.backend, report.status) == (str(path), "checked", "complete")
    assert (report.frames, report.checked) == (5, 5)
    assert report.has_checksums and report.structure_checked


def test_damaged_frames_are_named_with_the_reason(make, path):
    make()
    damage(path, 1)
    damage(path, 3)
    report = verify(path)
    assert not report.ok
    assert report.damaged == [
        LostFrame({"time": 1}, "1.raw is not what was written"),
        LostFrame({"time": 3}, "3.raw is not what was written"),
    ]
    assert (report.frames, report.checked, report.missing, report.problems) == (5, 3, [], [])


def test_frames_whose_bytes_are_gone_are_missing(make, path):
    make()
    (path / "2.raw").unlink()
    report = verify(path)
    assert [frame.coordinates for frame in report.missing] == [{"time": 2}]
    assert "No such file" in report.missing[0].reason
    assert report.damaged == [] and not report.ok


def test_damaged_metadata_make_a_frame_damaged(make, path, checked, monkeypatch):
    make()
    reader = __import__(checked.__module__).CheckedReader

    def fail(self, number):
        if number == 4:
            raise RuntimeError("of a library")

    monkeypatch.setattr(reader, "read_frame_metadata", fail)
    assert verify(path).damaged == [LostFrame({"time": 4}, "RuntimeError: of a library", has_pixels=True)]


def test_what_is_wrong_with_the_structure_is_told(make, path):
    make()
    (path / "77.raw").write_bytes(b"")
    assert verify(path).problems == ["77.raw is not in the index"]


def test_a_structure_that_cannot_be_looked_at_is_no_fault_of_the_dataset(make, path, disk_storage):
    make(cls=disk_storage)
    report = verify(path)
    assert report.ok and not report.structure_checked
    assert not report.has_checksums


def test_frames_that_the_ledger_names_as_not_stored_are_missing(make, path):
    lost = [{"coordinates": {"time": 9}, "reason": "disk full"}]
    ledger = {"stored": 5, "failed": 1, "dropped": 0, "balanced": True, "not_stored": lost}
    make(annotations={"ledger": ledger})
    report = verify(path)
    assert report.missing == [LostFrame({"time": 9}, "not stored: disk full")]
    assert report.problems == [] and not report.ok


LEDGERS = {
    "another count": ({"stored": 6, "balanced": True}, "the number of stored frames is 6 in the ledger"),
    "out of balance": ({"stored": 5, "balanced": False}, "does not balance"),
    "more than it names": (
        {"stored": 5, "failed": 2, "dropped": 1, "not_stored": []},
        "more frames as not stored (3)",
    ),
}


@pytest.mark.parametrize("case", LEDGERS)
def test_a_ledger_that_does_not_agree_is_a_problem(case, make, path):
    ledger, says = LEDGERS[case]
    make(annotations={"ledger": ledger})
    (problem,) = verify(path).problems
    assert says in problem


@pytest.mark.parametrize(
    "ledger", [3, [], {"stored": "x", "not_stored": 3}, {"not_stored": [{"coordinates": 1}]}]
)
def test_a_ledger_that_is_none_is_passed_over(ledger, make, path):
    make(annotations={"ledger": ledger})
    assert verify(path).ok


def test_a_count_in_the_manifest_that_does_not_agree_is_a_problem(make, path):
    make()
    lines = (path / "index").read_text().splitlines(keepends=True)
    (path / "index").write_text("".join(lines[:-1]))
    (path / "4.raw").unlink()
    assert verify(path).problems == ["the number of frames is 5 in the manifest, but 4 in the dataset"]


@pytest.mark.parametrize("finished", [True, False])
def test_a_wrong_byte_in_a_text_of_the_manifest_is_a_problem(make, path, finished):
    make(finish=finished)
    manifest = path / "exengine.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content.replace(b'"created": "2', b'"created": "3'))
    assert manifest.read_bytes() != content
    report = verify(path)
    assert report.problems[:1] == ["the manifest exengine.json does not match its checksum"]
    assert (report.status, report.checked) == ("damaged" if finished else "incomplete", 5)
    manifest.write_bytes(content)
    assert report.problems[0] not in verify(path).problems


def test_an_acquisition_is_verified_with_its_ledger(checked, path):
    acquire(
        {
            "storage": {"backend": "checked", "path": str(path)},
            "source": {"name": "simulated", "options": {"width": 64, "height": 64}},
            "sequence": {"time_plan": {"interval": 0, "loops": 3}},
        }
    )
    report = verify(path)
    assert report.ok and report.checked == 3


def test_what_a_living_writer_has_written_is_verified(checked, path):
    with checked(path) as storage:
        storage.put({"time": 0}, np.zeros((2, 2), np.uint8), None)
        report = verify(path)
        assert report.ok and report.checked == 1
        assert report.status == "incomplete"


def test_nothing_is_written(make, path):
    make(finish=False)
    damage(path, 1)
    before = digest(path)
    verify(path)
    assert digest(path) == before


def test_progress_is_told_for_every_frame(make, path):
    make()
    told = []
    verify(path, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]


def test_a_backend_that_lists_nothing_is_a_problem_and_no_success(make, path, checked, monkeypatch):
    from exengine.kernel.data_storage_base import DataStorage

    make()
    reader = __import__(checked.__module__).CheckedReader
    monkeypatch.setattr(reader, "__len__", DataStorage.__len__)
    report = verify(path)
    assert not report.ok and "cannot be listed" in report.problems[0]


def test_where_nothing_is_the_error_says_so(tmp_path, checked):
    with pytest.raises(DatasetNotFoundError):
        verify(tmp_path / "nothing")


def test_the_report_is_json(make, path):
    make()
    damage(path, 0)
    found = verify(path).to_dict()
    assert found["damaged"] == [{"coordinates": {"time": 0}, "reason": "0.raw is not what was written"}]
    assert found["ok"] is False
