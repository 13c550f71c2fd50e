"""Each recipe for a sequence gives as many frames as its comment says."""

import re
import textwrap
from pathlib import Path

import pytest
import yaml

import exengine

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "describe_a_sequence.rst"
BLOCKS = [
    textwrap.dedent(block)
    for block in re.findall(r"code-block:: yaml\n\n((?: +.*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
]


def test_each_recipe_states_a_number_of_frames():
    assert len(BLOCKS) >= 9
    assert all(re.search(r"# (\d+) frames", block) for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_recipe_gives_the_number_of_frames_that_its_comment_says(block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ledger = exengine.acquire(
        {
            **yaml.safe_load(block),
            "storage": {"backend": "ndram"},
            "source": {"name": "simulated", "options": {"width": 16, "height": 16}},
        }
    )
    assert ledger.stored == int(re.search(r"# (\d+) frames", block)[1])


@pytest.mark.parametrize(
    "plan",
    ["{above: 8, below: 2, step: 1}", "{relative: [-5, 0, 5]}", "{top: 110, bottom: 100, step: 0.5}"],
)
def test_the_other_forms_of_a_z_plan_on_the_page_are_understood(plan):
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"``{plan}``" in text
    config = {
        "storage": {"backend": "ndram"},
        "source": {"name": "simulated", "options": {"width": 16, "height": 16}},
        "sequence": {"z_plan": yaml.safe_load(plan)},
    }
    assert exengine.acquire(config).complete
