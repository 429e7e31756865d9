"""Packed files: gzip and zstd are unpacked as their bytes come. What lies before damage is yielded first."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from harness.errors import DataError
from harness.extras import require

PACKED = (".gz", ".zst")
CHUNK = 1 << 20  # bytes


def unpacked(chunks: Iterator[bytes], layers: int = 2) -> Iterator[bytes]:
    """Yield the bytes of a file without its packing, of so many layers, as the first bytes of each tell."""
    head, chunks = peek(chunks, 4)
    if layers and head.startswith(b"\x1f\x8b"):
        chunks = unpacked(_gunzip(chunks), layers - 1)
    elif layers and (head == b"\x28\xb5\x2f\xfd" or (head[:1] and head[0] >> 4 == 5 and head[1:] == b"\x2a\x4d\x18")):
        chunks = unpacked(_unzstd(chunks), layers - 1)
    yield from chunks


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip, of one member or several. What lies before damage is yielded to the last byte."""
    member = None
    for data in chunks:
        while data or member is not None:
            if member is None:
                data = data.lstrip(b"\0")  # padding, as on tapes
                if not data:
                    break
                member = zlib.decompressobj(wbits=31)
            before = member.copy()
            try:
                out = member.decompress(data, CHUNK)
            except zlib.error as error:
                yield from _salvaged(before, data)
                raise DataError(
                    f"the gzip data are damaged ({str(error).partition(': ')[2] or error}): what comes after this "
                    "cannot be read"
                ) from None
            if out:
                yield out
            if member.eof:
                data, member = member.unused_data, None
            else:
                data = member.unconsumed_tail
                if not data and len(out) < CHUNK:  # all of it is unpacked
                    break
    if member is not None:
        raise DataError("the gzip data end early: the file was cut off; copy or download it again")


def _salvaged(member: Any, data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        try:
            yield member.decompress(data[at : at + 1])
        except zlib.error:
            return


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack zstd, of one frame or several."""
    zstandard = require("zstandard", "data")
    # Few bytes of zstd can unpack to very many: in small steps, memory stays bounded.
    steps = (chunk[at : at + 4096] for chunk in chunks for at in range(0, len(chunk), 4096))
    frame = None
    held: list[bytes] = []
    failure: DataError | None = None
    try:
        for step in steps:
            data = step
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                held.append(frame.decompress(data))
                data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
            if sum(map(len, held)) >= CHUNK // 4:
                yield b"".join(held)
                held.clear()
    except DataError as error:
        failure = error
    except zstandard.ZstdError as error:
        reason = str(error).removeprefix("zstd decompressor error: ")
        failure = DataError(f"the zstd data are damaged ({reason}): what comes after this cannot be read")
    if any(held):
        yield b"".join(held)
    if failure is None and frame is not None:
        failure = DataError("the zstd data end early: the file was cut off; copy or download it again")
    if failure is not None:
        raise failure


def peek(chunks: Iterator[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, `size` of them or all there are, and an iterator over everything, those included.

    An error that comes after some bytes is kept until these have been read.
    """
    held: list[bytes] = []
    failure: list[DataError] = []
    length = 0
    while length < size:
        try:
            held.append(next(chunks))
            length += len(held[-1])
        except StopIteration:
            break
        except DataError as error:
            if not any(held):
                raise
            failure.append(error)
            break

    def again() -> Iterator[bytes]:
        yield from held
        if failure:
            raise failure[0]
        yield from chunks

    return b"".join(held)[:size], again()
