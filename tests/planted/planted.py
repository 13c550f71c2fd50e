"""Runs the conformance kit on backends with one planted fault each, and reports what it finds.

``python tests/planted/planted.py [NAME ...] [--jobs 2] [--sample 8 --seed 1] [--own-tests] [--no-times]``

Each fault of ``faults.py`` is installed as a backend of its own. The quick kit runs on it, and the thorough kit if
the quick one finds nothing. For each fault, one line names the mode, the promises and what happened. The run fails
if a fault is not found, if one cause gives more than three findings, if a sound backend has a finding, or if a run
takes too long. ``--own-tests`` runs only the test that each fault names.
"""

import argparse
import concurrent.futures
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LEAST_FAULTS, LEAST_QUICK, MOST_FINDINGS = 80, 65, 3
QUICK_S, THOROUGH_S, SIMPLEST_S = 40.0, 300.0, 10.0
SOUND = "sound"


@dataclass
class Found:
    """What the kit found in one backend."""

    name: str
    mode: str = ""  # "quick", "thorough" or, if nothing was found, ""
    seconds: dict[str, float] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    findings: int = 0
    text: str = ""


def install(site: Path) -> None:
    """Install the sound backend and those with faults as the backends of a distribution."""
    for source in ("slabs.py", "faults.py"):
        shutil.copy(HERE / source, site)
    sys.path.insert(0, str(site))
    from faults import FAULTS

    info = site / "planted_faults-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-faults\nVersion: 1.0\n")
    lines = [f"{cls.__name__.lower()} = faults:{cls.__name__}" for cls in FAULTS]
    lines.append(f"{SOUND} = slabs:Slabs")
    (info / "entry_points.txt").write_text("[exengine.storage_backends]\n" + "\n".join(lines) + "\n")


def run_kit(name: str, folder: Path, *, thorough: bool) -> tuple[list[dict[str, Any]], str]:
    """Return the causes that the kit finds in a backend, and the reason if it was not run."""
    from exengine.testing import run_conformance

    results = run_conformance(name, folder / f"{name}-{thorough}.json", thorough=thorough)
    variants = [results, *results["variants"].values()]
    reason = results["reason"] if results["outcome"] == "not run" else ""
    return [cause for one in variants for cause in one["causes"]], reason


def run_own_tests(cls: type, folder: Path) -> list[dict[str, Any]]:
    """Return the causes that the tests find which the fault names."""
    from faults import FAULTS

    from exengine.testing import reports_of
    from exengine.testing.causes import causes_of

    fault = FAULTS[cls]
    place = folder / cls.__name__
    place.mkdir()
    reports = reports_of(cls, place, *fault.test.split(), name=cls.__name__.lower(), thorough=fault.thorough)
    causes = causes_of(list(reports))
    shutil.rmtree(place)
    return causes


def examine(name: str, folder: Path, cls: type | None = None, *, own_tests: bool = False) -> Found:
    """Run the kit on one backend, first the quick one."""
    from faults import FAULTS

    found = Found(name)
    for mode in ("quick", "thorough"):
        if own_tests and cls is not None and FAULTS[cls].thorough != (mode == "thorough"):
            continue
        started = time.monotonic()
        if own_tests and cls is not None:
            causes, reason = run_own_tests(cls, folder), ""
        else:
            causes, reason = run_kit(name.lower(), folder, thorough=mode == "thorough")
        found.seconds[mode] = time.monotonic() - started
        if causes or reason:
            found.mode = "" if reason else mode
            found.labels = [*causes[0]["labels"], *causes[0]["codes"]] if causes else []
            found.findings = len(causes)
            found.text = f"{causes[0]['test']}: {causes[0]['message']}" if causes else reason
            if len(causes) > MOST_FINDINGS:
                found.text += f" || and {[(one['labels'], one['message'][:80]) for one in causes[1:]]}"
            break
    return found


def faults_of(found: list[Found], *, times: bool, all_of_them: bool) -> list[str]:
    """Return what is wrong with the kit, according to a run over some faults."""
    from faults import FAULTS

    known = {cls.__name__: fault for cls, fault in FAULTS.items()}
    wrong = []
    for one in found:
        if one.name == SOUND:
            if one.findings or one.text:
                wrong.append(f"the sound backend has findings: {one.text}")
        elif not one.mode:
            wrong.append(f"{one.name} was not found: {one.text}")
        elif not set(one.labels) & set(known[one.name].labels):
            wrong.append(f"{one.name} was found as {one.labels}, not as {known[one.name].labels}")
        if one.findings > MOST_FINDINGS:
            wrong.append(f"{one.name} gave {one.findings} findings")
        limits = {"quick": QUICK_S, "thorough": THOROUGH_S}
        if one.name in known and known[one.name].kind == "the simplest put":
            limits["quick"] = SIMPLEST_S
        if times:
            wrong += [
                f"{one.name}: the {mode} kit took {seconds:.0f} s"
                for mode, seconds in one.seconds.items()
                if seconds > limits[mode]
            ]
    if all_of_them:
        quick = sum(one.mode == "quick" for one in found if one.name != SOUND)
        if len(known) < LEAST_FAULTS or quick < LEAST_QUICK:
            wrong.append(f"{len(known)} faults, of which the quick kit found {quick}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Run the kit on the chosen faults."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these faults")
    parser.add_argument("--jobs", type=int, default=1, help="the number of faults at a time")
    parser.add_argument("--sample", type=int, default=0, help="only so many faults")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the sample")
    parser.add_argument("--own-tests", action="store_true", help="run only the test that a fault names")
    parser.add_argument("--no-times", action="store_true", help="ignore how long the kit takes")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="exengine-planted-") as folder:
        site = Path(folder, "site")
        site.mkdir()
        install(site)
        from faults import FAULTS

        classes = {cls.__name__: cls for cls in FAULTS}
        names = options.names or [SOUND, *classes]
        if options.sample:
            names = random.Random(options.seed).sample(list(classes), options.sample)
        found: list[Found] = []
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            runs = [
                pool.submit(examine, name, Path(folder), classes.get(name), own_tests=options.own_tests)
                for name in names
            ]
            for run in runs:
                one = run.result()
                found.append(one)
                spent = " + ".join(f"{seconds:.1f} s" for seconds in one.seconds.values())
                kind = FAULTS[classes[one.name]].kind if one.name in classes else ""
                print(f"{one.name} ({kind}): {one.mode or 'nothing found'} in {spent}; {one.findings} findings; "
                      f"{' '.join(one.labels)}; {one.text[:300]}", flush=True)  # fmt: skip
        chosen = bool(options.names or options.sample)
        wrong = faults_of(found, times=not options.no_times, all_of_them=not chosen)
        planted = [one for one in found if one.name != SOUND]
        print(f"\n{len(planted)} faults: {sum(one.mode == 'quick' for one in planted)} found by the quick kit, "
              f"{sum(one.mode == 'thorough' for one in planted)} by the thorough kit")  # fmt: skip
        for text in wrong:
            print(f"WRONG: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
