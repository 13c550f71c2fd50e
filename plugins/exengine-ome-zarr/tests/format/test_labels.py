"""Labels: each position has one index, and a reader that has seen the stored labels finds what the writer chose."""

from hypothesis import given
from hypothesis import strategies as st

from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.format.labels import Labels, declared_order

numbers = st.integers(-5, 12) | st.integers(-(2**40), 2**40) | st.integers(65_530, 65_550)
names = st.text(max_size=3)
keys = st.lists(numbers | names | st.tuples(numbers, names), max_size=40)


def assign(labels, key):
    """Assign an index as the writer does, which stores each new label."""
    index, is_label = labels.assign(key)
    if is_label:
        labels.add(key, index)
    return index, is_label


def assign_all(given_keys):
    """Return the labels, the index of each key, and the labels that must be stored, in order."""
    labels, found, stored = Labels(), {}, []
    for key in given_keys:
        index, is_label = assign(labels, key)
        assert found.setdefault(key, index) == index
        if is_label:
            stored.append((key, index))
    return labels, found, stored


@given(keys)
def test_no_two_positions_have_the_same_index(given_keys):
    _, found, _ = assign_all(given_keys)
    assert len(set(found.values())) == len(found)


@given(keys)
def test_a_position_is_found_at_its_index(given_keys):
    labels, found, _ = assign_all(given_keys)
    for key, index in found.items():
        assert labels.position(index) == key and labels.find(key) == index
        assert type(labels.position(index)) is type(key)


@given(keys)
def test_a_reader_with_the_stored_labels_finds_every_position_of_the_writer(given_keys):
    _, found, stored = assign_all(given_keys)
    reader = Labels()
    for key, index in stored:
        reader.add(key, index)
    for key, index in found.items():
        assert reader.find(key) == index and reader.position(index) == key


@given(keys)
def test_a_reader_never_finds_another_position_at_an_index_in_use(given_keys):
    _, found, stored = assign_all(given_keys)
    reader = Labels()
    for key, index in stored:
        reader.add(key, index)
    used = {index: key for key, index in found.items()}
    for key in (*range(-3, 30), "", "a", *found):
        index = reader.find(key)
        assert index is None or index not in used or used[index] == key


@given(keys)
def test_indices_grow_by_the_gap_at_most(given_keys):
    labels = Labels()
    for key in given_keys:
        before = labels.extent
        assign(labels, key)
        assert labels.extent <= before + sizes.GAP_POSITIONS + 1


def test_natural_numbers_need_no_label_and_all_others_do():
    labels = Labels()
    assert [assign(labels, key) for key in (0, 3, "a", -1, 10**12, 1)] == [
        (0, False), (3, False), (4, True), (5, True), (6, True), (1, False),
    ]  # fmt: skip


def test_a_number_whose_index_is_taken_by_a_name_gets_another_one():
    labels = Labels()
    assert assign(labels, "DAPI") == (0, True)
    assert assign(labels, 0) == (1, True)
    assert assign(labels, 1) == (2, True)
    assert [labels.position(index) for index in range(3)] == ["DAPI", 0, 1]


def test_declared_numbers_are_in_ascending_order_and_names_in_the_given_one():
    assert declared_order([3, "b", -1, "a", 0]) == [-1, 0, 3, "b", "a"]


def test_a_label_that_was_not_stored_is_not_known():
    labels = Labels()
    assert labels.assign("DAPI") == labels.assign("DAPI") == (0, True)
    assert labels.find("DAPI") is None and labels.extent == 0
