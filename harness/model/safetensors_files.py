"""Safetensors files by their header alone: https://huggingface.co/docs/safetensors, eight bytes of length and JSON."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import NamedTuple


class StoredTensor(NamedTuple):
    """A tensor of a file: its dtype as the format names it (`BF16`), its shape, and the place of its first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of the file by name.

    Raises:
        ValueError: where it is no safetensors file, or not all of one.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        return {
            name: StoredTensor(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(str(error)) from None
