"""The parser of the ``exengine`` command."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from exengine.cli.settings import settings_parser
from exengine.kernel.wording import did_you_mean, either, near_names


class Parser(argparse.ArgumentParser):
    """A parser whose messages name the verb or option that resembles a misspelt one."""

    def error(self, message: str) -> NoReturn:
        """Print how the command is used and what is wrong with it, and exit with code 2."""
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            message += did_you_mean(choice[1], re.findall(r"[\w.-]+", choice[2]))
        super().error(message)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exit because of arguments that this verb does not have."""
        known = sorted(set(re.findall(r"--([\w-]+)", self.format_usage())))
        names = [word.partition("=")[0].removeprefix("--") for word in unknown if word.startswith("--")]
        near = [f"'--{option}'" for name in names for option in near_names(name, known)]
        hint = f" (did you mean {either(near)}?)" if near else ""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")


def make_parser(words: Sequence[str] = ()) -> Parser:
    """Return the parser for the verb at the beginning of a command, or for all verbs if there is none.

    A parser for a single verb takes less time to create. The CLI reference is generated from the parser for
    all verbs.
    """
    parser = Parser(prog="exengine", description="Store microscopy data in a backend of your choice.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    _Verbs(parser, words, "verb", "VERB", required=False).add_chosen(_VERBS)
    return parser


class _Verbs:
    """The verbs of a parser. They have a few options in common, which come first."""

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        words: Sequence[str],
        dest: str,
        metavar: str,
        *,
        required: bool,
    ) -> None:
        self._words = words
        self._parsers = parser.add_subparsers(dest=dest, metavar=metavar, required=required)
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument(
            "--json", action="store_true", help="print one JSON document and nothing else on stdout"
        )
        self._common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def add_chosen(self, functions: Mapping[str, "Callable[[_Verbs], object]"]) -> None:
        """Add the chosen verb, or every verb if none is chosen."""
        for name in self._words[:1] if self._words and self._words[0] in functions else functions:
            functions[name](self)

    def add(
        self, name: str, module: str, text: str, *more: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        """Add a verb, which is run by ``module`` in ``exengine.cli``, and return its parser."""
        verb = self._parsers.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[self._common, *more]
        )
        verb.set_defaults(module=module, parser=verb)
        return verb

    def add_group(self, name: str, text: str, description: str) -> "_Verbs":
        """Add a verb with subcommands, such as ``backends``, and return the object that collects them."""
        group = self._parsers.add_parser(name, help=text, description=description)
        group.set_defaults(parser=group)
        return _Verbs(group, self._words[1:], "what", "WHAT", required=True)


def _acquire(verbs: _Verbs) -> None:
    verb = verbs.add(
        "acquire", "acquire", "run the acquisition that a config file describes", settings_parser()
    )
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


def _backends(verbs: _Verbs) -> None:
    functions = {**_of_plugins("storage backends"), "check": _check, "new": _new}
    verbs.add_group("backends", "installed storage backends", "The installed storage backends.").add_chosen(
        functions
    )


def _sources(verbs: _Verbs) -> None:
    functions = _of_plugins("frame sources")
    verbs.add_group("sources", "installed frame sources", "The installed frame sources.").add_chosen(
        functions
    )


def _of_plugins(kind: str) -> dict[str, Callable[[_Verbs], object]]:
    def add_list(verbs: _Verbs) -> None:
        verbs.add("list", "plugins", f"list the installed {kind}, without importing them")

    def add_show(verbs: _Verbs) -> None:
        verb = verbs.add("show", "plugins", "show the documentation and options of a plugin")
        verb.add_argument("name", metavar="NAME")

    return {"list": add_list, "show": add_show}


def _check(verbs: _Verbs) -> None:
    verb = verbs.add(
        "check", "check", "check the contract, documentation, promises and packaging of a plugin"
    )
    verb.add_argument("target", metavar="NAME|PATH", help="an installed backend, or the folder of a plugin")
    verb.add_argument(
        "--format",
        choices=("text", "github"),
        default="text",
        help="format of the faults; github prints annotations for CI",
    )
    verb.add_argument("--thorough", action="store_true", help="run the conformance kit with longer searches")


def _new(verbs: _Verbs) -> None:
    verb = verbs.add("new", "new", "create a new plugin from the template")
    verb.add_argument("name", metavar="NAME", help="name of the backend, such as my-storage")
    verb.add_argument("--folder", metavar="FOLDER", default=".", help="parent of the new folder")
    verb.add_argument("--yes", action="store_true", help="do not ask questions; use the defaults")


