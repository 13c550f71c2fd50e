"""Creates things at the path of a new single-file dataset, as ``things_at_a_path`` does for a folder.

``python things_at_a_file.py FOLDER BACKEND (root | user) (directly | through-a-link)``
"""

import contextlib
import encodings.ascii  # noqa: F401 - an ordinary user may not be able to read it later
import json
import os
import shutil
import stat
import sys

import things_at_a_path as things
from things_at_a_path import THINGS, make_dataset, thing

from exengine.testing.own_nodes import make_device, make_file, make_folder, make_socket

FROM_FOLDERS = (
    "nothing", "a text", "an empty file", "a tiff", "a pipe", "a socket", "a device", "a block device",
    "a link to a pipe", "a link to a socket", "a link to a device", "a link to a file",
    "a link to a folder of photos", "a dangling link", "a link to itself", "two links in a circle", "photos",
)  # fmt: skip
KEPT = {name: THINGS[name] for name in FROM_FOLDERS}
THINGS.clear()
THINGS.update(KEPT)


def beside(path, name):
    """Return the path of a file next to a dataset."""
    return path.with_name(f"{path.name}.exengine.{name}")


def change_manifest(path, **changed):
    file = beside(path, "json")
    content = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


# -- datasets of ExEngine --------------------------------------------------------------------------


@thing("overwritten")
def make_a_finished_dataset(path):
    make_dataset(path)


@thing("overwritten")
def make_an_incomplete_dataset(path):
    make_dataset(path, finish=False)


@thing("overwritten")
def make_a_dataset_with_a_lock_that_nobody_holds(path):
    make_dataset(path, finish=False)
    beside(path, "lock").touch()


@thing("overwritten")
def make_a_dataset_with_a_manifest_that_was_not_replaced(path):
    make_dataset(path)
    beside(path, "json.new").write_text("{")


@thing("overwritten")
def make_a_dataset_whose_new_file_was_not_published(path):
    make_dataset(path, finish=False)
    beside(path, "new").write_text("{")


@thing("overwritten")
def make_a_dataset_with_hard_links_in_a_backup(path):
    make_dataset(path)
    backup = path.parent / "backup"
    backup.mkdir()
    for file in [path, beside(path, "json")]:
        os.link(file, backup / file.name)


@thing("overwritten")
def make_a_copied_dataset(path):
    original = path.with_name("original.lines")
    make_dataset(original)
    shutil.copy(original, path)
    shutil.copy(beside(original, "json"), beside(path, "json"))


@thing("overwritten")
def make_a_dataset_among_other_files(path):
    make_dataset(path)
    for name in ("data.lines.bak", "data.lines.txt", "data.linesx", "data.lines.exengine", "notes.txt"):
        make_file(path.with_name(name))


# -- files of others -------------------------------------------------------------------------------


@thing("refused")
def make_an_empty_folder(path):
    path.mkdir()


@thing("refused")
def make_a_file_that_the_backend_can_open(path):
    make_dataset(path)
    beside(path, "json").unlink()


@thing("refused")
def make_a_file_with_a_stray_manifest(path):
    make_dataset(path)
    path.write_bytes(b"another person's work")


@thing("refused")
def make_a_dataset_of_another_name_in_its_place(path):
    make_dataset(path)
    other = path.with_name("other.lines")
    make_dataset(other, value=7)
    beside(other, "json").unlink()
    os.replace(other, path)


@thing("refused")
def make_a_dataset_that_another_program_changed(path):
    make_dataset(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@thing("refused")
def make_a_dataset_that_another_program_continued(path):
    make_dataset(path)
    path.write_bytes(path.read_bytes() + b"{}")


@thing("refused", needs_root=True)
def make_a_dataset_that_is_a_mount_point(path):
    make_dataset(path)
    photo = path.parent / "photo.jpg"
    shutil.copy(path, photo)
    things.mount("--bind", photo, path)


# -- datasets with something wrong -------------------------------------------------------------------


def damaged(**changed):
    def make(path):
        make_dataset(path)
        change_manifest(path, **changed)

    return make


for _name, _changed in {
    "of another format": {"format": "other"},
    "of a later version": {"format_version": 2},
    "without a backend": {"backend": None},
    "that names no installed backend": {"backend": "not-installed"},
    "that names a backend in memory": {"backend": "memory"},
    "that names a backend of folders": {"backend": "checked"},
    "with an odd status": {"status": "odd"},
    "without files": {"files": None},
    "with files that are no list": {"files": "{file}"},
    "with files that are no texts": {"files": [1, 2]},
    "with the files of a folder": {"files": ["index", "{number}.raw"]},
    "with files of others": {"files": ["{file}", "{file}.bak"]},
    "without a sample of the file": {"samples": None},
    "with another sample of the file": {"samples": ["12-ab"]},
    "with samples that are no texts": {"samples": [1, [2]]},
}.items():
    THINGS[f"a dataset with a manifest {_name}"] = (damaged(**_changed), "refused", False)


def with_file(name, finish, put):
    def make(path):
        make_dataset(path, finish=finish)
        file = beside(path, name)
        content = file.read_bytes()
        file.unlink()
        put(file, content)

    return make


def _link(file, content):
    elsewhere = file.parent / f"elsewhere-{file.name}"
    elsewhere.write_bytes(content)
    file.symlink_to(elsewhere.name)


for _name, _put in {
    "empty": lambda file, content: file.touch(),
    "cut": lambda file, content: file.write_bytes(content[:40]),
    "a link": _link,
    "a folder": lambda file, content: file.mkdir(),
    "a pipe": lambda file, content: os.mkfifo(file),
    "a socket": lambda file, content: make_socket(file),
}.items():
    THINGS[f"a dataset whose manifest is {_name}"] = (with_file("json", True, _put), "refused", False)
    if _name not in ("empty", "cut"):
        THINGS[f"a dataset whose journal is {_name}"] = (with_file("journal", False, _put), "refused", False)

for _name, _make in {
    "notes": lambda path: make_file(beside(path, "notes")),
    "an old manifest": lambda path: shutil.copy(beside(path, "json"), beside(path, "json.orig")),
    "a folder": lambda path: make_folder(beside(path, "plots")),
    "a link with the name of the journal": lambda path: beside(path, "journal").symlink_to("nowhere"),
    "a folder with the name of the lock": lambda path: make_folder(beside(path, "lock")),
    "a pipe with the name of the new file": lambda path: os.mkfifo(beside(path, "new")),
}.items():

    def _beside(path, make=_make):
        make_dataset(path)
        make(path)

    THINGS[f"a dataset with {_name} next to it"] = (_beside, "refused", False)


@thing("refused", needs_root=True)
def make_a_dataset_with_a_device_next_to_it(path):
    make_dataset(path)
    make_device(beside(path, "journal"))


@thing("refused")
def make_a_dataset_that_is_read_only(path):
    make_dataset(path)
    path.chmod(stat.S_IRUSR)


@thing("refused")
def make_a_dataset_in_a_folder_that_is_read_only(path):
    make_dataset(path)
    path.parent.chmod(0o555)


@thing("refused")
def make_a_dataset_that_is_being_written(path):
    things.make_a_dataset_that_is_being_written(path)


@thing("refused")
def make_a_folder_that_claims_to_be_one_file(path):
    make_dataset(path.with_name("real.lines"))
    make_folder(path)
    shutil.copy(beside(path.with_name("real.lines"), "json"), path / "exengine.json")


if __name__ == "__main__":
    things.SETTINGS["name"] = "data.lines"
    with contextlib.suppress(BrokenPipeError):
        things.main(*sys.argv[1:])
