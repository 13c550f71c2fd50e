"""``FrameTable`` finds what a dict finds, whatever the index looks like and however it arrives."""

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exengine.errors import CoordinatesError
from exengine_ndstorage.ndtiff import index_table
from exengine_ndstorage.ndtiff.format import RGB8, FrameLayout, text_in_entry
from exengine_ndstorage.ndtiff.index_table import FrameTable

MIB = 2**20


def entry(axes, file=b"NDTiffStack.tif", numbers=(0,) * 8, **style):
    """Return an entry as the format describes it, without the code that is under test."""
    text = axes if isinstance(axes, bytes) else json.dumps(axes, **style).encode()
    return (
        struct.pack("<I", len(text))
        + text
        + struct.pack("<I", len(file))
        + file
        + struct.pack("<8I", *numbers)
    )


def feed(table, data, cuts=()):
    """Feed data as it would be read while it grows: to each cut, then to the end."""
    taken = 0
    for end in [*sorted(cuts), len(data)]:
        while not table.problem and (more := table.feed(data[taken:end])):
            taken += more
    return taken


def same(table, model):
    """Compare a table with a dict of coordinates (sorted items) to number."""
    assert len(table) == len(model)
    assert {tuple(sorted(c.items())): None for c in table}.keys() == model.keys()
    for items, number in model.items():
        axes = dict(items)
        assert table.find(axes) == number
        assert table.coordinates(number) == axes
        assert [type(value) for value in table.coordinates(number).values()] == [
            type(axes[axis]) for axis in table.coordinates(number)
        ]


positions = st.one_of(
    st.integers(0, 12),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([0, 1, -1, 2**29 - 1, 2**29, 99_999_999, 100_000_000, 2**31, -(2**63), 2**63 - 1]),
    st.sampled_from(["", "DAPI", "FITC", "0", "-1", "é", "\\", '"', "{}", "\0", "\U0001f52c", "a" * 300]),
    st.text(max_size=5).filter(lambda text: text.isprintable()),
)
names = st.sampled_from(["time", "channel", "z", "position", "row", "column", "é", "an axis", "x" * 60])
axes_of_a_frame = st.dictionaries(names, positions, max_size=5)


@st.composite
def styled_entries(draw):
    axes = draw(axes_of_a_frame)
    order = draw(st.permutations(list(axes)))
    style = draw(
        st.sampled_from(
            [
                {},
                {"separators": (",", ":")},
                {"separators": (",", ":"), "ensure_ascii": False},
                {"separators": (" ,\t", " :  ")},
                {"indent": 1},
            ]
        )
    )
    file = draw(st.sampled_from([b"NDTiffStack.tif", b"NDTiffStack_1.tif", "é.tif".encode(), b"x"]))
    # Numbers that look like the beginning of an entry: a small length and a brace.
    numbers = draw(
        st.lists(st.sampled_from([0, 1, 8, 11, 0x7B, 0x7D0000, 2**32 - 1]), min_size=8, max_size=8)
    )
    return {axis: axes[axis] for axis in order}, style, file, tuple(numbers)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(styled_entries(), max_size=25), st.lists(st.integers(0, 6000), max_size=6), st.integers(0, 40)
)
def test_it_agrees_with_a_dict_for_any_entries_in_any_pieces(entries, cuts, torn):
    blobs = [entry(axes, file, numbers, **style) for axes, style, file, numbers in entries]
    data = b"".join(blobs)
    tail = entry({"time": 77_777, "torn": 1})[:torn]
    table = FrameTable()
    assert feed(table, data + tail, [cut for cut in cuts if cut < len(data)]) == len(data)
    assert table.problem == ""
    model = {
        tuple(sorted(axes.items())): number for number, (axes, *_) in enumerate(entries)
    }  # the last wins
    same(table, model)
    for number, (_, _, file, numbers) in enumerate(entries):
        place = table.place(number)
        assert table.files[place[0]] == file.decode()
        assert table.layouts[place[1]] == (numbers[1], numbers[2], numbers[3], numbers[4], numbers[7])
        assert list(place[2:]) == [numbers[0], numbers[5], numbers[6]]
    appeared = dict.fromkeys(axis for axes, *_ in entries for axis in axes)
    assert table.axes == tuple(appeared)
    assert {axis: list(values) for axis, values in table.positions().items()} == {
        axis: list(dict.fromkeys(axes[axis] for axes, *_ in entries if axis in axes)) for axis in appeared
    }
    for axes, *_ in entries[:5]:
        for axis in axes:
            fewer = {name: value for name, value in axes.items() if name != axis}
            other = {**axes, axis: "not there"}
            for absent in (fewer, other):
                assert table.find(absent) == model.get(tuple(sorted(absent.items())))


