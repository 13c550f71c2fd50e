"""The conversion to plain JSON."""

import datetime
import enum
import json
import math
from pathlib import Path

import numpy as np
import pytest
import useq

from exengine_micromanager.metadata import event_json, frame_json, plain


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32("nan"), None),
        (np.int16(3), 3),
        (np.bool_(True), True),
        (True, True),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (np.arange(3), [0, 1, 2]),
        ({1: {Colour.RED: Colour.RED}}, {"1": {"red": "red"}}),
        (datetime.timedelta(seconds=1.5), 1.5),
        (datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "2026-01-02T00:00:00+00:00"),
        (Path("a"), "a"),
        (useq.Position(x=1, name="A"), {"x": 1.0, "name": "A"}),
    ],
)
def test_a_value_becomes_plain_json(value, expected):
    result = plain(value)
    assert result == expected and type(result) is type(expected)
    json.dumps(result, allow_nan=False)


def test_an_event_leaves_out_its_sequence_and_the_clock_of_the_runner():
    (event,) = useq.MDASequence(channels=["DAPI"])
    event.metadata["runner_t0"] = 1.0
    assert event_json(event) == {"index": {"c": 0}, "channel": {"config": "DAPI", "group": "Channel"}}


def test_an_event_keeps_the_metadata_of_the_user():
    event = useq.MDAEvent(index={"t": 0}, metadata={"note": "x", "limit": math.inf})
    assert event_json(event)["metadata"] == {"note": "x", "limit": None}


def test_all_that_a_frame_says_is_kept():
    meta = {
        "format": "frame-dict",
        "version": "1.0",
        "camera_device": "Cam",
        "exposure_ms": np.float64(2),
        "pixel_size_um": math.nan,
        "runner_time_ms": 3.5,
        "property_values": (
            {"dev": "A", "prop": "x", "val": "1"},
            {"dev": "A", "prop": "y", "val": "2"},
            {"dev": "B", "prop": "x", "val": "3"},
        ),
        "position": {
            "x": 1.0,
            "z": 2.0,
            "all_stages": [
                {"device_label": "Z2", "position": 4.0},
                {"device_label": "XY", "position": (1.0, 0.0)},
            ],
        },
        "hardware_triggered": True,
        "images_remaining_in_buffer": 7,
        "camera_metadata": {"ImageNumber": "4"},
        "extra": {"lamp": (1, 2)},
        "new_in_a_later_version": 5,
    }
    received = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert frame_json(meta, received_at=received) == {
        "camera": "Cam",
        "exposure_ms": 2.0,
        "pixel_size_um": None,
        "runner_time_ms": 3.5,
        "properties": {"A": {"x": "1", "y": "2"}, "B": {"x": "3"}},
        "position": {"x_um": 1.0, "z_um": 2.0, "stages_um": {"Z2": 4.0, "XY": [1.0, 0.0]}},
        "hardware_triggered": True,
        "images_remaining_in_buffer": 7,
        "camera_metadata": {"ImageNumber": "4"},
        "extra": {"lamp": [1, 2]},
        "new_in_a_later_version": 5,
        "received_at": "2026-01-02T03:04:05+00:00",
    }


LATIN_1 = b"""\
Device,Camera,DemoCamera,DCam
Device,Wheel,DemoCamera,DWheel
Property,Core,Initialize,1
Property,Core,Camera,Camera
Label,Wheel,0,2 \xb5m
ConfigGroup,Channel,A\xb1,Wheel,State,0
ConfigGroup,Channel,Plain,Wheel,State,0
"""


def test_text_of_devices_that_is_not_utf_8_is_kept_with_a_replacement_and_a_note(
    make, frames, tmp_path, adapters
):
    from exengine.base_classes import clean_metadata

    path = tmp_path / "latin.cfg"
    path.write_bytes(LATIN_1)
    source = make(config=str(path), adapter_path=adapters)
    summary = source.prepare(useq.MDASequence(channels=["Plain"])).summary
    source.run(frames)
    assert clean_metadata(summary) == summary
    wheel = next(device for device in summary["devices"] if device["label"] == "Wheel")
    assert wheel["properties"]["Label"] == "2 \ufffdm"
    assert any(place.endswith("properties.Label") for place in summary["replaced_text"])
    assert len(frames) == 1 and clean_metadata(frames[0][2]) == frames[0][2]
