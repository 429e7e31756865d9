"""Data: files to rows (`rows`), rows to conversations (`sources`), what happens to them (`prepare`), token ids (`encoded`)."""

from harness.data.content import digest_of, text_of, words_of
from harness.data.decontamination import Overlap, evaluation_texts
from harness.data.encoded import EncodedData, encode_data, encode_held_out, encode_sources
from harness.data.fields import LeftOut, shown, take
from harness.data.prepare import Account, Prepared, prepare
from harness.data.rows import read_rows, stop
from harness.data.sources import SourceReport, convert_row, load_conversations, load_source, messages_of

__all__ = [
    "Account",
    "EncodedData",
    "LeftOut",
    "Overlap",
    "Prepared",
    "SourceReport",
    "convert_row",
    "digest_of",
    "encode_data",
    "encode_held_out",
    "encode_sources",
    "evaluation_texts",
    "load_conversations",
    "load_source",
    "messages_of",
    "prepare",
    "read_rows",
    "shown",
    "stop",
    "take",
    "text_of",
    "words_of",
]
