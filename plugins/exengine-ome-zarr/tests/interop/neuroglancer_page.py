"""Controls the neuroglancer page in a browser."""

import time

from exengine_ome_zarr.serve import open_neuroglancer

_LAYERS = "viewer.layerManager.managedLayers"


class Page:
    """The neuroglancer page that shows an image.

    Parameters
    ----------
    browser : selenium.webdriver.Chrome
    server : exengine_ome_zarr.serve.DatasetServer
    image : str
        The path of the image in the dataset.
    """

    def __init__(self, browser, server, image=""):
        self._browser = browser
        self.viewer = open_neuroglancer(server, image)
        self.load()

    def load(self):
        """Load the page, or load it again."""
        self._browser.get("about:blank")
        self._browser.get(self.viewer.get_viewer_url())
        ready = "typeof viewer !== 'undefined' && viewer.isReady() && viewer.coordinateSpace.value.rank > 0"
        self.wait(ready)

    def run(self, expression):
        """Return the value of an expression in JavaScript."""
        return self._browser.execute_script(f"return {expression}")

    def wait(self, expression, seconds=60):
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.run(expression)
            if value:
                return value
            assert time.monotonic() < end, f"not true after {seconds} s: {expression}"
            time.sleep(0.1)

    def channels(self):
        """Return the names of the layers."""
        return self.run(f"{_LAYERS}.map(layer => layer.name)")

    def dimensions(self):
        """Return the names, scales and units of the dimensions."""
        parts = ("names", "scales", "units")
        return [self.run(f"Array.from(viewer.coordinateSpace.value.{part})") for part in parts]

    def values(self, image, index):
        """Move to a pixel, and return its value in each layer, once it is displayed."""
        kept = [number for number, dim in enumerate(image.dims) if dim != "c"]
        start = [image.translation[number] / image.scale[number] for number in kept]
        position = [first + at for first, at in zip(start, index, strict=True)]
        with self.viewer.txn() as state:
            state.position = position
        at = f"new Float32Array({position})"
        self.wait(f"viewer.position.value.every((value, n) => Math.abs(value - {at}[n]) < 0.01)")
        value = f"{_LAYERS}.map(layer => layer.layer.getValueAt({at}, {{pickedRenderLayer: null}}))"
        self.wait(f"{value}.every(value => value !== null && value !== undefined)")
        return self.run(f"{value}.map(Number)")
