"""Fault campaigns decide promises that the conformance kit cannot test."""

import json
from dataclasses import replace

import pytest

from exengine.checks.campaigns import with_campaigns
from exengine.checks.conformance import Promise, Results

KIT = Results(
    "shelf-dist",
    "2.5",
    "1.0",
    {
        "N3": Promise("not run", because=("no power loss here",)),
        "P6": Promise("kept", 3),
        "F2": Promise("not promised"),
    },
)


@pytest.fixture
def campaign(tmp_path):
    def write(name="power_loss", *, backend="shelf", options=None, **promises):
        (tmp_path / "faults").mkdir(exist_ok=True)
        found = {
            label: {"outcome": outcome, "tests": 9, "text": f"{label} text"}
            for label, outcome in promises.items()
        }
        content = {"campaign": name, "backend": backend, "options": options or {}, "promises": found}
        (tmp_path / "faults" / f"{name}.json").write_text(json.dumps(content))

    return write


def test_a_promise_that_the_kit_cannot_test_is_kept_when_a_campaign_kept_it(campaign, tmp_path):
    campaign(N3="kept")
    found = with_campaigns(KIT, "shelf", tmp_path)
    assert found.promises["N3"] == Promise("kept", campaigns=("N3 text",))
    assert (found.kept, found.tested) == (2, 2)


def test_a_promise_that_a_campaign_broke_is_broken_whatever_the_kit_found(campaign, tmp_path):
    campaign(P6="broken")
    assert with_campaigns(KIT, "shelf", tmp_path).promises["P6"].outcome == "broken"


def test_a_campaign_does_not_make_a_promise_that_the_backend_does_not_make(campaign, tmp_path):
    campaign(F2="kept")
    assert with_campaigns(KIT, "shelf", tmp_path).promises["F2"].outcome == "not promised"


def test_a_campaign_on_another_backend_says_nothing(campaign, tmp_path):
    campaign(backend="other", N3="kept")
    assert with_campaigns(KIT, "shelf", tmp_path) == KIT


def test_a_campaign_with_options_counts_for_the_variant_with_these_options(campaign, tmp_path):
    campaign(options={"codec": "lz4"}, N3="kept")
    kit = replace(KIT, variants={"lz4": KIT, "split": KIT})
    variants = {"lz4": {"codec": "lz4"}, "split": {"files": 2}}
    found = with_campaigns(kit, "shelf", tmp_path, variants)
    assert found.promises["N3"].outcome == found.variants["split"].promises["N3"].outcome == "not run"
    assert found.variants["lz4"].promises["N3"].outcome == "kept"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"backend": "shelf", "options": {}, "promises": {"P6": {"outcome": "perhaps", "text": ""}}}',
    ],
)
def test_a_file_that_is_not_of_a_campaign_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "odd.json").write_text(text)
    with pytest.raises(ValueError, match="odd.json is not a results file of a fault campaign"):
        with_campaigns(KIT, "shelf", tmp_path)


def test_without_campaigns_the_results_of_the_kit_stand(tmp_path):
    assert with_campaigns(KIT, "shelf", tmp_path) == KIT
