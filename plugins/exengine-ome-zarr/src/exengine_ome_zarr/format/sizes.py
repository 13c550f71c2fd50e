"""The sizes that this backend uses, and the reason for each of them.

Limits protect the memory of a program that opens an untrusted dataset. The other sizes were determined by
measurements. They control how frames are divided into chunks, shards and writes.
"""

KIB, MIB = 2**10, 2**20

# -- the layout of a dataset -----------------------------------------------------------------------------

CHUNK_BYTES = 128 * KIB
"""The size that a chunk of small frames should have.

zarr-python spends about a millisecond per chunk, so it reads an array five times faster if 16 frames of
64 x 64 pixels share a chunk. The amount of data on the disk is the same.
"""

COMPRESSED_CHUNK_BYTES = 2 * MIB
"""With compression, the maximum size of a chunk before it is compressed, unless an option sets the size.

A frame of at least 256 KiB has two or more chunks, so that two threads can compress it.
"""

MAX_SHARD_FRAMES = 4096
"""The default maximum number of frames in a shard."""

SHARD_BYTES = 256 * MIB
"""The default maximum size of a shard. A larger frame gets a shard of its own."""

MAX_SHARD_CHUNKS = 2**20
"""The maximum number of chunks in a shard. The shard's index has 16 bytes per chunk."""

GAP_POSITIONS = 65_536
"""The largest gap between integer positions that is filled with empty frames in the array.

Positions after a larger gap get the next free index and a label, so that a single position such as
a timestamp does not make the array enormous.
"""

MAX_LENGTH = 2**31 - 1
"""The maximum length of a dimension. Readers in other languages use signed 32-bit numbers."""

LEAST_LEVEL_PIXELS = 512
"""The maximum height and width of the smallest resolution level. Viewers load such a frame as a whole."""

# -- limits of a frame and its metadata ------------------------------------------------------------------

MAX_FRAME_BYTES = 2**31
"""The maximum size of a frame, in bytes; compressors accept at most 2 GiB in one call."""

MAX_METADATA_BYTES = 64 * MIB
"""The maximum size of a frame's metadata as JSON. A reader loads this JSON as a whole."""

MAX_TEXT_BYTES = 2**16 - 1
"""The maximum size of a frame's coordinates as JSON."""

MAX_LINE_BYTES = 16 * MIB
"""The maximum size of a line of the layout file. A reader loads the line as a whole."""

MAX_LAYOUT_BYTES = 256 * MIB
"""The maximum size of the layout file."""

MAX_OFFSET = 2**62
"""The maximum offset in a file; operating systems refuse larger ones."""

LEAST_FREE_BYTES = 64 * KIB
"""The amount of memory that must be free before a frame is encoded.

With less memory, orjson would abort the process. This amount is therefore allocated first, so that a lack of
memory raises MemoryError.
"""

# -- writing ---------------------------------------------------------------------------------------------

BATCH_BYTES = 512 * KIB
"""The maximum total size of the frames that are written with one gathered write.

With more data, the pixels would leave the processor's cache between the checksum and the write.
"""

COMPRESSED_BATCH_BYTES = 4 * MIB
"""The amount of compressed data after which the records of a batch are appended to the journal."""

EARLY_BYTES = 4 * MIB
"""The amount of new data after which the system is asked to begin writing to the disk."""

SMALL_FRAME_BYTES = 256 * KIB
"""For smaller frames, the system is asked to write early, so that the disk is not idle during encoding."""

SHARED_WRITE_BYTES = MIB
"""The minimum frame size for which the helper thread computes the checksum during the write."""

JOURNAL_FIRST_BYTES = 64 * KIB
"""The initial size of the journal. It is small, so that a dataset can be created on an almost full disk."""

JOURNAL_STEP_BYTES = 4 * MIB
"""The maximum number of bytes by which the journal grows in one step."""

# -- finishing -------------------------------------------------------------------------------------------

COPY_SHARE = 0.25
"""The fraction of a shard that must consist of unused holes before ``finish`` copies the shard.

Programs that copy a dataset may store holes as zeros. Copying a shard takes as long as
writing its frames again.
"""

COPY_BYTES = 4 * MIB
"""The amount of data that is copied in one step. A shard whose holes are smaller in total is not copied."""

# -- reading ---------------------------------------------------------------------------------------------

READ_RECORDS = 2**14
"""The number of journal records that are read and checked in one step. They take up 1 MiB."""

MAX_OPEN_FILES = 64
"""The maximum number of shards that are open for writing at the same time."""

MAX_OPEN_FILES_TO_READ = 256
"""The maximum number of shards that a reader keeps open. A million small frames are stored in 245 shards."""
