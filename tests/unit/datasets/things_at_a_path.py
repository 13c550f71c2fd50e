"""Creates things at the path of a new dataset, tries to overwrite them, and checks that they survive.

``python things_at_a_path.py FOLDER BACKEND (root | user) (directly | through-a-link)``, in a separate
process, which uses its own mounts if it is permitted to. Every node, mount and folder is created in FOLDER.
The script prints a line of JSON for each thing: its name, the outcome, the forbidden changes, and the content
of the path afterwards.
"""

import contextlib
import ctypes
import difflib  # noqa: F401 - an ordinary user may not be able to read it later
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

from exengine.datasets.creation import open_storage
from exengine.datasets.opening import open_dataset
from exengine.errors import ExEngineError
from exengine.kernel.storage import manifest
from exengine.testing.own_nodes import make_device, make_file, make_folder, make_socket

ROOT = os.name == "posix" and os.geteuid() == 0
NOBODY = 65534
SETTINGS = {"backend": "checked", "name": "data"}

THINGS = {}
"""Name -> (function that creates the thing, outcome, whether this requires root)."""


def thing(outcome, needs_root=False):
    """Register a function that creates a thing at a path, and the required outcome of overwriting it."""

    def register(make):
        THINGS[make.__name__.removeprefix("make_").replace("_", " ")] = (make, outcome, needs_root)
        return make

    return register


def make_dataset(path, value=1, finish=True):
    """Write a dataset of two frames."""
    storage = open_storage(SETTINGS["backend"], path)
    for time in range(2):
        storage.put({"time": time}, np.full((3, 4), value, np.uint16), {})
    if finish:
        storage.finish()
    storage.close()


def change_manifest(path, **changed):
    """Change the manifest of a dataset; None removes a key."""
    file = path / manifest.MANIFEST_NAME
    content = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def photos(path):
    path.mkdir()
    for number in range(3):
        (path / f"IMG_{number}.jpg").write_bytes(b"a photo" * (number + 1))


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)


# -- datasets of ExEngine, and nothing ---------------------------------------------------------------


@thing("overwritten")
def make_a_finished_dataset(path):
    make_dataset(path)


@thing("overwritten")
def make_an_incomplete_dataset(path):
    make_dataset(path, finish=False)


@thing("overwritten")
def make_a_dataset_of_an_earlier_version(path):
    make_dataset(path)
    change_manifest(path, files=None)


@thing("overwritten")
def make_a_dataset_with_hard_links_in_a_backup(path):
    make_dataset(path)
    backup = path.parent / "backup"
    backup.mkdir()
    for file in path.iterdir():
        os.link(file, backup / file.name)


@thing("overwritten")
def make_a_dataset_with_a_manifest_that_was_not_replaced(path):
    make_dataset(path)
    (path / "exengine.json.new").write_text("{")


@thing("created, no link")
def make_nothing(path):
    pass


@thing("created, no link")
def make_an_empty_folder(path):
    path.mkdir()


# -- files and nodes ---------------------------------------------------------------------------------


@thing("refused")
def make_a_text(path):
    make_file(path)


@thing("refused")
def make_an_empty_file(path):
    path.touch()


@thing("refused")
def make_a_tiff(path):
    path.write_bytes(b"II*\0" + bytes(100))


@thing("refused")
def make_a_manifest_alone(path):
    make_dataset(path.parent / "real")
    shutil.copy(path.parent / "real" / "exengine.json", path)


@thing("refused")
def make_a_pipe(path):
    os.mkfifo(path)


@thing("refused")
def make_a_socket(path):
    make_socket(path)


@thing("refused", needs_root=True)
def make_a_device(path):
    make_device(path)


@thing("refused", needs_root=True)
def make_a_block_device(path):
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(240, 200))


def link_to(make):
    def make_link(path):
        target = path.with_name(f"target{path.suffix}")
        make(target)
        path.symlink_to(target.name)

    return make_link


for _name, _make, _root in (
    ("pipe", os.mkfifo, False), ("socket", make_socket, False), ("device", make_device, True),
    ("file", make_file, False), ("folder of photos", photos, False), ("empty folder", os.mkdir, False),
):  # fmt: skip
    THINGS[f"a link to a {_name}"] = (link_to(_make), "refused", _root)


@thing("refused")
def make_a_dangling_link(path):
    path.symlink_to(f"nowhere{path.suffix}")


@thing("refused")
def make_a_link_to_itself(path):
    path.symlink_to(path.name)


@thing("refused")
def make_two_links_in_a_circle(path):
    path.symlink_to("other")
    (path.parent / "other").symlink_to(path.name)


