"""Entry points found by reading metadata: all of them, in one order, and none hidden by a corrupt one."""

import os
import sys
import zipfile
from importlib import metadata

import pytest

from exengine.kernel.registry import discovery

GROUP = "exengine.storage_backends"


def described(records):
    return [(record.name, record.distribution, record.version, record.state) for record in records]


# -- what is found -------------------------------------------------------------------------------


def test_a_record_holds_what_the_metadata_say(make_distribution):
    folder = make_distribution(
        "Some-Plugin", {"good": "some_plugin.module:Class.Inner [extra]"}, version="2.5"
    )
    (record,) = discovery.scan([str(folder)])
    assert record.to_dict() == {
        "name": "good",
        "distribution": "Some-Plugin",
        "version": "2.5",
        "summary": "What Some-Plugin is for",
        "target": "some_plugin.module:Class.Inner",
        "state": "found",
        "stage": "",
        "error": "",
        "traceback": "",
        "output": "",
        "findings": [],
        "candidates": [],
    }
    assert (record.group, record.qualified_name) == (GROUP, "Some-Plugin:good")
    assert record.location.startswith(str(folder))


def test_only_groups_of_ours_are_found(make_distribution):
    text = """
# a comment, and the groups of others
[console_scripts]
exengine.tool = some_plugin:main
[exengine.frame_sources]
camera = some_plugin:Camera

; another comment
[exengine.storage_backends]
store=some_plugin:Store
"""
    folder = make_distribution("some-plugin", text)
    found = [(record.group, record.name, record.target) for record in discovery.scan([str(folder)])]
    assert found == [
        ("exengine.frame_sources", "camera", "some_plugin:Camera"),
        (GROUP, "store", "some_plugin:Store"),
    ]


def test_importlib_reads_the_same_entry_points(make_distribution):
    folder = make_distribution("one", {"a": "one:A", "b": "one.sub:B"})
    make_distribution("two", {"c": "two:C"})
    ours = {(record.name, record.target) for record in discovery.scan([str(folder)])}
    points = [d.entry_points for d in metadata.distributions(path=[str(folder)])]
    assert ours == {(point.name, point.value) for some in points for point in some}


def test_an_egg_info_folder_is_read(tmp_path):
    info = tmp_path / "old_plugin.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: old-plugin\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nold = old_plugin:Store\n")
    assert described(discovery.scan([str(tmp_path)])) == [("old", "old-plugin", "0.3", "found")]


def test_a_zip_file_on_the_path_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "plugins.zip", "w") as archive:
        archive.writestr(
            "zipped-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: zipped\nVersion: 1.0\n"
        )
        archive.writestr("zipped-1.0.dist-info/entry_points.txt", f"[{GROUP}]\nzipped = zipped:Store\n")
    assert described(discovery.scan([str(tmp_path / "plugins.zip")])) == [
        ("zipped", "zipped", "1.0", "found")
    ]


def test_a_finder_of_somebody_else_is_asked(make_distribution, monkeypatch):
    folder = make_distribution("elsewhere", {"far": "elsewhere:Store"})
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])

    class Finder(metadata.DistributionFinder):
        def find_spec(self, *arguments):
            return None

        def find_distributions(self, context=None):
            yield metadata.PathDistribution(next(folder.glob("*.dist-info")))

    assert "far" not in {record.name for record in discovery.scan()}
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert ("far", "elsewhere", "1.0", "found") in described(discovery.scan())


def test_a_finder_of_somebody_else_that_raises_hides_nothing(make_distribution, monkeypatch):
    make_distribution("good", {"good": "good:Store"})

    class Finder(metadata.DistributionFinder):
        def find_spec(self, *arguments):
            return None

        def find_distributions(self, context=None):
            raise RuntimeError("no distributions today")

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert "good" in {record.name for record in discovery.scan()}


def test_entries_of_the_path_that_are_no_folders_are_passed_over(make_distribution, tmp_path):
    folder = make_distribution("good", {"good": "good:Store"})
    (tmp_path / "file.txt").write_text("no zip file")
    path = [str(tmp_path / "nowhere"), str(tmp_path / "file.txt"), str(folder)]
    assert described(discovery.scan(path)) == [("good", "good", "1.0", "found")]


# -- order and duplicates ------------------------------------------------------------------------


def test_the_first_distribution_of_a_name_on_the_path_hides_the_others(make_distribution, tmp_path):
    make_distribution("my.Plugin", {"old": "m:Store"}, version="1.0", folder=tmp_path / "a")
    make_distribution("my-plugin", {"new": "m:Store"}, version="2.0", folder=tmp_path / "b")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert [record.name for record in discovery.scan([a, b])] == ["old"]
    assert [record.name for record in discovery.scan([b, a])] == ["new"]


def test_a_distribution_without_entry_points_hides_too(make_distribution, tmp_path):
    make_distribution("my-plugin", None, version="1.0", folder=tmp_path / "a")
    make_distribution("my-plugin", {"new": "m:Store"}, version="2.0", folder=tmp_path / "b")
    assert discovery.scan([str(tmp_path / "a"), str(tmp_path / "b")]) == []


def test_the_order_in_which_the_system_lists_a_folder_does_not_matter(make_distribution, monkeypatch):
    # Two of one name in one folder: what an upgrade that was interrupted leaves.
    for version in ("1.0", "2.0", "3.0"):
        folder = make_distribution("left-over", {"store": f"left_over:Store{version[0]}"}, version=version)
    make_distribution("other", {"other": "other:Store"})
    names = sorted(os.listdir(folder))
    outcomes = set()
    for order in (names, names[::-1], names[1:] + names[:1]):
        monkeypatch.setattr(os, "listdir", lambda path, order=order: order)
        outcomes.add(tuple((record.name, record.target) for record in discovery.scan([str(folder)])))
    assert len(outcomes) == 1


