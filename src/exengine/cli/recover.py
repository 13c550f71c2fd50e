"""``exengine recover PATH``: creates a finished dataset from the frames that can be recovered."""

import argparse
import sys

from exengine.cli.output import print_json, print_some
from exengine.cli.progress import FrameProgress
from exengine.datasets.recovery import recover
from exengine.datasets.recovery_base import RecoverReport


def run(options: argparse.Namespace) -> int:
    """Recover a dataset.

    Return 0 if a finished dataset now exists, and 1 if none was created or if no frame survived.
    """
    with FrameProgress("read") as progress:
        report = recover(
            options.path,
            output=options.output,
            in_place=options.in_place,
            dry_run=options.dry_run,
            on_progress=progress,
        )
    if options.json:
        print_json(report.to_dict())
    else:
        _print(report)
    if options.output and report.outcome == "nothing to recover":
        print(
            f"{options.output} was not created, because {report.path} is finished and has no lost frames; "
            "copy that dataset instead",
            file=sys.stderr,
        )
        return 1
    return 1 if report.total and not report.frames else 0


def _print(report: RecoverReport) -> None:
    would = "would be " if report.dry_run and report.outcome == "recovered" else ""
    print(f"{would}{report.outcome}: {report.path}")
    print(f"  status   {report.status}{f' ({report.reason})' if report.reason else ''}")
    print(f"  frames   {report.frames} of {report.total}")
    print_some("problem", report.problems)
    print_some("lost", report.lost)
    unnamed = report.total - report.frames - len(report.lost)
    if unnamed:
        print(f"  lost     {unnamed} without known coordinates")
