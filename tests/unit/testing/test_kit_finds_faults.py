"""The kit is not blind: each promise and each code goes red for a backend that breaks it, and good ones are green.

``EXENGINE_LONG=1`` tests every broken backend. Otherwise, there is one for each promise and each code.
"""

import ast
import os
from pathlib import Path

import pytest

from exengine import DataStorage
from exengine.kernel.registry import plugins
from exengine.kernel.registry.codes import CONFORMANCE
from exengine.testing import children, reports_of
from exengine.testing.kit import disk
from exengine.testing.kit.model import StorageMachine, run_model
from exengine.testing.promises import PROMISES, PromiseBrokenError
from exengine.testing.subject import Subject

SOURCE = Path(__file__).parents[2] / "backends" / "broken_backends.py"
MODEL = "test_any_sequence_of_calls_does_to_the_storage_what_it_does_to_a_dict"


def _faults():
    """Return class -> what has to go red, read from the source, as tests are collected before it can be imported."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for call in node.decorator_list:
                found[node.name] = tuple(argument.value for argument in call.args)
    return found


FAULTS = _faults()
LONG = bool(os.environ.get("EXENGINE_LONG"))


def _chosen():
    """Return the broken backends to test: all, or the first ones that break every promise and every code."""
    found, chosen = set(), []
    for name, red in FAULTS.items():
        if LONG or not found.issuperset(red):
            chosen.append(name)
            found.update(red)
    return chosen


def test_there_is_a_broken_backend_for_every_promise_and_every_code():
    assert {red for all_red in FAULTS.values() for red in all_red} == {*PROMISES, *CONFORMANCE}
    assert len(FAULTS) >= 8


@pytest.mark.parametrize("name", _chosen())
def test_the_kit_finds_what_is_wrong_with(name, module, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "_PATIENCE_S", 3.0)  # some of these backends hang
    monkeypatch.setattr(children, "_AGAIN_S", 0.5)
    cls = plugins.BACKENDS.load(name.lower())
    missed = set(FAULTS[name])
    said = []
    for report in reports_of(cls, tmp_path, *missed, name=name.lower(), without=(MODEL,)):
        if report.outcome == "broken":
            missed -= {*report.labels, report.code}
        said.append(f"{report.test}: {report.outcome} {report.message}")
        if not missed:
            break
    assert not missed, said


def test_the_state_machine_has_twelve_rules_and_five_invariants():
    made = [vars(function) for function in vars(StorageMachine).values() if hasattr(function, "__dict__")]
    assert sum("hypothesis_stateful_rule" in marks for marks in made) >= 12
    assert sum("hypothesis_stateful_invariant" in marks for marks in made) >= 5


@pytest.mark.skipif(not LONG, reason="tox -e long runs it, and the kits of the real backends test it too")
def test_a_backend_that_continues_datasets_is_green(results_of):
    results = results_of("Resuming", "N1", "N4", "N5")  # the other tests do not continue a dataset
    assert [results["promises"][label]["outcome"] for label in ("N1", "N4", "N5")] == ["kept"] * 3
    assert results["codes"] == []


@pytest.mark.parametrize("name", ["Plain", "Limited"] if LONG else ["Plain"])
def test_a_backend_that_is_honest_is_green(name, results_of):
    results = results_of(name)
    assert [
        f"{label} {entry['because']}"
        for label, entry in results["promises"].items()
        if entry["outcome"] == "broken"
    ] == []
    assert results["codes"] == []
    assert results["outcome"] == "kept"
    assert [label for label, entry in results["promises"].items() if entry["outcome"] == "not run"] == []
    assert results["promises"]["C6"]["outcome"] == ("kept" if name == "Limited" else "not promised")


def test_a_backend_that_recognises_everything_destroys_nothing(results_of):
    results = results_of("RecognisesEverything", "D1", "D2", "D3", "D4")
    outcomes = {label: results["promises"][label]["outcome"] for label in ("D1", "D2", "D3", "D4")}
    assert outcomes == dict.fromkeys(("D1", "D2", "D3", "D4"), "kept"), results["promises"]


@pytest.mark.parametrize(
    ("name", "label"), [("ReplacesFrames", "P4"), ("MisplacesFrames", "P1"), ("KeepsTheArray", "P1")]
)
def test_a_sequence_of_calls_finds_the_fault_and_names_the_promise(name, label, module, tmp_path):
    cls = getattr(module, name)
    with pytest.raises(PromiseBrokenError) as caught:
        run_model(Subject(cls, cls, tmp_path, "", {}), reduce=False)
    assert caught.value.label == label


def test_a_misplaced_frame_names_itself(results_of):
    results = results_of("MisplacesFrames", "P1", without=(MODEL,))
    assert "was returned with the pixels of the frame that was put at {'channel': " in " ".join(
        results["promises"]["P1"]["because"]
    )


def test_what_is_not_promised_says_which_capability_says_so(results_of):
    results = results_of("Plain", "R3", "D2", "F2")
    assert results["promises"]["R3"]["outcome"] == "not promised"
    assert results["promises"]["R3"]["because"] == ["persistent=False, reopen=False"]
    assert results["promises"]["F2"]["because"] == ["durable_flush=False"]


def test_a_reader_that_declares_no_capabilities_has_those_of_its_backend(results_of, module, monkeypatch):
    def open_as_earlier_templates_did(cls, path):
        reader = module.Disk.open(path)
        reader.capabilities = DataStorage.capabilities  # what a class inherits that declares nothing
        return reader

    monkeypatch.setattr(
        module.OpensWithoutTheCapabilities, "open", classmethod(open_as_earlier_templates_did)
    )
    assert "EX301" not in results_of("OpensWithoutTheCapabilities", "N2", without=(MODEL,))["codes"]
