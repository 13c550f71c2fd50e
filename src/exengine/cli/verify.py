"""``exengine verify PATH``: checks a dataset's frames, its ledger and its structure."""

import argparse
import shlex

from exengine.cli.output import print_json, print_some
from exengine.cli.progress import FrameProgress
from exengine.datasets.verification import VerifyReport, verify
from exengine.kernel.storage.manifest import has_writer


def run(options: argparse.Namespace) -> int:
    """Verify a dataset. Return 0 if no fault was found, and 1 otherwise."""
    with FrameProgress("verified") as progress:
        report = verify(options.path, backend=options.backend, on_progress=progress)
    if options.json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0 if report.ok else 1


def _print(report: VerifyReport) -> None:
    reason = f" ({report.reason})" if report.reason else ""
    print(f"{report.path}\n  status   {report.status}{reason}\n  backend  {report.backend}")
    print(f"  frames   {report.checked} of {report.frames} are intact")
    if not report.has_checksums:
        print(
            "  note     the dataset has no checksums, so its frames were read but not compared with the "
            "data that were written"
        )
    if not report.structure_checked:
        print("  note     the backend cannot check the structure of its format")
    print_some("problem", report.problems)
    print_some("damaged", report.damaged)
    print_some("missing", report.missing)
    if (report.damaged or report.status in ("incomplete", "damaged")) and not has_writer(report.path):
        print(f"  next     exengine recover {shlex.quote(report.path)}")
    if not report.ok:
        print("The dataset has problems.")
    elif report.status == "complete":
        print("All is well.")
    else:
        print("Every frame in the dataset is intact.")
