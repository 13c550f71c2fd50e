"""Process functions are named in a config, never imported by a path; what is not valid is refused by name."""

import pytest

from exengine.acquisition import process_functions
from exengine.acquisition.process_functions import ProcessFunctionRegistry
from exengine.acquisition.run import Acquisition
from exengine.datasets.opening import open_dataset
from exengine.kernel.errors import PluginBrokenError, PluginConflictError, PluginNotFoundError
from exengine.kernel.registry.names import PROCESS_FUNCTIONS_GROUP

SOURCE = '''
import numpy as np

def invert(coordinates, data, metadata):
    """Invert the pixels."""
    return coordinates, np.iinfo(data.dtype).max - data, metadata

def every_second(coordinates, data, metadata):
    """Keep every second time point."""
    return None if coordinates["time"] % 2 else (coordinates, data, metadata)

def fails(coordinates, data, metadata):
    """Fail."""
    raise ValueError("no")

def undocumented(coordinates, data, metadata): ...
def too_few(coordinates): "Do."
class AClass: "Not a function."
number = 5
'''
NAMES = ("invert", "every_second", "fails", "undocumented", "too_few", "AClass", "number", "absent")


@pytest.fixture
def functions(make_distribution, tmp_path, monkeypatch):
    names = {name.lower(): f"some_functions:{name}" for name in NAMES}
    make_distribution("some-functions", names, SOURCE, group=PROCESS_FUNCTIONS_GROUP)
    registry = ProcessFunctionRegistry(PROCESS_FUNCTIONS_GROUP, "process function", [str(tmp_path / "site")])
    monkeypatch.setattr("exengine.acquisition.recorder.PROCESS_FUNCTIONS", registry)
    return registry


def test_a_function_is_found_by_its_name(functions):
    assert functions.load("invert").__name__ == "invert"
    assert functions.load("every-second") is functions.load("every_second")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("undocumented", "has no docstring"),
        ("too_few", r"does not accept \(coordinates, data, metadata\): TypeError"),
        ("aclass", "is a class, not a function"),
        ("number", "must be a function, got int"),
        ("absent", "AttributeError"),
    ],
)
def test_what_is_not_a_process_function_is_refused_with_the_reason(functions, name, says):
    with pytest.raises(PluginBrokenError, match=says):
        functions.load(name)


def test_a_name_that_is_not_installed_is_answered_with_near_ones(functions):
    with pytest.raises(
        PluginNotFoundError, match="no process function is called 'invrt'; did you mean 'invert'"
    ):
        functions.load("invrt")
    with pytest.raises(PluginNotFoundError):
        functions.load("os:system")


def test_two_distributions_with_one_name_are_a_conflict(functions, make_distribution):
    make_distribution("others", {"invert": "others:f"}, "", group=PROCESS_FUNCTIONS_GROUP)
    functions.refresh()
    with pytest.raises(PluginConflictError, match="both register the process function 'invert'"):
        functions.load("invert")


def test_the_registry_of_the_process_scans_what_is_installed():
    assert process_functions.PROCESS_FUNCTIONS.records() is not None


@pytest.fixture
def config(installed, functions, tmp_path):
    return {
        "storage": {"backend": "disk", "path": str(tmp_path / "data")},
        "source": {"name": "simulated", "options": {"width": 16, "height": 16}},
        "sequence": {"time_plan": {"interval": 0, "loops": 6}},
        "handler": {"process": "every-second"},
    }


def test_a_config_names_the_function_and_the_dataset_says_which(config, tmp_path):
    with Acquisition(config) as acquisition:
        ledger = acquisition.run()
    assert (ledger.offered, ledger.discarded, ledger.stored, ledger.complete) == (6, 3, 3, True)
    with open_dataset(tmp_path / "data") as dataset:
        assert dataset.status == "complete" and [where["time"] for where in dataset] == [0, 2, 4]
        assert dataset.annotations["config"]["handler"]["process"] == "every-second"


def test_python_may_pass_the_function_itself(config, tmp_path):
    def first(coordinates, data, metadata):
        return (coordinates, data, metadata) if coordinates["time"] == 0 else None

    config["handler"] = {"process": first, "workers": 2}
    with Acquisition(config) as acquisition:
        assert acquisition.run().stored == 1
    with open_dataset(tmp_path / "data") as dataset:
        assert dataset.annotations["config"]["handler"]["process"].endswith("first")


def test_a_function_that_is_not_installed_is_refused_before_anything_is_created(config, tmp_path):
    config["handler"] = {"process": "invrt"}
    with pytest.raises(PluginNotFoundError):
        Acquisition(config)
    assert not (tmp_path / "data").exists()


def test_a_function_that_skips_its_failures_leaves_a_failed_dataset_with_every_frame_named(config, tmp_path):
    config["handler"] = {"process": "fails", "on_process_error": "skip"}
    with Acquisition(config) as acquisition:
        ledger = acquisition.run()
        assert acquisition.status == "failed"
    assert (ledger.failed, ledger.stored, len(ledger.not_stored), ledger.balanced) == (6, 0, 6, True)
