"""The comparison of the backends sorts, filters, and can be used with the keyboard alone."""

import pytest

SHOWN = """
return Array.from(document.querySelectorAll('table.exengine-matrix')).map((table) => ({
  heads: Array.from(table.tHead.rows[0].cells).filter((cell) => !cell.hidden).map((cell) => cell.textContent.trim()),
  rows: Array.from(table.tBodies[0].rows).filter((row) => !row.hidden).map((row) =>
    Array.from(row.cells).filter((cell) => !cell.hidden).map((cell) => cell.querySelector('p').textContent.trim())),
}));
"""


@pytest.fixture
def matrix(browser):
    browser.open("usage/backends/matrix.html")
    browser.wait(lambda: browser.find(".exengine-tools"))
    return browser


def capabilities(browser):
    return browser.run(SHOWN)[0]


def column(table, name):
    place = table["heads"].index(name)
    return {row[0]: row[place] for row in table["rows"]}


def clicked(browser, name):
    button = browser.find(f"button[aria-label='Sort by {name}']")[0]
    button.click()
    return browser.run("return arguments[0].closest('th').getAttribute('aria-sort')", button)


def test_the_first_click_sorts_up_the_second_down_and_the_third_not_at_all(matrix):
    before = [row[0] for row in capabilities(matrix)["rows"]]
    assert before != sorted(before)
    assert clicked(matrix, "Capability") == "ascending"
    assert [row[0] for row in capabilities(matrix)["rows"]] == sorted(before)
    assert clicked(matrix, "Capability") == "descending"
    assert [row[0] for row in capabilities(matrix)["rows"]] == sorted(before, reverse=True)
    assert clicked(matrix, "Capability") == "none"
    assert [row[0] for row in capabilities(matrix)["rows"]] == before


def test_sorting_by_a_backend_puts_what_it_can_do_first(matrix):
    clicked(matrix, "ndram")
    values = list(column(capabilities(matrix), "ndram").values())
    can = [value.startswith("\N{CHECK MARK}") for value in values]
    assert True in can and can == sorted(can, reverse=True)
    assert values[-1] == "\N{EN DASH}"


def test_words_filter_the_rows_by_name_and_by_meaning(matrix):
    field = matrix.one("#exengine-find")
    field.send_keys("damaged frame")
    assert [row[0] for row in capabilities(matrix)["rows"]] == ["checksums"]
    field.clear()
    field.send_keys("no such words")
    assert capabilities(matrix)["rows"] == []
    assert " 0 of " in matrix.one(".exengine-status").text


def test_a_name_filters_the_backends(matrix):
    everything = capabilities(matrix)["heads"]
    assert {"ndtiff", "ndram"} <= set(everything)
    matrix.one("#exengine-backend").send_keys("NDT")
    assert capabilities(matrix)["heads"] == ["Capability", "ndtiff"]
    assert matrix.one(".exengine-status").text.startswith(
        f"The tables show 1 of {len(everything) - 1} backends"
    )


def test_what_is_needed_leaves_only_the_backends_that_have_it(matrix):
    before = capabilities(matrix)
    have = [name for name in before["heads"][1:] if column(before, name)["checksums"].endswith("yes")]
    assert have and len(have) < len(before["heads"]) - 1
    matrix.one("input[aria-label='Only backends with checksums']").click()
    assert capabilities(matrix)["heads"][1:] == have


def test_only_differences_hides_what_all_have_in_common(matrix):
    before = capabilities(matrix)["rows"]
    matrix.one("#exengine-differ").click()
    after = capabilities(matrix)["rows"]
    # The backends differ in ``remote`` only if the path is a URL, which the second line of a cell states.
    assert after == [row for row in before if len(set(row[1:])) > 1 or row[0] == "remote"]
    assert 0 < len(after) < len(before)


def test_the_backend_that_can_do_most_goes_first(matrix):
    from selenium.webdriver.support.ui import Select

    before = capabilities(matrix)
    score = {
        name: sum(value.startswith("\N{CHECK MARK}") for value in column(before, name).values())
        for name in before["heads"][1:]
    }
    promises = dict.fromkeys(score, 0)
    for table in matrix.run(SHOWN)[1:]:
        for name in promises:
            promises[name] = sum("kept" in value for value in column(table, name).values())
    Select(matrix.one("#exengine-order")).select_by_value("most")
    after = capabilities(matrix)
    assert after["heads"][1:] == sorted(score, key=lambda name: -score[name] - promises[name])
    assert column(after, "ndtiff") == column(before, "ndtiff")


