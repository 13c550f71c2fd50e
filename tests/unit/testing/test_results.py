"""Results of the kit: what is counted, and what is no results file."""

import re
from pathlib import Path

import pytest

from exengine.kernel.registry.codes import CONFORMANCE
from exengine.testing.kit.run import judge
from exengine.testing.promises import PROMISES, PromiseBrokenError, marks_of, promise
from exengine.testing.results import TestReport, make_results, read_results, shortened, write_results


def test_a_failure_wins_over_what_is_kept_and_that_over_what_is_not_promised():
    results = make_results(
        "x",
        [
            TestReport("b", ("P1", "P8"), "EX302", "broken", "why"),
            TestReport("a", ("P1",), "", "kept"),
            TestReport("c", ("F2",), "EX309", "not promised", "durable_flush=False"),
            TestReport("d", ("F2",), "EX309", "kept"),
            TestReport("e", ("R3",), "", "not promised", "reopen=False"),
            TestReport("f", ("D1",), "", "not run", "no name"),
        ],
    )
    promises = results["promises"]
    assert promises["P1"] == {
        "outcome": "broken",
        "tests": 2,
        "failed": 1,
        "codes": ["EX302"],
        "because": ["why"],
    }
    assert promises["F2"] == {"outcome": "kept", "tests": 2, "failed": 0, "codes": [], "because": []}
    assert promises["R3"]["outcome"] == "not promised" and promises["R3"]["because"] == ["reopen=False"]
    assert promises["D1"] == {
        "outcome": "not run",
        "tests": 0,
        "failed": 0,
        "codes": [],
        "because": ["no name"],
    }
    assert results["codes"] == ["EX302"]
    assert results["findings"] == [{"code": "EX302", "message": f"{CONFORMANCE['EX302']}: why"}]
    assert (results["outcome"], list(promises)) == ("broken", list(PROMISES))


def test_the_order_of_the_tests_changes_no_results():
    reports = [TestReport(name, ("P1",), "EX302", "broken", f"why {name}") for name in "cab"]
    assert make_results("x", reports) == make_results("x", sorted(reports, key=str))


def test_results_that_were_written_are_read(tmp_path):
    results = make_results("x", [TestReport("a", ("P1",), "", "kept")], distribution="d", version="1")
    write_results(tmp_path / "a" / "b.json", results)
    assert read_results(tmp_path / "a" / "b.json") == results
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 100_000, '{"format": "exengine-conformance"}', "\x00"]
)
def test_what_is_no_results_file_is_refused(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match="results.json"):
        read_results(tmp_path / "results.json")


def test_a_test_cannot_be_about_a_promise_that_does_not_exist():
    for labels, code in ((("P99",), ""), (("P1",), "EX999"), ((), "")):
        with pytest.raises(ValueError, match="unknown promises or codes"):
            promise(*labels, code=code)
    assert marks_of(len) is None


def test_every_test_of_the_kit_is_about_a_promise():
    from exengine.testing import StorageConformance

    tests = [
        getattr(StorageConformance, name) for name in dir(StorageConformance) if name.startswith("test_")
    ]
    assert len(tests) > 50
    assert all(marks_of(test) for test in tests)


@pytest.mark.parametrize(
    ("error", "labels", "code"),
    [
        (PromiseBrokenError("C2", "x"), ("C2",), "EX307"),
        (PromiseBrokenError("C1", "x"), ("C1",), ""),  # opening it failed: nothing about checksums
        (PromiseBrokenError("F2", "x"), ("F2",), ""),  # of another test's, and of none of these
        (PromiseBrokenError("", "x"), ("C2", "C1"), "EX307"),
        (ZeroDivisionError("x"), ("C2", "C1"), "EX307"),
    ],
)
def test_a_broken_promise_names_itself_and_the_code_goes_with_the_first_of_a_test(error, labels, code):
    report = judge("test", (("C2", "C1"), "EX307"), error, "")
    assert (report.outcome, report.labels, report.code) == ("broken", labels, code)


def test_a_long_reason_is_cut_between_words():
    assert shortened("one two\nthree four", 14) == "one two ..."
    assert shortened("one two\nthree four", 18) == "one two three four"


def test_the_tutorial_counts_the_tests_of_the_kit_as_they_are():
    from exengine.testing import StorageConformance

    tutorial = Path(__file__).parents[3] / "docs" / "tutorials" / "your_first_backend.rst"
    *_, passed = re.findall(r"= (\d+) passed in", tutorial.read_text(encoding="utf-8"))  # of the kit
    tests = [name for name in dir(StorageConformance) if name.startswith("test_")]
    assert int(passed) == len(tests)
