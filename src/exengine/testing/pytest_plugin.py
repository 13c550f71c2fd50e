"""The kit's pytest plugin, which defines the options and loads the rest of the kit only if one is used.

If ExEngine is installed, pytest loads this module in every run. The module therefore imports only pytest.
"""

import pytest

pytest.register_assert_rewrite("exengine.testing.conformance", "exengine.testing.source_conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's command-line options."""
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
        help="run the conformance kit for sources on this installed frame source; may be given several times",
    )
    group.addoption(
        "--exengine-thorough",
        action="store_true",
        help="search longer: more frames, more damage, more failing calls",
    )
    group.addoption(
        "--exengine-results",
        default=None,
        metavar="FILE",
        help="write the results to this file or, with several backends, to NAME.json files in this folder",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the rest of the plugin if any of the kit's options is used."""
    # Plugins created from an earlier template import modules that have since moved, and their test
    # configuration turns the resulting warnings into errors.
    config.addinivalue_line("filterwarnings", r"default:exengine\.kernel\.\w+ has moved:DeprecationWarning")
    if any(config.getoption(f"exengine_{name}") for name in ("backend", "source", "results")):
        from exengine.testing.kit.run import KitRun

        config.pluginmanager.register(KitRun(config), "exengine-kit")
