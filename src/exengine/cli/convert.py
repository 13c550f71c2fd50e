"""``exengine convert SRC DST``: copies a dataset to another backend."""

import argparse
from collections.abc import Iterable

from exengine.cli.output import print_json, print_some
from exengine.cli.progress import PhaseProgress
from exengine.datasets.conversion.convert import ConvertReport, convert
from exengine.kernel.errors import OptionError
from exengine.kernel.registry.options import TextValue
from exengine.kernel.wording import human_bytes, human_time


def run(options: argparse.Namespace) -> int:
    """Convert a dataset, and return 0. Raise an exception if this fails or the copy is not equal."""
    with PhaseProgress() as progress:
        report = convert(
            options.source,
            options.path,
            backend=options.backend,
            options={
                key: TextValue(value) for key, value in _pairs("--option", options.option, "codec=zstd")
            },
            select=dict(_pairs("--select", options.select, "channel=DAPI")),
            rename=dict(_pairs("--rename", options.rename, "slice=z")),
            if_exists=options.if_exists,
            verify=not options.no_verify,
            restart=options.restart,
            allow_loss=options.allow_loss,
            on_progress=progress,
        )
    if options.json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0


def _pairs(name: str, items: Iterable[str], example: str) -> list[tuple[str, str]]:
    """Return the keys and values. Each key may occur only once."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key.strip() or not value:
            raise OptionError(f"{name} must have the form NAME=VALUE, such as {example}, got {item!r}")
        if key.strip() in found:
            raise OptionError(f"{name} contains the name {key.strip()!r} twice; give each name only once")
        found[key.strip()] = value
    return list(found.items())


def _print(report: ConvertReport) -> None:
    print(f"{report.outcome}: {report.path}")
    of = f" of {report.total}" if report.frames != report.total else ""
    resumed = f", {report.resumed_at} of them by an earlier attempt" if report.resumed_at else ""
    print(f"  frames   {report.frames}{of}{resumed}")
    print(f"  backend  {report.backend} (from {report.source_backend})")
    print(f"  status   {report.status}")
    if report.outcome == "converted":
        speed = human_bytes(report.pixel_bytes / max(report.seconds, 1e-9))
        print(f"  size     {human_bytes(report.pixel_bytes)} of pixels")
        print(f"  time     {human_time(report.seconds)} ({speed}/s)")
        print(f"  compared {'equal to the source' if report.verified else 'not compared with the source'}")
    print_some("lost", report.losses)
    print_some("note", report.notes)
