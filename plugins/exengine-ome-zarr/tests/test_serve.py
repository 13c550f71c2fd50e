"""The server for viewers in the browser."""

import http.client
import os
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest

import exengine
from exengine.errors import DatasetAccessError
from exengine_ome_zarr.serve import DatasetServer, image_paths, main, open_neuroglancer

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "a b.ome.zarr"
    (folder / "0" / "c").mkdir(parents=True)
    (folder / ".exengine").mkdir()
    for name in ("zarr.json", "exengine.json", ".exengine/journal"):
        (folder / name).write_text("{}")
    (folder / "0" / "c" / "0").write_bytes(CONTENT)
    (tmp_path / "secret").write_text("secret")
    (folder / "0" / "link").symlink_to(tmp_path / "secret")
    with DatasetServer(folder, origins=["https://viewer.example"]) as started:
        yield started


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.url.split(":")[2].split("/")[0])
    connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=10000-", 10000, 10240),
        ("bytes=-100", 10140, 10240),
        ("bytes=5-99999", 5, 10240),
    ],
)
def test_ranges_of_bytes_are_answered(server, asked, start, end):
    answer, body = ask(server, "/a%20b.ome.zarr/0/c/0", Range=asked)
    assert (answer.status, body) == (206, CONTENT[start:end])
    assert answer.getheader("Content-Range") == f"bytes {start}-{end - 1}/10240"


def test_whole_files_and_their_sizes_are_answered(server):
    with urllib.request.urlopen(f"{server.url}/0/c/0") as answer:
        assert answer.read() == CONTENT
    answer, body = ask(server, "/a%20b.ome.zarr/0/c/0", "HEAD")
    assert (answer.status, answer.getheader("Content-Length"), body) == (200, "10240", b"")
    answer, _ = ask(server, "/a%20b.ome.zarr/zarr.json")
    assert answer.getheader("Content-Type") == "application/json"
    assert answer.getheader("Cache-Control") == "no-store"


@pytest.mark.parametrize("asked", ["bytes=20000-", "bytes=9-3", "bytes=-", "lines=1-2", "bytes=-0"])
def test_ranges_outside_a_file_are_refused(server, asked):
    answer, body = ask(server, "/a%20b.ome.zarr/0/c/0", Range=asked)
    assert (answer.status, body, answer.getheader("Content-Range")) == (416, b"", "bytes */10240")


@pytest.mark.parametrize(
    "path",
    [
        "/secret",
        "/a%20b.ome.zarr/../secret",
        "/a%20b.ome.zarr/%2e%2e/secret",
        "/a%20b.ome.zarr/0/link",
        "/a%20b.ome.zarr/exengine.json",
        "/a%20b.ome.zarr/.exengine/journal",
        "/a%20b.ome.zarr/0/c/1",
        "/a%20b.ome.zarr/0/c",
        "/a%20b.ome.zarr",
        "/a%20b.ome.zarr//etc/passwd",
        "/a%20b.ome.zarr/0/c/0%00",
        "/",
    ],
)
def test_only_files_of_the_dataset_that_viewers_need_are_served(server, path):
    answer, body = ask(server, path)
    assert (answer.status, body) == (404, b"")


def test_pages_of_other_web_sites_are_refused_unless_they_are_named(server):
    path = "/a%20b.ome.zarr/zarr.json"
    for origin, allowed in (("https://viewer.example", True), ("https://evil.example", False)):
        answer, _ = ask(server, path, Origin=origin)
        assert answer.getheader("Access-Control-Allow-Origin") == (origin if allowed else None)
        answer, _ = ask(server, path, "OPTIONS", Origin=origin)
        assert answer.status == 204
        assert answer.getheader("Access-Control-Allow-Headers") == ("Range" if allowed else None)
    assert ask(server, path, Host="evil.example:80")[0].status == 403
    assert ask(server, path, Host="localhost:80")[0].status == 200
    assert ask(server, path, "PUT")[0].status == 501


def test_a_folder_that_is_missing_and_a_port_in_use_are_errors(server, tmp_path, capsys):
    with pytest.raises(DatasetAccessError, match="not a folder"):
        DatasetServer(tmp_path / "missing")
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(DatasetAccessError, match=f"cannot serve on port {port}"):
        DatasetServer(server.folder, port)
    assert main([str(tmp_path / "missing")]) == 1
    assert "not a folder" in capsys.readouterr().err


def test_the_images_of_a_dataset_are_found(tmp_path):
    frame = np.zeros((16, 16), np.uint16)
    for name, positions, options in (
        ("one", [None], {}),
        ("series", ["left", "right"], {}),
        ("plate", ["A1_0", "A1_1", "B2_0"], {"layout": "plate"}),
    ):
        with exengine.open_storage("ome-zarr", tmp_path / name, **options) as storage:
            for position in positions:
                storage.put({"time": 0} if position is None else {"position": position}, frame, {})
    assert image_paths(tmp_path / "one") == [""]
    assert image_paths(tmp_path / "series") == ["0", "1"]
    assert image_paths(tmp_path / "plate") == ["A/1/0", "A/1/1", "B/2/0"]


def test_the_viewer_starts_with_the_first_frame_and_the_colors_of_the_channels(server, monkeypatch):
    made = []

    class Neuroglancer:
        set_server_bind_address = staticmethod(made.append)

        class Viewer:
            get_viewer_url = staticmethod(lambda: "http://127.0.0.1:9/v/token/")
            set_state = staticmethod(made.append)

    monkeypatch.setitem(sys.modules, "neuroglancer", Neuroglancer)
    path = server.folder.parent / "shown.ome.zarr"
    with exengine.open_storage("ome-zarr", path) as storage:
        for time in range(3):
            for channel in ("DAPI", "FITC"):
                storage.put({"time": time, "channel": channel}, np.full((20, 30), 7, np.uint16), {})
    with DatasetServer(path) as shown:
        open_neuroglancer(shown)
        assert shown.origins == {"http://127.0.0.1:9"}
    address, state = made
    assert address == "127.0.0.1"
    assert [layer["name"] for layer in state["layers"]] == ["DAPI", "FITC"]
    assert [layer["localPosition"] for layer in state["layers"]] == [[0], [1]]
    assert "vec3(0.000, 1.000, 0.000)" in state["layers"][0]["shader"]
    assert state["displayDimensions"] == ["x", "y"]
    assert state["position"] == [0, 10, 15]  # t, y, x


def test_the_command_serves_until_it_is_interrupted(server):
    command = [sys.executable, "-m", "exengine_ome_zarr.serve", server.folder, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("dataset: ").strip()
        assert process.stdout.readline().startswith("viewer:")
        assert process.stdout.readline() == "Press Ctrl-C to stop.\n"
        with urllib.request.urlopen(f"{url}/zarr.json") as answer:
            assert answer.read() == b"{}"
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.CTRL_C_EVENT)
        assert process.wait(timeout=30) == 0
