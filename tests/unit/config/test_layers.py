"""Settings: each value with its origin, one schema, and errors that say how to go on."""

import contextlib
import os
import string

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exengine.config.files import read_file
from exengine.config.layers import Config, resolve
from exengine.config.settings import SETTINGS, parse_bytes
from exengine.kernel.errors import ConfigError
from exengine.kernel.registry.options import TextValue
from exengine.kernel.system import files

FULL = {
    "storage": {
        "backend": "ndtiff",
        "path": "a/b",
        "if_exists": "number",
        "check_space": False,
        "options": {"max_file_bytes": 5000},
    },
    "handler": {
        "max_pending": "1 GiB",
        "max_frames": 500,
        "when_full": "error",
        "block_timeout_s": 2.5,
        "process": "background",
        "workers": 2,
        "on_process_error": "raw",
        "sync_every_s": 0.5,
    },
    "source": {"name": "simulated", "options": {"width": 64}},
    "sequence": {"channels": ["DAPI"], "time_plan": {"interval": 0, "loops": 2}},
}


@pytest.fixture
def write(tmp_path):
    def write(text, name="config.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def user_file(monkeypatch, tmp_path):
    """Return what writes the file in the user's config folder."""

    def write(text):
        folder = files.config_folder()
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "config.yaml")
        with open(path, "w") as file:
            file.write(text)
        return path

    return write


# -- values and defaults -------------------------------------------------------------------------


def test_without_anything_every_setting_has_its_default():
    config = resolve(environment={})
    assert list(config.rows()) == [
        (setting.key, setting.default, config.origin(setting.key))
        for setting in SETTINGS
        if not isinstance(setting.default, dict)
    ]
    assert {str(origin) for _, _, origin in config.rows()} == {"default"}


def test_a_file_gives_every_setting(write):
    path = write(yaml.safe_dump(FULL))
    config = resolve(path, environment={})
    assert config["storage.backend"] == "ndtiff" and config["handler.max_pending"] == 2**30
    assert config.section("storage.options") == {"max_file_bytes": 5000}
    assert config.section("source.options") == {"width": 64}
    assert config.section("sequence") == FULL["sequence"]
    assert {str(origin) for _, _, origin in config.rows()} == {f"file: {path}"}
    assert config.files == [path]


def test_what_is_resolved_is_a_config_again():
    config = resolve(FULL, environment={})
    tree = config.to_dict()
    assert tree == {**FULL, "handler": {**FULL["handler"], "max_pending": 2**30}}
    assert resolve(tree, environment={}).to_dict() == tree


def test_toml_says_the_same_as_yaml(write):
    text = """
[storage]
backend = "ndtiff"
path = "a/b"
if_exists = "number"
check_space = false
options = {max_file_bytes = 5000}
[handler]
max_pending = "1 GiB"
max_frames = 500
when_full = "error"
block_timeout_s = 2.5
process = "background"
workers = 2
on_process_error = "raw"
sync_every_s = 0.5
[source]
name = "simulated"
options = {width = 64}
[sequence]
channels = ["DAPI"]
time_plan = {interval = 0, loops = 2}
"""
    assert (
        resolve(write(text, "config.toml"), environment={}).to_dict()
        == resolve(FULL, environment={}).to_dict()
    )


def test_a_resolved_config_is_taken_as_it_is():
    config = resolve(FULL, environment={})
    assert resolve(config) is config


def test_empty_sections_are_allowed(write):
    config = resolve(write("storage:\nsource:\n  name: simulated\n  options:\n"), environment={})
    assert config["source.name"] == "simulated" and config.section("source.options") == {}


def test_the_mapping_that_was_given_is_not_changed():
    given_mapping = yaml.safe_load(yaml.safe_dump(FULL))
    resolve(given_mapping, arguments={"storage.backend": "ndram"}, environment={})
    assert given_mapping == FULL


