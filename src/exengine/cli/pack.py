"""``exengine pack PATH``: packs a finished dataset into one file."""

import argparse
import os

from exengine.cli.output import print_json
from exengine.cli.progress import StatusLine
from exengine.datasets.packing import pack
from exengine.kernel.wording import human_bytes, human_count


def run(options: argparse.Namespace) -> int:
    """Pack a dataset, and print the path of the file."""
    with StatusLine(elsewhere=False) as line:

        def show(done: int, total: int) -> None:
            if line.due:
                line.show(f"{human_bytes(done)} of {human_bytes(total)} packed")

        report = pack(options.path, options.output, on_progress=show)
    if options.json:
        print_json(report.to_dict())
        return 0
    here = os.path.relpath(report.path)
    print(f"packed: {report.path if here.startswith('..') else here}")
    print(f"  frames   {report.frames}")
    print(f"  size     {human_bytes(report.bytes)} in {human_count(report.files, 'file')}")
    print(f"  backend  {report.backend}")
    return 0
