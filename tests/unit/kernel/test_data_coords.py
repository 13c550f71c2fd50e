"""Coordinates: one representation, frozen by their hash; and iterators over them."""

import copy
import json
import math
import operator
import pickle
from collections.abc import Mapping, MutableMapping
from enum import IntEnum, StrEnum
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exengine.kernel.axes import INT_LIMIT
from exengine.kernel.data_coords import DataCoordinates, DataCoordinatesIterator, snapshot
from exengine.kernel.errors import CoordinatesError, CoordinatesFrozenError, CoordinatesTypeError

# Every text that may name an axis: not a method's name, no underscore first.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.sampled_from(["time", "channel", "z", "position", "angle"]) | text.map("axis {}".format)
positions = st.integers(-INT_LIMIT, INT_LIMIT - 1) | text
axes_dicts = st.dictionaries(names, positions, max_size=6)


# -- making --------------------------------------------------------------------------------------


def test_axes_are_given_by_name_or_as_a_dict_of_all():
    by_name = DataCoordinates(time=1, channel="DAPI", z=0, angle=90)
    by_dict = DataCoordinates({"time": 1, "channel": "DAPI", "z": 0, "angle": 90})
    by_keyword = DataCoordinates(coordinate_dict={"time": 1, "channel": "DAPI", "z": 0, "angle": 90})
    assert by_name == by_dict == by_keyword
    assert by_name.coordinate_dict == {"time": 1, "channel": "DAPI", "z": 0, "angle": 90}


@pytest.mark.parametrize(
    "source", [MappingProxyType({"time": 1}), DataCoordinates(time=1), {"time": 1}.items()]
)
def test_any_mapping_will_do_and_nothing_else(source):
    if isinstance(source, Mapping):
        assert DataCoordinates(source) == {"time": 1}
    else:
        with pytest.raises(CoordinatesTypeError, match="dict_items"):
            DataCoordinates(source)


@pytest.mark.parametrize("wrong", [5, "time", b"time", [("time", 1)], {"time"}, (1, 2), 1.5])
def test_what_is_no_mapping_is_refused_as_a_type_error_and_a_value_error(wrong):
    with pytest.raises(CoordinatesTypeError, match="mapping of axis name") as caught:
        DataCoordinates(wrong)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_no_axes_at_all_are_coordinates_too():
    for empty in (
        DataCoordinates(),
        DataCoordinates({}),
        DataCoordinates(None),
        DataCoordinates(coordinate_dict=None),
    ):
        assert empty == {}
        assert len(empty) == 0
        assert not empty


@pytest.mark.parametrize(
    ("arguments", "axes"),
    [
        (({"time": 1},), {"time": 2}),
        (({"time": 1},), {"angle": 2}),
        ((), {"coordinate_dict": {"time": 1}, "z": 2}),
        (({"time": 1}, 5), {}),
        (({"time": 1},), {"z": 2, "angle": 3}),
        (({},), {"time": 1}),
    ],
)
def test_a_dict_and_named_axes_together_are_refused(arguments, axes):
    with pytest.raises(CoordinatesError, match=r"both|twice"):
        DataCoordinates(*arguments, **axes)


def test_a_named_axis_that_is_none_is_not_there():
    assert DataCoordinates(time=1, channel=None, angle=None) == {"time": 1}
    assert DataCoordinates({"time": 1}, channel=None) == {"time": 1}


def test_the_axes_of_a_dict_keep_their_order():
    assert list(DataCoordinates({"z": 3, "b": 0, "time": 1, "a": 1})) == ["z", "b", "time", "a"]
    assert list(DataCoordinates({"z": 3, "b": 0, "time": 1}).replace(b=5, a=1)) == ["z", "b", "time", "a"]


def test_named_axes_are_in_the_order_of_0_4_0_time_channel_and_z_first():
    assert list(DataCoordinates(z=3, b=0, channel="DAPI", a=1, time=1)) == ["time", "channel", "z", "b", "a"]
    assert list(DataCoordinates(z=3, channel="DAPI", time=1)) == ["time", "channel", "z"]
    assert DataCoordinates(None, 1, "DAPI", 3) == {"time": 1, "channel": "DAPI", "z": 3}