def test_a_resolved_config_is_json_also_when_python_objects_were_given(tmp_path):
    import json

    config = resolve({"storage": {"backend": "ndtiff", "path": tmp_path / "data"}}, environment={})
    assert json.loads(json.dumps(config.to_dict()))["storage"]["path"] == str(tmp_path / "data")


# -- precedence ----------------------------------------------------------------------------------


def test_argument_command_line_environment_file_user_default_in_this_order(write, user_file):
    layers = {
        "user": user_file(
            "handler: {max_pending: 1, when_full: error}\nstorage: {path: user, backend: same}"
        ),
        "file": write("handler: {max_pending: 2}\nstorage: {path: file, backend: same}"),
    }
    variables = {"EXENGINE_HANDLER__MAX_PENDING": "3 B", "EXENGINE_STORAGE__PATH": "environment"}

    def seen(**more):
        config = resolve(layers["file"], environment=more.pop("environment", {}), **more)
        return config["handler.max_pending"], config["storage.path"], config.origin("storage.path").layer

    assert resolve(environment={})["handler.max_pending"] == 1
    assert seen() == (2, "file", "file")
    assert seen(environment=variables) == (3, "environment", "environment")
    line = {"handler.max_pending": TextValue("4"), "storage.path": TextValue("line")}
    assert seen(environment=variables, command_line=line) == (4, "line", "command line")
    arguments = {"handler.max_pending": 5, "storage.path": "argument"}
    assert seen(environment=variables, command_line=line, arguments=arguments) == (5, "argument", "argument")
    config = resolve(layers["file"], environment={})
    assert config["handler.when_full"] == "error"
    assert str(config.origin("handler.when_full")) == f"user: {layers['user']}"
    assert config["storage.if_exists"] == "error" and config.origin("storage.if_exists").layer == "default"
    assert config.files == [layers["user"], layers["file"]]


def test_the_users_own_file_can_be_left_out(user_file):
    user_file("storage: {backend: mine}")
    assert resolve(environment={})["storage.backend"] == "mine"
    assert resolve(environment={}, user=False)["storage.backend"] is None


def test_options_of_one_backend_from_several_layers_come_together(write):
    path = write("storage: {backend: a, options: {one: 1, two: 2}}")
    config = resolve(
        path, environment={"EXENGINE_STORAGE__OPTIONS__TWO": "22"}, arguments={"storage.options.three": 3}
    )
    assert config.section("storage.options") == {"one": 1, "two": "22", "three": 3}
    assert config.set_aside == []


@pytest.mark.parametrize(("section", "name"), [("storage", "backend"), ("source", "name")])
def test_when_a_higher_layer_names_another_plugin_the_options_are_set_aside_and_it_says_so(
    write, section, name
):
    path = write(f"{section}: {{{name}: a, options: {{one: 1}}}}")
    config = resolve(path, environment={f"EXENGINE_{section.upper()}__{name.upper()}": "b"})
    assert config[f"{section}.{name}"] == "b" and config.section(f"{section}.options") == {}
    (aside,) = config.set_aside
    assert (aside.key, aside.value, str(aside.origin)) == (f"{section}.options.one", 1, f"file: {path}")
    assert "belongs to 'a'" in aside.reason and f"EXENGINE_{section.upper()}" in aside.reason


@pytest.mark.parametrize("spelling", ["my-store", "my_store"])
def test_options_stay_when_a_higher_layer_names_the_same_plugin(spelling):
    mapping = {"storage": {"backend": "my-store", "options": {"one": 1}}}
    config = resolve(mapping, environment={}, arguments={"storage.backend": spelling})
    assert config.section("storage.options") == {"one": 1} and config.set_aside == []


def test_options_that_come_with_the_other_name_stay(write):
    path = write("storage: {backend: a, options: {one: 1, same: 1}}")
    config = resolve(path, environment={}, arguments={"storage.backend": "b", "storage.options.same": 2})
    assert config.section("storage.options") == {"same": 2}
    assert [aside.key for aside in config.set_aside] == ["storage.options.one", "storage.options.same"]