def test_records_are_sorted_whatever_the_order_of_the_path(make_distribution, tmp_path):
    for number, name in enumerate(["c", "a", "b"]):
        make_distribution(f"dist-{name}", {name: "m:Store"}, folder=tmp_path / str(number))
    folders = [str(tmp_path / str(number)) for number in range(3)]
    assert [record.name for record in discovery.scan(folders)] == ["a", "b", "c"]
    assert described(discovery.scan(folders)) == described(discovery.scan(folders[::-1]))


# -- corrupt distributions -----------------------------------------------------------------------


def without_metadata(info):
    (info / "METADATA").unlink()


def not_to_be_understood(info):
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nthis is no entry point\n")


def not_text(info):
    (info / "entry_points.txt").write_bytes(f"[{GROUP}]\nname = ".encode() + b"\xff\xfe:Store\n")


def a_folder_instead(info):
    (info / "entry_points.txt").unlink()
    (info / "entry_points.txt").mkdir()


def half_a_heading(info):
    (info / "entry_points.txt").write_text(f"[{GROUP}\nname = module:Store\n")


CORRUPTIONS = {
    without_metadata: "the metadata of the distribution cannot be read",
    not_to_be_understood: "line 2 is not valid: 'this is no entry point'",
    not_text: "cannot be parsed",
    a_folder_instead: "cannot be read",
    half_a_heading: "line 1",
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corrupt_distribution_hides_nothing_but_itself(make_distribution, corrupt):
    folder = make_distribution("exengine-corrupt", {"torn": "torn:Store"}, version="0.1")
    make_distribution("good", {"good": "good:Store"})
    corrupt(folder / "exengine_corrupt-0.1.dist-info")
    broken, good = sorted(discovery.scan([str(folder)]), key=lambda record: record.state)
    assert (good.name, good.state) == ("good", "found")
    assert (broken.state, broken.stage, broken.version) == ("broken", "metadata", "0.1")
    assert broken.distribution in ("exengine-corrupt", "exengine_corrupt")
    assert CORRUPTIONS[corrupt] in broken.error


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"Name", b"Name:\nVersion:\n", b": x\n\n\n", b" folded\nName: other\n"]
)
def test_metadata_that_say_nothing_leave_name_and_version_of_the_folder(make_distribution, content):
    folder = make_distribution("exengine-odd", {"odd": "odd:Store"}, version="4.0")
    (folder / "exengine_odd-4.0.dist-info" / "METADATA").write_bytes(content)
    (record,) = discovery.scan([str(folder)])
    assert (record.name, record.version, record.state) == ("odd", "4.0", "found")
    assert record.distribution in ("exengine_odd", "other")


def test_a_corrupt_distribution_that_has_nothing_to_do_with_us_is_no_concern(make_distribution):
    folder = make_distribution("unrelated", "[console_scripts\nbroken")
    make_distribution("binary", "x").joinpath("binary-1.0.dist-info/entry_points.txt").write_bytes(
        b"\xff\x00"
    )
    assert discovery.scan([str(folder)]) == []


# -- versions and leftovers ------------------------------------------------------------------------


def folder_of(
    root, name, text="[exengine.storage_backends]\nstore = a:B\n", metadata="Name: some\nVersion: 1\n"
):
    folder = root / name
    folder.mkdir()
    if text is not None:
        (folder / "entry_points.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    if metadata is not None:
        (folder / "METADATA").write_text(metadata)


@pytest.mark.parametrize(("older", "newer"), [("9.0.0", "10.0.0"), ("1.0rc1", "1.0"), ("1.0.dev1", "1.0a1")])
def test_the_later_version_of_one_folder_counts_by_its_number(tmp_path, older, newer):
    for version in (older, newer):
        folder_of(tmp_path, f"some-{version}.dist-info", metadata=f"Name: some\nVersion: {version}\n")
    assert [record.version for record in discovery.scan([str(tmp_path)])] == [newer]


def test_an_empty_folder_hides_no_distribution(tmp_path):
    folder_of(tmp_path, "some-1.0.dist-info")
    folder_of(tmp_path, "some-2.0.dist-info", text=None, metadata=None)
    assert [record.name for record in discovery.scan([str(tmp_path)])] == ["store"]


def test_what_pip_could_not_remove_is_not_a_plugin(tmp_path):
    folder_of(tmp_path, "~ome-1.0.dist-info")
    assert discovery.scan([str(tmp_path)]) == []


def test_a_byte_order_mark_hides_no_plugin(tmp_path):
    folder_of(tmp_path, "some-1.0.dist-info", text=b"\xef\xbb\xbf[exengine.storage_backends]\nstore = a:B\n")
    assert [record.name for record in discovery.scan([str(tmp_path)])] == ["store"]


def test_a_name_that_one_distribution_registers_twice_is_broken_with_both_targets(tmp_path):
    folder_of(tmp_path, "some-1.0.dist-info", text="[exengine.storage_backends]\nstore = a:B\nstore = c:D\n")
    (record,) = discovery.scan([str(tmp_path)])
    assert (
        record.state == "broken"
        and "a:B" in record.error
        and "c:D" in record.error
        and "keep one" in record.error
    )
