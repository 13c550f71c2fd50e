"""Runs the ``exengine`` command, and turns errors into exit codes.

The exit codes are 0 for success, 1 for failure, 2 for incorrect use and 130 for an interrupt. For a
fast start, the module of a verb is imported only when the verb is used.
"""

import argparse
import sys
from collections.abc import Sequence

from exengine.cli.parser import make_parser
from exengine.kernel import errors

WRONG_USE = (errors.ConfigError, errors.OptionError, errors.PluginNotFoundError, errors.PluginConflictError)
"""Errors in the request itself, which result in exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser(words)
    try:
        options, unknown = parser.parse_known_args(words)
        if unknown:
            getattr(options, "parser", parser).refuse(unknown)
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
