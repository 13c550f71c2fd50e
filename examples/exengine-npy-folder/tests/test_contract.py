"""The class is valid: its interface and its documentation."""

import doctest
from importlib import resources

import exengine
import pytest
from exengine.errors import OptionError
from exengine.testing import check_class

import exengine_npy_folder.storage
from exengine_npy_folder import NpyFolderStorage


def test_the_class_has_no_fault_of_the_contract_and_the_documentation():
    assert check_class(NpyFolderStorage, exengine.DataStorage) == []


def test_the_options_are_those_of_the_signature_without_the_place(tmp_path):
    with pytest.raises(OptionError, match="the options are sync_every, summary_metadata$"):
        exengine.open_storage("npy-folder", tmp_path / "data", path="elsewhere")


def test_the_examples_of_the_docstrings_run():
    result = doctest.testmod(exengine_npy_folder.storage)
    assert result.attempted > 0 and result.failed == 0


def test_the_page_is_part_of_the_installed_package():
    page = resources.files(exengine_npy_folder) / "docs" / "npy-folder.rst"
    assert "npy-index.jsonl" in page.read_text(encoding="utf-8")


def test_a_wrong_option_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(OptionError, match="at least 0"):
        exengine.open_storage("npy-folder", tmp_path / "data", sync_every=-1)
    with pytest.raises(OptionError, match="did you mean 'sync_every'"):
        exengine.open_storage("npy-folder", tmp_path / "data", sync_evry=1)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_value_is_refused_from_python_too(tmp_path):
    with pytest.raises(OptionError, match="from 0"):
        NpyFolderStorage(tmp_path / "data", sync_every=-1)
    assert list(tmp_path.iterdir()) == []
