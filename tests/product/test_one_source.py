"""What an option is, is written once: everything else is made from the signature and the docstring."""

import inspect
from pathlib import Path

import pytest

from exengine.kernel.registry import plugins
from exengine.kernel.registry.options import options_of

ROOT = Path(__file__).parents[2]
OURS = [
    (registry, name)
    for registry, names in (
        (plugins.BACKENDS, ("ndtiff", "ndram")),
        (plugins.SOURCES, ("simulated", "replay", "micromanager")),
    )
    for name in names
]


def _written() -> dict[Path, str]:
    """Return every page and every config that somebody wrote, with its white space folded."""
    pages = []
    for folder in ("src", "plugins", "docs", "examples"):
        for suffix in ("*.rst", "*.md", "*.yaml", "*.toml"):
            pages += (ROOT / folder).rglob(suffix)
    generated = {"_build", "backends", "codes", "sources", "_results"}
    return {
        page: " ".join(page.read_text(encoding="utf-8").split())
        for page in [*pages, ROOT / "README.md"]
        if not generated & set(page.relative_to(ROOT).parts)
    }


@pytest.mark.parametrize(("registry", "name"), OURS, ids=[name for _, name in OURS])
def test_the_meaning_of_an_option_stands_in_its_class_and_on_no_page(registry, name):
    cls = registry.load(name)
    home = " ".join(inspect.getsource(inspect.getmodule(cls)).split())
    written = _written()
    assert len(written) > 20
    for option in options_of(cls):
        assert len(option.text) > 15
        assert home.count(option.text) == 1, option.name
        assert not [page for page, text in written.items() if option.text in text], option.name


@pytest.mark.parametrize(("registry", "name"), OURS, ids=[name for _, name in OURS])
def test_an_option_is_the_same_wherever_it_is_shown(registry, name, capsys):
    import json

    from exengine.cli.main import main
    from exengine.config.schema import config_schema

    options = {option.name: option for option in options_of(registry.load(name))}
    assert main([f"{registry.kind}s", "show", name, "--json"]) == 0
    shown = {option["name"]: option for option in json.loads(capsys.readouterr().out)["options"]}
    section, key = ("storage", "backend") if registry.kind == "backend" else ("source", "name")
    rules = config_schema()["properties"][section]["allOf"]
    schema = next(rule["then"] for rule in rules if rule["if"]["properties"][key]["const"] == name)
    described = schema["properties"]["options"]["properties"]
    assert set(shown) == set(options) == set(described)
    for option in options.values():
        assert shown[option.name]["text"] == described[option.name]["description"] == option.text
        default = None if option.default is inspect.Parameter.empty else option.default
        assert shown[option.name]["default"] == default
        assert described[option.name].get("default") == default
