"""Reads the tags that Micro-Manager adds to the frames of a hardware-triggered burst."""

from collections.abc import Mapping
from typing import Any

from exengine.errors import SourceError


def next_number(tags: Mapping[str, Any], last: int | None) -> int | None:
    """Return the image number that the camera reports, after checking that no frame was skipped."""
    try:
        number = int(tags.get("ImageNumber", ""))
    except ValueError:
        return None
    if last is not None and number > last + 1:
        raise SourceError(
            f"the camera skipped {number - last - 1} of its frames in a burst (image number {number} came "
            f"after {last}), so later frames would be stored at wrong coordinates; use a longer exposure or "
            "interval, or a smaller image"
        )
    return number


def camera_number(tags: Mapping[str, Any], cameras: int) -> int:
    """Return the number of the camera that took a burst frame, as tagged by the Multi Camera device."""
    if cameras == 1:
        return 0
    number = next((value for key, value in tags.items() if key.endswith("CameraChannelIndex")), "")
    if not str(number).isdigit() or int(number) >= cameras:
        raise SourceError(
            f"it is unknown which camera took a frame of a burst: the frame's camera tag is {number!r}, but "
            f"there are {cameras} cameras"
        )
    return int(number)
