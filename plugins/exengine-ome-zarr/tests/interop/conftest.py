"""The interoperability tests, which the tox environment ``interop`` runs; other test runs do not collect them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
collect_ignore_glob = [] if os.environ.get("EXENGINE_INTEROP") else ["test_*.py"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a function that creates a sample, once per session."""
    from samples import SAMPLES

    folder = tmp_path_factory.mktemp("samples")
    found = {}

    def make(name):
        if name not in found:
            found[name] = SAMPLES[name](folder / f"{name}.ome.zarr")
        return found[name]

    return make


@pytest.fixture
def served():
    """Return a function that serves a dataset on the loopback interface, and returns its URL."""
    from exengine_ome_zarr.serve import DatasetServer

    servers = []

    def serve(path):
        servers.append(DatasetServer(path))
        servers[-1].start()
        return servers[-1].url

    yield serve
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def zarrita_modules(tmp_path_factory):
    """The folder in which node finds zarrita."""
    prepared = os.environ.get("EXENGINE_ZARRITA")
    if prepared:
        return Path(prepared)
    if not shutil.which("npm"):
        pytest.fail("node and npm are needed, to run zarrita")
    folder = tmp_path_factory.mktemp("node")
    command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "zarrita@0.7"]
    subprocess.run(command, cwd=folder, check=True, timeout=100)
    return folder


class Child:
    """A program that answers each line with a line of JSON. Call ``close`` when it is no longer needed."""

    def __init__(self, *command, **environment):
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def answer(self):
        line = self._process.stdout.readline()
        assert line, "the program ended early"
        return json.loads(line)

    def ask(self, question):
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        finally:
            self.kill()
            self._process.stdout.close()


@pytest.fixture
def child():
    """Return a function that starts a program, which ends with the test."""
    started = []

    def start(*command):
        started.append(Child(*command))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="session")
def display():
    """The environment variables of a virtual screen, on which OpenGL works without a graphics card."""
    if not shutil.which("Xvfb"):
        pytest.fail("Xvfb is needed, to run napari")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as file:
            number = file.readline().strip()
        yield {"DISPLAY": f":{number}", "QT_QPA_PLATFORM": "xcb"}
        server.terminate()


@pytest.fixture(scope="session")
def napari_window(display):
    """A program with a napari window; see ``napari_window.py``."""
    program = Child(sys.executable, Path(__file__).with_name("napari_window.py"), **display)
    yield program
    program.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window, in which WebGL works without a graphics card."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.fail("chromium and chromedriver are needed, to run neuroglancer")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--window-size=1000,700"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """The folder for screenshots: the one that EXENGINE_PICTURES names, or a temporary one."""
    folder = os.environ.get("EXENGINE_PICTURES")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")
