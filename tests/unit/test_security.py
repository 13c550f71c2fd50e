"""Datasets and configs of strangers: nothing of them runs, nothing outside is reached, memory stays bounded.

Each is opened in another process that listens to Python's audit events. That the listening works is shown
by code that does what must not happen.
"""

import json
import os

import numpy as np
import pytest

from exengine.config.layers import resolve
from exengine.datasets.creation import StoragePlan, open_storage
from exengine.datasets.opening import open_dataset
from exengine.kernel.errors import (
    ConfigError,
    DatasetAccessError,
    DatasetDamagedError,
    DatasetExistsError,
    MetadataError,
    PluginNotFoundError,
)
from exengine.kernel.storage import manifest
from exengine.kernel.system.bounded import MAX_DEPTH, MAX_JSON_VALUES, parse_json, parse_toml, parse_yaml

DECOY = "exengine_decoy"

PROGRAM = """
import json, sys
from exengine.config.layers import resolve
from exengine.kernel.errors import ExEngineError
from exengine.datasets.creation import StoragePlan
from exengine.datasets.opening import open_dataset
from exengine.datasets.verification import verify
from exengine.testing import peak_mib
from exengine.testing.watch import Watch

def do(kind, path):
    if kind == "config":
        return StoragePlan.from_config(resolve(path, user=False)).name
    with open_dataset(path) as dataset:
        dataset.annotations, dataset.status_reason, dataset.is_finished(), list(dataset)
    return str(verify(path).status)

good, jobs = json.load(open(sys.argv[1]))
for kind, path in good:
    do(kind, path)
watch = Watch()
for kind, path in jobs:
    watch.look_at(path)
    try:
        outcome = do(kind, path)
    except ExEngineError as error:
        outcome = type(error).__name__
    except Exception as error:
        outcome = f"foreign: {error!r}"
    watch.rest()
    print(json.dumps([path, outcome, watch.reached]), flush=True)
print(json.dumps(["memory", peak_mib(), []]))
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def make(installed, tmp_path):
    """Return what makes a good dataset of one frame at a name."""

    def make_dataset(name):
        with open_storage("disk", tmp_path / "datasets" / name) as storage:
            storage.put({"time": 0}, np.ones((3, 4), np.uint8), {"a": 1})
        return tmp_path / "datasets" / name

    return make_dataset


@pytest.fixture
def watched(make, make_distribution, run_python, tmp_path):
    """Return what opens datasets and configs in a process that is listened to."""
    make_distribution(DECOY, None, f"open({os.fspath(tmp_path / 'decoy')!r}, 'w')")
    config = tmp_path / "good.yaml"
    config.write_text("storage: {backend: disk, path: x}")
    toml = tmp_path / "good.toml"
    toml.write_text("[storage]\nbackend = 'disk'\npath = 'x'\n")

    def run(jobs):
        spec = tmp_path / "jobs.json"
        good = [["all", str(make("good"))], ["config", str(config)], ["config", str(toml)]]
        spec.write_text(json.dumps([good, [[kind, str(where)] for kind, where in jobs]]))
        lines = run_python(PROGRAM, spec, timeout=100).stdout.splitlines()
        told = {where: (outcome, reached) for where, outcome, reached in map(json.loads, lines)}
        assert len(told) == len(jobs) + 1
        return told

    return run


BACKENDS = {
    "system": "os:system", "popen": "subprocess:Popen", "eval": "builtins:eval", "dotted": "os.system",
    "decoy": DECOY, "decoy class": f"{DECOY}:Store", "decoy inside": f"{DECOY}.inner:Store.x", "up": "../x",
    "absolute": "/etc/passwd", "empty": "", "null": "disk\0", "long": "x" * 200_000, "code": "__import__('os')",
    "colons": "a:b:c:d", "private": "_x", "surrogate": "\ud800", "number": 5, "list": ["disk"], "dict": {"a": 1},
    "module of ours": "exengine.kernel.storage.manifest:read_manifest", "alias": "exengine.storage_backends.x:Y",
}  # fmt: skip


def test_no_name_in_a_manifest_is_imported_or_called(make, watched):
    jobs = []
    for number, backend in enumerate(BACKENDS.values()):
        dataset = make(f"backend-{number}")
        content = json.loads((dataset / "exengine.json").read_text())
        (dataset / "exengine.json").write_text(json.dumps({**content, "backend": backend}))
        jobs.append(("all", dataset))
    told = watched(jobs)
    for (_, dataset), name in zip(jobs, BACKENDS, strict=True):
        outcome, reached = told[str(dataset)]
        assert (outcome, reached) in [("PluginNotFoundError", []), ("DatasetDamagedError", [])], name


@pytest.mark.parametrize("name", ["exengine.json", "exengine.lock"])
def test_links_pipes_and_devices_for_manifest_and_lock_are_not_opened(name, make, watched, tmp_path):
    (tmp_path / "outside").write_text("the work of somebody else")
    kinds = {
        "link": lambda place: place.symlink_to(tmp_path / "outside"),
        "good link": lambda place: place.symlink_to(make("other") / name),
        "passwd": lambda place: place.symlink_to("/etc/passwd"),
        "zero": lambda place: place.symlink_to("/dev/zero"),
        "nothing": lambda place: place.symlink_to("nowhere"),
        "loop": lambda place: place.symlink_to(place),
        "pipe": os.mkfifo,
        "folder": os.mkdir,
    }
    if os.geteuid() == 0:
        kinds["device"] = lambda place: os.mknod(place, 0o20666, os.makedev(1, 5))
    jobs = []
    for kind, put in kinds.items():
        dataset = make(f"kind-{kind}")
        (dataset / name).unlink()
        put(dataset / name)
        jobs.append(("all", dataset))
    told = watched(jobs)
    wanted = "DatasetDamagedError" if name == "exengine.json" else "complete"
    assert [told[str(dataset)] for _, dataset in jobs] == [(wanted, [])] * len(jobs)


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("if_exists", ["error", "overwrite", "number"])
def test_a_writer_goes_through_no_lock_of_others(kind, if_exists, make, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("the work of somebody else")
    dataset = make("trap")
    (dataset / "exengine.lock").unlink()
    if kind == "link":
        (dataset / "exengine.lock").symlink_to(outside)
    else:
        os.mkfifo(dataset / "exengine.lock")
    if if_exists != "number":
        with pytest.raises(DatasetExistsError):
            open_storage("disk", dataset, if_exists=if_exists)
    else:
        open_storage("disk", dataset, if_exists=if_exists).close()
    assert outside.read_text() == "the work of somebody else"


def test_a_dataset_that_is_recovered_in_place_locks_nothing_of_others(make, tmp_path):
    from exengine.kernel.storage.place import DatasetPlace

    dataset = make("trap")
    (dataset / "exengine.lock").unlink()
    (dataset / "exengine.lock").symlink_to(tmp_path / "made-elsewhere")
    with pytest.raises(DatasetAccessError, match="the path is a symbolic link, not a regular file"):
        DatasetPlace.reclaim(str(dataset))
    assert not (tmp_path / "made-elsewhere").exists()


def test_a_recovery_clears_no_folder_of_others(make, tmp_path):
    from exengine.datasets.recovery import recover

    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("the work of somebody else")
    dataset = make("incomplete")
    content = json.loads((dataset / "exengine.json").read_text())
    (dataset / "exengine.json").write_text(json.dumps({**content, "status": "incomplete"}))
    (dataset.parent / ".incomplete-recovered.recovering").symlink_to(victim)
    with pytest.raises(DatasetAccessError, match="is a symbolic link"):
        recover(dataset)
    assert (victim / "thesis.txt").read_text() == "the work of somebody else"


# -- bounds --------------------------------------------------------------------------------------


def test_a_manifest_of_any_content_takes_less_than_512_mib(make, watched):
    texts = {
        "lists": b"[" + b"[]," * 5_000_000 + b"0]",
        "dicts": b"[" + b"{}," * 5_000_000 + b"0]",
        "below the limit": b"[" + b"[]," * (MAX_JSON_VALUES // 2 - 10) + b"0]",
        "deep": b"[" * 1_000_000,
        "deep dicts": b'{"a":' * 1_000_000,
        "digits": b"9" * 1_000_000,
        "text": b'"' + b"x" * 16_000_000 + b'"',
        "zeros": bytes(20_000_000),
    }
    jobs = []
    for number, text in enumerate(texts.values()):
        dataset = make(f"text-{number}")
        (dataset / "exengine.json").write_bytes(text)
        jobs.append(("all", dataset))
    with open(make("sparse") / "exengine.json", "ab") as file:
        file.truncate(2**40)
        jobs.append(("all", os.path.dirname(file.name)))
    told = watched(jobs)
    memory, _ = told.pop("memory")
    assert {outcome for outcome, _ in told.values()} == {"DatasetDamagedError"}
    assert all(reached == [] for _, reached in told.values())
    assert memory < 512


def test_an_annotation_that_would_make_the_manifest_unreadable_is_refused_and_nothing_changes(
    installed, path
):
    with open_storage("disk", path) as storage:
        for value in ("x" * manifest.MAX_BYTES, [0] * (MAX_JSON_VALUES + 1)):
            with pytest.raises(MetadataError, match="the dataset's manifest would be too large"):
                storage.annotate("big", value)
        storage.annotate("small", 1)
        storage.put({"time": 0}, np.ones((3, 4), np.uint8), {})
    with open_dataset(path) as dataset:
        assert dataset.annotations == {"small": 1}
        assert dataset.status == "complete"


def test_the_reason_of_an_end_never_makes_the_manifest_unreadable(installed, path):
    storage = open_storage("disk", path)
    storage.annotate("as much as goes in", "x" * (manifest.MAX_BYTES - 2**17 - 1000))
    storage.abort("y" * 10_000_000)
    storage.close()
    assert open_dataset(path).status == "aborted"


def test_json_of_too_many_values_is_refused_before_it_is_made():
    assert len(parse_json(b"[" + b"0," * (MAX_JSON_VALUES // 2) + b"0]")) == MAX_JSON_VALUES // 2 + 1
    with pytest.raises(ValueError, match="the limit is 1000000"):
        parse_json(b"[" + b"0," * MAX_JSON_VALUES + b"0]")


# -- configs -------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 9)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
CONFIGS = {
    "object.yaml": "!!python/object/apply:os.system ['true']",
    "new.yaml": "storage: !!python/object/new:subprocess.Popen [['true']]",
    "module.yaml": f"storage: !!python/module:{DECOY} ''",
    "name.yaml": f"storage: {{backend: !!python/name:{DECOY}.run ''}}",
    "laughs.yaml": LAUGHS,
    "merges.yaml": MERGES,
    "itself.yaml": "storage: &a {options: *a}",
    "deep.yaml": "storage: {options: {a: " + "[" * 60 + "]" * 60 + "}}",
    "deeper.yaml": "[" * 200_000,
    "base60.yaml": "a: 1" + ":59" * 200_000,
    "hex.yaml": "storage: {backend: 0x" + "f" * 390 + "}",
    "odd-int.yaml": "storage: !!int ''",
    "odd-bool.yaml": "storage: !!bool x",
    "odd-time.yaml": "storage: !!timestamp x",
    "odd-binary.yaml": "storage: !!binary '###'",
    "null.yaml": "storage: {backend: 'a\0b'}",
    "many.yaml": "storage: {options: {a: [" + "0," * 60_000 + "]}}",
    "attribute.yaml": f"storage: {{backend: '{DECOY}:run', path: x}}",
    "system.yaml": "storage: {backend: 'os:system', path: x}",
    "up.yaml": "storage: {backend: '../../etc/passwd', path: x}",
    "long.yaml": "storage: {backend: " + "x" * 500_000 + ", path: x}",
    "key.toml": "a" + ".a" * 200_000 + " = 1",
    "quoted.toml": '"a"' + ' . "a"' * 100_000 + " = 1",
    "header.toml": "[" + "a." * 200_000 + "a]",
    "deep.toml": "a = " + "[" * 200_000,
    "tables.toml": "storage = " + "{a = " * 100_000,
    "hex.toml": "[storage]\nbackend = 0x" + "f" * 10_000,
    "digits.toml": "a = " + "9" * 100_000,
    "many.toml": "[storage.options]\na = [" + "0," * 60_000 + "]",
    "attribute.toml": f"[storage]\nbackend = '{DECOY}:run'\npath = 'x'\n",
}


def test_no_config_runs_anything_or_takes_long(watched, tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    jobs = []
    for name, text in CONFIGS.items():
        (folder / name).write_text(text)
        jobs.append(("config", folder / name))
    (folder / "utf8.yaml").write_bytes(b"storage: \xff\xfe")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "loop.yaml").symlink_to(folder / "loop.yaml")
    with open(folder / "large.yaml", "wb") as file:
        file.truncate(100 * 2**20)
    jobs += [("config", folder / f"{name}.yaml") for name in ("utf8", "pipe", "zero", "loop", "large")]
    told = watched(jobs)
    memory, _ = told.pop("memory")
    wrong = {
        os.path.basename(name): result
        for name, result in told.items()
        if result not in (("ConfigError", []), ("PluginNotFoundError", []))
    }
    assert wrong == {}
    assert memory < 512


def test_a_link_to_a_config_is_followed_because_the_user_has_made_it(tmp_path):
    (tmp_path / "real.yaml").write_text("storage: {backend: ndtiff}")
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    assert resolve(tmp_path / "link.yaml", user=False)["storage.backend"] == "ndtiff"


@pytest.mark.parametrize(
    "value", [f"{DECOY}:run", "os:system", "os.system", "../x", "a\0b", "", "x" * 100_000]
)
@pytest.mark.parametrize("layer", ["arguments", "command_line", "environment"])
def test_no_layer_of_settings_imports_what_is_not_registered(
    value, layer, installed, make_distribution, path
):
    make_distribution(DECOY, None, "raise AssertionError('it was imported')")
    key = "EXENGINE_STORAGE__BACKEND" if layer == "environment" else "storage.backend"
    layers = {"environment": {}, layer: {key: value}}
    with pytest.raises((PluginNotFoundError, ConfigError)):
        StoragePlan.from_config(resolve({"storage": {"path": str(path)}}, user=False, **layers))


@pytest.mark.parametrize(
    "text", [LAUGHS.replace("\n", ", ")[:-2].join("{}"), "1" + ":59" * 500, "!!python/name:os.system"]
)
def test_a_variable_with_a_bomb_is_refused(text):
    with pytest.raises(ConfigError, match="is not valid YAML"):
        resolve(environment={"EXENGINE_SEQUENCE__METADATA": text}, user=False)


def test_what_a_config_can_hold_is_read():
    wide = "a: [" + ", ".join(["0.5"] * 20_000) + "]"
    assert len(parse_yaml(wide)["a"]) == 20_000
    assert parse_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    assert parse_yaml("a: &x {k: 1}\nb: {<<: *x, l: 2}") == {"a": {"k": 1}, "b": {"k": 1, "l": 2}}
    assert parse_yaml("[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)) is not None
    assert parse_toml("a.b.c.d = 'x'\n[e]\nf = [1.5, 2.5]") == {
        "a": {"b": {"c": {"d": "x"}}},
        "e": {"f": [1.5, 2.5]},
    }
    assert parse_yaml("") is None and parse_toml("") is None


# -- the listening itself ------------------------------------------------------------------------

HARM = {
    "exec": "exec('1')",
    "compile": "compile('1', '<data>', 'eval')",
    "import": "import_module('exengine_decoy')",
    "system": "os.system('true')",
    "program": "subprocess.run(['true'])",
    "socket": "socket.socket()",
    "library": "ctypes.CDLL('libm.so.6')",
    "read outside": "open('/etc/passwd')",
    "write inside": "open(os.path.join(root, 'x'), 'w')",
    "remove": "os.remove(os.path.join(root, 'nothing'))",
    "list outside": "os.listdir('/etc')",
    "pickle": "pickle.loads(b'cos\\nsystem\\n.')",
    "through a link": "open(os.path.join(root, 'link'))",
}


@pytest.mark.parametrize("kind", HARM)
def test_the_listening_hears(kind, run_python, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to("/etc/passwd")
    program = f"""
import contextlib, ctypes, os, pickle, socket, subprocess, sys
from importlib import import_module
from exengine.testing.watch import Watch
root = sys.argv[1]
def harm():
    {HARM[kind]}
watch = Watch()
watch.look_at(root)
with contextlib.suppress(Exception):
    harm()
watch.rest()
print(len(watch.reached))
"""
    assert int(run_python(program, root).stdout) >= 1


def test_damage_is_told_and_not_the_content_of_what_a_link_leads_to(make):
    dataset = make("told")
    (dataset / "exengine.json").unlink()
    (dataset / "exengine.json").symlink_to("/etc/passwd")
    with pytest.raises(DatasetDamagedError) as info:
        open_dataset(dataset)
    assert "root" not in str(info.value).replace(str(dataset), "")