@given(axes=axes_dicts, others=axes_dicts)
def test_hashes_are_equal_where_axes_are_and_differ_elsewhere(axes, others):
    assert (hash(DataCoordinates(axes)) == hash(DataCoordinates(others))) == (axes == others)


@pytest.mark.parametrize("missing", [(), ("time",), ("channel",), ("z",), ("time", "z")])
def test_a_grid_of_coordinates_has_no_two_hashes_alike(missing):
    grid = [
        {"time": time, "channel": channel, "z": z, "position": position}
        for time in range(10)
        for channel in ("DAPI", "FITC")
        for z in range(5)
        for position in range(3)
    ]
    kept = {tuple((name, at) for name, at in axes.items() if name not in missing) for axes in grid}
    assert len({hash(DataCoordinates(dict(axes))) for axes in kept}) == len(kept)


@given(axes=axes_dicts)
def test_the_dict_of_the_caller_is_never_changed_and_never_kept(axes):
    given_axes = dict(axes)
    made = DataCoordinates(given_axes)
    assert given_axes == axes
    given_axes["time"] = 77
    assert made == axes
    made["z"] = 78
    assert given_axes == {**axes, "time": 77}


def test_converting_a_position_does_not_change_the_dict_of_the_caller():
    axes = {"time": 1.0, "z": np.int64(2)}
    assert DataCoordinates(axes) == {"time": 1, "z": 2}
    assert type(axes["time"]) is float
    assert type(axes["z"]) is np.int64


def test_coordinate_dict_is_a_copy():
    made = DataCoordinates(time=1)
    made.coordinate_dict["time"] = 2
    assert made.time == 1
    assert type(made.coordinate_dict) is dict


# -- positions -----------------------------------------------------------------------------------


class Plane(IntEnum):
    TOP = 7


class Dye(StrEnum):
    DAPI = "DAPI"


INTS = [
    (np.int8(3), 3),
    (np.uint64(3), 3),
    (np.int64(-3), -3),
    (np.array(3), 3),
    (np.arange(4)[3], 3),
    (3.0, 3),
    (-0.0, 0),
    (np.float32(3), 3),
    (np.float64(-3), -3),
    (Plane.TOP, 7),
    (INT_LIMIT - 1, INT_LIMIT - 1),
    (-INT_LIMIT, -INT_LIMIT),
]


@pytest.mark.parametrize(("value", "number"), INTS, ids=repr)
def test_whole_numbers_of_every_kind_become_int_however_they_are_set(value, number):
    by_attribute, by_item = DataCoordinates(), DataCoordinates()
    by_attribute.time = value
    by_item["time"] = value
    made = (
        DataCoordinates(time=value),
        DataCoordinates({"time": value}),
        by_attribute,
        by_item,
        DataCoordinates().replace(time=value),
    )
    for coordinates in made:
        assert coordinates.time == coordinates["time"] == number
        assert type(coordinates.time) is type(coordinates["time"]) is int


@pytest.mark.parametrize(
    ("value", "name"), [(np.str_("DAPI"), "DAPI"), (Dye.DAPI, "DAPI"), ("Zürich 位置", "Zürich 位置")]
)
def test_texts_of_every_kind_become_str(value, name):
    made = DataCoordinates(channel=value)
    assert made.channel == name
    assert type(made.channel) is str
    assert type(DataCoordinates({"angle": value})["angle"]) is str


REFUSED = [
    1.5,
    float,
    int,
    np.float64(1.5),
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    np.True_,
    None,
    b"DAPI",
    1j,
    [1],
    (1,),
    {"a": 1},
    np.array([3]),
    np.array([1, 2]),
    Fraction(1, 2),
    object(),
    slice(1),
    INT_LIMIT,
    -INT_LIMIT - 1,
    np.uint64(2**64 - 1),
    1e300,
    10**5000,
    "\ud800",
]


