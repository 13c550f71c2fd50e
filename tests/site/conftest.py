"""The built documentation, served on the loopback interface and opened in a browser without a window."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests import modules beside them
from browsing import Browser

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
