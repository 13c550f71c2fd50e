"""``exengine backends new``: creates a complete distribution with a small backend from templates.

The templates are the files in ``exengine/scaffold``. Only one new folder is created, and it is removed again
if an error occurs.
"""

import argparse
import contextlib
import importlib.resources
import json
import keyword
import os
import re
import shlex
import string
import sys
import time
from collections.abc import Iterable

from exengine.cli.output import print_json, say
from exengine.kernel.errors import ExEngineError, OptionError
from exengine.kernel.registry import plugins
from exengine.kernel.system.held_folder import HeldFolder

FILES = {
    ".github/workflows/ci.yml": "ci.yml",
    ".gitignore": "gitignore",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "README.md": "README.md",
    "docs/conf.py": "docs/conf.py",
    "docs/index.rst": "docs/index.rst",
    "pyproject.toml": "pyproject.toml",
    "src/$module/__init__.py": "package/__init__.py",
    "src/$module/docs/$name.rst": "package/page.rst",
    "src/$module/py.typed": "package/py.typed",
    "src/$module/reader.py": "package/reader.py",
    "src/$module/storage.py": "package/storage.py",
    "tests/conftest.py": "tests/conftest.py",
    "tests/test_plugin.py": "tests/test_plugin.py",
    "tests/test_sample.py": "tests/test_sample.py",
    "tests/test_storage.py": "tests/test_storage.py",
    "tox.ini": "tox.ini",
}
"""Maps each file in the distribution to its template."""

COMMANDS = (
    "cd {folder}",
    "pip install -e '.[test,docs]'",
    "pytest",
    "exengine backends check {name}",
    "pytest --exengine-backend {name} --exengine-results docs/_results/{name}.json",
    "sphinx-build -W -b html docs docs/_build/html",
)
"""The next steps, as in the distribution's README."""

# The plugin registry's rule for names. As in distribution names, the last character is a letter or a digit.
_NAME = re.compile(r"[a-z](?:[a-z0-9_-]{0,62}[a-z0-9])?")
# Names that a module in exengine.storage_backends or a class of ExEngine already has.
_RESERVED = {"ndtiff_and_ndram", "data", "data_storage", "managed", "managed_storage"}


class FolderError(ExEngineError, OSError):
    """The new distribution's folder already exists or cannot be written."""


def run(options: argparse.Namespace) -> int:
    """Write the distribution, and print the next steps."""
    name = options.name
    asking = not (options.yes or options.json) and sys.stdin.isatty()
    if asking:
        name = _ask("Name of the backend", name)
    values = _names(name)
    folder = os.path.join(os.path.abspath(options.folder), values["distribution"])
    _refuse_existing(folder)
    author = f"The {values['distribution']} developers"
    description = f"Storage backend {name} for ExEngine, with all frames in one file next to an index"
    if asking:
        author = _ask("Author", author)
        description = _ask("Description (one line)", description)
    values |= _texts(author, description)
    files = {
        string.Template(path).substitute(values): string.Template(_template(template)).substitute(values)
        for path, template in FILES.items()
    }
    _write(folder, files)
    below = folder.startswith(os.path.join(os.getcwd(), ""))
    there = os.path.relpath(folder) if below else folder
    following = [command.format(folder=shlex.quote(there), name=name) for command in COMMANDS]
    if options.json:
        result = {key: values[key] for key in ("name", "distribution", "module", "class_name")}
        print_json({**result, "folder": folder, "files": list(files), "next": following})
        return 0
    print(f"{values['distribution']} was written to {there}")
    for path in files:
        print(f"  {path}")
    print("\nNext, in an environment that has ExEngine:")
    for command in following:
        print(f"  {command}")
    return 0


# -- values of the templates -------------------------------------------------------------------------