def test_a_sequence_replaces_the_one_below_as_a_whole(write, user_file):
    user_file("sequence: {channels: [DAPI], z_plan: {range: 4, step: 1}}")
    config = resolve(write("sequence: {channels: [FITC]}"), environment={})
    assert config.section("sequence") == {"channels": ["FITC"]}
    assert {aside.key for aside in config.set_aside} == {"sequence.channels", "sequence.z_plan"}


# -- the environment -----------------------------------------------------------------------------


def test_fields_of_the_sequence_come_from_the_environment_as_yaml():
    config = resolve(environment={"EXENGINE_SEQUENCE__CHANNELS": "[DAPI, FITC]"})
    assert config.section("sequence") == {"channels": ["DAPI", "FITC"]}


def test_a_field_of_the_sequence_that_is_no_yaml_is_refused_by_the_name_of_the_variable():
    with pytest.raises(ConfigError, match=r"EXENGINE_SEQUENCE__CHANNELS\) is not valid YAML"):
        resolve(environment={"EXENGINE_SEQUENCE__CHANNELS": "[DAPI"})


def test_other_variables_are_no_concern():
    config = resolve(
        environment={"EXENGINE": "x", "EXENGINE_TEST_DATA": "x", "PATH": "x", "NOT_EXENGINE_STORAGE__X": "x"}
    )
    assert config.values == {}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EXENGINE_STORAGE__BACKND", "EXENGINE_STORAGE__BACKEND"),
        ("EXENGINE_STORAG__BACKEND", "EXENGINE_STORAGE__BACKEND"),
        ("EXENGINE_HANDLER__MAX_PENDNG", "EXENGINE_HANDLER__MAX_PENDING"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(name, meant):
    with pytest.raises(ConfigError, match=f"variable {name} is not a setting .did you mean '{meant}'"):
        resolve(environment={name: "x"})


# -- nothing is ignored silently -----------------------------------------------------------------


@pytest.mark.parametrize("key", ["storage.options", "source.options", "sequence"])
@pytest.mark.parametrize("value", [{"one": 1}, TextValue("{one: 1}")], ids=["mapping", "text"])
@pytest.mark.parametrize("layer", ["arguments", "command_line"])
def test_a_whole_section_of_free_keys_is_taken_apart_or_refused(key, value, layer):
    try:
        config = resolve(environment={}, **{layer: {key: value}})
    except ConfigError:
        return
    assert config.section(key) == {"one": 1}


@pytest.mark.parametrize("name", ["EXENGINE_STORAGE__OPTIONS", "EXENGINE_SOURCE__OPTIONS"])
def test_a_variable_with_all_options_is_taken_apart_or_refused(name):
    try:
        config = resolve(environment={name: "{one: 1}"})
    except ConfigError:
        return
    assert config.section(name.removeprefix("EXENGINE_").replace("__", ".").lower()) == {"one": 1}


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (
            {"storag": {}},
            r"unknown key 'storag' \(did you mean 'storage'\?\); the sections are storage, handler, source",
        ),
        ({"storage": {"backnd": "x"}}, r"unknown key 'storage\.backnd' \(did you mean 'storage\.backend'"),
        ({"handler": {"max": 1}}, r"unknown key 'handler\.max'"),
        ({"storage": {"option": {}}}, r"unknown key 'storage\.option'"),
        ({1: {}}, "unknown key 1"),
        ({None: {}}, "unknown key None"),
        ({"storage": {1: 2}}, r"unknown key 'storage\.1'"),
        ({"storage": "ndtiff"}, "storage must be a section with keys, got 'ndtiff'"),
        ({"storage": ["ndtiff"]}, "storage must be a section"),
        ({"sequence": [1]}, "sequence must be a section"),
        ({"storage": {"options": 5}}, r"storage\.options must map option names to values, got 5"),
        ({"storage": {"backend": 5}}, r"storage\.backend \(argument: mapping\) must be a string, got 5"),
        ({"storage": {"path": ["a"]}}, r"storage\.path .* must be a string"),
        ({"storage": {"path": b"a"}}, r"storage\.path .* must be a string"),
        (
            {"storage": {"if_exists": "overwrit"}},
            r"is 'overwrit' \(did you mean 'overwrite'\?\); the allowed values are error, number, ",
        ),
        ({"storage": {"if_exists": None}}, "is None"),
        ({"storage": {"if_exists": ["error"]}}, "the allowed values are error, number, overwrite"),
        ({"handler": {"when_full": "drpo"}}, "'drop'.*the allowed values are block, drop, error"),
        ({"handler": {"max_frames": 0}}, "must be an int at least 1, got 0"),
        ({"handler": {"max_frames": 2.5}}, "must be an int at least 1, got 2.5"),
        ({"handler": {"workers": 65}}, "must be an int at least 1 and at most 64, got 65"),
        ({"handler": {"workers": None}}, "must be an int"),
        ({"handler": {"workers": True}}, "must be an int"),
        ({"handler": {"block_timeout_s": 0}}, "must be a number above 0, got 0"),
        ({"handler": {"block_timeout_s": float("inf")}}, "must be a number above 0"),
        ({"handler": {"sync_every_s": -1}}, "must be a number above 0, got -1"),
        ({"handler": {"process": 5}}, "must be a string, got 5"),
        ({"handler": {"on_process_error": "stpo"}}, "'stop'.*the allowed values are stop, skip, raw"),
        (
            {"handler": {"max_pending": "much"}},
            "must be a number of bytes, such as 268435456 or 1 GiB, got 'much'",
        ),
        ({"handler": {"max_pending": 0}}, "must be a number of bytes"),
        ({"handler": {"max_pending": True}}, "must be a number of bytes"),
        ({"handler": {"max_pending": None}}, "must be a number of bytes"),
    ],
)
def test_what_is_wrong_is_refused_with_what_is_allowed(mapping, says):
    with pytest.raises(ConfigError, match=says) as info:
        resolve(mapping, environment={})
    assert isinstance(info.value, ValueError) and len(str(info.value)) < 500