def _config(verbs: _Verbs) -> None:
    functions = {"explain": _explain_config, "schema": _schema}
    verbs.add_group("config", "show settings and their origins", "The settings.").add_chosen(functions)


def _explain_config(verbs: _Verbs) -> None:
    verb = verbs.add("explain", "config", "show every setting, its value and its origin", settings_parser())
    verb.add_argument("config", metavar="CONFIG", nargs="?")


def _schema(verbs: _Verbs) -> None:
    verbs.add("schema", "config", "print the JSON Schema of the config, for editors")


def _doctor(verbs: _Verbs) -> None:
    verb = verbs.add("doctor", "doctor", "check the installation: plugins, conflicts, versions, config files")
    verb.add_argument("config", metavar="CONFIG", nargs="?", help="a config to check as well")

    verb.add_argument(
        "--disk", metavar="FOLDER", nargs="?", const=".", help="measure the speed of a disk as well"
    )


def _explain(verbs: _Verbs) -> None:
    verb = verbs.add("explain", "explain", "explain a code such as EX202, with a wrong and a right example")
    verb.add_argument("code", metavar="CODE", nargs="?", help="a code; without it, all codes are listed")


def _info(verbs: _Verbs) -> None:
    verb = verbs.add("info", "info", "show the content and the status of a dataset")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument("--frames", action="store_true", help="list every frame with its metadata")
    verb.add_argument(
        "--export", choices=("csv", "parquet"), help="write the list of frames to a file, in this format"
    )
    verb.add_argument("-o", "--output", metavar="FILE", help="the file; by default PATH.frames.csv")


def _verify(verbs: _Verbs) -> None:
    verb = verbs.add("verify", "verify", "read every frame of a dataset, and list damaged and missing ones")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "--backend", metavar="NAME", help="read with this backend instead of the one that wrote it"
    )


def _recover(verbs: _Verbs) -> None:
    verb = verbs.add(
        "recover", "recover", "create a finished dataset from the readable frames of another dataset"
    )
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "-o", "--output", metavar="P", help="path of the finished dataset; by default PATH-recovered"
    )
    verb.add_argument(
        "--in-place", action="store_true", help="repair the dataset itself instead of creating another one"
    )
    verb.add_argument("--dry-run", action="store_true", help="only report; write nothing")


def _convert(verbs: _Verbs) -> None:
    verb = verbs.add("convert", "convert", "copy a dataset to another backend, and compare the two datasets")
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
        help="leave out and list the frames that the backend cannot store; by default, they are an error",
    )
    verb.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="address of a dask cluster whose workers read the frames, such as tcp://scheduler:8786; every "
        "worker needs the datasets at the same paths",
    )
    verb.add_argument(
        "--units",
        metavar="I/N",
        help="do only the work of job I of N, for example 2/8: convert every N-th dataset that matches a "
        "pattern or, with the backend ome-zarr, some shards of one dataset",
    )


def _pack(verbs: _Verbs) -> None:
    verb = verbs.add(
        "pack", "pack", "pack a finished dataset into one file, which can be read without unpacking"
    )
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "-o", "--output", metavar="FILE", help="the new file; by default beside the dataset, such as NAME.ozx"
    )


def _preview(verbs: _Verbs) -> None:
    verb = verbs.add("preview", "preview", "create a contact sheet that shows a dataset")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument("-o", "--output", metavar="PICTURE", help="a PNG file; by default PATH.png")
    verb.add_argument(
        "--composite", action="store_true", help="show the channels on top of each other, in their colors"
    )


def _view(verbs: _Verbs) -> None:
    verb = verbs.add("view", "view", "show a dataset in the browser, even while it is being written")
    verb.add_argument("path", metavar="PATH")
    verb.add_argument(
        "--no-browser", action="store_true", help="print the address of the page without opening a browser"
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


_VERBS: dict[str, Callable[[_Verbs], object]] = {
    "acquire": _acquire,
    "backends": _backends,
    "sources": _sources,
    "config": _config,
    "doctor": _doctor,
    "explain": _explain,
    "info": _info,
    "verify": _verify,
    "recover": _recover,
    "convert": _convert,
    "pack": _pack,
    "preview": _preview,
    "view": _view,
}