# -- mount points ------------------------------------------------------------------------------------


@thing("refused", needs_root=True)
def make_an_empty_mount_point(path):
    path.mkdir()
    mount("-t", "tmpfs", "tmpfs", path)


@thing("refused", needs_root=True)
def make_a_dataset_that_is_a_mount_point(path):
    make_dataset(path.parent / "real")
    path.mkdir()
    mount("--bind", path.parent / "real", path)


@thing("refused", needs_root=True)
def make_a_dataset_with_a_file_system_mounted_inside(path):
    make_dataset(path)
    (path / "7.raw").mkdir()
    mount("-t", "tmpfs", "tmpfs", path / "7.raw")
    make_file(path / "7.raw" / "thesis.txt")


@thing("refused", needs_root=True)
def make_a_dataset_with_photos_bound_inside(path):
    photos(path.parent / "photos")
    make_dataset(path)
    (path / "photos").mkdir()
    mount("--bind", path.parent / "photos", path / "photos")


# -- folders of others -------------------------------------------------------------------------------


@thing("refused")
def make_a_home_folder(path):
    path.mkdir()
    (path / ".bashrc").write_text("alias ll='ls -l'")
    make_folder(path / ".ssh")
    make_folder(path / "Documents")
    make_dataset(path / "data")


@thing("refused")
def make_a_git_checkout_with_a_stray_manifest(path):
    make_folder(path)
    make_folder(path / ".git")
    make_dataset(path.parent / "real")
    shutil.copy(path.parent / "real" / "exengine.json", path)


@thing("refused")
def make_photos(path):
    photos(path)


@thing("refused")
def make_photos_with_a_stray_manifest(path):
    photos(path)
    make_dataset(path.parent / "real")
    shutil.copy(path.parent / "real" / "exengine.json", path)


@thing("refused")
def make_photos_with_a_manifest_that_claims_all_files(path):
    make_photos_with_a_stray_manifest(path)
    change_manifest(path, files=["{name}.jpg", "IMG_{number}.jpg"])


@thing("refused")
def make_a_foreign_dataset(path):
    make_dataset(path)
    (path / "exengine.json").unlink()


@thing("refused")
def make_a_folder_of_datasets(path):
    path.mkdir()
    for number in range(3):
        make_dataset(path / f"{number}.raw")


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
    "with an odd status": {"status": "odd"},
    "with files that are no list": {"files": "index"},
    "with files that are no texts": {"files": [1, 2]},
    "with files outside": {"files": ["../{name}.raw"]},
    "with files of another name": {"files": ["index", "other-{number}.raw"]},
}.items():
    THINGS[f"a dataset with a manifest {_name}"] = (damaged(**_changed), "refused", False)


def with_manifest(put):
    def make(path):
        make_dataset(path)
        file = path / "exengine.json"
        content = file.read_bytes()
        file.unlink()
        put(file, content)

    return make


for _name, _put in {
    "empty": lambda file, content: file.touch(),
    "cut": lambda file, content: file.write_bytes(content[:40]),
    "a link": lambda file, content: (
        (file.parent.parent / "elsewhere").write_bytes(content),
        file.symlink_to("../elsewhere"),
    ),
    "a folder": lambda file, content: file.mkdir(),
    "a pipe": lambda file, content: os.mkfifo(file),
}.items():
    THINGS[f"a dataset whose manifest is {_name}"] = (with_manifest(_put), "refused", False)


def holding(put):
    def make(path):
        make_dataset(path)
        put(path)

    return make


def _link_out(path):
    make_file(path.parent / "outside.raw")
    (path / "9.raw").symlink_to("../outside.raw")


def _link_to_a_folder(path):
    photos(path.parent / "photos")
    (path / "9.raw").symlink_to("../photos")


def _read_only_file(path):
    (path / "0.raw").chmod(0o444)


for _name, _put in {
    "notes": lambda path: make_file(path / "notes.txt"),
    "a git repository": lambda path: make_folder(path / ".git"),
    "an empty folder": lambda path: (path / "plots").mkdir(),
    "another dataset": lambda path: make_dataset(path / "second"),
    "a dataset far below": lambda path: make_dataset(path / "analysis" / "of" / "today"),
    "a dataset with the name of a frame": lambda path: make_dataset(path / "9.raw"),
    "a folder with the name of a frame": lambda path: make_folder(path / "9.raw"),
    "a link out": _link_out,
    "a link to a folder": _link_to_a_folder,
    "a dangling link": lambda path: (path / "9.raw").symlink_to("nowhere"),
    "a pipe with the name of a frame": lambda path: os.mkfifo(path / "9.raw"),
    "a socket with the name of a frame": lambda path: make_socket(path / "9.raw"),
    "a file with nearly the name of a frame": lambda path: make_file(path / "thesis9.raw"),
    "a copy of a frame": lambda path: make_file(path / "0 (copy).raw"),
    "a hidden file": lambda path: make_file(path / "._0.raw"),
    "a frame that is read-only": _read_only_file,
}.items():
    THINGS[f"a dataset with {_name} inside"] = (holding(_put), "refused", False)
