"""Runs pytest with the kit: collects the tests, gathers their reports, and writes the results.

Each test's report is attached to the corresponding pytest report, so that reports from worker processes are
also gathered.
"""

import dataclasses
import os
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from exengine.kernel.errors import OptionError, PluginError, describe
from exengine.kernel.registry import plugins
from exengine.kernel.registry.variants import variants_of
from exengine.testing import conformance, source_conformance
from exengine.testing.promises import PROMISES, SOURCE_PROMISES, PromiseBrokenError, marks_of
from exengine.testing.results import (
    Results,
    TestReport,
    make_results,
    refuse_other_file,
    shortened,
    with_variants,
    write_results,
)

_TOLD = "exengine"


class KitTests(pytest.Module):
    """The kit's tests for one backend or source. They need no test file of the user."""

    backend = ""
    variant = ""
    of_source = False

    def _getobj(self) -> types.ModuleType:
        base = source_conformance.SourceConformance if self.of_source else conformance.StorageConformance
        named = (
            {"source": self.backend} if self.of_source else {"backend": self.backend, "variant": self.variant}
        )
        cls = type("Conformance", (base,), named)
        module = types.ModuleType(f"exengine_conformance_of_{self.backend}")
        module.TestConformance = cls  # type: ignore[attr-defined]  # collected by pytest
        return module


class KitRun:
    """The kit's pytest hooks.

    Parameters
    ----------
    config : pytest.Config
        The configuration of the pytest run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.names: list[str] = list(dict.fromkeys(config.getoption("exengine_backend")))
        self.sources: list[str] = list(dict.fromkeys(config.getoption("exengine_source")))
        self.target: str | None = config.getoption("exengine_results")
        self._variants: dict[str, tuple[str, ...]] = {}  # variant names by plugin; the default "" is first
        self._reports: dict[str, dict[str, list[TestReport]]] = {}  # the reports by plugin and variant
        self._results: dict[str, Results] = {}

    # -- collecting ------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Load the backends and sources. If the command line contains no path, collect only the kit."""
        if self.target is not None and not os.path.isdir(self.target):
            try:
                refuse_other_file(self.target)
            except FileExistsError as error:
                raise pytest.UsageError(f"--exengine-results: {error}") from None
        for name in self.names:
            try:
                variants = variants_of(plugins.BACKENDS.load(name))
            except (PluginError, OptionError) as error:
                raise pytest.UsageError(f"--exengine-backend: {error}") from None
            self._variants[name] = ("", *(variant.name for variant in variants))
        for name in self.sources:
            try:
                plugins.SOURCES.load(name)
            except PluginError as error:
                raise pytest.UsageError(f"--exengine-source: {error}") from None
        if (self.names or self.sources) and self.config.args_source is not pytest.Config.ArgsSource.ARGS:
            self.config.args = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the kit's tests to the collected tests."""
        for name, variants in self._variants.items():
            for variant in variants:
                shown = f"{name}::{variant}" if variant else name
                tests = KitTests.from_parent(
                    session, path=Path(conformance.__file__), nodeid=f"exengine-backend::{shown}", name=shown
                )
                tests.backend, tests.variant = name, variant
                items.extend(session.genitems(tests))
        for name in self.sources:
            tests = KitTests.from_parent(
                session, path=Path(source_conformance.__file__), nodeid=f"exengine-source::{name}", name=name
            )
            tests.backend, tests.of_source = name, True
            items.extend(session.genitems(tests))

    # -- running ---------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: "pytest.CallInfo[None]"
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach a report on the tested promises to pytest's report."""
        report = yield
        cls, marks = getattr(item, "cls", None), marks_of(getattr(item, "function", None))
        kits = (conformance.StorageConformance, source_conformance.SourceConformance)
        if cls is not None and marks and issubclass(cls, kits):
            subject = getattr(item, "funcargs", {}).get("subject")
            error = call.excinfo.value if call.excinfo else None
            told = judge(item.name, marks, error, getattr(subject, "not_promised_by", ""))
            name = getattr(cls, "backend", "") or getattr(cls, "source", "") or cls.__name__
            made = [name, getattr(cls, "variant", ""), *dataclasses.astuple(told)]
            report.user_properties = [*report.user_properties, (_TOLD, made)]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather the reports on the tested promises."""
        told: Any = dict(report.user_properties).get(_TOLD)
        if told and (report.when == "call" or not report.passed):
            backend, variant, test, labels, code, outcome, message = told
            made = TestReport(test, tuple(labels), code, outcome, message)
            self._reports.setdefault(backend, {}).setdefault(variant, []).append(made)

    # -- the end ---------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write the results, unless this is a worker process."""
        if hasattr(self.config, "workerinput"):
            return
        for name, by_variant in self._reports.items():
            labels = {report.labels[0] for reports in by_variant.values() for report in reports}
            known = SOURCE_PROMISES if labels <= SOURCE_PROMISES.keys() else PROMISES
            origin = _origin(name)
            made = {
                variant: make_results(name, reports, **origin, known=known)
                for variant, reports in by_variant.items()
            }
            default = made.pop("", None) or make_results(name, (), **origin, known=known)
            self._results[name] = with_variants(default, made)
        if self.target is None:
            return
        for name, results in self._results.items():
            several = len(self._results) > 1 or os.path.isdir(self.target)
            write_results(os.path.join(self.target, f"{name}.json") if several else self.target, results)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the outcome for each promise of each backend and source."""
        for name, results in self._results.items():
            _print_summary(terminalreporter, name, results)
            for variant, of_variant in results["variants"].items():
                _print_summary(terminalreporter, f"{name}::{variant}", of_variant)


def _print_summary(terminalreporter: Any, name: str, results: Results) -> None:
    terminalreporter.section(f"promises of {name}")
    for label, entry in results["promises"].items():
        because = shortened("; ".join(entry["because"]), 90)
        because = "" if entry["outcome"] == "kept" else because
        terminalreporter.write_line(f"{label:3} {entry['outcome']:12} {because}".rstrip())
    if results["codes"]:
        terminalreporter.write_line(f"codes: {', '.join(results['codes'])}")


def judge(
    test: str, marks: tuple[tuple[str, ...], str], error: BaseException | None, not_promised_by: str
) -> TestReport:
    """Return the report on a test.

    Parameters
    ----------
    test : str
        The name of the test.
    marks : tuple
        The labels and the code of the test, as returned by ``promises.marks_of``. The code belongs to the
        first label.
    error : exception, optional
        The exception that the test raised. A ``PromiseBrokenError`` may have any label, even a label that
        the test is not marked with.
    not_promised_by : str
        The declared capabilities that rule out the tested promises; empty if there are none.

    Returns
    -------
    TestReport
        The report, which contains the outcome of the test.
    """
    labels, code = marks
    if error is None:
        return TestReport(test, labels, code, "not promised" if not_promised_by else "kept", not_promised_by)
    if isinstance(error, pytest.skip.Exception):
        return TestReport(test, labels, code, "not run", str(error))
    if isinstance(error, PromiseBrokenError):
        broken = (error.label,) if error.label else labels
        return TestReport(test, broken, code if broken[0] == labels[0] else "", "broken", str(error))
    return TestReport(test, labels, code, "broken", describe(error))


def _origin(name: str) -> dict[str, str]:
    for registry in (plugins.BACKENDS, plugins.SOURCES):
        try:
            record = registry.find(name)
        except PluginError:  # the name belongs to the other registry, or to an unregistered class
            continue
        return {"distribution": record.distribution, "version": record.version}
    return {}
