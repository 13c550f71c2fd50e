"""Random damage to every file of a dataset: any result is an error of ExEngine, or pixels."""

import random
import shutil
import zipfile

import pytest
import zarr.codecs
from hand_made import image, numbered, zipped
from surveying import survey

DATA = numbered(2, 2, 16, 20)
CODECS = {
    "blosc": zarr.codecs.BloscCodec,
    "gzip": zarr.codecs.GzipCodec,
    "zstd": zarr.codecs.ZstdCodec,
}


def damaged(content, chance):
    """Return bytes that are cut off, or in which some bytes differ."""
    content = bytearray(content)
    if chance.random() < 0.2:
        return content[: chance.randrange(len(content) + 1)]
    for _ in range(chance.choice((1, 1, 4, 30))):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return content


@pytest.mark.parametrize("shards", [None, (1, 2, 16, 32)])
@pytest.mark.parametrize("codec", CODECS)
def test_damage_to_a_folder_is_survived(path, codec, shards):
    image(path, DATA, "tcyx", chunks=(1, 1, 16, 16), shards=shards, compressors=CODECS[codec]())
    chance = random.Random(f"{codec} {shards}")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for number in range(40):
        copy = path.with_name(str(number))
        shutil.copytree(path, copy)
        file = copy / chance.choice(files).relative_to(path)
        file.write_bytes(damaged(file.read_bytes(), chance))
        survey(copy)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_to_an_archive_is_survived(path, tmp_path, method):
    image(path, DATA, "tcyx", chunks=(1, 1, 16, 16))
    content = zipped(path, tmp_path / "made.ozx", method=method).read_bytes()
    chance = random.Random(method)
    for number in range(150):
        copy = tmp_path / f"{number}.ozx"
        copy.write_bytes(damaged(content, chance))
        survey(copy)


def test_a_file_that_an_archive_lists_before_its_beginning_is_damaged(path, tmp_path):
    image(path, DATA, "tcyx")
    archive = zipped(path, tmp_path / "made.ozx")
    content = bytearray(archive.read_bytes())
    content[-6:-2] = (int.from_bytes(content[-6:-2], "little") + 10**6).to_bytes(4, "little")
    archive.write_bytes(content)
    assert "lie outside the archive" in str(survey(archive))