THINGS["a dataset with a device inside"] = (
    holding(lambda path: make_device(path / "9.raw")),
    "refused",
    True,
)


@thing("refused")
def make_a_dataset_that_is_read_only(path):
    make_dataset(path)
    path.chmod(0o555)


@thing("refused")
def make_a_folder_that_nobody_may_read(path):
    make_folder(path)
    path.chmod(0)


@thing("refused")
def make_a_dataset_that_is_being_written(path):
    storage = open_storage(SETTINGS["backend"], path)
    storage.put({"time": 0}, np.ones((3, 4), np.uint16), {})
    KEPT_OPEN.append(storage)


KEPT_OPEN = []

# -- before and after --------------------------------------------------------------------------------


def snapshot(folder):
    """Return the kind, owner, inode, size and content of everything in a folder, without following links."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(base, name)
            status = os.lstat(path)
            content = ""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
            found[os.path.relpath(path, folder)] = (
                status.st_mode, status.st_uid, status.st_dev, status.st_ino, status.st_rdev, size, content
            )  # fmt: skip
    return found


def overwrite(path):
    """Try to create a dataset with one frame, with a different value; return the outcome."""
    try:
        storage = open_storage(SETTINGS["backend"], path, if_exists="overwrite")
    except ExEngineError as error:
        return f"refused: {type(error).__name__}: {error}"
    except BaseException as error:
        return f"foreign: {type(error).__name__}: {error}"
    storage.put({"time": 0}, np.full((3, 4), 2, np.uint16), {})
    storage.finish()
    storage.close()
    return "made"


def as_user(work):
    """Return the result of a function in a fork of this process that runs as an ordinary user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            result = work()
        except BaseException as error:
            result = f"foreign: {error!r}"
        os.write(writing, result.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        result = file.read()
    os.waitpid(child, 0)
    return result


def change_owner(folder):
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(base, name), NOBODY, NOBODY, follow_symlinks=False)
    os.chown(folder, NOBODY, NOBODY)


def try_one(folder, name, user, way):
    """Create a thing, try to overwrite it, and report the outcome."""
    make, wanted, needs_root = THINGS[name]
    if needs_root and not ROOT:
        return {"name": name, "skipped": "only root makes devices and mounts"}
    folder.mkdir()
    path = folder / SETTINGS["name"]
    make(path)
    given = path
    if way == "through-a-link":
        (folder / "links").mkdir()
        given = folder / "links" / f"link{path.suffix}"
        given.symlink_to(path)
    if user == "user" and ROOT:
        change_owner(folder)
    before = snapshot(folder)
    outcome = as_user(lambda: overwrite(given)) if user == "user" and ROOT else overwrite(given)
    after = snapshot(folder)
    frames = None
    if outcome == "made":
        with contextlib.closing(open_dataset(path)) as dataset:
            frames = [int(dataset.get_data(axes)[0, 0]) for axes in dataset]
        inside = (f"{path.name}/", f"{path.name}.exengine.")
        below = {key for key in {*before, *after} if key == path.name or key.startswith(inside)}
        before, after = ({key: tree[key] for key in tree.keys() - below} for tree in (before, after))
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    wanted = {
        "created, no link": "refused" if way == "through-a-link" else "made",
        "overwritten": "made",
    }.get(wanted, wanted)
    return {"name": name, "outcome": outcome, "wanted": wanted, "changed": changed, "frames": frames}


def live_apart():
    """Give this process its own mounts, which end with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x20000) != 0:  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "no mounts of its own")
    mount("--make-rprivate", "/")


def main(folder, backend, user, way):
    SETTINGS["backend"] = backend
    warnings.simplefilter("ignore", DeprecationWarning)
    folder = Path(folder)
    if ROOT:
        live_apart()
    warm = folder / SETTINGS["name"].replace("data", "warm")
    make_dataset(warm)  # import all lazily imported modules before dropping privileges
    overwrite(warm)
    for number, name in enumerate(THINGS):
        sys.stdout.write(json.dumps(try_one(folder / str(number), name, user, way)) + "\n")
        sys.stdout.flush()
    for storage in KEPT_OPEN:
        storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