@pytest.mark.parametrize(
    "value",
    REFUSED,
    ids=lambda value: f"{type(value).__name__} {value!r:.12}" if not isinstance(value, int) else "int",
)
def test_what_is_no_position_is_refused_and_nothing_was_changed(value):
    made = DataCoordinates(time=0, z=3)
    for attempt in (
        lambda: DataCoordinates({"time": value}),
        lambda: operator.setitem(made, "time", value),
        lambda: setattr(made, "angle", value),
        lambda: made.update(time=value),
    ):
        with pytest.raises(CoordinatesError, match=r"axis '(time|angle)'"):
            attempt()
    assert list(made.items()) == [("time", 0), ("z", 3)]


def test_the_message_of_a_wrong_position_names_axis_type_and_value():
    with pytest.raises(
        CoordinatesError, match=r"axis 'time': a position must be an int or a str, got float: 1\.5"
    ):
        DataCoordinates(time=1.5)


def test_a_digit_and_its_text_are_different_positions():
    assert DataCoordinates(time=1) != DataCoordinates(time="1")
    made = DataCoordinates(time="1")
    assert made.time == made["time"] == "1"


def test_zero_and_the_empty_text_are_positions():
    assert DataCoordinates(channel=0, z="") == {"channel": 0, "z": ""}


# -- names of axes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "",
        "_private",
        "__dict__",
        "__class__",
        "_hash",
        "keys",
        "pop",
        "update",
        "replace",
        "to_json",
        "coordinate_dict",
        "\ud800",
    ],
)
def test_a_name_that_attribute_access_could_not_serve_is_refused(name):
    with pytest.raises(CoordinatesError, match=r"name|not valid text"):
        DataCoordinates({name: 1})
    made = DataCoordinates(z=1)
    with pytest.raises(CoordinatesError):
        made[name] = 1
    assert made == {"z": 1}
    if name.isidentifier():
        with pytest.raises((CoordinatesError, AttributeError)):
            setattr(made, name, 1)
        assert made == {"z": 1}


@pytest.mark.parametrize("name", [1, None, b"time", ("time",), 1.5])
def test_a_name_that_is_no_str_is_refused(name):
    with pytest.raises(CoordinatesError, match="an axis name must be a str"):
        DataCoordinates({name: 1})
    with pytest.raises(CoordinatesError, match="an axis name must be a str"):
        DataCoordinates()[name] = 1


def test_a_name_that_cannot_be_hashed_is_refused_like_any_other():
    with pytest.raises(CoordinatesError, match="an axis name must be a str"):
        DataCoordinates()[["time"]] = 1


@pytest.mark.parametrize("name", ["time", "an axis seen before"])
def test_a_subclass_of_str_as_a_name_is_treated_alike_whatever_was_checked_before(name):
    DataCoordinates({name: 1})
    outcomes = set()
    for kind in (np.str_(name), np.str_("an axis never seen")):
        try:
            made = DataCoordinates({kind: 1})
        except CoordinatesError:
            outcomes.add("refused")
        else:
            outcomes.update(type(axis).__name__ for axis in made)
    assert outcomes in ({"refused"}, {"str"})


@pytest.mark.parametrize(
    "name", ["self", "axes", "axis", "position", "cls", "class", "Größe", "two words", "1st"]
)
def test_any_other_text_names_an_axis(name):
    made = DataCoordinates(**{name: 1}, time=0)
    assert made[name] == getattr(made, name) == 1
    assert made.replace(**{name: 2}) == {name: 2, "time": 0}


def test_more_names_than_are_remembered_still_work():
    for number in range(5000):
        assert DataCoordinates({f"axis {number}": number})[f"axis {number}"] == number


# -- reading and changing ------------------------------------------------------------------------


def test_axes_read_as_attributes_and_as_items():
    made = DataCoordinates(time=1, channel="DAPI", depth=10)
    assert (made.time, made.channel, made.depth) == (1, "DAPI", 10)
    assert (made["time"], made["channel"], made["depth"]) == (1, "DAPI", 10)


