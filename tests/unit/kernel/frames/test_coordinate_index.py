"""Coordinates and numbers of frames, against a dict that does the same at the cost of more memory."""

import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from exengine.kernel.axes import INT_LIMIT, summarize_positions
from exengine.kernel.data_coords import DataCoordinates
from exengine.kernel.frames.coordinate_index import CoordinateIndex

positions = (
    st.integers(-3, 3)
    | st.sampled_from([2**31 - 5, 2**31 - 4, 2**31, 4294967290, 4294967291, INT_LIMIT - 1, -INT_LIMIT])
    | st.sampled_from(["", "0", "1", "-1", "DAPI", "ä"])
)
axes = st.sampled_from(["time", "channel", "z", "position", "a"])
coordinates = st.dictionaries(axes, positions, max_size=5)


class IndexAgainstDict(RuleBasedStateMachine):
    """Numbers are given in the order of arrival; what was discarded was never there."""

    def __init__(self):
        super().__init__()
        self.index = CoordinateIndex()
        self.model = {}  # coordinates -> number
        self.axes = []

    @rule(where=coordinates)
    def add(self, where):
        key = frozenset(where.items())
        expected = None if key in self.model else len(self.model)
        assert self.index.add(DataCoordinates(where).__dict__) == expected
        if expected is not None:
            self.model[key] = expected
            self.axes += [axis for axis in where if axis not in self.axes]

    @rule(where=coordinates)
    def reserve_and_withdraw(self, where):
        known = frozenset(where.items()) in self.model
        assert (self.index.reserve(DataCoordinates(where).__dict__) is None) == known
        self.index.withdraw()

    @rule(where=coordinates)
    def find(self, where):
        expected = self.model.get(frozenset(where.items()))
        assert self.index.find(where) == expected
        assert self.index.find(dict(reversed(where.items()))) == expected
        if expected is None:
            assert self.index.describe_absence(where)

    @invariant()
    def the_same_frames_in_the_same_order(self):
        assert len(self.index) == len(self.model)
        listed = [frozenset(found.items()) for found in self.index]
        assert listed == list(self.model)
        for number, found in enumerate(self.index):
            assert self.index.find(found.__dict__) == number

    @invariant()
    def the_same_axes_in_the_order_of_arrival(self):
        assert list(self.index.axes) == self.axes
        expected = {
            axis: list(dict.fromkeys(value for key in self.model for name, value in key if name == axis))
            for axis in self.axes
        }
        assert self.index.positions() == expected


IndexAgainstDict.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestIndexAgainstDict = IndexAgainstDict.TestCase


@given(st.lists(coordinates, unique_by=lambda where: frozenset(where.items())))
def test_every_coordinate_comes_back_as_it_was(some):
    index = CoordinateIndex()
    assert [index.add(where) for where in some] == list(range(len(some)))
    assert [dict(found) for found in index] == some
    for found, where in zip(index, some, strict=True):
        assert [type(value) for value in found.values()] == [type(where[axis]) for axis in found]


def test_coordinates_that_were_listed_can_be_changed_without_harm():
    index = CoordinateIndex()
    index.add({"time": 0})
    next(iter(index))["time"] = 5
    assert [dict(found) for found in index] == [{"time": 0}]


def test_frames_that_are_added_while_the_index_is_iterated_do_no_harm():
    index = CoordinateIndex()
    for time in range(3):
        index.add({"time": time})
    listed = []
    for found in index:
        index.add({"time": found["time"] + 100})
        listed.append(found["time"])
    assert listed == [0, 1, 2] and len(index) == 6


def test_threads_look_at_what_is_there_while_another_adds_frames_and_axes():
    faults = []

    def look(index, looks, stop):
        try:
            while not stop.is_set():
                looks.append(1)
                assert index.find({"channel": "a", "time": 0}) == 0
                assert dict(next(iter(index))) == {"time": 0, "channel": "a"}
                assert all(found["time"] >= 0 for found in index)
                assert index.positions()["channel"][0] == "a"
                assert index.describe_absence({"time": -1})
        except Exception as error:
            faults.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that the threads meet everywhere
    try:
        for _ in range(12):
            index, looks, stop = CoordinateIndex(), [], threading.Event()
            index.add({"time": 0, "channel": "a"})
            threads = [threading.Thread(target=look, args=(index, looks, stop)) for _ in range(2)]
            for thread in threads:
                thread.start()
            number = 0
            while not faults and (number < 40 or (len(looks) < 20 and number < 400)):
                number += 1
                index.add({"time": number, "channel": str(number % 7), f"axis{number}": -number})
            stop.set()
            for thread in threads:
                thread.join()
            assert faults == [] and len(index) == number + 1
    finally:
        sys.setswitchinterval(interval)


# -- messages ------------------------------------------------------------------------------------


@pytest.fixture
def filled():
    index = CoordinateIndex()
    for time in range(4):
        for channel in ("DAPI", "FITC"):
            if (time, channel) != (2, "FITC"):
                index.add({"time": time, "channel": channel})
    return index


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ({"t": 0}, "no frame has the axis 't'; existing axes: time, channel"),
        ({"time": 9, "channel": "DAPI"}, "positions on axis 'time': 0 - 3"),
        ({"time": 0, "channel": "Cy5"}, "positions on axis 'channel': 'DAPI', 'FITC'"),
        ({"time": 0}, "the coordinates lack channel; existing axes: time, channel"),
        ({}, "the coordinates lack time, channel; existing axes: time, channel"),
        ({"time": 2, "channel": "FITC"}, "no frame has this combination of positions"),
    ],
)
def test_an_absence_is_explained_by_what_is_there(filled, where, text):
    assert filled.find(where) is None
    assert filled.describe_absence(where) == text


def test_an_empty_index_says_that_nothing_was_put():
    assert CoordinateIndex().describe_absence({"time": 0}) == "no frame has been stored yet"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([5], "5"),
        ([0, 1], "0, 1"),
        ([2, 0, 1], "0 - 2"),
        ([0, 2, 4], "0, 2, 4"),
        (["a", 1], "'a', 1"),
        ([str(n) for n in range(10)], "'0', '1', '2', '3', '4', '5', '6', '7', ... (10 in total)"),
    ],
)
def test_positions_are_summed_up_in_short(values, text):
    assert summarize_positions(values) == text


def test_an_axis_of_which_no_frame_is_there_yet_is_described_as_none():
    index = CoordinateIndex()
    index.add({"time": 0})
    index.reserve({"time": 1, "channel": 0})  # another thread is writing its frame
    assert index.describe_absence({"channel": 0}) == "no frame has the axis 'channel'; existing axes: time"
