"""The parser of the ``exengine`` command, and its exit codes.

0 good, 1 the work failed, 2 wrong use, 130 interrupted. Imports little: each verb's module is
imported when the verb is used.
"""

import argparse
import sys
from collections.abc import Sequence

from exengine.kernel import errors

WRONG_USE = (errors.ConfigError, errors.OptionError, errors.PluginNotFoundError, errors.PluginConflictError)
"""Errors that the user mends by asking for something else: exit code 2."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command; the CLI reference is made from it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else on stdout"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    settings = argparse.ArgumentParser(add_help=False)
    settings.add_argument(
        "--backend", metavar="NAME", help="storage backend, instead of the one in the config"
    )
    settings.add_argument("--path", metavar="P", help="where the dataset will lie")
    settings.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, such as storage.if_exists=number",
    )

    parser = argparse.ArgumentParser(
        prog="exengine", description="Store what a microscope produces, in the backend that you name."
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

    for kind, text in (("backends", "storage backends"), ("sources", "frame sources")):
        group = verbs.add_parser(
            kind, help=f"what is installed: {text}", description=f"The installed {text}."
        )
        group.set_defaults(parser=group)
        inner = group.add_subparsers(dest="what", metavar="WHAT", required=True)
        add("list", "plugins", f"list the installed {text}, without importing any", to=inner)
        show = add("show", "plugins", "show the documentation and the options of one", to=inner)
        show.add_argument("name", metavar="NAME")
        if kind == "backends":
            check = add(
                "check",
                "check",
                "check one against contract, documentation, promises and packaging",
                to=inner,
            )
            check.add_argument(
                "target", metavar="NAME|PATH", help="an installed backend, or the folder of a plugin"
            )
            check.add_argument(
                "--format",
                choices=("text", "github"),
                default="text",
                help="how faults are printed: github for CI annotations",
            )
            new = add("new", "new", "write a new plugin from the template", to=inner)
            new.add_argument("name", metavar="NAME", help="of the backend, such as my-storage")
            new.add_argument("--folder", metavar="FOLDER", default=".", help="where the new folder goes")
            new.add_argument("--yes", action="store_true", help="ask nothing; take the defaults")

    group = verbs.add_parser("config", help="settings and where they come from", description="The settings.")
    group.set_defaults(parser=group)
    inner = group.add_subparsers(dest="what", metavar="WHAT", required=True)
    verb = add(
        "explain", "config", "show every setting, its value and where it came from", settings, to=inner
    )
    verb.add_argument("config", metavar="CONFIG", nargs="?")
    add("schema", "config", "print the JSON Schema of the config, for editors", to=inner)

    verb = add("doctor", "doctor", "check the installation: plugins, conflicts, versions, config files")
    verb.add_argument("config", metavar="CONFIG", nargs="?", help="a config to check too")

    verb.add_argument(
        "--disk", metavar="FOLDER", nargs="?", const=".", help="measure the speed of a disk too"
    )

    verb = add("info", "info", "tell what a dataset holds, and its status")
    verb.add_argument("path", metavar="PATH")

    verb = add("verify", "verify", "read every frame of a dataset, and tell what is damaged or missing")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument("--backend", metavar="NAME", help="who reads it, instead of the one that wrote it")

    verb = add("recover", "recover", "make a finished dataset of what survives of another one")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "-o", "--output", metavar="P", help="where the finished dataset will lie; by default PATH-recovered"
    )
    verb.add_argument(
        "--in-place", action="store_true", help="mend the dataset itself, instead of making another one"
    )
    verb.add_argument("--dry-run", action="store_true", help="only tell what would be done; write nothing")

    verb = add("preview", "preview", "make a picture of a dataset: a contact sheet")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument("-o", "--output", metavar="PICTURE", help="a PNG file; by default PATH.png")
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
        # Whoever read our output has gone, as head does. Nothing more can be said.
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
    if not isinstance(error, errors.ExEngineError) and not options.debug:
        print("exengine: this is not expected; --debug shows where it happened", file=sys.stderr)
    return 2 if isinstance(error, WRONG_USE) else 1