def test_the_three_usual_axes_read_as_none_when_they_are_not_there():
    made = DataCoordinates(angle=1)
    assert (made.time, made.channel, made.z) == (None, None, None)
    assert "time" not in made
    with pytest.raises(KeyError):
        made["time"]
    with pytest.raises(AttributeError):
        made.depth  # noqa: B018 - reading it is the test


def test_setting_an_axis_shows_in_attribute_item_and_dict():
    made = DataCoordinates(time=1)
    made.depth = 5
    made["time"] = 2
    assert (made.depth, made["depth"]) == (5, 5)
    assert (made.time, made["time"]) == (2, 2)
    assert made.coordinate_dict == {"time": 2, "depth": 5}


def test_deleting_an_axis_takes_it_from_attribute_and_item():
    made = DataCoordinates(time=1, z=2, depth=3)
    del made["z"]
    del made.depth
    assert made == {"time": 1}
    assert made.z is None
    assert not hasattr(made, "depth")
    with pytest.raises(KeyError, match="z"):
        del made["z"]
    with pytest.raises(AttributeError, match="depth"):
        del made.depth


def test_the_methods_of_a_mutable_mapping_work():
    made = DataCoordinates(time=1, z=2)
    assert isinstance(made, MutableMapping)
    assert list(made.keys()) == list(made) == ["time", "z"]
    assert list(made.values()) == [1, 2]
    assert list(made.items()) == [("time", 1), ("z", 2)]
    assert made.get("time") == 1
    assert made.get("angle", 5) == 5
    assert made.setdefault("angle", 9) == 9
    made.update({"time": 4}, z=6)
    assert made.pop("angle") == 9
    assert made == {"time": 4, "z": 6}
    assert made.popitem()[0] in ("time", "z")
    made.clear()
    assert made == {}


def test_pop_of_an_axis_that_is_not_there_gives_the_default_or_a_key_error():
    made = DataCoordinates(time=1)
    assert made.pop("angle", 5) == 5
    assert made.pop("angle", None) is None
    with pytest.raises(KeyError, match="angle"):
        made.pop("angle")


def test_coordinates_unpack_and_match_like_a_dict():
    made = DataCoordinates(time=1, channel="DAPI")
    assert {**made} == {"time": 1, "channel": "DAPI"}
    assert dict(made) == {"time": 1, "channel": "DAPI"}
    match made:
        case {"channel": str(name)}:
            assert name == "DAPI"
        case _:
            pytest.fail("coordinates matched no mapping pattern")


def test_replace_gives_new_coordinates_and_leaves_the_old():
    old = DataCoordinates(time=5, channel="DAPI", z=3)
    assert old.replace(time=6, z=None, angle=2) == {"time": 6, "channel": "DAPI", "angle": 2}
    assert old == {"time": 5, "channel": "DAPI", "z": 3}
    assert old.replace() == old
    assert old.replace() is not old


def test_repr_can_be_evaluated():
    made = DataCoordinates(time=1, channel="DA'PI")
    assert repr(made) == """DataCoordinates({'time': 1, 'channel': "DA'PI"})"""
    assert str(made) == repr(made)


# -- equality and hash ---------------------------------------------------------------------------


@given(axes=axes_dicts, order=st.randoms(use_true_random=False))
def test_equality_and_hash_do_not_depend_on_the_order_of_the_axes(axes, order):
    items = list(axes.items())
    order.shuffle(items)
    one, other = DataCoordinates(axes), DataCoordinates(dict(items))
    assert one == other
    assert hash(one) == hash(other)
    assert one == dict(items)
    assert dict(items) == other


@given(axes=axes_dicts, name=names, position=positions)
def test_one_axis_more_or_changed_makes_other_coordinates(axes, name, position):
    one, other = DataCoordinates(axes), DataCoordinates({**axes, name: position})
    same = name in axes and axes[name] == position
    assert (one == other) is same
    assert (one != other) is not same
    assert len({one, other}) == (1 if same else 2)


@pytest.mark.parametrize("other", [None, 1, "time", [("time", 1)], ("time", 1), {"time"}])
def test_coordinates_equal_nothing_that_is_no_mapping(other):
    made = DataCoordinates(time=1)
    assert made != other
    assert not made == other  # noqa: SIM201 - both operators are tested
    assert made.__eq__(other) is NotImplemented


