"""Run the kit on an installed backend in a separate process, for ``check`` and for the documentation."""

import importlib.util
import os
import subprocess
import sys
import tempfile

from exengine.kernel.errors import PluginError
from exengine.kernel.registry import plugins
from exengine.testing.results import Results, make_results, read_results, write_results

TIMEOUT_S = 600.0
_NEEDED = ("pytest", "hypothesis")
_FOREIGN = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")


def run_conformance(
    backend: str,
    results_path: "str | os.PathLike[str]",
    *,
    timeout_s: float = TIMEOUT_S,
    thorough: bool = False,
) -> Results:
    """Run the conformance kit on an installed backend.

    Parameters
    ----------
    backend : str
        The backend's name in the registry.
    results_path : path
        The path of the results file to write.
    timeout_s : float
        The time in seconds after which the run is stopped.
    thorough : bool
        Whether the tests search longer.

    Returns
    -------
    dict
        The results, as described for ``exengine.testing.results.make_results``. If pytest or Hypothesis is
        not installed, or if the kit cannot be run for another reason, ``outcome`` is ``"not run"``,
        ``reason`` states the reason, and no file is written.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return _not_run(
            backend, f"not installed: {' and '.join(missing)}; install with: pip install 'exengine[test]'"
        )
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    # No other plugin that happens to be installed may have an effect on the results, or take time.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with tempfile.TemporaryDirectory(prefix="exengine-conformance-") as folder:
        # A separate pytest.ini prevents pytest from reading settings from the parent folders.
        with open(os.path.join(folder, "pytest.ini"), "w", encoding="utf-8") as file:
            file.write("[pytest]\n")
        fresh = os.path.join(folder, "results.json")
        command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
        command += ["-p", "exengine.testing.pytest_plugin"]
        command += [f"--basetemp={os.path.join(folder, 'data')}"]
        command += [f"--exengine-backend={backend}", f"--exengine-results={fresh}"]
        command += ["--exengine-thorough"] if thorough else []
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _not_run(backend, f"the kit was stopped after {timeout_s:.0f} s")
        if not os.path.isfile(fresh):
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            return _not_run(
                backend, f"pytest exited with code {done.returncode}: {' '.join(said[-5:])[:600]}"
            )
        results = read_results(fresh)
    write_results(results_path, results)
    return results


def _not_run(backend: str, reason: str) -> Results:
    try:
        record = plugins.BACKENDS.find(backend)
    except PluginError as error:
        return make_results(backend, (), reason=f"{reason}; {error}")
    return make_results(backend, (), distribution=record.distribution, version=record.version, reason=reason)
