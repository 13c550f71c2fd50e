"""What the kit hears while a dataset is opened."""

import subprocess
import sys

import pytest

from exengine.testing import Watch

PROGRAM = """
import sys

from exengine.testing.watch import Watch

sys.path.insert(0, sys.argv[1])
watch = Watch()
watch.look_at(sys.argv[2])
open(sys.argv[3]).close()
print(watch.reached)
"""


@pytest.mark.parametrize(("name", "heard"), [("dataset/frame", False), ("secret", True)])
def test_a_folder_on_the_path_of_python_that_holds_the_dataset_is_not_installed(tmp_path, name, heard):
    (tmp_path / "dataset").mkdir()
    (tmp_path / name).write_text("x")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, tmp_path / "dataset", tmp_path / name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("opened outside" in done.stdout) is heard


def test_the_cache_of_a_module_that_an_import_writes_is_harmless(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    watch = Watch()
    watch.look_at(tmp_path / "dataset")
    try:
        __import__("imported_late")
        open(tmp_path / "other.pyc", "w").close()
    finally:
        watch.rest()
    sys.modules.pop("imported_late", None)
    written = [what for what in watch.reached if "for writing" in what]
    assert written == [f"opened a file for writing: {tmp_path / 'other.pyc'}"]