@pytest.mark.parametrize("thing", [5, b"config.yaml", ["a"], object()])
def test_what_is_neither_a_file_nor_a_mapping_is_refused(thing):
    with pytest.raises(ConfigError, match="must be a file path or a mapping, got"):
        resolve(thing, environment={})


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.yaml", b"", "is empty; a config needs at least storage"),
        ("a.yaml", b"# a comment\n", "is empty"),
        ("a.toml", b"", "is empty"),
        ("a.yaml", b"storage: [", "is not valid YAML"),
        ("a.yaml", b"storage: {backend: ndtiff", "is not valid YAML: .*line 1"),
        ("a.yaml", b"\tstorage: 1", "is not valid YAML"),
        ("a.yaml", b"{[1]: 2}", "is not valid YAML|unknown key|sections"),
        ("a.yaml", b"!!python/object/apply:os.system [true]", "is not valid YAML"),
        (
            "a.yaml",
            b"a: &a [*a]",
            "is not valid YAML: the document is nested deeper than 50 levels, or contains itself",
        ),
        ("a.yaml", b"[" * 5000, "is not valid YAML"),
        ("a.yaml", b"\xff\xfe\x00", "UTF-16"),
        ("a.yaml", b"\x00", "is not valid YAML"),
        ("a.yaml", b"a: 1\n---\nb: 2", "is not valid YAML"),
        ("a.toml", b"storage = ", "is not valid TOML"),
        ("a.toml", b"\xff", "is not valid TOML"),
        ("a.yaml", b"just words", "contains a str instead of sections"),
        ("a.yaml", b"[1, 2]", "contains a list instead of sections"),
        ("a.yaml", b"5", "contains an int instead of sections"),
        ("a.yaml", b"# " + b"x" * 2**20, "is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_its_name(write, name, content, says):
    path = write(content, name)
    with pytest.raises(ConfigError, match=says) as info:
        resolve(path, environment={})
    assert path in str(info.value) and "\n" not in str(info.value)


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere/config.yaml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot read the config file"):
        resolve(tmp_path / name, environment={})


@given(st.binary(max_size=200))
def test_no_bytes_in_a_file_raise_anything_but_a_config_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        assert isinstance(read_file(str(path)), dict)


# -- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        (2**40, 2**40),
        ("17", 17),
        ("1 GiB", 2**30),
        ("1GiB", 2**30),
        (" 1 gib ", 2**30),
        ("1.5 MiB", 1572864),
        ("2 kB", 2000),
        ("3 MB", 3 * 10**6),
        ("1 TB", 10**12),
        ("5 B", 5),
        ("1e3", 1000),
    ],
)
def test_a_number_of_bytes_has_a_unit_or_none(value, size):
    assert parse_bytes(value, "it") == size


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        1.5,
        True,
        None,
        "",
        "GiB",
        "0",
        "-1 GiB",
        "1 PiB",
        "nan",
        "inf",
        "1 1",
        "1e40",
        "0.4",
        "0.4 B",
        [1],
    ],
)
def test_what_is_no_number_of_bytes_is_refused(value):
    with pytest.raises(ConfigError, match="it must be a number of bytes, such as"):
        parse_bytes(value, "it")


