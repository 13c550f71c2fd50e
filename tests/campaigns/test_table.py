"""The table of the campaigns names every script and what each one needs."""

import tomllib
from pathlib import Path

HERE = Path(__file__).parent
CAMPAIGNS = tomllib.loads((HERE / "campaigns.toml").read_text(encoding="utf-8"))


def test_every_campaign_is_in_the_table():
    modules = [path for path in HERE.glob("*.py") if not path.name.startswith("test_")]
    scripts = [path for path in modules if "ArgumentParser(" in path.read_text(encoding="utf-8")]
    assert {f"{name.replace('-', '_')}.py" for name in CAMPAIGNS} == {script.name for script in scripts}


def test_every_entry_has_a_title_arguments_needs_and_variants():
    for name, entry in CAMPAIGNS.items():
        assert entry.keys() == {"title", "arguments", "needs", "variants"} and entry["title"], name
        assert all(
            type(value) is str for key in ("arguments", "needs", "variants") for value in entry[key]
        ), name
        assert entry["variants"], name


def test_every_campaign_is_part_of_a_short_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    for name in CAMPAIGNS:
        script = name.replace("-", "_")
        assert (HERE / f"test_{script}.py").exists() or f"from {script} import" in tests, name
