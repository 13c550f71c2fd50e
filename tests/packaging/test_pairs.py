"""Plugins of every build backend work beside each other on ExEngine, whatever form either is installed in."""

import json
import zipfile

import projects
import pytest

ROOT = projects.ROOT

pytestmark = pytest.mark.timeout(300)  # a pair takes 10 s, and more where wheels come over the network

# The host, its form; the plugin, its form; another plugin beside it, and its form.
PAIRS = [
    ("hatchling", "wheel", "hatchling", "wheel", "setuptools-src", "editable"),
    ("hatchling", "wheel", "setuptools-src", "wheel", "flit", "editable"),
    ("hatchling", "wheel", "setuptools-flat", "editable", "uv", "wheel"),
    ("hatchling", "editable", "setuptools-flat", "wheel", "hatchling", "editable"),
    ("hatchling", "editable", "flit", "wheel", "setuptools-flat", "editable"),
    ("hatchling", "editable", "uv", "editable", "setuptools-src", "wheel"),
    ("hatchling", "editable", "hatchling", "editable", "setuptools-flat", "editable"),
    ("setuptools-src", "editable", "setuptools-src", "editable", "hatchling", "wheel"),
    ("setuptools-src", "wheel", "uv", "wheel", "flit", "wheel"),
    ("setuptools-flat", "editable", "setuptools-flat", "editable", "uv", "editable"),
    ("setuptools-flat", "wheel", "flit", "editable", "hatchling", "wheel"),
    ("flit", "editable", "hatchling", "editable", "setuptools-flat", "wheel"),
    ("uv", "editable", "flit", "wheel", "setuptools-src", "editable"),
]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return what writes the project of a plugin, or of a host, once."""
    written = {"host hatchling": ROOT}

    def folder(kind, build):
        key = f"{kind} {build}"
        if key not in written:
            place = tmp_path_factory.mktemp("project") / build
            written[key] = (
                projects.write_host(build, place) if kind == "host" else projects.Plugin(build).write(place)
            )
        return written[key]

    return folder


@pytest.fixture
def install(environment, built, folder_of):
    def install_one(kind, build, form):
        project = folder_of(kind, build)
        environment.install(built(f"{kind} {build}", project) if form == "wheel" else project, form)

    return install_one


@pytest.mark.parametrize(
    ("host", "host_form", "first", "first_form", "second", "second_form"), PAIRS, ids=map(" ".join, PAIRS)
)
def test_two_plugins_are_found_imported_and_uninstalled_one_by_one(
    environment, install, folder_of, host, host_form, first, first_form, second, second_form
):
    install("host", host, host_form)
    plugins = [(projects.Plugin(first), first_form), (projects.Plugin(second), second_form)]
    for plugin, form in plugins:
        install("plugin", plugin.build, form)
    _finds(environment, [plugin for plugin, _ in plugins])
    for plugin, form in plugins:
        _works(environment, plugin, form, folder_of("plugin", plugin.build))

    gone, (kept, kept_form) = plugins[0][0], plugins[1]
    environment.uninstall(gone.distribution)
    left = [path.name for path in environment.site.rglob("*") if gone.module in path.name]
    assert [name for name in left if not name.endswith(".pyc")] == []
    assert environment.probe("missing", gone.name) == ["PluginNotFoundError", "ModuleNotFoundError"]
    _finds(environment, [kept])
    _works(environment, kept, kept_form, folder_of("plugin", kept.build))

    environment.uninstall(kept.distribution)
    _finds(environment, [])


def _finds(environment, plugins):
    found = environment.probe("find")
    assert found["imported"] == []
    assert found["backends"] == {
        plugin.name: [plugin.distribution, "0.3.0", f"{plugin.module}:{plugin.class_name}"]
        for plugin in plugins
    }


def _works(environment, plugin, form, folder):
    for mode in ("alias", "real"):
        seen = environment.probe(mode, plugin.name, plugin.module, plugin.class_name)
        assert (
            seen["same module"]
            and seen["same inner module"]
            and seen["same class"]
            and seen["class comes back"]
        )
        assert seen["module of the class"] == f"{plugin.module}.storage"
        assert seen["page"].startswith(f"What {plugin.name} does")
        assert seen["file"].startswith(str(folder if form == "editable" else environment.site))
        assert environment.probe("load", seen["pickled"]) == {
            "class": f"{plugin.module}.storage.{plugin.class_name}",
            "gain": 3,
            "data": [0, 1, 2],
        }


@pytest.mark.parametrize("build", projects.BUILDS)
def test_the_page_and_the_mark_of_types_are_in_the_wheel(build, built, folder_of):
    plugin = projects.Plugin(build)
    names = zipfile.ZipFile(built(f"plugin {build}", folder_of("plugin", build))).namelist()
    assert f"{plugin.module}/docs/{plugin.name}.rst" in names
    assert f"{plugin.module}/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {plugin.module, f"{plugin.module}-0.3.0.dist-info"}


def test_the_wheel_of_exengine_holds_each_of_its_files(built):
    source = ROOT / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in (source / "exengine").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(built("host hatchling", ROOT)).namelist())
    assert files <= names
    assert any(name.endswith(".tmpl") for name in files)


@pytest.mark.parametrize("form", ["wheel", "editable"])
def test_a_new_plugin_is_written_and_found_with_every_form_of_exengine(form, environment, install, tmp_path):
    install("host", "hatchling", form)
    done = environment.run_text(
        "-m", "exengine", "backends", "new", "my-storage", "--json", "--folder", tmp_path
    )
    assert (tmp_path / "exengine-my-storage" / "pyproject.toml").is_file()
    environment.install(tmp_path / "exengine-my-storage", "editable")
    record = environment.probe("find")["backends"]["my-storage"]
    assert record[2] == f"{json.loads(done)['module']}:MyStorage"
