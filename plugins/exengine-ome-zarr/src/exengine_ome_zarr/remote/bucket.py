"""The objects of a dataset in a store: verified uploads, conditional writes, range requests, and listing."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from exengine.errors import DatasetAccessError, DatasetDamagedError, ExEngineError
from exengine_ome_zarr.format import sizes
from exengine_ome_zarr.remote.addresses import check_url, connect, explain

PART_BYTES = 8 * sizes.MIB
"""The size of one part of a large upload. The store checks each part, and accepts up to 10,000 parts."""
PARTS_AT_ONCE = 3
"""The number of parts that are uploaded at the same time, and therefore held in memory."""


Tag = dict[str, str]
"""Identifies one version of an object by its ETag, its version ID, or both."""


@dataclass(frozen=True)
class Content:
    """The content of an object to upload. It can be read several times, so that an upload can be repeated.

    Attributes
    ----------
    size : int
        The number of bytes.
    pieces : callable
        Returns an iterator over the bytes, in pieces of at most :data:`PART_BYTES`.
    """

    size: int
    pieces: Callable[[], Iterator[bytes]]


def content_of(text: bytes) -> Content:
    """Wrap bytes as the content of an object."""
    return Content(len(text), lambda: iter((text,)))


class Bucket:
    """The objects below the URL of one dataset.

    Parameters
    ----------
    url : str

    Raises
    ------
    ConfigError, UnsupportedOperationError, DatasetAccessError
        If the URL cannot be used. No request is made.
    """

    def __init__(self, url: str) -> None:
        self.url = check_url(url)
        self._quick: Any = connect(self.url, patient=False)
        self._patient: Any = connect(self.url, patient=True)

    def _error(self, error: BaseException, what: str) -> ExEngineError:
        return error if isinstance(error, ExEngineError) else explain(error, self.url, what)

    # -- reading ---------------------------------------------------------------------------------

    def head(self, name: str) -> tuple[int, str | None] | None:
        """Return the size and the ETag of an object, or None if the object does not exist."""
        import obstore

        try:
            found = obstore.head(self._quick, name)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error(error, "be read") from None
        return found["size"], found["e_tag"]

    def get(self, name: str, most: int) -> tuple[bytes, Tag] | None:
        """Return the content and the version of a small object, or None if the object does not exist.

        Raises
        ------
        DatasetDamagedError
            If the object has more than ``most`` bytes.
        """
        import obstore

        try:
            found = obstore.get(self._quick, name)
            size = found.meta["size"]
            if size > most:
                raise DatasetDamagedError(f"{self.url}/{name} has {size} bytes; the limit is {most}")
            return bytes(found.bytes()), _tag_of(found.meta)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error(error, "be read") from None

    def read_range(self, name: str, offset: int, length: int) -> bytes | None:
        """Return bytes of an object (fewer if it is shorter), or None if there is no object."""
        import obstore

        if not length:
            return b""
        try:
            return bytes(obstore.get_range(self._patient, name, start=offset, length=length))
        except FileNotFoundError:
            return None
        except Exception as error:
            if "416" in str(error) or "InvalidRange" in str(error):
                return b""
            raise self._error(error, "be read") from None

    def read_end(self, name: str, length: int) -> bytes | None:
        """Return the last bytes of an object, or None if it does not exist."""
        import obstore

        try:
            found = obstore.get(self._patient, name, options={"range": {"suffix": length}})
            return bytes(found.bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._error(error, "be read") from None

    def objects(self) -> Iterator[tuple[str, int]]:
        """Yield the name and size of every object of the dataset."""
        import obstore

        try:
            for objects in obstore.list(self._quick, chunk_size=1000):
                for found in objects:
                    yield found["path"], found["size"]
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._error(error, "be listed") from None

    # -- writing ---------------------------------------------------------------------------------

    def put_if(self, name: str, text: bytes, unchanged: Tag | None) -> Tag | None:
        """Create an object, or replace it if it is unchanged.

        Parameters
        ----------
        name : str
        text : bytes
        unchanged : dict or None
            The version of the object to replace; None if the object must not exist yet.

        Returns
        -------
        dict or None
            The new version, or None if another process was faster.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if unchanged is None else unchanged
        try:
            return _tag_of(obstore.put(self._quick, name, text, mode=mode))
        except (AlreadyExistsError, PreconditionError):
            # The response to a first attempt may have been lost. In this case, the object already has the new
            # content.
            try:
                found = self.get(name, len(text))
            except DatasetDamagedError:  # the object is longer, so its content is different
                return None
            return found[1] if found is not None and found[0] == text else None
        except Exception as error:
            raise self._error(error, "be written") from None

    def put(self, name: str, content: Content) -> None:
        """Upload an object, and verify that the store has received it.

        Raises
        ------
        ExEngineError
            If the upload fails, or the store contains different data.
        """
        digests: list[bytes] = []
        try:
            tag = self._send(name, content, digests)
        except Exception as error:
            raise self._error(error, "be written") from None
        found = self.head(name)
        if found is None or found[0] != content.size:
            raise DatasetAccessError(
                f"{self.url}/{name} has {found[0] if found else 0} bytes, but {content.size} were uploaded"
            )
        if tag is None or found[1] != tag or tag.strip('"') != _expected_tag(digests):
            # In most stores, the ETag is an MD5 sum. If it is not, the object is read back.
            self._compare(name, content)

    def _send(self, name: str, content: Content, digests: list[bytes]) -> str | None:
        import obstore

        if content.size <= PART_BYTES:
            text = b"".join(content.pieces())
            digests.append(_md5(text))
            return obstore.put(self._patient, name, text, use_multipart=False)["e_tag"]

        def parts() -> Iterator[bytes]:
            for part in _in_parts(content.pieces()):
                digests.append(_md5(part))
                yield part

        return obstore.put(
            self._patient,
            name,
            parts(),
            use_multipart=True,
            chunk_size=PART_BYTES,
            max_concurrency=PARTS_AT_ONCE,
        )["e_tag"]

    def _compare(self, name: str, content: Content) -> None:
        """Read an object back, and compare it with the content that was sent."""
        at = 0
        for piece in content.pieces():
            if self.read_range(name, at, len(piece)) != piece:
                raise DatasetAccessError(f"{self.url}/{name} differs from the content that was uploaded")
            at += len(piece)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects. Those that do not exist are ignored."""
        import obstore

        if not names:
            return
        try:
            obstore.delete(self._patient, list(names))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._error(error, "be deleted") from None


def _tag_of(found: Any) -> Tag:
    return {key: found[key] for key in ("e_tag", "version") if found[key] is not None}


def _md5(text: bytes) -> bytes:
    return hashlib.md5(text, usedforsecurity=False).digest()


def _expected_tag(digests: Sequence[bytes]) -> str:
    """Return the ETag that S3 assigns to an object if its upload consists of parts with these MD5 sums."""
    if len(digests) == 1:
        return digests[0].hex()
    return f"{_md5(b''.join(digests)).hex()}-{len(digests)}"


def _in_parts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of the pieces as parts to upload, all of the same size except the last."""
    waiting = bytearray()
    for piece in pieces:
        if not waiting and len(piece) == PART_BYTES:
            yield piece
            continue
        waiting += piece
        while len(waiting) >= PART_BYTES:
            yield bytes(waiting[:PART_BYTES])
            del waiting[:PART_BYTES]
    if waiting:
        yield bytes(waiting)
