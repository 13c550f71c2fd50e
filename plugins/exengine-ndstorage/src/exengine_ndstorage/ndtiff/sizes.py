"""The sizes that this backend uses, and the reason for each of them.

Some limits are part of the format itself. The reader's limits protect the memory of a program that opens an
untrusted dataset. The other sizes were determined by measurements. They only control how the work is divided
into pieces, so they do not affect the contents of a dataset.
"""

KIB, MIB = 2**10, 2**20

# -- limits of a dataset ---------------------------------------------------------------------------------

MAX_FILE_BYTES = 2**32
"""The maximum file size of the format. Offsets in the index and in TIFF files are 32-bit."""

LEAST_FILE_BYTES = 4 * KIB
"""The minimum for ``max_file_bytes``. Smaller files have room for a header and little else."""

MAX_TEXT_BYTES = 2**16 - 1
"""The maximum size of a string in an index entry: coordinates as JSON, or a file name.

An index with a longer string is not a valid NDTiff index.
"""

MAX_AXES = 255
"""The maximum number of different axes in a dataset. A reader stores one column per axis.
"""

MAX_SUMMARY_BYTES = 16 * MIB
"""The maximum size of the header, including the summary metadata.

The format allows up to 4 GiB, which may not fit in the memory of a reader.
"""

MAX_METADATA_BYTES = 64 * MIB
"""The maximum size of a frame's metadata as JSON.

The format allows up to 4 GiB, which may not fit in the memory of a reader.
"""

MAX_NAME_BYTES = 200
"""The maximum length of a dataset's name. The name and a suffix must fit in a file name of 255 bytes."""

# -- writing ---------------------------------------------------------------------------------------------

BATCH_BYTES = 4 * MIB
"""The maximum total size of the frames that are written to the file with one gathered write.

Frames larger than this do not benefit from batching.
"""

MAX_TORN_BYTES = BATCH_BYTES + MIB
"""The maximum amount of data that an interrupted write can leave behind. Recovery removes this data.

This is one batch, or one frame slightly larger than a batch. In a file with larger frames, the limit is the
size of two frames.
"""

EARLY_BYTES = 4 * MIB
"""The amount of new data after which the system is asked to begin writing to the disk.

A later sync then has little left to do.
"""

SMALL_FRAME_BYTES = 256 * KIB
"""For smaller frames, the system is asked to write early, so that the disk is not idle during encoding.

Larger frames keep the disk busy.
"""

LEAST_FREE_BYTES = 64 * KIB
"""The amount of memory that must be free before a frame is encoded.

With less memory, orjson would end the process. This amount is therefore allocated first, so that a lack of
memory raises MemoryError.
"""

# -- reading ---------------------------------------------------------------------------------------------

CHUNK_BYTES = 2 * MIB
"""The number of bytes of the index that are read and decoded in one step: about 10,000 entries."""

MAX_TAGS = 1000
"""The maximum number of tags in a TIFF directory.

NDTiff directories have about 15 tags. A directory that exceeds the maximum is considered damaged.
"""

MAX_TILES = 4_000_000
"""The maximum number of tiles in one stitched array, including gaps.

The limit is needed because row and column numbers can be arbitrarily large.
"""

# -- the helper thread -----------------------------------------------------------------------------------

SHARED_WRITE_BYTES = MIB
"""The minimum frame size for which the helper thread computes the checksum during the write."""

SHARED_READ_BYTES = 2 * MIB
"""The minimum frame size for which the helper thread reads half of the frame.

For smaller frames, handing over the job costs more time than it saves.
"""

CHECKED_PIECE_BYTES = MIB
"""The amount of data that is read in one step. The data is still in the cache when the checksum is computed.
"""

# -- open files ------------------------------------------------------------------------------------------

MAX_OPEN_FILES = 64
"""The maximum number of open files in a pool. With files of 4 GiB, that is enough for 256 GiB."""
