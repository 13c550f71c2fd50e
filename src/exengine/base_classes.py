"""The flat namespace for plugin authors: base classes, their types, and helper functions.

Backends and frame sources import from here, from :mod:`exengine.errors` and from ``exengine``. Their tests
also import from :mod:`exengine.testing`. The locations of all other ExEngine modules may change.
"""

from typing import TYPE_CHECKING, Any

from exengine.frame_sources.sequence import check_unique, event_coordinates
from exengine.frame_sources.sequence_checks import (
    SEQUENCE_RULES,
    check_points,
    check_sequence,
    sequence_error,
)
from exengine.frame_sources.sequence_events import (
    CompleteEvents,
    Reference,
    plans_of,
    point_plans,
    private_copy,
    set_field_of_view,
    sub_sequences,
)
from exengine.frame_sources.sequence_plan import plan_fields
from exengine.kernel.axes import summarize_positions
from exengine.kernel.capabilities import PlannedLayout, StorageCapabilities, dtype_names
from exengine.kernel.data_coords import DataCoordinates, snapshot
from exengine.kernel.data_storage_base import (
    CoordinatesLike,
    DatasetStatus,
    DataStorage,
    Frame,
    JsonValue,
)
from exengine.kernel.frame_source_base import FrameSource, Sink
from exengine.kernel.frames.axis_collector import AxisCollector
from exengine.kernel.frames.coordinate_index import CoordinateIndex
from exengine.kernel.frames.metadata import clean_metadata
from exengine.kernel.frames.sharing import SharedDatasets, UnitOf
from exengine.kernel.registry.options import check_options
from exengine.kernel.source_plan import (
    PlannedAxis,
    PlannedChannel,
    PlannedPlate,
    PlannedPosition,
    SourcePlan,
)
from exengine.kernel.storage.array_view import refuse_filler
from exengine.kernel.storage.description import plan_of
from exengine.kernel.storage.file_patterns import FilePatterns
from exengine.kernel.storage.managed import ManagedStorage
from exengine.kernel.storage.manifest import Manifest, has_writer, read_manifest, status_of
from exengine.kernel.storage.one_file.recorded_file import EmptyFileReader, RecordedFileReader
from exengine.kernel.storage.one_file.spool import HEADER as JOURNAL_HEADER
from exengine.kernel.storage.one_file.spool import Scan, SpooledFrame, encode_record, read_pixels
from exengine.kernel.storage.one_file.spool_reader import SpoolReader
from exengine.kernel.storage.one_file.spooled import (
    SPOOL_PATTERNS,
    FrameToBuild,
    SpooledStorage,
    build_safely,
    is_spooled,
    keep_damaged,
    remove_spool,
)
from exengine.kernel.storage.reading import DatasetReader, IndexedStorage, wait_until
from exengine.kernel.storage.remote import RecoveredRemote, RemoteDatasets, is_url
from exengine.kernel.storage.state import FrameIndex
from exengine.kernel.system.archive import Archive, PackableDatasets, open_packed, packed_names, packed_size
from exengine.kernel.system.bounded import parse_foreign_json, parse_json
from exengine.kernel.system.files import (
    begin_writing,
    open_new,
    open_regular,
    read_at,
    read_into,
    sync_filesystem,
    sync_folder,
    try_lock,
    write_at,
)
from exengine.kernel.system.helper_thread import HelperThread, Job
from exengine.kernel.system.open_files import NEW, READ, FilePool, OpenFile
from exengine.kernel.wording import did_you_mean

if TYPE_CHECKING:
    from exengine.kernel.system.loopback import LoopbackHandler, LoopbackServer

__all__ = [
    # a storage backend
    "DataStorage",
    "StorageCapabilities",
    "DatasetStatus",
    "ManagedStorage",
    "IndexedStorage",
    "DatasetReader",
    "RemoteDatasets",
    "RecoveredRemote",
    "is_url",
    "PackableDatasets",
    "Archive",
    "open_packed",
    "packed_names",
    "packed_size",
    "SharedDatasets",
    "UnitOf",
    # a storage backend whose datasets are one file
    "JOURNAL_HEADER",
    "Scan",
    "SpooledFrame",
    "encode_record",
    "read_pixels",
    "SpooledStorage",
    "SpoolReader",
    "RecordedFileReader",
    "EmptyFileReader",
    "SPOOL_PATTERNS",
    "FrameToBuild",
    "build_safely",
    "is_spooled",
    "keep_damaged",
    "remove_spool",
    # a frame source
    "FrameSource",
    "SourcePlan",
    "PlannedAxis",
    "PlannedChannel",
    "PlannedPosition",
    "PlannedPlate",
    "plan_of",
    "AxisCollector",
    "Sink",
    # frames
    "DataCoordinates",
    "CoordinatesLike",
    "CoordinateIndex",
    "Frame",
    "FrameIndex",
    "JsonValue",
    "PlannedLayout",
    "check_options",
    "clean_metadata",
    "dtype_names",
    "refuse_filler",
    "snapshot",
    "summarize_positions",
    # sequences
    "check_unique",
    "event_coordinates",
    "SEQUENCE_RULES",
    "check_points",
    "check_sequence",
    "sequence_error",
    "CompleteEvents",
    "Reference",
    "private_copy",
    "plans_of",
    "plan_fields",
    "point_plans",
    "set_field_of_view",
    "sub_sequences",
    # datasets and their files
    "Manifest",
    "has_writer",
    "read_manifest",
    "status_of",
    "wait_until",
    "FilePatterns",
    "FilePool",
    "OpenFile",
    "NEW",
    "READ",
    "HelperThread",
    "Job",
    "open_new",
    "open_regular",
    "read_at",
    "read_into",
    "write_at",
    "begin_writing",
    "sync_folder",
    "sync_filesystem",
    "try_lock",
    "parse_json",
    "parse_foreign_json",
    # servers on this computer
    "LoopbackServer",
    "LoopbackHandler",
    # messages
    "did_you_mean",
]


def __getattr__(name: str) -> Any:
    if name in ("LoopbackServer", "LoopbackHandler"):  # HTTP modules are imported only for servers
        from exengine.kernel.system import loopback

        return getattr(loopback, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
