"""A Chromium browser in which tests open pages."""

from urllib.parse import urlsplit


class Browser:
    """A Chromium browser that shows pages."""

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
        """Return the requests to any server other than that of the pages."""
        names = self.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
        return [
            name for name in names if urlsplit(name).scheme != "data" and not name.startswith(self.address)
        ]