@given(st.text(alphabet=string.printable, max_size=12))
def test_any_text_is_a_positive_number_of_bytes_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert parse_bytes(text, "it") > 0


# -- set aside by others -------------------------------------------------------------------------


def test_a_value_that_is_set_aside_is_remembered_with_its_origin():
    config = resolve({"storage": {"path": "a"}}, environment={})
    config.set_aside_value("storage.path", "no need")
    config.set_aside_value("storage.backend", "not there")
    assert config["storage.path"] is None
    assert [(aside.key, aside.value, aside.reason) for aside in config.set_aside] == [
        ("storage.path", "a", "no need")
    ]
    assert isinstance(config, Config)


def test_one_field_within_a_field_of_the_sequence_can_be_set_over_the_file(write):
    file = write("sequence: {time_plan: {interval: 0, loops: 10}, channels: [DAPI]}")
    config = resolve(
        file,
        environment={"EXENGINE_SEQUENCE__TIME_PLAN__LOOPS": "3"},
        command_line={"sequence.z_plan.step": TextValue("0.5")},
    )
    assert config.section("sequence") == {
        "time_plan": {"interval": 0, "loops": 3}, "channels": ["DAPI"], "z_plan": {"step": 0.5},
    }  # fmt: skip
    assert str(config.origin("sequence.time_plan")) == (
        f"environment: EXENGINE_SEQUENCE__TIME_PLAN__LOOPS, over file: {file}"
    )
    assert str(config.origin("sequence.z_plan")) == "command line"


def test_setting_a_field_within_one_changes_nothing_of_the_mapping_that_was_given():
    given = {"sequence": {"time_plan": {"loops": 10}}}
    assert resolve(given, command_line={"sequence.time_plan.loops": 3})["sequence.time_plan"] == {"loops": 3}
    assert given == {"sequence": {"time_plan": {"loops": 10}}}


def test_a_field_within_what_has_none_is_refused_with_what_stands_there():
    with pytest.raises(
        ConfigError,
        match=r"sequence.channels .* has no field 0.*\['DAPI'\]; set sequence.channels as a whole",
    ):
        resolve({"sequence": {"channels": ["DAPI"]}}, command_line={"sequence.channels.0": "FITC"})


@pytest.mark.parametrize(
    "name", ["EXENGINE_STORAGE_BACKEND", "EXENGINE_storage_options_level", "EXENGINE_SEQUENCE"]
)
def test_a_variable_with_one_underscore_is_refused_as_it_would_have_no_effect(name):
    with pytest.raises(ConfigError, match=f"{name} is not a setting.*EXENGINE_STORAGE__BACKEND"):
        resolve(environment={name: "ndtiff"})


