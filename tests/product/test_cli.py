"""The ``exengine`` command: what it prints, where, and with which exit code."""

import argparse
import json

import pytest

import exengine
from exengine.cli.main import main
from exengine.cli.parser import make_parser

CONFIG = """\
storage: {{backend: ndtiff, path: {path}}}
source: {{name: simulated, options: {{width: 64, height: 64}}}}
sequence: {{time_plan: {{interval: 0, loops: 3}}, channels: [DAPI, FITC]}}
"""


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(path=tmp_path / "out" / "data"))
    return path


@pytest.fixture
def dataset(config, tmp_path, capsys):
    assert main(["acquire", str(config)]) == 0
    capsys.readouterr()
    return tmp_path / "out" / "data"


WRONG = {
    "backend": (["--backend", "ndtif"], 2, "did you mean 'ndtiff'?"),
    "key": (["--set", "storage.pth=x"], 2, "did you mean 'storage.path'"),
    "section": (["--set", "storge.path=x"], 2, "did you mean 'storage.path'"),
    "source": (["--set", "source.name=simlated"], 2, "did you mean 'simulated'"),
    "unknown option of the source": (["--set", "source.options.widht=3"], 2, "did you mean 'width'"),
    "wrong option of the source": (["--set", "source.options.dtype=float"], 2, "'uint16' or 'uint8'"),
    "unknown option of the backend": (["--set", "storage.options.foo=1"], 2, "the options are"),
    "wrong option of the backend": (["--set", "storage.options.max_file_bytes=x"], 2, "at least 4096"),
    "if_exists": (["--set", "storage.if_exists=eror"], 2, "error, number, overwrite"),
    "max_pending": (["--set", "handler.max_pending=much"], 2, "1 GiB"),
    "no value": (["--set", "storage.path"], 2, "KEY=VALUE"),
    "unwritable folder": (["--path", "/proc/exengine/x"], 1, "choose"),
    "sequence with an unknown field": (["--set", "sequence.chanels=[a]"], 2, "did you mean 'channels'"),
    "sequence with a wrong value": (
        ["--set", "sequence.time_plan={interval: x}"],
        2,
        "write it like time_plan",
    ),
    "sequence whose frames collide": (
        ["--set", "sequence.channels=[a, a]"],
        1,
        "a name occurs twice along channel",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_few_lines_and_nothing_is_written(case, config, tmp_path, capsys):
    arguments, code, hint = WRONG[case]
    before = sorted(tmp_path.iterdir())
    assert main(["acquire", str(config), *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 4
    assert sorted(tmp_path.iterdir()) == before


FILES = {
    "missing": (None, "cannot read"),
    "empty": (b"", "is empty"),
    "not YAML": (b"storage: [1,", "is not valid YAML"),
    "text": (b"hello", "instead of sections"),
    "bytes": (bytes(range(256)), "is not valid YAML"),
    "a misspelt section": (b"storge: {}", "did you mean 'storage'"),
    "a section that is none": (b"storage: 3", "must be a section"),
    "no backend": (b"source: {name: simulated}\nsequence: {channels: [a]}", "no backend is selected"),
    "no source": (b"storage: {backend: ndram}\nsequence: {channels: [a]}", "no frame source is selected"),
    "no sequence": (b"storage: {backend: ndram}\nsource: {name: simulated}", "has no sequence"),
    "no path": (
        b"storage: {backend: ndtiff}\nsource: {name: simulated}\nsequence: {channels: [a]}",
        "storage.path",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_config_is_refused_by_name(case, tmp_path, capsys):
    content, hint = FILES[case]
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_bytes(content)
    assert main(["acquire", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, hint in err, "Traceback" in err) == ("", True, False), err


def test_an_existing_dataset_is_not_touched(config, dataset, capsys):
    before = {path.name: path.read_bytes() for path in dataset.iterdir()}
    assert main(["acquire", str(config)]) == 1
    assert "already exists" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in dataset.iterdir()} == before


def test_if_exists_number_counts_up_and_says_where(config, dataset, capsys):
    assert main(["acquire", str(config), "--set", "storage.if_exists=number", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == f"{dataset}_1"


def test_debug_shows_the_traceback(config, capsys):
    assert main(["acquire", str(config), "--backend", "ndtif", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_error_with_json_is_one_document(config, capsys):
    assert main(["acquire", str(config), "--backend", "ndtif", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "PluginNotFoundError"


def test_the_summary_accounts_for_every_frame(config, capsys):
    assert main(["acquire", str(config)]) == 0
    out = capsys.readouterr().out
    assert "6 offered, 6 stored, 0 dropped, 0 failed" in out
    assert "latency  until stored: p50" in out and "queue    at most" in out
    assert "exengine preview" in out


def test_backends_list_and_show(capsys):
    assert main(["backends", "list"]) == 0
    out = capsys.readouterr().out
    assert "ndtiff" in out
    assert "exengine-ndstorage 1.0.0" in out
    assert main(["backends", "show", "ndtiff"]) == 0
    out = capsys.readouterr().out
    for text in ("max_file_bytes", "default 4294967296", "checksums", "backend: ndtiff", "Example"):
        assert text in out
    assert main(["backends", "show", "ndtiff", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [option["name"] for option in shown["options"]] == ["summary_metadata", "max_file_bytes"]
    assert shown["capabilities"]["persistent"] is True


def test_sources_list_and_show(capsys):
    assert main(["sources", "list", "--json"]) == 0
    assert {"simulated", "micromanager"} <= {record["name"] for record in json.loads(capsys.readouterr().out)}
    assert main(["sources", "show", "micromanager"]) == 0
    assert "adapter_path" in capsys.readouterr().out


def test_info_tells_status_axes_and_size(dataset, capsys):
    assert main(["info", str(dataset)]) == 0
    out = capsys.readouterr().out
    for text in ("complete", "frames   6", "time: 3 (0 - 2)", "'DAPI', 'FITC'", "64 x 64 uint16"):
        assert text in out
    assert main(["info", str(dataset), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 6


def test_info_of_something_else_says_so(tmp_path, capsys):
    assert main(["info", str(tmp_path / "nothing")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 1
    assert "no installed backend recognizes" in capsys.readouterr().err


def test_doctor_finds_this_installation_well(capsys):
    assert main(["doctor"]) == 0
    assert "All is well." in capsys.readouterr().out


def test_doctor_checks_a_config_too(config, capsys):
    assert main(["doctor", str(config)]) == 0
    config.write_text(config.read_text().replace("ndtiff", "ndtif"))
    assert main(["doctor", str(config)]) == 1
    assert "did you mean 'ndtiff'" in capsys.readouterr().out


def test_the_schema_accepts_the_demo_config_and_refuses_a_misspelt_option(capsys):
    jsonschema = pytest.importorskip("jsonschema", reason="a validator that is not ours")
    import yaml

    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    good = yaml.safe_load(CONFIG.format(path="x"))
    jsonschema.validate(good, schema)
    good["source"]["options"]["widht"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good, schema)


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["acquire"], ["backends"], ["info"]])
def test_wrong_use_gives_2(arguments, capsys):
    assert main(arguments) == 2
    assert "usage: exengine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["aquire", "cells.yaml"], "(did you mean 'acquire'?)"),
        (["backends", "lst"], "(did you mean 'list'?)"),
        (["acquire", "cells.yaml", "--wacht"], "--wacht (did you mean '--watch'?)"),
        (["convert", "a", "b", "--backend=ndtiff", "--verfy=no"], "(did you mean '--no-verify'?)"),
        (["info", "data", "--zzzzz"], "unrecognized arguments: --zzzzz\n"),
    ],
)
def test_a_misspelt_verb_or_option_is_named_with_the_right_one(arguments, says, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert says in err and f"usage: exengine {arguments[0] if arguments[0] != 'aquire' else '['}" in err


def test_version_and_help_give_0(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "exengine 1.0.0\n"
    assert main(["--help"]) == 0
    assert "acquire" in capsys.readouterr().out


def test_frames_that_the_config_allows_to_drop_are_losses_all_the_same(config, capsys, monkeypatch):
    class Full(exengine.DataHandler):
        """Has room for nothing but the first two frames, until it is finished."""

        def put(self, coordinates, *frame, **options):
            with self._flight.lock:
                more = 10**6 if self.ledger.offered >= 2 else 0
                self._flight.frames += more
            try:
                super().put(coordinates, *frame, **options)
            finally:
                with self._flight.lock:
                    self._flight.frames -= more

    monkeypatch.setattr("exengine.acquisition.recorder.DataHandler", Full)
    arguments = ["--set", "handler.when_full=drop", "--set", "handler.max_frames=1000"]
    assert main(["acquire", str(config), *arguments]) == 1
    out, err = capsys.readouterr()
    assert "6 offered, 2 stored, 4 dropped, 0 failed" in out and "failed: " in out
    assert "lost     {" in out and "dropped, because" in out
    assert "not every frame was stored: 4 dropped, 0 failed" in err


def test_info_shows_how_long_frames_waited(dataset, capsys):
    assert main(["info", str(dataset)]) == 0
    out = capsys.readouterr().out
    assert "latency  until stored: p50" in out and "queue    at most" in out


def parsers(parser, words=()):
    """Yield the words of each verb, and its parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield (*words, name), verb
                yield from parsers(verb, (*words, name))


def test_the_parser_for_one_verb_is_that_of_all_verbs_and_has_no_other():
    everything = dict(parsers(make_parser()))
    assert len(everything) > 18
    for words, verb in everything.items():
        alone = dict(parsers(make_parser(words)))
        assert alone[words].format_help() == verb.format_help()
        assert all(other[: len(words)] == words or words[: len(other)] == other for other in alone)
    assert set(dict(parsers(make_parser(["backup"])))) == set(everything)
