"""The promises on a backend's page are those of its result file, and nothing is made up without one."""

import json

import pytest
from sphinx.errors import ExtensionError

from exengine.testing.promises import PROMISES
from exengine.testing.results import TestReport, make_results, with_variants, write_results

REPORTS = [
    TestReport("test_put", ("P1",), "", "kept"),
    TestReport("test_again", ("P1",), "", "kept"),
    TestReport("test_kill", ("P6",), "", "broken", "frame 3 was lost"),
    TestReport("test_power", ("F2",), "", "not promised", "durable_flush is False"),
]


@pytest.fixture
def results(tmp_path):
    """Write the result file of a backend."""

    def write(reports=REPORTS, *, name="shelf", distribution="shelf-dist", version="2.5"):
        found = make_results(name, reports, distribution=distribution, version=version)
        write_results(tmp_path / "docs" / "_results" / f"{name}.json", found)

    return write


def promises(built, page="usage/backends/shelf"):
    return {row[0].split()[0]: row[1:] for row in built.rows(page) if row and row[0].split()[0] in PROMISES}


def test_every_promise_has_its_meaning_and_outcome(site, build, results):
    site.backend()
    results()
    built = build()
    rows = promises(built)
    assert list(rows) == list(PROMISES)
    assert rows["P1"] == ["\N{CHECK MARK} kept", "2 tests"]
    assert rows["P6"] == ["\N{BALLOT X} broken", "1 of 1 test failed frame 3 was lost"]
    assert rows["F2"] == ["not promised", "1 test durable_flush is False"]
    assert rows["P2"][0] == "not run"
    text = built.text("usage/backends/shelf")
    assert PROMISES["P2"] in text
    assert "confirmed 1 of 2 promises. Tested: shelf-dist 2.5" in text


def test_the_promises_of_a_variant_are_shown_where_they_differ(site, build, tmp_path):
    site.backend()
    made = {"distribution": "shelf-dist", "version": "2.5"}
    other = [*REPORTS[:2], TestReport("test_kill", ("P6",), "", "kept"), *REPORTS[3:]]
    variants = {"oak": make_results("shelf", other, **made), "ash": make_results("shelf", REPORTS, **made)}
    found = with_variants(make_results("shelf", REPORTS, **made), variants)
    write_results(tmp_path / "docs" / "_results" / "shelf.json", found)
    text = build().text("usage/backends/shelf").replace(" :", ":").replace(" .", ".")
    assert "With the options of the variant oak: P6 \N{CHECK MARK} kept." in text
    assert "With the options of the variant ash: the same outcomes." in text


def test_without_results_the_page_says_not_run_and_how_to_run_it(site, build):
    site.backend()
    text = build().text("usage/backends/shelf")
    assert "Not run; this documentation has no results" in text
    assert "pytest --exengine-backend shelf --exengine-results shelf.json" in text


def test_results_of_another_version_say_so(site, build, results):
    site.backend()
    results(version="2.4")
    assert "These results are from version 2.4, but version 2.5 is installed." in build().text(
        "usage/backends/shelf"
    )


def test_results_of_another_distribution_are_not_taken(site, build, results):
    site.backend()
    results(distribution="stranger")
    assert "Not run" in build().text("usage/backends/shelf")


def test_a_code_in_the_results_is_a_finding_on_the_page_and_ends_a_strict_build(site, build, results):
    site.backend()
    results([TestReport("test_axes", ("P1",), "EX303", "broken", "position -1 was refused")])
    built = build()
    assert any(
        row[0] == "EX303" and "position -1" in row[2] for row in built.rows("usage/backends/shelf") if row
    )
    with pytest.raises(ExtensionError, match="EX303"):
        build(exengine_strict=["shelf-dist"])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "exengine-conformance", "format_version": 1, "promises": 3}']
)
def test_a_file_that_holds_no_results_is_a_warning(site, build, tmp_path, text):
    site.backend()
    path = tmp_path / "docs" / "_results" / "shelf.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    built = build(strict=False)
    assert str(path) in built.warnings
    assert "Not run" in built.text("usage/backends/shelf")