@pytest.fixture
def small_limits(monkeypatch):
    """Make frames go from the dict to sorted keys after 10, and texts to the JSON parser after 2."""
    monkeypatch.setattr(index_table, "_TAIL", 10)
    monkeypatch.setattr(index_table, "_MAX_TEMPLATES", 2)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(axes_of_a_frame, max_size=60), st.lists(st.integers(0, 4000), max_size=8))
def test_it_agrees_with_a_dict_when_keys_are_sorted_and_texts_are_parsed(small_limits, entries, cuts):
    data = b"".join(map(entry, entries))
    table, taken, seen = FrameTable(), 0, 0
    for end in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        while more := table.feed(data[taken:end]):
            taken += more
        assert len(table) >= seen  # looking makes it sort in between
        seen = len(table)
    assert taken == len(data)
    same(table, {tuple(sorted(axes.items())): number for number, axes in enumerate(entries)})


def test_a_frame_that_comes_again_after_the_keys_were_sorted_takes_the_place_of_the_first(small_limits):
    entries = [{"time": n % 7, "z": n // 7} for n in range(40)]
    table = FrameTable()
    feed(table, b"".join(map(entry, entries)))
    assert len(table) == 40 and table._sorted == 40  # else this test shows nothing
    feed(table, entry(entries[3]) + entry({"time": 100, "z": -1}) + entry({"new": 1}))
    model = {tuple(sorted(axes.items())): n for n, axes in enumerate(entries)}
    model |= {tuple(sorted(entries[3].items())): 40, (("time", 100), ("z", -1)): 41, (("new", 1),): 42}
    same(table, model)


def test_positions_beyond_those_that_are_there_are_not_taken_for_others(small_limits):
    table = FrameTable()
    feed(table, b"".join(entry({"time": n // 10, "z": n % 10}) for n in range(100)))
    table.settle()
    for t in range(-1, 50):
        for z in range(-1, 50):
            assert (table.find({"time": t, "z": z}) is not None) == (0 <= t < 10 and 0 <= z < 10)


def test_numbers_that_look_like_the_beginning_of_an_entry_do_not_make_it_slow():
    one = entry({"time": 7}, numbers=(0, 0, 11, 0x7B, 0, 0x7D0000, 0, 0))
    table = FrameTable()
    assert table.feed(one * 5000) == len(one) * 5000  # all at once, not entry by entry


def test_positions_too_many_for_one_number_are_found_all_the_same(small_limits):
    entries = [{f"axis {k}": (n * 7919 + k) % 500_000 for k in range(5)} for n in range(100)]
    table = FrameTable()
    for begin in range(0, 100, 20):
        feed(table, b"".join(map(entry, entries[begin : begin + 20])))
        assert len(table) == begin + 20
    assert table._by_dict  # else this test shows nothing
    feed(table, entry(entries[3]))
    same(table, {tuple(sorted(axes.items())): 100 if n == 3 else n for n, axes in enumerate(entries)})


def test_looking_for_a_frame_does_not_sort_again_when_nothing_came(small_limits, monkeypatch):
    entries = [{f"axis {k}": (n * 7919 + k) % 500_000 for k in range(5)} for n in range(100)]
    table = FrameTable()
    feed(table, b"".join(map(entry, entries)))
    table.settle()
    monkeypatch.setattr(FrameTable, "_sort", lambda _: pytest.fail("sorted again"))
    assert [table.find(axes) for axes in entries] == list(range(100))


def test_20_000_entries_in_many_chunks_are_found(monkeypatch):
    wells = [f"{row}{column}" for row in "ABCDEFGH" for column in range(1, 13)]
    entries = [
        {
            "time": n // 960,
            "position": wells[n % 96],
            "channel": ("DAPI", "FITC")[n // 96 % 2],
            "z": n // 192 % 5 - 2,
        }
        for n in range(20_000)
    ]
    data = b"".join(
        entry(
            axes,
            b"NDTiffStack_%d.tif" % (n // 9000),
            (n, 64, 48, 1, 0, n + 1, n + 2, 0),
            separators=(",", ":"),
        )
        for n, axes in enumerate(entries)
    )
    table, taken = FrameTable(), 0
    while taken < len(data):
        taken += table.feed(data[taken : taken + 50_000], expected_bytes=max(0, len(data) - taken - 50_000))
    same(table, {tuple(sorted(axes.items())): n for n, axes in enumerate(entries)})
    for n in (0, 8999, 9000, 19_999):
        file, *place = table.place(n)
        assert (table.files[file], place) == (f"NDTiffStack_{n // 9000}.tif", [0, n, n + 1, n + 2])
    assert sorted(table.files) == ["NDTiffStack_0.tif", "NDTiffStack_1.tif", "NDTiffStack_2.tif"]
    assert table.positions()["position"] == wells


def test_texts_of_thousands_of_kinds_do_not_copy_the_whole_chunk_for_each_entry():
    class Watched(bytes):
        copied = 0

        def __getitem__(self, key):
            part = super().__getitem__(key)
            Watched.copied += len(part) if isinstance(key, slice) else 0
            return part

    entries = [{"time": n // 4000, "position": f"well {n % 4000:04x}"} for n in range(20_000)]
    data = Watched(b"".join(map(entry, entries)))
    table = FrameTable()
    assert table.feed(data) == len(data)
    assert 0 < Watched.copied <= len(data)
    same(table, {tuple(sorted(axes.items())): n for n, axes in enumerate(entries)})


def test_memory_is_columns_of_numbers(monkeypatch):
    data = b"".join(entry({"time": n, "channel": "DAPI"}) for n in range(20_000))
    table = FrameTable()
    feed(table, data)
    assert table._places.nbytes + table._codes.nbytes < 20_000 * 28 * 1.5


@pytest.mark.parametrize("cut", range(0, 120, 3))
def test_an_entry_that_is_cut_off_is_not_taken(cut):
    whole = entry({"time": 0}) + entry({"time": 1, "channel": "DAPI"})
    table = FrameTable()
    taken = feed(table, whole[:cut])
    first = len(entry({"time": 0}))
    assert (taken, len(table)) == (
        (0, 0) if cut < first else (first, 1) if cut < len(whole) else (len(whole), 2)
    )
    assert feed(table, whole[taken:]) + taken == len(whole)
    assert len(table) == 2


INVALID = {
    "no JSON": b"{time: 0}",
    "a list": b'["time", 0]',
    "a fraction": b'{"time":0.5}',
    "null": b'{"time":null}',
    "a bool": b'{"time":true}',
    "a list as position": b'{"time":[0]}',
    "NaN": b'{"time":NaN}',
    "65 bits": b'{"time":18446744073709551616}',
    "64 bits, not signed": b'{"time":9223372036854775808}',
    "a thousand digits": b'{"time":' + b"9" * 1000 + b"}",
    "name of a method": b'{"items":0}',
    "no name": b'{"":0}',
    "half a surrogate": b'{"channel":"\\ud800"}',
    "no UTF-8": b'{"channel":"\xff"}',
    "two objects": b'{"time":0}{"z":0}',
    "trailing comma": b'{"time":0,}',
    "leading zero": b'{"time":-01}',
    "nested": b'{"a":' * 20_000 + b"0" + b"}" * 20_000,
    "256 axes": json.dumps({f"axis {k}": k for k in range(256)}).encode(),
}


@pytest.mark.parametrize("kind", INVALID)
@pytest.mark.parametrize("before", [0, 1, 50])
def test_coordinates_that_are_none_end_the_index_with_a_problem(kind, before, small_limits):
    good = [{"time": n, "channel": "ab"[n % 2]} for n in range(before)]
    blob = b"".join(map(entry, good))
    table = FrameTable()
    taken = feed(table, blob + entry(INVALID[kind]) + entry({"time": 1000}))
    assert table.problem
    assert taken == len(blob) and len(table) == before
    assert table.find({"time": 1000}) is None
    same(table, {tuple(sorted(axes.items())): n for n, axes in enumerate(good)})


@pytest.mark.parametrize("kind", ["length of the axes", "length of the name"])
def test_a_length_that_is_impossible_ends_the_index(kind):
    good, bad = entry({"time": 0}), bytearray(entry({"time": 1}))
    at = 0 if kind == "length of the axes" else 4 + len('{"time": 1}')
    bad[at : at + 4] = struct.pack("<I", 2**24)
    table = FrameTable()
    assert feed(table, good + bytes(bad) + good * 5) == len(good)
    assert len(table) == 1


@pytest.mark.parametrize("axes_bytes", [2, 100, 30_000, 65_535])
@pytest.mark.parametrize("name_bytes", [1, 200, 40_000, 65_535])
def test_texts_of_any_length_that_the_format_allows_are_taken_apart_right(axes_bytes, name_bytes):
    text = b"{}".rjust(axes_bytes) if axes_bytes < 20 else b'{"channel":"' + b"x" * (axes_bytes - 14) + b'"}'
    text = text if axes_bytes > 2 else b"{}"
    data = entry(text, b"n" * name_bytes, range(8)) + entry({"time": 1}, b"m", range(8, 16))
    table = FrameTable()
    assert feed(table, data) == len(data)
    assert list(table.place(0))[2:] == [0, 5, 6]
    assert [table.files[table.place(n)[0]] for n in range(2)] == ["n" * name_bytes, "m"]
    assert table.find(json.loads(text)) == 0 and table.find({"time": 1}) == 1


def test_entries_that_do_not_begin_with_a_brace_at_once_are_found_too():
    data = entry({"time": 0}) + entry(b' {"time": 1}') + entry(b'\n{ "time" :2 }') + entry({"time": 3})
    table = FrameTable()
    assert feed(table, data) == len(data)
    assert [table.find({"time": n}) for n in range(4)] == [0, 1, 2, 3]


def test_claims_beyond_64_bits_do_not_hide_the_ends_of_the_files():
    table = FrameTable()
    feed(
        table,
        entry({"time": 0}, b"a.tif", (100, 2**32 - 1, 2**32 - 1, 1, 0, 50, 7, 0))
        + entry({"time": 1}, b"b.tif"),
    )
    ends = table.ends()
    assert ends["a.tif"] > 2**60 and ends["b.tif"] == 0


def test_there_may_be_more_files_and_layouts_than_16_bits_count():
    count = 66_000
    data = b"".join(entry(b'{"n":%d}' % n, b"%d" % n, (0, n, 1, 0, 0, 0, 0, 0)) for n in range(count))
    table = FrameTable()
    assert feed(table, data) == len(data)
    for n in (0, 1, 65_535, 65_536, count - 1):
        place = table.place(n)
        assert (table.files[place[0]], table.layouts[place[1]][0]) == (str(n), n)


def test_a_written_entry_has_the_bytes_that_the_format_describes():
    layout = FrameLayout(height=5, width=7, pixel_type=RGB8)
    written = layout.index_entry(b'{"time":0}', text_in_entry(b"a.tif"), pixels_at=300, metadata_bytes=9)
    assert written == entry(b'{"time":0}', b"a.tif", (300, 7, 5, 2, 0, 300 + 3 * 35, 9, 0))


def test_absence_is_described_by_what_is_there():
    table = FrameTable()
    assert table.describe_absence({"time": 0}) == "the dataset has no frames yet"
    feed(table, b"".join(entry({"time": n, "z": n}) for n in range(5)))
    assert table.describe_absence({"time": 9, "z": 0}) == "positions on axis 'time': 0 - 4"
    assert table.describe_absence({"time": 0, "z": 1}) == "no frame has this combination of positions"
    assert table.describe_absence({"time": 0}) == "the coordinates lack z; existing axes: time, z"
    assert table.describe_absence({"t": 0}) == "no frame has the axis 't'; existing axes: time, z"


def test_iterating_shows_what_was_there_when_it_began():
    table = FrameTable()
    feed(table, entry({"time": 0}))
    begun = iter(table)
    feed(table, entry({"time": 1, "z": 1}) + entry({"time": 0}))
    assert [c.coordinate_dict for c in begun] == [{"time": 0}]
    assert [c.coordinate_dict for c in table] == [{"time": 1, "z": 1}, {"time": 0}]


def test_a_bool_is_no_position():
    table = FrameTable()
    feed(table, entry({"time": 1}))
    assert table.find({"time": np.True_}) is None
    assert table.find({"time": True}) is None
    with pytest.raises(CoordinatesError):
        list(table).append(next(iter(table)).replace(time=True))
