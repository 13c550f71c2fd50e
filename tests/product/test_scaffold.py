"""``exengine backends new``: what it writes is a complete distribution, which works without an edit."""

import ast
import io
import json
import os
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import exengine
from exengine.cli import new
from exengine.cli.main import main
from exengine.kernel.registry.plugins import BACKENDS_GROUP, PluginRegistry


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return the folder of a distribution that was just written."""
    folder = tmp_path_factory.mktemp("scaffold")
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(folder)]) == 0
    return folder / "exengine-my-storage"


@pytest.fixture(scope="module")
def site(project, tmp_path_factory):
    """Return a folder in which its wheel is installed."""
    folder = tmp_path_factory.mktemp("installed")
    build(project, folder)
    return folder / "site"


@pytest.fixture(scope="module")
def run(project, site):
    """Return what runs a module of Python in the folder of the project, as if it were installed."""

    def run_module(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *map(str, arguments)],
            cwd=project,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run_module


def build(project, folder):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=project,
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")


def files_in(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# -- unedited, it works ------------------------------------------------------------------------------


def test_its_tests_pass(run):
    done = run("pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.timeout(300)  # the conformance kit is part of it: 10 s, on a busy machine much more
def test_it_passes_the_check(run):
    done = run("exengine", "backends", "check", "my-storage", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (plugin,) = json.loads(done.stdout)["plugins"]
    assert (plugin["state"], plugin["findings"], plugin["not_run"]) == ("valid", [], [])
    outcomes = {label: found["outcome"] for label, found in plugin["conformance"].items()}
    assert outcomes.pop("C6") == "not promised"  # no other program reads this format
    assert set(outcomes.values()) <= {"kept", "not run"}


def test_its_documentation_builds_without_a_warning(run, project):
    built = run("sphinx", "-W", "-b", "html", "docs", "docs/_build/html")
    assert built.returncode == 0, built.stderr
    page = (project / "docs/_build/html/usage/backends/my-storage.html").read_text(encoding="utf-8")
    for text in (
        "Compression level of zlib",
        "The example was run",
        "Reading without ExEngine",
        "Append the pixels",
    ):
        assert text in page


def test_its_readme_has_the_commands_that_are_printed(project, capsys, tmp_path):
    assert main(["backends", "new", "my-storage", "--json", "--folder", str(tmp_path)]) == 0
    enter, *commands = json.loads(capsys.readouterr().out)["next"]
    assert shlex.split(enter) == ["cd", str(tmp_path / "exengine-my-storage")]
    assert "```sh\n" + "\n".join(commands) + "\n```" in (project / "README.md").read_text(encoding="utf-8")


def test_the_wheel_holds_the_page_the_types_and_the_licence(site):
    names = set(files_in(site))
    assert {"exengine_my_storage/docs/my-storage.rst", "exengine_my_storage/py.typed"} <= names
    assert "exengine_my_storage-0.1.0.dist-info/licenses/LICENSE" in names
    assert "exengine_my_storage-0.1.0.dist-info/entry_points.txt" in names


def test_the_code_on_its_page_and_in_its_readme_reads_what_the_backend_writes(project, site, tmp_path):
    readme = (project / "README.md").read_text(encoding="utf-8")
    page = (project / "src/exengine_my_storage/docs/my-storage.rst").read_text(encoding="utf-8")
    write = readme.split("```python\n")[1].split("```")[0]
    block = page.split(".. code-block:: python\n")[1].split("\nLimitations")[0]
    read = "\n".join(line[3:] for line in block.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", f"{write}\n{read}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{'time': 0, 'channel': 'DAPI'} (512, 512)\n", done.stderr


def test_the_workflow_runs_the_commands_of_the_readme(project):
    workflow = yaml.safe_load((project / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert job["runs-on"] == "${{ matrix.system }}"
    steps = [step["run"].replace(" --format github", "") for step in job["steps"] if "run" in step]
    assert steps == [
        'pip install "$EXENGINE"',
        *(
            command.format(name="my-storage")
            for command in new.COMMANDS[1:]
            if "--exengine-results" not in command  # `check` runs the same kit
        ),
    ]
    assert sum("backends check" in step or "--exengine-backend" in step for step in steps) == 1


# -- what is written ---------------------------------------------------------------------------------


def test_every_template_is_used_and_every_file_is_reported(tmp_path, capsys):
    templates = Path(exengine.__file__).parent / "scaffold"
    assert {f"{name}.tmpl" for name in new.FILES.values()} == set(files_in(templates))
    assert main(["backends", "new", "my-storage", "--json", "--folder", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [path.name for path in tmp_path.iterdir()] == ["exengine-my-storage"]
    assert sorted(report["files"]) == sorted(files_in(tmp_path / "exengine-my-storage"))
    assert report["class_name"] == "MyStorage" and report["module"] == "exengine_my_storage"


def test_nothing_of_the_templates_is_left_open(tmp_path):
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(tmp_path)]) == 0
    for path, content in files_in(tmp_path).items():
        text = content.decode().replace("${{", "").replace('"$EXENGINE"', "")
        assert "$" not in text, path


NAMES = {
    "my-storage": ("exengine-my-storage", "exengine_my_storage", "MyStorage"),
    "zarr": ("exengine-zarr", "exengine_zarr", "ZarrStorage"),
    "a": ("exengine-a", "exengine_a", "AStorage"),
    "fast_store2": ("exengine-fast-store2", "exengine_fast_store2", "FastStore2Storage"),
    "a--b": ("exengine-a-b", "exengine_a__b", "ABStorage"),
    "match": ("exengine-match", "exengine_match", "MatchStorage"),
    "n" * 64: (f"exengine-{'n' * 64}", f"exengine_{'n' * 64}", f"N{'n' * 63}Storage"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_good_name_gives_names_that_python_and_the_registry_take(name, tmp_path):
    distribution, module, class_name = NAMES[name]
    assert main(["backends", "new", name, "--yes", "--folder", str(tmp_path / "in")]) == 0
    folder = tmp_path / "in" / distribution
    for path, content in files_in(folder).items():
        if path.endswith(".py"):
            ast.parse(content)
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] == distribution
    build(folder, tmp_path / "out")
    record = PluginRegistry(BACKENDS_GROUP, "backend", [str(tmp_path / "out" / "site")]).find(name)
    assert (record.state, record.target, record.distribution) == (
        "found",
        f"{module}:{class_name}",
        distribution,
    )


BAD_NAMES = [
    "",
    "My",
    "1st",
    "-a",
    "a-",
    "a_",
    "a b",
    "a.b",
    "../x",
    "a/b",
    "ä",
    "n" * 65,
    "a\n",
    "ndtiff_and_ndram",
    "managed",
    "class",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused_and_nothing_is_written(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    assert main(["backends", "new", "--yes", "--", name]) == 2
    assert "name" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / "in"]


def test_the_name_of_a_backend_of_somebody_else_is_refused(tmp_path, capsys):
    assert main(["backends", "new", "ndtiff", "--yes", "--folder", str(tmp_path)]) == 2
    assert "from exengine-ndstorage" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_s_own_backend_that_is_installed_can_be_written_again(tmp_path, site):
    program = "import sys; from exengine.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "backends", "new", "my-storage", "--yes", "--folder", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_what_is_there_is_never_touched(kind, tmp_path, capsys):
    place = tmp_path / "exengine-my-storage"
    if "folder" in kind:
        place.mkdir()
    if kind == "folder":
        (place / "README.md").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    before = files_in(tmp_path)
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "already exists" in err and "is not expected" not in err
    assert files_in(tmp_path) == before and list(tmp_path.iterdir()) == [place]


def test_a_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(tmp_path / "file")]) == 1
    assert "choose another --folder" in capsys.readouterr().err


def test_where_writing_fails_half_way_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(new, "FILES", {**new.FILES, "README.md/below": "README.md"})
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(tmp_path)]) == 1
    assert "were removed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_writing_fails_half_way_what_another_has_put_there_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(new, "FILES", {**new.FILES, "README.md/below": "README.md"})
    place = tmp_path / "exengine-my-storage"
    real = os.makedirs

    def makedirs(path, **options):
        real(path, **options)
        if str(path).endswith("below") or str(path).endswith("README.md"):
            return
        if place.is_dir() and not (place / "thesis.txt").exists():
            (place / "thesis.txt").write_text("mine")

    monkeypatch.setattr(os, "makedirs", makedirs)
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(tmp_path)]) == 1
    assert [path.name for path in place.rglob("*")] == ["thesis.txt"]


# -- questions ---------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def answer(monkeypatch, *lines):
    monkeypatch.setattr(sys, "stdin", Terminal("\n".join(lines)))


def test_on_a_terminal_it_asks_and_any_answer_is_kept_as_it_is(tmp_path, monkeypatch, capsys):
    author, description = 'A "B" O\'C, \\ Ünï', 'It\'s """ 100 % of $name, ${x} `a` *b* |c| d_ \\'
    answer(monkeypatch, "shelf", author, f"  {description}  ")
    assert main(["backends", "new", "my-storage", "--folder", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "[my-storage]" in err and "Author" not in out
    folder = tmp_path / "exengine-shelf"
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["authors"] == [{"name": author}] and project["description"] == description
    assert (
        ast.literal_eval(ast.parse((folder / "docs/conf.py").read_text(encoding="utf-8")).body[2].value)
        == author
    )
    assert author in (folder / "LICENSE").read_text(encoding="utf-8")
    assert f"\n{description}\n" in (folder / "README.md").read_text(encoding="utf-8")


def test_empty_answers_and_the_end_of_the_input_mean_the_defaults(tmp_path, monkeypatch):
    answer(monkeypatch, "", "")
    assert main(["backends", "new", "my-storage", "--folder", str(tmp_path / "asked")]) == 0
    assert main(["backends", "new", "my-storage", "--yes", "--folder", str(tmp_path / "not-asked")]) == 0
    assert files_in(tmp_path / "asked") == files_in(tmp_path / "not-asked")


def test_without_a_terminal_it_asks_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("other\n"))
    assert main(["backends", "new", "my-storage", "--folder", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["exengine-my-storage"]


@pytest.mark.parametrize("text", ["x" * 201, "a\x1b[31m", "a\x00"])
def test_an_answer_that_is_no_line_of_text_is_refused(text, tmp_path, monkeypatch, capsys):
    answer(monkeypatch, "my-storage", text, "")
    assert main(["backends", "new", "my-storage", "--folder", str(tmp_path)]) == 2
    assert "200 characters" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
