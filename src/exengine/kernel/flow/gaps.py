"""Finds gaps in the image numbers that a camera writes into the metadata of its frames.

Micro-Manager numbers the images of a sequence in the tag ``ImageNumber``, and pymmcore-plus stores the tags
under ``camera_metadata``. A skipped number belongs to a frame that the camera or its driver lost before the
frame could be stored. A number that is not higher than the previous one begins a new sequence.
"""

from typing import Any

from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.frames.ledger import Ledger

NUMBER = "ImageNumber"
TAGS = "camera_metadata"


class GapFinder:
    """Compares each image number with the previous one of the same camera.

    Parameters
    ----------
    ledger : Ledger
        Receives the gaps.

    Examples
    --------
    >>> ledger = Ledger()
    >>> finder = GapFinder(ledger)
    >>> for time, number in enumerate((0, 1, 4)):
    ...     finder.see(DataCoordinates(time=time), {"ImageNumber": str(number), "Camera": "Left"})
    >>> ledger.gaps
    [{'camera': 'Left', 'after': {'time': 1}, 'before': {'time': 2}, 'missing': 2}]
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._last: dict[str, tuple[int, DataCoordinates]] = {}

    def see(self, coordinates: DataCoordinates, metadata: dict[str, Any]) -> None:
        """Record a gap before this frame, if the image number in its metadata reveals one."""
        tags = metadata.get(TAGS, metadata)
        if not isinstance(tags, dict) or NUMBER not in tags:
            return
        try:
            number = int(tags[NUMBER])
        except (TypeError, ValueError):
            return
        camera = str(tags.get("Camera") or metadata.get("camera_device") or "")
        if any(key.endswith("CameraChannelIndex") for key in tags):
            camera = "Multi Camera"  # the cameras share one counter
        last = self._last.get(camera)
        if last is not None and number > last[0] + 1:
            self._ledger.name_gap(camera, last[1].__dict__, coordinates.__dict__, number - last[0] - 1)
        self._last[camera] = (number, coordinates)
