"""Tests of the installed package: its entry point, its class and its documentation."""

import doctest
from importlib import resources

import exengine
import pytest
from exengine.errors import OptionError
from exengine.testing import check_class

import exengine_h5_folder
import exengine_h5_folder.storage
from exengine_h5_folder import H5FolderStorage


def test_it_is_found_by_its_name():
    assert exengine.backends()["h5-folder"].distribution == "exengine-h5-folder"


def test_the_class_follows_contract_and_documentation():
    assert check_class(H5FolderStorage, exengine.DataStorage) == []


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(exengine_h5_folder.storage)
    assert result.attempted > 0 and result.failed == 0


def test_the_import_path_of_all_backends_leads_to_the_same_class():
    from exengine.storage_backends.h5_folder import H5FolderStorage as by_alias

    assert by_alias is H5FolderStorage


def test_the_page_is_part_of_the_installed_package():
    assert (resources.files(exengine_h5_folder) / "docs" / "h5-folder.rst").is_file()


@pytest.mark.parametrize("level", [-1, 10])
def test_a_wrong_option_is_refused_and_nothing_is_written(tmp_path, level):
    with pytest.raises(OptionError, match="level"):
        exengine.open_storage("h5-folder", tmp_path / "data", level=level)
    with pytest.raises(OptionError, match="at least 0, at most 9"):
        H5FolderStorage(tmp_path / "data", level=level)
    assert list(tmp_path.iterdir()) == []
