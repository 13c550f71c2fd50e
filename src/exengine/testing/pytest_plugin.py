"""The pytest plugin of the kit: its options, and nothing else until one of them is used.

It is loaded in every run of pytest wherever ExEngine is installed, so it imports nothing but pytest.
"""

import pytest

pytest.register_assert_rewrite("exengine.testing.conformance", "exengine.testing.source_conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the kit."""
    group = parser.getgroup("exengine", "conformance of ExEngine's storage backends and frame sources")
    group.addoption(
        "--exengine-backend",
        action="append",
        default=[],
        metavar="NAME",
        help="run the conformance kit on this installed backend; may be given several times",
    )
    group.addoption(
        "--exengine-source",
        action="append",
        default=[],
        metavar="NAME",
        help="run the conformance kit of sources on this installed frame source; may be given several times",
    )
    group.addoption(
        "--exengine-results",
        default=None,
        metavar="FILE",
        help="write which promises are kept; with several backends a folder, which gets NAME.json for each",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the rest if an option of the kit is used."""
    # Plugins of an earlier template import modules that have moved, and their tests make warnings errors.
    config.addinivalue_line("filterwarnings", r"default:exengine\.kernel\.\w+ has moved:DeprecationWarning")
    if any(config.getoption(f"exengine_{name}") for name in ("backend", "source", "results")):
        from exengine.testing.kit.run import KitRun

        config.pluginmanager.register(KitRun(config), "exengine-kit")
