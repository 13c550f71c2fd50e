"""The sizes that this backend works with, each with its reason.

The limits of the format itself are part of it; a limit of the reader protects the memory of a program that
opens an untrusted dataset. The other sizes are measured: they decide how the work is cut into pieces, and a
dataset is the same whatever they are.
"""

KIB, MIB = 2**10, 2**20

# -- limits of a dataset ---------------------------------------------------------------------------------

MAX_FILE_BYTES = 2**32
"""The format's limit: offsets in the index and in TIFF have 32 bits."""

LEAST_FILE_BYTES = 4 * KIB
"""The least ``max_file_bytes``: smaller files hold a header and little else."""

MAX_TEXT_BYTES = 2**16 - 1
"""Coordinates as JSON, or a file name, in an entry of the index. A longer text is not NDTiff."""

MAX_AXES = 255
"""Different axes in a dataset: a reader keeps a column for each."""

MAX_SUMMARY_BYTES = 16 * MIB
"""The header with the summary metadata. The format has room for 4 GiB, the memory of a reader may not."""

MAX_METADATA_BYTES = 64 * MIB
"""The metadata of a frame as JSON. The format has room for 4 GiB, the memory of a reader may not."""

MAX_NAME_BYTES = 200
"""The name of a dataset: a file name has at most 255 bytes, and the files of the dataset add to it."""

# -- writing ---------------------------------------------------------------------------------------------

BATCH_BYTES = 4 * MIB
"""Several frames that go to the file in one gathered write; larger frames gain nothing from that."""

MAX_TORN_BYTES = BATCH_BYTES + MIB
"""How much an interrupted write may leave after the last frame of a file; recovery cuts that off.

It is a batch, or one frame that is a little larger. In a file of larger frames it is two of them.
"""

EARLY_BYTES = 4 * MIB
"""How much is written before the disk starts on it, so that a sync finds most of the work done."""

SMALL_FRAME_BYTES = 256 * KIB
"""Frames with fewer bytes of pixels leave the disk idle while they are encoded; larger ones keep it busy."""

LEAST_FREE_BYTES = 8 * KIB
"""Memory that encoding a frame needs. Without it orjson ends the process, and Python raises MemoryError."""

# -- reading ---------------------------------------------------------------------------------------------

CHUNK_BYTES = 2 * MIB
"""How much of an index is read at once: some 10,000 entries, which are decoded together."""

MAX_TAGS = 1000
"""Tags in a TIFF directory: NDTiff has about 15, and a directory with more is damaged."""

MAX_TILES = 4_000_000
"""Tiles in one stitched array, gaps included: rows and columns may begin at any number."""

# -- the helper thread -----------------------------------------------------------------------------------

SHARED_WRITE_BYTES = MIB
"""From this size on the helper thread computes the checksum of a frame while the frame is written."""

SHARED_READ_BYTES = 2 * MIB
"""From this size on the helper thread reads half of a frame; for smaller ones the hand-over costs more."""

CHECKED_PIECE_BYTES = MIB
"""How much is read before its checksum is computed: it is still in the cache of the processor."""

# -- open files ------------------------------------------------------------------------------------------

MAX_OPEN_FILES = 64
"""Files that a pool holds open; a dataset of 4 GiB files has fewer up to 256 GiB."""
