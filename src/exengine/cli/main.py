"""The parser of the ``exengine`` command, and its exit codes.

The exit codes are 0 for success, 1 for failure, 2 for incorrect use and 130 for an interrupt. To keep the
start fast, a verb's module is imported only when the verb is used.
"""

import argparse
import sys
from collections.abc import Sequence

from exengine.cli.settings import settings_parser
from exengine.kernel import errors

WRONG_USE = (errors.ConfigError, errors.OptionError, errors.PluginNotFoundError, errors.PluginConflictError)
"""Errors in the request itself, which result in exit code 2."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser for all verbs. The CLI reference is generated from it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else on stdout"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    settings = settings_parser()

    parser = argparse.ArgumentParser(
        prog="exengine", description="Store microscopy data in a backend of your choice."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=False)

    def add(
        name: str, module: str, text: str, *more: argparse.ArgumentParser, to: object = verbs
    ) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = to.add_parser(  # type: ignore[attr-defined]
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common, *more]
        )
        verb.set_defaults(module=module, parser=verb)
        return verb

    verb = add("acquire", "acquire", "run the acquisition that a config file describes", settings)
    verb.add_argument("config", metavar="CONFIG", help="a YAML or TOML file")
    verb.add_argument(
        "--resume",
        metavar="PATH",
        help="continue the dataset at this path: acquire the frames that it lacks; storage.path and "
        "storage.if_exists are ignored",
    )
    verb.add_argument(
        "--watch",
        action="store_true",
        help="show the rate, the queue, the disk and the newest frame while the acquisition runs",
    )

    for kind, text in (("backends", "storage backends"), ("sources", "frame sources")):
        group = verbs.add_parser(kind, help=f"installed {text}", description=f"The installed {text}.")
        group.set_defaults(parser=group)
        inner = group.add_subparsers(dest="what", metavar="WHAT", required=True)
        add("list", "plugins", f"list the installed {text}, without importing them", to=inner)
        show = add("show", "plugins", "show the documentation and options of a plugin", to=inner)
        show.add_argument("name", metavar="NAME")
        if kind == "backends":
            check = add(
                "check",
                "check",
                "check the contract, documentation, promises and packaging of a plugin",
                to=inner,
            )
            check.add_argument(
                "target", metavar="NAME|PATH", help="an installed backend, or the folder of a plugin"
            )
            check.add_argument(
                "--format",
                choices=("text", "github"),
                default="text",
                help="format of the faults; github prints annotations for CI",
            )
            check.add_argument(
                "--thorough", action="store_true", help="run the conformance kit with longer searches"
            )
            new = add("new", "new", "create a new plugin from the template", to=inner)
            new.add_argument("name", metavar="NAME", help="name of the backend, such as my-storage")
            new.add_argument("--folder", metavar="FOLDER", default=".", help="parent of the new folder")
            new.add_argument("--yes", action="store_true", help="do not ask questions; use the defaults")

    group = verbs.add_parser("config", help="show settings and their origins", description="The settings.")
    group.set_defaults(parser=group)
    inner = group.add_subparsers(dest="what", metavar="WHAT", required=True)
    verb = add("explain", "config", "show every setting, its value and its origin", settings, to=inner)
    verb.add_argument("config", metavar="CONFIG", nargs="?")
    add("schema", "config", "print the JSON Schema of the config, for editors", to=inner)

    verb = add("doctor", "doctor", "check the installation: plugins, conflicts, versions, config files")
    verb.add_argument("config", metavar="CONFIG", nargs="?", help="a config to check as well")

    verb.add_argument(
        "--disk", metavar="FOLDER", nargs="?", const=".", help="measure the speed of a disk as well"
    )

    verb = add("explain", "explain", "explain a code such as EX202, with a wrong and a right example")
    verb.add_argument("code", metavar="CODE", nargs="?", help="a code; without it, all codes are listed")

    verb = add("info", "info", "show the content and the status of a dataset")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument("--frames", action="store_true", help="list every frame with its metadata")
    verb.add_argument(
        "--export", choices=("csv", "parquet"), help="write the list of frames to a file, in this format"
    )
    verb.add_argument("-o", "--output", metavar="FILE", help="the file; by default PATH.frames.csv")

    verb = add("verify", "verify", "read every frame of a dataset, and list damaged and missing ones")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "--backend", metavar="NAME", help="read with this backend instead of the one that wrote it"
    )

    verb = add("recover", "recover", "create a finished dataset from the readable frames of another dataset")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "-o", "--output", metavar="P", help="path of the finished dataset; by default PATH-recovered"
    )
    verb.add_argument(
        "--in-place", action="store_true", help="repair the dataset itself instead of creating another one"
    )
    verb.add_argument("--dry-run", action="store_true", help="only report; write nothing")

    verb = add("convert", "convert", "copy a dataset to another backend, and compare the two datasets")
    verb.add_argument(
        "source", metavar="SRC", help="the dataset to convert, or a pattern in quotes, such as 'data/*'"
    )
    verb.add_argument(
        "path", metavar="DST", help="path of the new dataset; for a pattern, the folder of the new datasets"
    )
    verb.add_argument("--backend", metavar="NAME", required=True, help="backend of the new dataset")
    verb.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of the backend, such as codec=zstd; may be given several times",
    )
    verb.add_argument(
        "--select",
        metavar="AXIS=POSITIONS",
        nargs="+",
        action="extend",
        default=[],
        help="positions to convert, such as channel=DAPI,FITC z=0:5; 0:5 means 0 to 4",
    )
    verb.add_argument(
        "--rename",
        metavar="OLD=NEW",
        nargs="+",
        action="extend",
        default=[],
        help="new names for axes, such as slice=z",
    )
    verb.add_argument(
        "--if-exists",
        choices=("error", "number", "overwrite"),
        default="error",
        help="what to do if DST exists: refuse, add a number to the name, or delete an old dataset",
    )
    verb.add_argument("--no-verify", action="store_true", help="do not compare the copy with the source")
    verb.add_argument(
        "--restart", action="store_true", help="discard the progress of an interrupted conversion to DST"
    )
    verb.add_argument(
        "--allow-loss",
        action="store_true",
        help="leave out the frames that the backend cannot store, and list them, instead of refusing",
    )
    verb.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="let the workers of a dask cluster read the frames, such as tcp://scheduler:8786; each of them "
        "needs the datasets at the same paths",
    )
    verb.add_argument(
        "--units",
        metavar="I/N",
        help="in job I of an array of N jobs, such as 2/8: convert only the share of this job; this is every "
        "N-th dataset of a pattern, or, if the backend is ome-zarr, some shards of one dataset",
    )

    verb = add("pack", "pack", "pack a finished dataset into one file, which can be read without unpacking")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "-o", "--output", metavar="FILE", help="the new file; by default beside the dataset, such as NAME.ozx"
    )

    verb = add("preview", "preview", "create a contact sheet that shows a dataset")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument("-o", "--output", metavar="PICTURE", help="a PNG file; by default PATH.png")
    verb.add_argument(
        "--composite", action="store_true", help="show the channels on top of each other, in their colors"
    )

    verb = add("view", "view", "show a dataset in the browser, even while it is being written")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "--no-browser", action="store_true", help="only print the address of the page; do not open it"
    )
    verb.add_argument(
        "--port", metavar="N", type=int, default=0, help="the port of the server; by default a free port"
    )
    others = verb.add_mutually_exclusive_group()
    for viewer in ("napari", "ndv"):
        others.add_argument(
            f"--{viewer}",
            dest="viewer",
            action="store_const",
            const=viewer,
            help=f"show the dataset in {viewer} instead, if it is installed",
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = make_parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    if options.version:
        from exengine import __version__

        print(f"exengine {__version__}")
        return 0
    if options.verb is None:
        parser.print_help(sys.stderr)
        return 2
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from importlib import import_module

    try:
        code: int = import_module(f"exengine.cli.{options.module}").run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("exengine: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The program that reads the output, such as head, has exited.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error, options)


def _report(error: Exception, options: argparse.Namespace) -> int:
    text = errors.message_of(error)
    if options.debug:
        import traceback

        traceback.print_exception(error)
    if options.json:
        import json

        print(json.dumps({"error": {"type": type(error).__name__, "message": text}}))
    print(f"exengine: {text}", file=sys.stderr)
    codes = [finding.code for finding in getattr(error, "findings", ())]
    if codes:
        print(f"exengine: for an example of each fault, run: exengine explain {codes[0]}", file=sys.stderr)
    if not isinstance(error, errors.ExEngineError) and not options.debug:
        print("exengine: this is an unexpected error; run with --debug to see the traceback", file=sys.stderr)
    return 2 if isinstance(error, WRONG_USE) else 1