def test_show_all_takes_everything_back(matrix):
    before = matrix.run(SHOWN)
    clicked(matrix, "ndtiff")
    matrix.one("input[aria-label='Only backends with persistent']").click()
    matrix.one("#exengine-differ").click()
    matrix.one("#exengine-find").send_keys("frame")
    assert matrix.run(SHOWN) != before
    matrix.one(".exengine-reset").click()
    assert matrix.run(SHOWN) == before


def test_the_keyboard_is_enough(matrix):
    from selenium.webdriver.common.keys import Keys

    matrix.run("document.querySelector('#exengine-find').focus()")
    keys = matrix.driver.switch_to
    names = []
    for _ in range(8):
        element = keys.active_element
        names.append(element.get_attribute("id") or element.get_attribute("aria-label") or element.text)
        element.send_keys(Keys.TAB)
    assert names[:5] == ["exengine-find", "exengine-backend", "exengine-order", "exengine-differ", "Show all"]
    assert "Sort by Capability" in names
    button = matrix.find("button[aria-label='Sort by Capability']")[0]
    button.send_keys(Keys.ENTER)
    assert capabilities(matrix)["rows"][0][0] == "checksums"
    box = matrix.one("input[aria-label='Only backends with checksums']")
    box.send_keys(Keys.SPACE)
    assert "ndram" not in capabilities(matrix)["heads"]


def test_the_tables_scroll_in_their_own_box_on_a_narrow_screen(browser):
    browser.show(width=390, scheme="dark")
    browser.open("usage/backends/matrix.html")
    browser.wait(lambda: browser.find(".exengine-tools"))
    box = browser.run(
        "const box = document.querySelector('table.exengine-matrix').closest('.exengine-scroll');"
        "box.scrollLeft = 10000;"
        "const first = document.querySelector('table.exengine-matrix tbody td').getBoundingClientRect();"
        "return [box.getBoundingClientRect().right, first.left - box.getBoundingClientRect().left, scrollX]"
    )
    assert box[0] <= 390
    assert abs(box[1]) <= 2  # the names stay in sight
    assert box[2] == 0


# -- the pickers ---------------------------------------------------------------------------------


def pick(matrix, name, text):
    """Set a picker by the text that a reader sees."""
    from selenium.webdriver.support.ui import Select

    Select(matrix.one(f"#exengine-pick-{name}")).select_by_visible_text(text)


def answer(matrix):
    return matrix.find(".exengine-answer p")[0].text


def answers(matrix):
    return [link.text for link in matrix.find(".exengine-answer a")]


def test_typing_a_pixel_type_finds_the_backends_that_take_it_and_those_that_take_any(matrix):
    matrix.one("#exengine-pick-dtype").send_keys("float32")
    expected = ["hdf5", "ndram", "ome-tiff", "ome-zarr"]
    assert answers(matrix) == expected
    assert capabilities(matrix)["heads"][1:] == expected
    rows = matrix.find("table.exengine-choice tbody tr")
    assert [row.text.split()[0] for row in rows if row.is_displayed()] == expected


@pytest.mark.parametrize(
    ("typed", "meant", "expected"),
    [
        ("16-bit", "uint16", ["hdf5", "ndram", "ndtiff", "ome-tiff", "ome-zarr"]),
        ("mono16", "uint16", ["hdf5", "ndram", "ndtiff", "ome-tiff", "ome-zarr"]),
        ("Single", "float32", ["hdf5", "ndram", "ome-tiff", "ome-zarr"]),
        ("float16", "float16", ["hdf5", "ndram"]),
        ("complex", "complex64 or complex128", ["hdf5", "ndram", "ome-tiff"]),
    ],
)
def test_the_page_says_which_pixel_type_it_understood(matrix, typed, meant, expected):
    matrix.one("#exengine-pick-dtype").send_keys(typed)
    assert answers(matrix) == expected
    assert matrix.one(".exengine-understood").text == f"Required: pixels of type {meant}."


def test_an_unknown_pixel_type_is_not_a_requirement_that_no_backend_meets(matrix):
    matrix.one("#exengine-pick-dtype").send_keys("rgb")
    assert answer(matrix).startswith("“rgb” is not a pixel type. Types: bool, uint8, uint16,")
    assert answers(matrix) == []


def test_two_programs_may_be_required(matrix):
    pick(matrix, "reader", "tifffile")
    assert answers(matrix) == ["ndtiff", "ome-tiff"]
    pick(matrix, "reader2", "MATLAB")
    assert answers(matrix) == ["ndtiff"]


