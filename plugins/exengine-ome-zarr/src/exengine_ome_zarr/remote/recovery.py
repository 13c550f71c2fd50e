"""Uploads the spool of a writer that has died, and thereby finishes the dataset in object storage.

The recovery can be killed at any point and run again. It holds the lock of the spool, and the manifest in the
bucket is replaced last, so the dataset remains incomplete until everything is uploaded.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from exengine.base_classes import (
    NEW,
    DataCoordinates,
    DatasetStatus,
    FilePatterns,
    Manifest,
    OpenFile,
    RecoveredRemote,
    open_regular,
    try_lock,
    write_at,
)
from exengine.errors import (
    DatasetAccessError,
    DatasetDamagedError,
    DatasetLockedError,
    DatasetNotFoundError,
    UnsupportedOperationError,
)
from exengine_ome_zarr.format import files
from exengine_ome_zarr.format.frame_files import FrameFiles, read_frame_line
from exengine_ome_zarr.format.frame_reading import FrameName
from exengine_ome_zarr.format.images import Images
from exengine_ome_zarr.format.journal import RECORD_BYTES, Record, decode_record
from exengine_ome_zarr.recovery import recover_in_place
from exengine_ome_zarr.remote import spool
from exengine_ome_zarr.remote.bucket import PART_BYTES, Bucket, Tag
from exengine_ome_zarr.remote.claims import MANIFEST, Writer, read_remote_manifest
from exengine_ome_zarr.remote.contents import RemoteFrames, file_content
from exengine_ome_zarr.remote.reader import copy_documents
from exengine_ome_zarr.remote.uploads import Uploader
from exengine_ome_zarr.table import FrameTable

LOCK = "exengine.lock"
_MOST_NAMED = 1000
_LOGS = (files.FRAMES, files.LAYOUT, files.JOURNAL)

Lost = list[tuple[dict[str, int | str], str]]


def recover_remote(url: str, *, dry_run: bool, in_place: bool) -> RecoveredRemote:
    """Finish an incomplete dataset; see :meth:`exengine.base_classes.RemoteDatasets.recover_remote`."""
    bucket = Bucket(url)
    found = read_remote_manifest(bucket)
    if found is None:
        raise DatasetNotFoundError(f"there is no dataset at {bucket.url}")
    manifest, tag = found
    writer = Writer.of(manifest)
    folder = writer.folder if writer is not None else None
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(_locked(folder, f"{bucket.url} is being written by {writer}"))
        elif not in_place:
            raise UnsupportedOperationError(_without_spool(bucket.url, writer))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="exengine-"))
            _copy_unfinished(bucket, folder)
        is_spool = writer is not None and folder == writer.folder
        recovery = _Recovery(bucket, folder, manifest, tag)
        result = recovery.survey("its spool" if is_spool else "the bucket, without the spool")
        if not dry_run:
            recovery.run(result)
            if is_spool:
                spool.remove_folder(folder)
    return result


def _without_spool(url: str, writer: Writer | None) -> str:
    return (
        f"the spool of {url} is not on this machine; it contains the frames that "
        f"{writer or 'an unknown writer'} stored after the last durable flush. Run exengine recover on the "
        f"writer's machine. If the spool is lost, exengine recover --in-place {url} finishes the dataset "
        "with the frames in the bucket"
    )


@contextmanager
def _locked(folder: str, active: str) -> Iterator[None]:
    """Hold the lock of a dataset in the spool."""
    try:
        descriptor = open_regular(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise DatasetAccessError(f"{folder} cannot be locked: {error.strerror or error}") from error
    try:
        if not try_lock(descriptor):
            raise DatasetLockedError(f"{active}; recover the dataset after this writer has ended")
        yield
    finally:
        os.close(descriptor)


def _copy_unfinished(bucket: Bucket, folder: str) -> None:
    """Copy the files that are needed to finish a dataset without its spool."""
    copy_documents(bucket, folder)
    os.makedirs(os.path.join(folder, files.OPEN), exist_ok=True)
    patterns = FilePatterns((f"{files.OPEN}/part-{{number}}", files.FRAMES))
    for name, size in bucket.objects():
        if not patterns.match_file(name):
            continue
        file, at = OpenFile(os.path.join(folder, name), NEW), 0
        while at < size:
            text = bucket.read_range(name, at, min(PART_BYTES, size - at))
            if not text:
                raise DatasetAccessError(f"{bucket.url}/{name} shrank while it was being read")
            write_at(file.descriptor, (text,), at, len(text))
            at += len(text)


class _Recovery:
    """The recovery of one dataset.

    Parameters
    ----------
    bucket : Bucket
    folder : str
        The folder of the dataset in the spool.
    manifest : Manifest
        The manifest in the bucket.
    tag : dict
        The version of that manifest.
    """

    def __init__(self, bucket: Bucket, folder: str, manifest: Manifest, tag: Tag) -> None:
        self._bucket = bucket
        self._folder = folder
        self._manifest = manifest
        self._tag = tag
        self._there = dict(bucket.objects())
        self._shards: set[str] = set()  # the shards of all frames
        self._elsewhere: set[str] = set()  # the shards that are finished in the bucket

    def survey(self, source: str) -> RecoveredRemote:
        """Read all frames that are in the spool, and look for the others in the bucket."""
        table = FrameTable(self._folder)
        lost: Lost = []
        layout = table.layout
        if layout is not None and table.journal is not None:
            images = Images(self._folder, layout, table.facts, table.labels)
            local = FrameFiles(self._folder, layout, images.array_path)
            remote = RemoteFrames(self._bucket, layout, images.array_path)
            lines = OpenFile(os.path.join(self._folder, files.FRAMES), os.O_RDONLY)
            for number in range(len(table)):
                text = os.pread(table.journal.descriptor, RECORD_BYTES, (number + 1) * RECORD_BYTES)
                record = decode_record(text, number)
                coordinates = table.coordinates(number)
                name = FrameName(lambda number: f"the frame at {table.coordinates(number)}", number)
                try:
                    if record is None:
                        raise DatasetDamagedError(f"the journal no longer contains {name}")
                    read_frame_line(lines, record, name)
                    self._check(record, local, remote, name)
                except DatasetDamagedError as error:
                    lost.append((coordinates, str(error)))
            local.release()
        frames = len(table) - len(lost)
        noted = self._manifest.annotations.get("recovery")
        earlier = _lost_before(noted)
        now = [coordinates for coordinates, _ in lost]
        lost = [*((each, why) for each, why in earlier if each not in now), *lost]
        reason = f"recovered from {source}: {frames} of {frames + len(lost)} frames"
        return RecoveredRemote(frames, lost, reason)

    def _check(self, record: Record, local: FrameFiles, remote: RemoteFrames, name: FrameName) -> None:
        """Raise ``DatasetDamagedError`` if a frame is neither in the spool nor in the bucket."""
        _, image, t, c, z, part, *_ = record
        shard = local.shard(image, t, c, z)
        self._shards.add(shard)
        path = os.path.join(self._folder, shard)
        is_here = os.path.exists(path) and os.path.getsize(path) > 0
        is_in_part = part > 0 and os.path.exists(os.path.join(self._folder, files.OPEN, f"part-{part}"))
        if is_here or is_in_part:
            local.read(record, name)
        elif shard not in self._there:
            raise DatasetDamagedError(f"the pixels of {name} are neither in the spool nor in the bucket")
        elif shard not in self._elsewhere:
            remote.read(record, name)  # check only one frame of each shard, because uploads were verified
            self._elsewhere.add(shard)

    def run(self, result: RecoveredRemote) -> None:
        """Finish the files, upload them, and replace the manifest in the bucket."""
        note = {
            "source": self._bucket.url,
            "frames": result.frames,
            "total": result.frames + len(result.lost),
            "lost_count": len(result.lost),
            "lost": [{"coordinates": each, "reason": why[:500]} for each, why in result.lost[:_MOST_NAMED]],
        }
        # The lost frames are recorded before anything else, because they cannot be found afterwards.
        content = {**self._content(note), "status": DatasetStatus.INCOMPLETE.value}
        content["writer"] = self._manifest.get("writer", {})
        self._replace_manifest(content)
        for shard in self._elsewhere:
            path = os.path.join(self._folder, shard)
            if os.path.exists(path):  # the file is empty if the writer died while it was removing the shard
                os.unlink(path)
        recover_in_place(
            self._folder, [DataCoordinates(each) for each, _ in result.lost], {}, self._elsewhere
        )
        uploaded = self._upload()
        self._delete_others(uploaded)
        content = {
            **self._content(note),
            "status": DatasetStatus.ABORTED.value,
            "reason": result.reason,
            "frames": result.frames,
        }
        content.pop("facts", None)
        content.pop("writer", None)
        self._replace_manifest(content)

    def _content(self, note: dict[str, Any]) -> dict[str, Any]:
        content = dict(self._manifest)
        content["annotations"] = {**self._manifest.annotations, "recovery": note}
        return content

    def _replace_manifest(self, content: dict[str, Any]) -> None:
        tag = self._bucket.put_if(MANIFEST, Manifest.encode(content), self._tag)
        if tag is None:
            raise DatasetLockedError(f"{self._bucket.url} is being recovered by another process; try again")
        self._tag = tag

    def _upload(self) -> set[str]:
        """Upload all files of the spool, and return their names."""
        names = []
        for below, _, entries in os.walk(self._folder):
            inside = os.path.relpath(below, self._folder).replace(os.sep, "/")
            if inside != files.OPEN:
                names += [entry if inside == "." else f"{inside}/{entry}" for entry in entries]
        patterns = FilePatterns(files.DATASET_FILES)
        names = [name for name in names if name not in _LOGS and patterns.match_file(name)]
        names += [name for name in _LOGS if os.path.exists(os.path.join(self._folder, name))]
        uploader = Uploader(self._bucket)
        try:
            for name in names:
                uploader.submit(name, partial(file_content, os.path.join(self._folder, name)))
            uploader.finish_queue()
        finally:
            uploader.end()
        return set(names)

    def _delete_others(self, uploaded: set[str]) -> None:
        """Delete objects of an old dataset that was being overwritten, and parts that are published."""
        patterns = FilePatterns(files.DATASET_FILES)
        keep = uploaded | self._elsewhere | {MANIFEST}
        self._bucket.delete([name for name in self._there if name not in keep and patterns.match_file(name)])


def _lost_before(noted: Any) -> Lost:
    """Return the frames that an interrupted recovery recorded as lost."""
    found: Lost = []
    items = noted.get("lost") if isinstance(noted, dict) else None
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict) and isinstance(item.get("coordinates"), dict):
            found.append((item["coordinates"], str(item.get("reason", ""))))
    return found
