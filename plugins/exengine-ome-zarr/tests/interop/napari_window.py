"""Opens a napari window, and executes requests, which are lines of JSON on the standard input.

Each answer is a line of JSON. ``{"open": path}`` opens a dataset and answers a description of its layers,
``{"run": code}`` does so with code that makes a viewer, ``{"save": file}`` stores the pixels of all layers, ``{"screenshot": file}`` a picture of the window;
``{"point": world}`` moves there and answers the displayed value of each layer.
"""

import json
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")


def _described(layer):
    levels = layer.data if layer.multiscale else [layer.data]
    return {
        "name": layer.name,
        "shapes": [list(level.shape) for level in levels],
        "scale": list(layer.scale),
        "translate": list(layer.translate),
        "units": [str(unit) for unit in layer.units],
        "dims": "".join(layer.axis_labels),
        "color": "".join(f"{round(255 * part):02X}" for part in layer.colormap.colors[-1][:3]),
        "limits": list(layer.contrast_limits),
    }


def main():
    """Run until the standard input ends."""
    import napari
    from PIL import Image
    from qtpy.QtWidgets import QApplication

    napari.run = lambda: None
    viewer = napari.Viewer(show=True)
    layers = []
    for line in sys.stdin:
        asked = json.loads(line)
        answer = True
        if "open" in asked:
            viewer.layers.clear()
            layers = viewer.open(asked["open"], plugin=asked.get("plugin", "napari-ome-zarr"))
            answer = [_described(layer) for layer in layers]
        if "run" in asked:
            viewer.close()
            names = {}
            exec(asked["run"], names)
            viewer = names["viewer"]
            layers = list(viewer.layers)
            answer = [_described(layer) for layer in layers]
        if "save" in asked:
            first = [layer.data[0] if layer.multiscale else layer.data for layer in layers]
            np.savez(asked["save"], *[np.asarray(data) for data in first])
        if "point" in asked:
            viewer.dims.point = asked["point"]
            QApplication.processEvents()
            answer = [np.asarray(layer.get_value(asked["point"], world=True)).tolist() for layer in layers]
        if "screenshot" in asked:
            viewer.window.resize(1000, 700)
            viewer.reset_view()
            picture = viewer.screenshot(canvas_only=False, flash=False)
            Image.fromarray(picture).save(asked["screenshot"])
        sys.__stdout__.write(json.dumps(answer) + "\n")
        sys.__stdout__.flush()
    viewer.close()


if __name__ == "__main__":
    sys.stdout = sys.stderr  # the libraries print
    main()