def _names(name: str) -> dict[str, str]:
    """Return all names that are derived from the backend's name.

    Examples
    --------
    >>> names = _names("my-storage")
    >>> names["distribution"], names["module"], names["class_name"]
    ('exengine-my-storage', 'exengine_my_storage', 'MyStorage')
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"{name!r:.80} is not a valid name for a new backend; it must start with a-z, contain at most "
            "64 characters from a-z, 0-9, '-' and '_', and end with a letter or a digit, as in my-storage"
        )
    alias = name.replace("-", "_")
    if alias in _RESERVED or keyword.iskeyword(alias):
        raise OptionError(f"{name!r} is reserved by Python or ExEngine; choose another name")
    distribution = "exengine-" + re.sub("[-_]+", "-", name)
    class_name = "".join(part.capitalize() for part in re.split("[-_]+", name))
    class_name += "" if class_name.endswith("Storage") else "Storage"
    for known, record in plugins.BACKENDS.records().items():
        others = {claim.distribution for claim in record.candidates or (record,)} - {distribution}
        if known.replace("-", "_") == alias and others:
            raise OptionError(
                f"the backend {known!r} is already installed, from {', '.join(sorted(others))}; choose "
                "another name to avoid a conflict"
            )
    return {
        "name": name,
        "alias": alias,
        "distribution": distribution,
        "module": f"exengine_{alias}",
        "class_name": class_name,
        "reader_name": f"{class_name}Reader",
        "reader_classes": ", ".join(sorted(("FrameReading", f"{class_name}Reader"), key=str.lower)),
        "title_rule": "=" * len(distribution),
    }


def _texts(author: str, description: str) -> dict[str, str]:
    author, description = " ".join(author.split()), " ".join(description.split())
    for text in (author, description):
        if not text.isprintable() or len(text) > 200:
            raise OptionError(f"expected a line of at most 200 characters, got {text!r:.80}")
    return {
        "author": author,
        "author_quoted": _quoted(author),
        "description": description,
        "description_quoted": _quoted(description),
        "description_rst": re.sub(r"([\\*`|_])", r"\\\1", description),
        "year": time.strftime("%Y"),
    }


def _quoted(text: str) -> str:
    """Return printable text as a string literal that is valid in both Python and TOML."""
    return json.dumps(text, ensure_ascii=False)


def _template(name: str) -> str:
    resource = importlib.resources.files("exengine") / "scaffold"
    for part in f"{name}.tmpl".split("/"):
        resource = resource / part
    return resource.read_text(encoding="utf-8")


def _ask(question: str, default: str) -> str:
    # Print on stderr, because input() would write to stdout, which may be redirected.
    print(f"{question} [{default}]: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip() or default


# -- the folder --------------------------------------------------------------------------------------


def _refuse_existing(folder: str) -> None:
    if os.path.lexists(folder):
        raise FolderError(f"{folder} already exists; remove it, or choose another name or --folder")


def _write(folder: str, files: dict[str, str]) -> None:
    """Create the folder with all of its files, or create nothing."""
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.mkdir(folder)
    except FileExistsError:
        _refuse_existing(folder)
        raise FolderError(f"{os.path.dirname(folder)} is not a folder; choose another --folder") from None
    except OSError as error:
        raise FolderError(f"cannot create {folder}: {error.strerror}; choose another --folder") from error
    written = []
    made = HeldFolder(os.path.realpath(folder))
    try:
        for path, text in files.items():
            target = os.path.join(folder, *path.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "x", encoding="utf-8", newline="\n") as file:
                written.append(path)
                file.write(text)
    except BaseException as error:
        _take_back(made, written)
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # rmdir succeeds only if the folder is empty
        if isinstance(error, OSError):
            say("exengine: the files written so far were removed")
            raise FolderError(f"cannot write {folder}: {error.strerror}") from error
        raise
    finally:
        made.close()


def _take_back(folder: HeldFolder, paths: Iterable[str]) -> None:
    """Remove the files that were written, and any folders that are then empty."""
    below: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition("/")
        below.setdefault(name, []).append(rest)
    for name, rests in below.items():
        with contextlib.suppress(OSError):
            if rests == [""]:
                folder.remove_file(name)
            else:
                with folder.enter(name) as inner:
                    _take_back(inner, rests)
                folder.remove_folder(name)