def test_an_outcome_that_nobody_knows_is_a_warning(site, build, results, tmp_path):
    site.backend()
    results()
    path = tmp_path / "docs" / "_results" / "shelf.json"
    content = json.loads(path.read_text())
    content["promises"]["P1"]["outcome"] = "perhaps"
    path.write_text(json.dumps(content))
    assert "'perhaps'" in build(strict=False).warnings


# -- the matrix ----------------------------------------------------------------------------------


def test_the_matrix_compares_capabilities_and_promises(site, build, results):
    site.backend(extra="capabilities = StorageCapabilities(checksums=True, dtypes=('uint8',))")
    site.backend("other-dist", name="other")
    results()
    rows = {row[0].split()[0]: row[1:] for row in build().rows("usage/backends/matrix") if row}
    assert rows["checksums"] == ["\N{EN DASH}", "\N{CHECK MARK} yes"]  # columns by name: other, shelf
    assert rows["dtypes"] == ["any", "uint8"]
    assert rows["P1"] == ["not run", "\N{CHECK MARK} kept"]
    assert rows["P6"] == ["not run", "\N{BALLOT X} broken"]


def test_the_matrix_links_to_the_pages_and_the_index_to_the_matrix(site, build):
    site.backend()
    built = build()
    assert 'href="shelf.html"' in (built.output / "usage/backends/matrix.html").read_text()
    assert 'href="matrix.html"' in (built.output / "usage/backends/index.html").read_text()


def test_only_the_matrix_has_the_script_and_it_comes_from_the_extension(site, build):
    site.backend()
    built = build()
    script = "exengine-matrix.js"
    assert script in (built.output / "usage/backends/matrix.html").read_text()
    assert script not in (built.output / "usage/backends/shelf.html").read_text()
    assert (built.output / "_static" / script).is_file()


def test_backends_that_cannot_be_used_are_not_compared(site, build):
    site.install("broken-dist", "raise ImportError('no')", name="broken")
    built = build()
    assert not (built.source / "usage/backends/matrix.rst").exists()
    assert "Compare them" not in built.text("usage/backends/index")


@pytest.fixture
def ship(site):
    """Write the result files that come with the package of a backend."""

    def write(package, version="2.5"):
        folder = site.folder / package / "docs" / "results"
        made = make_results("shelf", REPORTS, distribution="shelf-dist", version=version)
        write_results(folder / "shelf.json", made)
        (folder / "faults").mkdir()
        found = {"outcome": "kept", "text": "the power was cut 20 times, and no frame was lost"}
        campaign = {"backend": "shelf", "options": {}, "promises": {"N3": found}}
        (folder / "faults" / "power.json").write_text(json.dumps(campaign))
        return folder

    return write


def test_results_in_the_package_are_shown_with_who_measured_them(site, build, ship):
    ship(site.backend())
    built = build()
    text = built.text("usage/backends/shelf")
    assert "confirmed 2 of 3 promises. Tested: shelf-dist 2.5" in text
    assert "The authors of shelf-dist measured these results and included them in the package." in text
    assert promises(built)["N3"][0] == "\N{CHECK MARK} kept"
    assert "the power was cut 20 times, and no frame was lost" in text


def test_results_of_the_documentation_replace_those_in_the_package(site, build, ship, results):
    ship(site.backend())
    results(reports=REPORTS[:1])
    text = build().text("usage/backends/shelf")
    assert "confirmed 1 of 1 promises" in text and "authors of" not in text


def test_results_in_the_package_of_another_version_say_so(site, build, ship):
    ship(site.backend(), version="2.4")
    text = build().text("usage/backends/shelf")
    assert "These results are from version 2.4, but version 2.5 is installed." in text


def test_damaged_results_in_the_package_of_a_stranger_do_not_end_the_build(site, build, ship):
    (ship(site.backend()) / "shelf.json").write_text("{")
    built = build()
    assert "Not run" in built.text("usage/backends/shelf") and built.warnings == ""
