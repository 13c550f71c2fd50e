"""The table of the campaigns names every script and what each one needs."""

import json
import tomllib
from pathlib import Path

import pytest
from results import FOLDER, promises_of

from exengine.testing.promises import PROMISES

HERE = Path(__file__).parent
CAMPAIGNS = tomllib.loads((HERE / "campaigns.toml").read_text(encoding="utf-8"))


def test_every_campaign_is_in_the_table():
    modules = [path for path in HERE.glob("*.py") if not path.name.startswith("test_")]
    scripts = [path for path in modules if "ArgumentParser(" in path.read_text(encoding="utf-8")]
    assert {f"{name.replace('-', '_')}.py" for name in CAMPAIGNS} == {script.name for script in scripts}


def test_every_entry_has_a_title_arguments_needs_and_variants():
    for name, entry in CAMPAIGNS.items():
        assert entry.keys() - {"promises"} == {"title", "arguments", "needs", "variants"}, name
        assert entry["title"], name
        assert all(
            type(value) is str for key in ("arguments", "needs", "variants") for value in entry[key]
        ), name
        assert entry["variants"], name


def test_every_campaign_is_part_of_a_short_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    for name in CAMPAIGNS:
        script = name.replace("-", "_")
        assert (HERE / f"test_{script}.py").exists() or f"from {script} import" in tests, name


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_saved_run_states_what_its_figures_show_about_promises(path):
    run = json.loads(path.read_text(encoding="utf-8"))
    assert run["promises"] == promises_of(run["campaign"], run["figures"])
    table = CAMPAIGNS[run["campaign"].replace("_", "-")]
    assert run["promises"].keys() == table.get("promises", {}).keys() <= PROMISES.keys()


def test_a_lost_frame_breaks_the_promise_and_a_figure_that_was_not_taken_says_nothing():
    figures = {
        "finished: cuts": 50, "finished: lost": 1, "finished: frames acknowledged": 4000,
        "handler: cuts": 50, "handler: lost": 0, "handler: frames acknowledged": 4000,
    }  # fmt: skip
    found = promises_of("power_loss", figures)
    assert found.keys() == {"N3"}
    assert found["N3"]["outcome"] == "broken" and found["N3"]["tests"] == 100
    assert "1 of 4,000" in found["N3"]["text"]