def test_coordinates_equal_any_mapping_of_the_same_axes():
    assert DataCoordinates(time=1) == MappingProxyType({"time": 1})
    assert DataCoordinates(time=1) != MappingProxyType({"time": 2})


@given(axes=axes_dicts)
def test_coordinates_find_themselves_as_a_key(axes):
    table = {DataCoordinates(axes): "here"}
    assert table[DataCoordinates(dict(reversed(axes.items())))] == "here"


CHANGES = {
    "item": lambda c: operator.setitem(c, "time", 2),
    "new item": lambda c: operator.setitem(c, "angle", 2),
    "same item": lambda c: operator.setitem(c, "time", 1),
    "wrong item": lambda c: operator.setitem(c, "time", 1.5),
    "attribute": lambda c: setattr(c, "time", 2),
    "delete item": lambda c: operator.delitem(c, "time"),
    "delete attribute": lambda c: delattr(c, "time"),
    "pop": lambda c: c.pop("time"),
    "popitem": lambda c: c.popitem(),
    "clear": lambda c: c.clear(),
    "update": lambda c: c.update(time=2),
    "setdefault": lambda c: c.setdefault("angle", 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hashed_coordinates_are_frozen_and_say_to_use_replace(change):
    made = DataCoordinates(time=1, z=2)
    table = {made: "here"}
    with pytest.raises(CoordinatesFrozenError, match=r"\.replace\(axis=position\)") as caught:
        change(made)
    assert isinstance(caught.value, (TypeError, ValueError))
    assert made == {"time": 1, "z": 2}
    assert table[made] == "here"


@pytest.mark.parametrize("change", [change for name, change in CHANGES.items() if name != "wrong item"])
def test_coordinates_that_were_not_hashed_may_be_changed(change):
    made = DataCoordinates(time=1, z=2)
    assert made in [made]  # compares, does not hash
    change(made)
    hash(made)


def test_replace_of_frozen_coordinates_is_not_frozen():
    frozen = DataCoordinates(time=1)
    hash(frozen)
    changed = frozen.replace(time=2)
    changed.time = 3
    assert (frozen.time, changed.time) == (1, 3)


# -- copying, pickling, JSON ---------------------------------------------------------------------

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {number}": lambda c, n=number: pickle.loads(pickle.dumps(c, n)) for number in range(6)},
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
def test_a_copy_is_equal_and_can_be_changed_by_itself(make_copy, frozen):
    made = DataCoordinates(time=1, channel="Zürich", angle=-4)
    if frozen:
        hash(made)
    copied = make_copy(made)
    assert type(copied) is DataCoordinates
    assert list(copied.items()) == list(made.items())
    copied.time = 2
    assert made.time == 1


@given(axes=axes_dicts)
def test_json_gives_back_the_same_axes_in_the_same_order(axes):
    made = DataCoordinates(axes)
    written = made.to_json()
    assert json.loads(written) == axes
    for encoded in (written, written.encode()):
        read = DataCoordinates.from_json(encoded)
        assert list(read.items()) == list(axes.items())
        assert hash(read) == hash(made)


@pytest.mark.parametrize("wrong", ["", "{", "{'time': 1}", b"\xff\xfe\xfa", '{"time": 1} x'])
def test_text_that_is_no_json_is_refused(wrong):
    with pytest.raises(CoordinatesError, match="not valid JSON"):
        DataCoordinates.from_json(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        "[1]",
        "5",
        "null",
        '"time"',
        '{"time": 1.5}',
        '{"time": null}',
        '{"time": true}',
        '{"time": NaN}',
        '{"_x": 1}',
        '{"": 1}',
        '{"time": {"a": 1}}',
        '{"time": [1]}',
        '{"keys": 1}',
        '{"coordinate_dict": {"time": 1}}',
        '{"time": 9223372036854775808}',
    ],
)
def test_json_that_is_no_object_of_axes_is_refused(wrong):
    with pytest.raises(CoordinatesError):
        DataCoordinates.from_json(wrong)


# -- snapshot ------------------------------------------------------------------------------------


def test_a_snapshot_is_a_copy_that_later_changes_do_not_reach():
    mine = DataCoordinates(time=1)
    axes = {"time": 1}
    taken, taken_of_dict = snapshot(mine), snapshot(axes)
    mine.time = axes["time"] = 2
    assert taken == taken_of_dict == {"time": 1}


def test_a_snapshot_does_not_hash_the_object_of_the_caller():
    mine = DataCoordinates(time=1)
    hash(snapshot(mine))
    mine.time = 2  # would raise if it had been hashed
    assert mine == {"time": 2}


def test_a_snapshot_of_frozen_coordinates_is_the_same_object():
    frozen = DataCoordinates(time=1)
    hash(frozen)
    assert snapshot(frozen) is frozen


def test_a_snapshot_of_a_subclass_is_a_plain_copy():
    class Mine(DataCoordinates):
        __slots__ = ()

    mine = Mine(time=1)
    hash(mine)
    taken = snapshot(mine)
    assert type(taken) is DataCoordinates
    assert taken == mine


@pytest.mark.parametrize("wrong", [None, 5, "time", [("time", 1)], {"time": 1.5}, {1: 2}])
def test_a_snapshot_of_what_are_no_coordinates_is_refused(wrong):
    with pytest.raises(CoordinatesError):
        snapshot(wrong)


# -- iterators -----------------------------------------------------------------------------------

THREE = [{"time": 0}, {"time": 1}, {"time": 2}]
FINITE = {
    "dicts": lambda: [dict(axes) for axes in THREE],
    "coordinates": lambda: [DataCoordinates(axes) for axes in THREE],
    "tuple": lambda: tuple(THREE),
    "mixed": lambda: [THREE[0], DataCoordinates(time=1), MappingProxyType(THREE[2])],
    "values of a dict": lambda: dict(enumerate(THREE)).values(),
}


@pytest.mark.parametrize("make", FINITE.values(), ids=FINITE)
def test_a_collection_is_finite_and_can_be_iterated_again_and_again(make):
    iterator = DataCoordinatesIterator.create(make())
    assert iterator.is_finite() is True
    assert list(iterator) == THREE
    assert list(iterator) == THREE
    assert all(type(coordinates) is DataCoordinates for coordinates in iterator)


def test_a_set_of_coordinates_is_finite():
    iterator = DataCoordinatesIterator.create({DataCoordinates(axes) for axes in THREE})
    assert iterator.is_finite()
    assert sorted(coordinates.time for coordinates in iterator) == [0, 1, 2]


@pytest.mark.parametrize("single", [{"time": 1}, DataCoordinates(time=1), MappingProxyType({"time": 1})])
def test_one_coordinates_or_one_dict_gives_one_item(single):
    iterator = DataCoordinatesIterator.create(single)
    assert iterator.is_finite()
    assert list(iterator) == [{"time": 1}]


def test_an_empty_collection_gives_nothing():
    iterator = DataCoordinatesIterator.create([])
    assert iterator.is_finite()
    assert list(iterator) == []
    assert iterator.might_produce_coordinates({"time": 0}) is False


def test_an_iterator_is_returned_as_it_is():
    iterator = DataCoordinatesIterator.create(THREE)
    assert DataCoordinatesIterator.create(iterator) is iterator


def test_nested_loops_over_one_iterator_give_every_pair():
    iterator = DataCoordinatesIterator.create(THREE)
    pairs = [(outer.time, inner.time) for outer in iterator for inner in iterator]
    assert pairs == [(a, b) for a in range(3) for b in range(3)]


def test_next_walks_through_once_and_is_not_moved_by_loops():
    iterator = DataCoordinatesIterator.create(THREE)
    assert next(iterator) == THREE[0]
    assert list(iterator) == THREE
    assert next(iterator) == THREE[1]
    assert next(iterator) == THREE[2]
    with pytest.raises(StopIteration):
        next(iterator)


def test_later_changes_to_the_collection_or_its_items_do_not_reach_the_iterator():
    items = [{"time": 0}, DataCoordinates(time=1)]
    iterator = DataCoordinatesIterator.create(items)
    items[0]["time"] = 77
    items[1].time = 78
    items.append({"time": 79})
    assert list(iterator) == [{"time": 0}, {"time": 1}]


def test_a_generator_is_read_once_and_only_as_far_as_asked():
    read = []

    def generator():
        for axes in THREE:
            read.append(axes["time"])
            yield axes

    iterator = DataCoordinatesIterator.create(generator())
    assert iterator.is_finite() is False
    assert read == []
    assert next(iterator) == THREE[0]
    assert read == [0]
    assert list(iterator) == THREE[1:]
    assert list(iterator) == []
    assert read == [0, 1, 2]


def test_a_generator_without_end_can_be_used():
    iterator = DataCoordinatesIterator.create({"time": number} for number in iter(int, 1))
    assert [next(iterator).time for _ in range(3)] == [0, 0, 0]


def test_an_error_inside_a_generator_passes_through_unchanged():
    error = ZeroDivisionError("in the generator")

    def generator():
        yield {"time": 0}
        raise error

    iterator = DataCoordinatesIterator.create(generator())
    assert next(iterator) == {"time": 0}
    with pytest.raises(ZeroDivisionError) as caught:
        next(iterator)
    assert caught.value is error


def test_a_wrong_item_is_refused_at_once_in_a_list_and_when_reached_in_a_generator():
    items = [{"time": 0}, {"time": 1.5}]
    with pytest.raises(CoordinatesError, match=r"1\.5"):
        DataCoordinatesIterator.create(items)
    iterator = DataCoordinatesIterator.create(item for item in items)
    assert next(iterator) == {"time": 0}
    with pytest.raises(CoordinatesError, match=r"1\.5"):
        next(iterator)


@pytest.mark.parametrize("wrong", [[5], ["time"], [None], range(3)])
def test_items_that_are_no_mapping_are_refused_as_a_type_error(wrong):
    with pytest.raises(TypeError, match="mapping"):
        DataCoordinatesIterator.create(wrong)


@pytest.mark.parametrize("wrong", [None, 5, "time", b"time", object()])
def test_what_gives_no_coordinates_at_all_is_refused(wrong):
    with pytest.raises(CoordinatesTypeError, match=type(wrong).__name__):
        DataCoordinatesIterator.create(wrong)


def test_an_iterator_is_made_with_create_only():
    with pytest.raises(TypeError, match=r"create\("):
        DataCoordinatesIterator()


@given(items=st.lists(axes_dicts, max_size=5), sought=axes_dicts)
def test_a_finite_iterator_knows_which_coordinates_will_come(items, sought):
    iterator = DataCoordinatesIterator.create(items)
    assert iterator.might_produce_coordinates(sought) is (sought in items)
    assert all(iterator.might_produce_coordinates(DataCoordinates(item)) is True for item in items)
    assert list(iterator) == items


def test_might_produce_compares_all_axes_and_does_not_hash_what_it_is_asked():
    iterator = DataCoordinatesIterator.create([{"time": 0, "z": 1}])
    asked = DataCoordinates(time=0)
    assert iterator.might_produce_coordinates(asked) is False
    asked.z = 1
    assert iterator.might_produce_coordinates(asked) is True
    asked.z = 2


def test_a_generator_cannot_say_what_will_come():
    iterator = DataCoordinatesIterator.create(axes for axes in THREE)
    assert iterator.might_produce_coordinates({"time": 0}) is None
    assert list(iterator) == THREE


def test_repr_of_an_iterator_shows_what_is_known():
    assert (
        repr(DataCoordinatesIterator.create(THREE[:1]))
        == "DataCoordinatesIterator(DataCoordinates({'time': 0}))"
    )
    assert repr(DataCoordinatesIterator.create(iter(THREE))) == "DataCoordinatesIterator(dynamic)"


def test_no_axis_can_be_popped_where_none_is():
    with pytest.raises(KeyError):
        DataCoordinates().popitem()
