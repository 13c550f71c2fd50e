"""``exengine convert SRC DST``: copies a dataset, or all datasets matching a pattern, to another backend."""

import argparse
from collections.abc import Iterable
from typing import Any

from exengine.cli.output import print_json, print_some
from exengine.cli.progress import PhaseProgress
from exengine.datasets.conversion.convert import ConvertReport, convert
from exengine.datasets.conversion.many import convert_many, is_pattern
from exengine.datasets.conversion.units import Units
from exengine.kernel.errors import OptionError
from exengine.kernel.registry.options import TextValue
from exengine.kernel.wording import human_bytes, human_time


def run(options: argparse.Namespace) -> int:
    """Convert datasets. Return 1 if any of several fails; if there is only one, raise its error."""
    settings: dict[str, Any] = {
        "backend": options.backend,
        "options": {key: TextValue(value) for key, value in _pairs("--option", options.option, "codec=zstd")},
        "select": dict(_pairs("--select", options.select, "channel=DAPI")),
        "rename": dict(_pairs("--rename", options.rename, "slice=z")),
        "if_exists": options.if_exists,
        "verify": not options.no_verify,
        "restart": options.restart,
        "allow_loss": options.allow_loss,
        "dask": options.dask,
    }
    units = None if options.units is None else Units.parse(options.units)
    if is_pattern(options.source):
        return _run_many(options, settings, units)
    with PhaseProgress() as progress:
        report = convert(options.source, options.path, **settings, units=units, on_progress=progress)
    if options.json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0


def _run_many(options: argparse.Namespace, settings: dict[str, Any], units: Units | None) -> int:
    """Convert all datasets that match a pattern, and print one line for each."""
    with PhaseProgress() as progress:
        found = convert_many(
            options.source, options.path, **settings, units=units, on_dataset=lambda source: progress
        )
    if options.json:
        print_json(found.to_dict())
        return 1 if found.failed else 0
    for report in found.done:
        lost = f", {len(report.losses)} losses" if report.losses else ""
        print(f"{report.outcome}: {report.path} ({report.frames} frames{lost})")
    for source, _, message in found.failed:
        print(f"failed: {source}: {message}")
    skipped = f", {len(found.skipped)} other paths skipped" if found.skipped else ""
    others = f", {found.others} left to other jobs" if found.others else ""
    print(f"{len(found.done)} converted, {len(found.failed)} failed{skipped}{others}")
    return 1 if found.failed else 0


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
    if report.outcome != "already converted":
        speed = human_bytes(report.pixel_bytes / max(report.seconds, 1e-9))
        print(f"  size     {human_bytes(report.pixel_bytes)} of pixels")
        print(f"  time     {human_time(report.seconds)} ({speed}/s)")
    if report.outcome == "converted":
        print(f"  compared {'equal to the source' if report.verified else 'not compared with the source'}")
    print_some("lost", report.losses)
    print_some("note", report.notes)
