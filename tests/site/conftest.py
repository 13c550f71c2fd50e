"""The built documentation, served on the loopback interface and opened in a browser without a window."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

SITE = Path(os.environ.get("EXENGINE_DOCS_SITE") or Path(__file__).parents[2] / "docs" / "_build" / "html")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def pages() -> list[str]:
    """Every page of the site, relative to its root."""
    found = sorted(page.relative_to(SITE).as_posix() for page in SITE.rglob("*.html"))
    if "index.html" not in found:
        pytest.skip("the documentation is not built: run `tox -e site`, or `make html` in docs")
    return [page for page in found if not page.startswith("_static/")]


@pytest.fixture(scope="session")
def folder(pages: list[str]) -> Path:
    """The folder of the site."""
    return SITE


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address(pages: list[str]) -> Iterator[str]:
    """The URL of the site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE))) as server:
        thread = threading.Thread(target=server.serve_forever, name="docs-server")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Browser:
    """A Chromium browser that shows the site."""

    def __init__(self, driver, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, page: str) -> None:
        self.driver.get(f"{self.address}/{page}")

    def run(self, script: str, *arguments: object):
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition, seconds: float = 15.0):
        """Return the result of a condition once it is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.05).until(lambda _: condition())

    def show(self, *, width: int = 1280, scheme: str = "light") -> None:
        """Set the width of the window, and the preferences of the reader's system."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def find(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        (element,) = self.find(selector)
        return element

    def messages(self) -> list[str]:
        """Return the warnings and errors that pages have logged on the console since the last call."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def foreign_requests(self) -> list[str]:
        """Return the requests to any server other than that of the site."""
        names = self.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        return [
            name for name in names if urlsplit(name).scheme != "data" and not name.startswith(self.address)
        ]


@contextmanager
def _chromium(profile: Path) -> Iterator[object]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    from selenium.webdriver.chrome.service import Service

    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("no chromium with its chromedriver on this machine")
    with _chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def browser(_driver, address) -> Browser:
    made = Browser(_driver, address)
    made.show()
    made.messages()
    return made
