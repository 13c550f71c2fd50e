"""Run the kit's tests on a class without starting pytest, as the tests of the kit itself do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exengine.kernel.data_storage_base import DataStorage
from exengine.testing.conformance import SIMPLEST, StorageConformance
from exengine.testing.kit.run import judge
from exengine.testing.promises import marks_of
from exengine.testing.results import TestReport
from exengine.testing.subject import Subject


def reports_of(
    cls: type[DataStorage],
    folder: Path,
    *wanted: str,
    name: str = "",
    without: tuple[str, ...] = (),
    thorough: bool = False,
) -> Iterator[TestReport]:
    """Run the tests of selected promises on a class, and yield a report for each test.

    Parameters
    ----------
    cls : type
        The backend under test.
    folder : pathlib.Path
        An existing folder for the datasets. A separate folder is created in it for each test.
    *wanted : str
        Labels, codes and names of the tests to run, such as ``"P4"``. By default, all tests are run.
    name : str, optional
        The registered name of the backend; empty for a class that is not registered.
    without : tuple of str, optional
        Labels, codes and names of the tests to skip.
    thorough : bool, optional
        Whether the tests search longer.

    Yields
    ------
    TestReport
        The report of one test. Its ``outcome`` is ``"kept"``, ``"broken"``, ``"not promised"`` or
        ``"not run"``.
    """
    stopped = False
    names = [test for test in dir(StorageConformance) if test.startswith("test_")]
    for test in sorted(names, key=lambda test: test != SIMPLEST):
        function = getattr(StorageConformance, test)
        labels, code = marks_of(function) or ((), "")
        about = {*labels, code}
        selected = about | {test}
        if (wanted and not selected & set(wanted)) or selected & set(without):
            continue
        if stopped:
            yield TestReport(test, labels, code, "not run", "the simplest put failed")
            continue
        place = folder / f"{cls.__name__}-{test}"[:100]
        place.mkdir()
        subject = Subject(cls.create, cls, place, name, {}, thorough=thorough)
        error: BaseException | None = None
        try:
            function(StorageConformance(), subject)
        except (Exception, pytest.skip.Exception) as raised:
            error = raised
        finally:
            subject.close_all()
        stopped = stopped or (test == SIMPLEST and error is not None)
        yield judge(test, (labels, code), error, subject.not_promised_by)
