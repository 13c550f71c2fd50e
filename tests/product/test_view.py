"""``exengine view``: the address that it prints, the file that opens the browser, and other viewers."""

import json
import sys
import threading
import urllib.request

import numpy as np
import pytest

import exengine
from exengine.cli import view
from exengine.cli.main import main


@pytest.fixture
def path(tmp_path):
    with exengine.open_storage("ndtiff", tmp_path / "data") as storage:
        storage.put({"time": 0}, np.full((4, 4), 7, np.uint16), {"a": 1})
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch):
    """Replace the browser; return the addresses that it was asked to open, with the content of files."""
    pages = []

    def open_page(url):
        pages.append((url, urllib.request.urlopen(url).read().decode()))

    monkeypatch.setattr(view.webbrowser, "open", open_page)
    monkeypatch.setenv("DISPLAY", ":0")
    return pages


@pytest.fixture
def asked(monkeypatch):
    """Let the server run until the page was read; return the answers of the server."""
    answers = []

    def wait(server):
        answers.append(urllib.request.urlopen(f"{server.url}frame/0").read())
        answers.append(json.load(urllib.request.urlopen(f"{server.url}facts"))["value"])
        raise KeyboardInterrupt

    monkeypatch.setattr(view.ViewServer, "wait", wait)
    return answers


def test_the_command_prints_the_address_and_ends_with_ctrl_c(path, asked, opened, capsys):
    assert main(["view", str(path), "--no-browser"]) == 0
    address, hint = capsys.readouterr().out.splitlines()
    assert address.startswith("view: http://127.0.0.1:") and hint == "Press Ctrl-C to stop."
    assert asked[0] == np.full(16, 7, np.uint16).tobytes() and asked[1]["frames"] == 1
    assert opened == []
    assert [each.name for each in threading.enumerate() if each.name == "exengine-view"] == []


def test_json_is_one_document(path, asked, opened, capsys):
    assert main(["view", str(path), "--no-browser", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(path) and found["url"].startswith(f"http://127.0.0.1:{found['port']}/")


def test_the_browser_gets_a_private_file_and_not_the_token(path, asked, opened, capsys):
    assert main(["view", str(path)]) == 0
    url = capsys.readouterr().out.splitlines()[0].removeprefix("view: ")
    ((file, page),) = opened
    assert file.startswith("file:") and url not in file and f"url={url}" in page
    with pytest.raises(OSError, match="No such file"):
        urllib.request.urlopen(file)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a desktop")
def test_without_a_desktop_no_text_browser_is_started(path, asked, opened, monkeypatch):
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["view", str(path)]) == 0
    assert opened == []


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_outside_the_range_is_wrong_use(path, port, capsys):
    assert main(["view", str(path), "--port", port]) == 2
    assert "between 0 and 65535" in capsys.readouterr().err


def test_a_path_without_a_dataset_is_an_error(tmp_path, capsys):
    assert main(["view", str(tmp_path / "nothing"), "--no-browser"]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["napari", "ndv"])
def test_a_viewer_that_is_not_installed_is_one_clear_line(path, name, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["view", str(path), f"--{name}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is not installed" in line and "pip install" in line


def test_napari_gets_a_layer_and_ndv_the_named_array(path, monkeypatch):
    got = []

    class Viewer:
        def add_image(self, pixels, **options):
            got.append((pixels.shape, options["name"]))

    class Module:
        run = staticmethod(lambda: got.append("run"))
        imshow = staticmethod(lambda array: got.append(array.dims))

    Module.Viewer = Viewer
    monkeypatch.setitem(sys.modules, "napari", Module)
    monkeypatch.setitem(sys.modules, "ndv", Module)
    assert main(["view", str(path), "--napari"]) == main(["view", str(path), "--ndv"]) == 0
    assert got == [((1, 4, 4), "data"), "run", ("time", "y", "x")]


def test_both_viewers_at_once_are_wrong_use(path, capsys):
    assert main(["view", str(path), "--napari", "--ndv"]) == 2
