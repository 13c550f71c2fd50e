"""Paths are written the same way in a config file and in Python."""

import os

import numpy as np
import pytest

from exengine.datasets.opening import open_dataset
from exengine.datasets.recovery import recover
from exengine.datasets.verification import verify
from exengine.kernel.errors import DatasetAccessError, DatasetNotFoundError
from exengine.kernel.system.files import refusal_of


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return the home folder; the current folder is another one, which stays empty."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    yield home
    assert os.listdir(here) == []


def test_a_class_that_is_called_directly_expands_the_home_folder(home, checked):
    storage = checked("~/data.checked")
    storage.put({"time": 0}, np.zeros((3, 4)), None)
    assert storage.path == str(home / "data.checked")
    storage.close()
    reader = checked.open(home / "data.checked")
    with type(reader)("~/data.checked", reader._exengine.index, reader.status) as other:
        assert other.path == str(home / "data.checked")
    reader.close()
    with open_dataset("~/data.checked") as dataset:
        assert dataset.path == str(home / "data.checked")
    assert verify("~/data.checked").frames == 1
    report = recover("~/data.checked", output="~/other.checked")
    assert report.path == str(home / "other.checked")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("$HOME/x", "variables such as $HOME are not expanded"),
        ("${DATA}/x", "variables such as ${ are not expanded"),
        ("%USERPROFILE%/x", "variables such as %USERPROFILE% are not expanded"),
        ("{home}/$DATA/x", "variables such as $DATA are not expanded"),
        ("https://example.org/x", "it is a URL"),
    ],
)
def test_variables_and_urls_are_refused_by_a_class_that_is_called_directly(path, says, home, checked):
    path = path.replace("{home}", str(home))
    with pytest.raises(DatasetAccessError) as caught:
        checked(path)
    assert says in str(caught.value)
    if "://" not in path:  # a URL is for the backends that read URLs
        with pytest.raises(DatasetNotFoundError) as caught:
            open_dataset(path)
        assert says in str(caught.value)
    assert os.listdir(home) == []


def test_a_folder_that_exists_may_have_any_name(home, checked):
    (home / "$a %b%").mkdir()
    for path in (home / "$a %b%" / "x", home / "$x"):
        with checked(path) as storage:
            storage.put({"time": 0}, np.zeros((3, 4)), None)
        with open_dataset(path) as dataset:
            assert len(dataset) == 1


@pytest.mark.parametrize("path", ["data", "/a/b c", "50% of it", "a$", "~/x", "C:/x"])
def test_other_texts_are_paths(path):
    assert refusal_of(path) == ""
