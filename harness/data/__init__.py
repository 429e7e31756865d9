"""Data: files to rows (`rows`), rows to conversations (`sources`), conversations to token ids (`encoded`)."""

from harness.data.encoded import EncodedData, encode_sources
from harness.data.fields import shown, take
from harness.data.rows import read_rows, stop
from harness.data.sources import SourceReport, convert_row, load_conversations, load_source

__all__ = [
    "EncodedData",
    "SourceReport",
    "convert_row",
    "encode_sources",
    "load_conversations",
    "load_source",
    "read_rows",
    "shown",
    "stop",
    "take",
]
