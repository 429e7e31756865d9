"""Data: files to rows (`rows`), rows to conversations (`sources`), what happens to them (`prepare`), token ids (`encoded`)."""

from harness.data.convert.fields import LeftOut, take
from harness.data.convert.sources import SourceReport, convert_row, load_conversations, load_source, messages_of
from harness.data.encode.encoder import EncodedData, encode_data, encode_held_out, encode_sources
from harness.data.prepare.content import digest_of, text_of, words_of
from harness.data.prepare.decontamination import Overlap, evaluation_texts
from harness.data.prepare.pipeline import Account, Prepared, prepare
from harness.data.read.formats import read_rows, stop
from harness.errors import shown

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
