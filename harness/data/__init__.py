"""Data in four steps: from bytes to rows (`read`), conversations (`convert`), a mixture (`prepare`), ids (`encode`)."""

from harness.data.convert.accounting import UnreadError, within
from harness.data.convert.conversion import convert_row
from harness.data.convert.fields import LeftOut, OtherKindError, is_true_or_false, take
from harness.data.convert.sources import load_source
from harness.data.encode.encoder import EncodedData, encode_data, encode_held_out, encode_sources
from harness.data.encode.reader import Reader
from harness.data.prepare.content import digest_of, text_of, words_of
from harness.data.prepare.decontamination import evaluation_texts
from harness.data.prepare.pipeline import Prepared, begin_report, prepare_items
from harness.data.read.formats import raise_error, read_rows
from harness.data.reports import DataReport, Overlap, SourceReport
from harness.errors import shown
from harness.nouns import messages_of

__all__ = [
    "DataReport",
    "EncodedData",
    "LeftOut",
    "OtherKindError",
    "Overlap",
    "Prepared",
    "Reader",
    "SourceReport",
    "UnreadError",
    "begin_report",
    "convert_row",
    "digest_of",
    "encode_data",
    "encode_held_out",
    "encode_sources",
    "evaluation_texts",
    "is_true_or_false",
    "load_source",
    "messages_of",
    "prepare_items",
    "raise_error",
    "read_rows",
    "shown",
    "take",
    "text_of",
    "within",
    "words_of",
]
