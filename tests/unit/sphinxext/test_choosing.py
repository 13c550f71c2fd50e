"""The page that answers which backend to use states facts that follow from capabilities and results."""

import json
import re

import pytest

from exengine.base_classes import SpooledStorage, StorageCapabilities
from exengine.sphinxext.choosing import reasons_against
from exengine.testing.results import TestReport, make_results, write_results

SHELF = "capabilities = StorageCapabilities(persistent=True, dtypes=('uint8',), readers=('Fiji',), same_shape=True)"
INIT = "def __init__(self, path: Path, width: int = 4): ..."
DOC = '''"""Put frames on a shelf.

Parameters
----------
path : Path
    The place.
width : int
    How many lie side by side.
"""'''


@pytest.fixture
def built(site, build):
    site.backend(doc=DOC, init=INIT, extra=SHELF)
    site.backend("other-dist", name="other", extra="capabilities = StorageCapabilities(string_axes=True)")
    return build


def facts(found):
    html = (found.output / "usage/backends/matrix.html").read_text(encoding="utf-8")
    return {
        one["name"]: one
        for one in json.loads(re.search(r'id="exengine-choices"[^>]*>(.*?)</script>', html, re.S)[1])
    }


def row(found, name):
    return next(row for row in found.rows("usage/backends/matrix") if row and row[0] == name)


def test_reasons_for_and_against_each_backend_follow_from_its_capabilities(built):
    found = built()
    _, choose, refrain = row(found, "shelf")
    assert "the data must open in Fiji" in choose
    assert "pixels are not uint8" in refrain and "frames differ in shape or pixel type" in refrain
    _, choose, refrain = row(found, "other")
    assert "the frames are needed only while the program runs" in choose
    assert "frames are needed after the program has ended" in refrain


def test_the_pickers_get_the_facts_of_every_backend(built):
    found = facts(built())
    assert found["shelf"]["dtypes"] == ["uint8"] and found["shelf"]["readers"] == ["Fiji"]
    assert not found["shelf"]["memory"] and not found["shelf"]["kill"]
    assert found["other"]["dtypes"] is None and found["other"]["memory"]


def test_that_a_finished_dataset_survives_a_power_cut_is_stated_only_where_a_campaign_proved_it(
    built, tmp_path
):
    made = make_results(
        "shelf", [TestReport("test_put", ("P1",), "", "kept")], distribution="shelf-dist", version="2.5"
    )
    results = tmp_path / "docs" / "_results"
    write_results(results / "shelf.json", made)
    assert facts(built())["shelf"]["finish"] is False
    (results / "faults").mkdir()
    run = {
        "backend": "shelf",
        "options": {},
        "promises": {"N3": {"outcome": "kept", "text": "50 cuts, 0 lost"}},
    }
    (results / "faults" / "power_loss.json").write_text(json.dumps(run))
    found = built()
    assert facts(found)["shelf"]["finish"] is True
    assert "Fault campaign: 50 cuts, 0 lost." in found.text("usage/backends/shelf")
    assert "The conformance kit and fault campaigns confirmed 2 of 2 promises" in found.text(
        "usage/backends/shelf"
    )


def test_a_restriction_is_not_shown_as_an_advantage(built):
    rows = {row[0].split()[0]: row[1:] for row in built().rows("usage/backends/matrix") if row}
    assert rows["same_shape"] == ["\N{CHECK MARK} not required", "required"]  # columns by name: other, shelf


def test_a_broken_file_of_a_campaign_is_a_warning_that_names_it(built, tmp_path):
    results = tmp_path / "docs" / "_results"
    made = make_results("shelf", [], distribution="shelf-dist", version="2.5")
    write_results(results / "shelf.json", made)
    (results / "faults").mkdir()
    (results / "faults" / "odd.json").write_text("[]")
    assert "odd.json is not a results file of a fault campaign" in built(strict=False).warnings


COMPRESSES = """
@classmethod
def capabilities_for(cls, options, path=None, /):
    from dataclasses import replace
    live = options.get("codec", "none") == "none" and "://" not in (path or "")
    return replace(cls.capabilities, live_readers=("napari",) if live else (), remote="://" in (path or ""))
"""


def test_what_holds_with_the_default_options_only_is_not_promised_for_compression_or_urls(site, build):
    site.backend(
        doc=DOC.replace("width : int", "codec : {'none', 'zstd', 'gzip'}"),
        init="def __init__(self, path: Path, codec: Literal['none', 'zstd', 'gzip'] = 'none'): ...",
        extra="capabilities = StorageCapabilities(persistent=True, compression=('zstd', 'gzip'), "
        "live_readers=('napari',))\n" + COMPRESSES,
    )
    found = build()
    html = (found.output / "usage/backends/matrix.html").read_text(encoding="utf-8")
    entries = json.loads(re.search(r'id="exengine-choices"[^>]*>(.*?)</script>', html, re.S)[1])
    assert {one["options"]: (one["compression"], one["live"], one["remote"]) for one in entries} == {
        "": ([], ["napari"], False),
        "codec: zstd": (["zstd"], [], False),
        "codec: gzip": (["gzip"], [], False),
        "path: s3://bucket/dataset": ([], [], True),
    }
    page = found.text("usage/backends/shelf")
    assert "none, with codec: zstd or gzip or with path: s3://bucket/dataset" in page
    configs = {one["options"]: one["config"] for one in entries}
    section = "storage:\n  backend: shelf\n  path: {}\n".format
    assert configs["codec: zstd"] == section("data/run") + "  options: {codec: zstd}"
    assert configs["path: s3://bucket/dataset"] == section("s3://bucket/dataset").strip()
    _, choose, _ = row(found, "shelf")
    assert "frames must be compressed, with zstd or gzip (other programs then see frames later)" in choose


def test_what_a_single_file_costs_is_a_reason_against_it():
    class Shelf(SpooledStorage):
        capabilities = StorageCapabilities(persistent=True)

    text = "the disk has no room for all pixels twice, or finish must be quick"
    assert any(reason.startswith(text) for reason in reasons_against(Shelf))
