"""Failures with the same probable cause are one finding, and damage reaches every file."""

import importlib
import sys

import pytest

from exengine.testing.causes import causes_of
from exengine.testing.promises import PROMISES, SOURCE_PROMISES
from exengine.testing.reports import reports_of
from exengine.testing.results import TestReport, make_results
from exengine.testing.tasks.damages import damages_of


def broken(test, labels, message, code=""):
    return TestReport(test, tuple(labels.split()), code, "broken", message)


PIXELS = "the frame at {'time': 0} was returned with wrong pixels: 3 of 960 values differ"


def test_failures_of_the_same_kind_are_one_cause_under_the_simplest_promise():
    reports = [
        broken("kill", "P6", "P6: 2 of 30 frames are lost, with the numbers [1, 2]", "EX308"),
        broken("reopen", "N2", f"N2: {PIXELS}", "EX301"),
        broken("put", "P1", f"P1: {PIXELS}"),
        broken("status", "N4", "ended: the status is failed, but should be complete"),
        TestReport("kept", ("P2",), "", "kept"),
    ]
    causes = causes_of(reports)
    assert [(cause["labels"], cause["codes"], cause["code"], cause["tests"]) for cause in causes] == [
        (["P1", "N2"], ["EX301"], "", 2),
        (["N4"], [], "", 1),
        (["P6"], ["EX308"], "EX308", 1),
    ]
    assert make_results("x", reports)["causes"] == causes


def test_the_same_exception_is_one_cause_whatever_the_frame():
    messages = [f"get_data({{'time': {n}}}) raised ValueError: {n} is not a size" for n in (3, 4)]
    assert len(causes_of([broken(str(n), "P1", text) for n, text in enumerate(messages)])) == 1
    other = broken("other", "P1", "get_data({'time': 3}) raised KeyError: 'codec'")
    assert len(causes_of([broken("a", "P1", messages[0]), other])) == 2


EQUAL = "test_a_finished_dataset_reopens_equal"


def test_wrong_frames_follow_from_a_test_that_others_rest_on():
    reports = [
        broken("threads", "P1", "P1: get_data({'time': 0}) raised DatasetDamagedError: too short"),
        broken(EQUAL, "N2", f"N2: {PIXELS}", "EX301"),
        broken("overwriting", "D1", "D1: a frame was put at {'time': 1}, but is not in the storage"),
        broken("leaks", "C1", "C1: each cycle of open, read and close leaks 1.0 descriptors"),
        broken("forks", "C5", "C5: a forked child that exits ended with status 1 instead of 0"),
    ]
    causes = causes_of(reports)
    assert [(cause["test"], cause["tests"]) for cause in causes] == [(EQUAL, 3), ("forks", 1), ("leaks", 1)]
    assert causes[0]["labels"] == ["N2", "P1", "D1"]
    without = [report for report in reports if report.test != EQUAL]
    assert len(causes_of(without)) == 4


def test_the_tests_that_others_rest_on_exist():
    from exengine.testing import StorageConformance
    from exengine.testing.causes import _RESTS_ON

    assert [name for name in _RESTS_ON if not hasattr(StorageConformance, name)] == []


def test_every_promise_has_a_rank():
    from exengine.testing.causes import _FROM_SIMPLE

    assert sorted(_FROM_SIMPLE) == sorted({**PROMISES, **SOURCE_PROMISES})


def test_damage_reaches_every_file_and_every_byte_of_a_small_one(tmp_path):
    (tmp_path / "large").write_bytes(bytes(100_000))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "small").write_bytes(bytes(range(90)))
    seen = {"large": set(), "folder/small": set()}
    for damage in damages_of(tmp_path, 500):
        name = damage.place(tmp_path).relative_to(tmp_path).as_posix()
        content = (tmp_path / name).read_bytes()
        changed = damage.change(content)
        if changed is not None and len(changed) == len(content):
            differ = [at for at, pair in enumerate(zip(content, changed, strict=True)) if pair[0] != pair[1]]
            if len(differ) == 1:
                seen[name].add(differ[0])
    assert seen["folder/small"] == set(range(90))
    assert seen["large"] > {*range(60)} and len(seen["large"]) > 100


@pytest.mark.parametrize("text", ["raise KeyError('codec')", "import os; os.abort()"])
def test_if_the_simplest_put_fails_nothing_else_is_run(text, module, tmp_path, monkeypatch):
    source = f"def put(self, coordinates, data, metadata):\n    {text}\n"
    (tmp_path / "stubborn.py").write_text(
        "from broken_backends import Plain\n\n\nclass Stubborn(Plain):\n    '''Fail.'''\n\n"
        + "".join(f"    {line}\n" for line in source.splitlines())
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "stubborn", raising=False)
    cls = importlib.import_module("stubborn").Stubborn
    reports = list(reports_of(cls, tmp_path))
    assert [report.outcome for report in reports] == ["broken", *["not run"] * (len(reports) - 1)]
    (cause,) = causes_of(reports)
    assert "the simplest put failed" in cause["message"] and cause["labels"] == ["P1"]
    assert ("KeyError" in cause["message"]) == ("KeyError" in text)