def test_a_variable_that_is_of_something_else_is_none_of_ours():
    assert resolve(environment={"EXENGINE_BENCH_DIR": "x", "EXENGINE_STORAGES": "y"}).values == {}


# -- files as people write them ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("storage: {backend: ndram}\nsource: {name: a}\nstorage: {backend: ndtiff}\n", "'storage' occurs on line 1 and again on line 3"),
        ("storage:\n  backend: a\n  backend: b\n", "'backend' occurs on line 2 and again on line 3"),
        ("storage:\n\tbackend: a\n", "indent with spaces"),
        ("sequence:\n  channels: [NO]\n", r"line 2: YAML reads NO as false; write 'NO' with quotes"),
        ("sequence:\n  channels:\n  - config: on\n", r"line 3: YAML reads on as true"),
        ("source:\n  name: a\n  options: {well: 0100}\n", r"line 3: YAML reads 0100 as 64"),
        ("source:\n  name: a\n  options: {at: 1:30}\n", r"line 3: YAML reads 1:30 as 90"),
        ("storage:\n  backend: \u201cndtiff\u201d\n", "line 2: .*typographic quotes"),
        ("storage: {backend: a}".encode("utf-16"), "UTF-16; save it as UTF-8"),
    ],
)  # fmt: skip
def test_what_yaml_would_read_in_another_way_is_refused_with_what_to_write(write, text, says):
    with pytest.raises(ConfigError, match=says):
        resolve(write(text), environment={})


def test_quoted_texts_and_true_are_what_they_say(write):
    text = "source:\n  name: a\n  options: {a: 'NO', b: \"0100\", c: true, d: 0, e: 0.5, f: 100, g: '\u201cx\u201d'}\n"
    assert resolve(write(text), environment={}).section("source.options") == {
        "a": "NO", "b": "0100", "c": True, "d": 0, "e": 0.5, "f": 100, "g": "\u201cx\u201d",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["config.toml", "CONFIG.TOML"])
def test_toml_may_have_a_byte_order_mark_and_any_case(write, name):
    path = write(b"\xef\xbb\xbf[storage]\nbackend = 'ndtiff'\n", name)
    assert resolve(path, environment={})["storage.backend"] == "ndtiff"


def test_the_home_folder_is_expanded_from_every_layer(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = str(tmp_path / "x")
    assert resolve(write("storage: {path: ~/x}\n"), environment={})["storage.path"] == expected
    assert resolve(environment={}, command_line={"storage.path": "~/x"})["storage.path"] == expected
    assert resolve(environment={"EXENGINE_STORAGE__PATH": "~/x"})["storage.path"] == expected
    assert resolve({"storage": {"path": "~/x"}}, environment={})["storage.path"] == expected


@pytest.mark.parametrize("path", ["$HOME/x", "${DATA}/x", "%USERPROFILE%/x"])
def test_variables_in_a_path_are_refused(path):
    with pytest.raises(ConfigError, match=r"storage\.path.*not expanded.*write the full path"):
        resolve({"storage": {"path": path}}, environment={})


def test_numbers_of_the_handler_are_read_from_text_too():
    environment = {
        "EXENGINE_HANDLER__MAX_FRAMES": "200",
        "EXENGINE_HANDLER__BLOCK_TIMEOUT_S": "0.5",
        "EXENGINE_HANDLER__WORKERS": "4",
    }
    config = resolve(environment=environment)
    assert (config["handler.max_frames"], config["handler.block_timeout_s"], config["handler.workers"]) == (
        200,
        0.5,
        4,
    )
    assert resolve(environment={"EXENGINE_HANDLER__MAX_FRAMES": "none"})["handler.max_frames"] is None


def test_a_process_function_is_accepted_from_python():
    assert resolve({"handler": {"process": len}}, environment={})["handler.process"] is len