def test_a_program_that_does_not_read_a_compression_method_does_not_count_for_it(matrix):
    pick(matrix, "reader", "MATLAB")
    pick(matrix, "compression", "any method")
    assert answer(matrix) == "1 of 5 meets all requirements: hdf5 with compression: gzip."
    config = "storage:\n  backend: hdf5\n  path: data/run.h5\n  options: {compression: gzip}"
    assert matrix.one(".exengine-config").text == config


def test_the_requirements_are_in_the_address(matrix):
    matrix.one("#exengine-pick-dtype").send_keys("float32")
    pick(matrix, "reader", "MATLAB")
    address = matrix.run("return location.href")
    assert address.endswith("matrix.html?dtype=float32&reader=MATLAB")
    matrix.driver.get(address)
    matrix.wait(lambda: matrix.find(".exengine-answer a"))
    assert answers(matrix) == ["hdf5"]
    matrix.one(".exengine-forget").click()
    assert matrix.run("return location.search") == ""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("reader", "ImageJ", ["ndtiff"]),
        ("reader", "Fiji", ["ndtiff", "ome-tiff"]),
        ("safety", "the program is killed", ["hdf5", "ndtiff", "ome-tiff", "ome-zarr"]),
        ("safety", "a power cut after finish", ["hdf5", "ndtiff", "ome-tiff", "ome-zarr"]),
        ("compression", "gzip", ["hdf5", "ome-zarr"]),
        ("reading", "in other programs", ["ome-zarr"]),
        ("size", "larger than memory", ["hdf5", "ndtiff", "ome-tiff", "ome-zarr"]),
        ("size", "in object storage, at a URL", ["ome-zarr"]),
    ],
)
def test_a_wish_leaves_the_backends_that_meet_it(matrix, name, text, expected):
    pick(matrix, name, text)
    assert answers(matrix) == expected


def test_wishes_that_no_backend_meets_say_which_one_to_drop_and_drop_it(matrix):
    pick(matrix, "reader", "ImageJ")
    pick(matrix, "compression", "gzip")
    assert answer(matrix).startswith("No backend meets all requirements.")
    lines = [line.text for line in matrix.find(".exengine-answer li")]
    assert "ndtiff meets the rest if you drop: compression with gzip" in lines
    assert "ome-zarr with codec: gzip meets the rest if you drop: opens in ImageJ" in lines
    button = next(b for b in matrix.find(".exengine-drop") if b.text == "drop: opens in ImageJ")
    button.click()
    assert answers(matrix) == ["hdf5", "ome-zarr"]
    assert matrix.one("#exengine-pick-reader").get_attribute("value") == ""


def test_options_are_named_where_only_they_meet_the_wishes(matrix):
    pick(matrix, "compression", "zstd")
    assert answer(matrix) == (
        "2 of 5 meet all requirements: ome-tiff with compression: zstd, ome-zarr with codec: zstd."
    )
    pick(matrix, "reading", "in other programs")  # they see compressed frames only later
    assert answer(matrix).startswith("No backend meets all requirements.")
    pick(matrix, "compression", "any")
    assert answer(matrix) == "1 of 5 meets all requirements: ome-zarr."


def test_a_program_that_is_chosen_must_itself_read_while_frames_are_written(matrix):
    pick(matrix, "reading", "in other programs")
    pick(matrix, "reader", "napari")
    assert answers(matrix) == ["ome-zarr"]
    pick(matrix, "reader", "iohub")
    assert answer(matrix).startswith("No backend meets all requirements.")


def test_the_pickers_are_reached_and_set_with_the_keyboard(matrix):
    from selenium.webdriver.common.keys import Keys

    matrix.run("document.querySelector('#exengine-pick-dtype').focus()")
    names = []
    for _ in range(8):
        element = matrix.driver.switch_to.active_element
        names.append(element.get_attribute("id") or element.text)
        element.send_keys(Keys.TAB)
    expected = ["dtype", "reader", "reader2", "safety", "compression", "reading", "size"]
    assert names == [*(f"exengine-pick-{name}" for name in expected), "Clear all"]
    matrix.one("#exengine-pick-compression").send_keys(Keys.ARROW_DOWN)
    assert answers(matrix) == ["hdf5", "ome-tiff", "ome-zarr"]
    matrix.one(".exengine-forget").send_keys(Keys.ENTER)
    assert answers(matrix) == []


def test_a_limit_is_a_box_for_the_backends_without_it(matrix):
    matrix.one("input[aria-label='Only backends without same_shape']").click()
    assert capabilities(matrix)["heads"][1:] == ["hdf5", "ndram", "ndtiff", "ome-tiff"]
