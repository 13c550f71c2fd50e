"""The ledger names what was not stored, whatever the frame was, in words that can be written."""

import json

import pytest

from exengine.kernel.frames.ledger import Ledger


class Unruly(dict):
    def items(self):
        raise RuntimeError("no items")

    def __repr__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("coordinates", "kept"),
    [
        ({"time": 3, "channel": "DAPI"}, {"time": 3, "channel": "DAPI"}),
        ({"time": 10**5000}, {"time": "<int>"}),
        ({"time": 2**63}, {"time": str(2**63)}),
        ({"time": True, "z": 0.5}, {"time": "True", "z": "0.5"}),
        ({"channel": "\udc80"}, {"channel": "\\udc80"}),
        ({"\ud800": 1, 5: 2}, {"\\ud800": 1, "5": 2}),
        ({"channel": "x" * 10_000}, {"channel": "x" * 200 + "..."}),
        ({"what": Unruly()}, {"what": "<Unruly>"}),
        (Unruly(), {}),
    ],
    ids=["plain", "huge", "65 bits", "no position", "surrogate", "axes", "long", "unruly", "no mapping"],
)
def test_coordinates_of_any_kind_are_named(coordinates, kept):
    ledger = Ledger()
    ledger.name_loss(coordinates, "why")
    assert ledger.not_stored == [(kept, "why")]
    json.dumps(ledger.to_dict(), ensure_ascii=False).encode()


def test_a_reason_is_cut_and_can_be_written():
    ledger = Ledger()
    ledger.name_loss({}, "cannot read '/data/\udcff.bin' " + "x" * 10_000_000)
    reason = ledger.not_stored[0][1]
    assert reason.startswith("cannot read '/data/\\udcff.bin' xxx") and len(reason) < 1100
    reason.encode()
