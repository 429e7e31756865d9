"""Reading files: every kind, packed or not, gives the same rows; damage is named, and nothing is lost in silence."""

import csv
import gzip
import io
import json
import os
import re
import threading
import zlib

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import harness
from harness.data import load_source, read_rows
from harness.data.convert.cells import writes_line_ends
from harness.data.read import jsontext, storage, tables
from harness.data.read.storage import files_of
from harness.errors import MissingExtraError
from harness.plugins import Plugins
from harness.recipe import DataSource

ROWS = [{"question": f"What is {n}?\n\nSay “{n}”.", "answer": f'{n}, "\U0001f642".' * n} for n in range(1, 40)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def as_table(rows, delimiter=",", **options):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n", **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_plain_tsv(rows):
    lines = ["\t".join(rows[0]), *("\t".join(row.values()).replace("\n", "\\n") for row in rows)]
    return "".join(line + "\n" for line in lines).encode()


def as_parquet(rows):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(
        pyarrow.Table.from_pylist(rows), out, row_group_size=10, compression="none", write_page_checksum=True
    )
    return out.getvalue()


def as_zstd(content):
    return pytest.importorskip("zstandard").compress(content)


def as_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


KINDS = {
    "jsonl": as_jsonl,
    "json": lambda rows: json.dumps(rows, indent=1, ensure_ascii=False).encode(),
    "one line.json": lambda rows: json.dumps(rows).encode(),
    "keyed.json": lambda rows: json.dumps({f"q{n}": row for n, row in enumerate(rows)}, indent=2).encode(),
    "one after the other.json": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows).encode(),
    "csv": as_table,
    "quoted.tsv": lambda rows: as_table(rows, "\t"),
    "tsv": as_plain_tsv,
    "parquet": as_parquet,
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": as_zstd}


def outcome(path, **options):
    """The rows of a file, and what it is refused for; every error names the file."""
    errors: list[harness.DataError] = []
    rows = list(read_rows(path, errors.append, **options))
    assert all(str(error).startswith(str(path)) and error.path == str(path) for error in errors)
    assert all(isinstance(row, dict) for _, row in rows)
    return rows, errors


@pytest.fixture
def put(tmp_path):
    def write(content, name="rows.jsonl"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# Formats


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_rows(kind, packed, put):
    content = PACKERS[packed](KINDS[kind](ROWS))
    rows, errors = outcome(put(content, f"rows.{kind}{packed}"), unescape_newlines=kind == "tsv")
    wanted = [{"id": f"q{n}"} | row for n, row in enumerate(ROWS)] if kind == "keyed.json" else ROWS
    assert ([row for _, row in rows], errors) == (wanted, [])
    assert kind in ("jsonl", "csv", "quoted.tsv", "tsv") or [number for number, _ in rows] == list(range(1, 40))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "keyed.json"])
@pytest.mark.parametrize("packed", PACKERS)
def test_the_content_decides_where_the_name_says_nothing_or_something_else(kind, packed, put):
    content = PACKERS[packed](KINDS[kind](ROWS))
    for name in ("rows", "rows.dat", *([] if kind == "csv" else ["rows.json.gz"])):
        rows, errors = outcome(put(content, name))
        assert len(rows) == len(ROWS) and not errors


def test_packed_data_may_have_several_parts_and_padding(put):
    line = as_jsonl(ROWS[:1])
    assert len(outcome(put(gzip.compress(line) + gzip.compress(line) + b"\0" * 512, "a.jsonl.gz"))[0]) == 2
    skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    assert len(outcome(put(skipped + as_zstd(line) + as_zstd(line), "a.jsonl.zst"))[0]) == 2
    assert len(outcome(put(gzip.compress(as_zstd(line)), "a"))[0]) == 1


@pytest.mark.parametrize("kind", ["jsonl", "json", "keyed.json", "csv", "tsv", "quoted.tsv"])
def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(kind, put):
    content = KINDS[kind]([{"a": "1", "b": "é"}, {"a": "2", "b": "ü"}]).replace(b"\n", b"\r\n")
    rows, errors = outcome(put(b"\xef\xbb\xbf" + content, f"rows.{kind}"))
    assert [(row["a"], row["b"]) for _, row in rows] == [("1", "é"), ("2", "ü")] and not errors


def test_one_object_is_one_row_and_an_object_of_objects_is_one_row_each(put):
    assert outcome(put('{\n "a": {"b": 1},\n "c": 2\n}', "a.json"))[0] == [(1, {"a": {"b": 1}, "c": 2})]
    assert outcome(put('{"a": {"b": 1}, "c": {"id": 7}}', "a.json"))[0] == [(1, {"id": "a", "b": 1}), (2, {"id": 7})]
    assert outcome(put('{"a": {"b": 1}}', "a.jsonl"))[0] == [(1, {"a": {"b": 1}})]
    assert outcome(put("{}", "a.json"))[0] == [(1, {})]
    many = {f"k{n}": {"n": n} for n in range(200)}
    rows, (error,) = outcome(put(json.dumps(many | {"k100": 3, "k101": {"n": -1}}), "a.json"))
    assert len(rows) == 199 and (error.row, error.reason) == (101, "a row should be an object, found 3")


def test_values_round_trip_as_json_reads_them(put):
    row = {"nan": float("inf"), "big": 10**400, "text": "\u2028\x85\x00", "é": [None, True, 1e-9, {}], "": -0.0}
    for name, content in (("a.jsonl", json.dumps(row)), ("a.json", json.dumps([row], indent=1))):
        ((_, read),) = outcome(put(content, name))[0]
        assert repr(read) == repr(row)
    ((_, read),) = outcome(put('{"a": NaN}'))[0]
    assert read["a"] != read["a"]


def test_a_key_that_comes_twice_is_refused_unless_it_says_the_same(put):
    for name, content in (
        ("a.jsonl", '{"a": 1}\n{"x": {"a": 1, "a": 2}}\n{"a": 3, "a": 3}\n'),
        ("a.json", '[{"a": 1}, {"x": {"a": 1, "a": 2}}, {"a": 3, "a": 3}]'),
        ("b.json", '{"a": 1}\n{"x": {"a": 1, "a": 2}}\n{"a": 3, "a": 3}\n'),
    ):
        rows, (error,) = outcome(put(content, name))
        assert rows == [(1, {"a": 1}), (3, {"a": 3})] and error.row == 2
        assert "the key 'a' comes twice, as 1 and as 2" in str(error)
    _, (error,) = outcome(put('{\n"a": 1,\n"a": 2}', "c.json"))
    assert "the key 'a' comes twice" in str(error)


def test_values_across_the_pieces_in_which_a_file_is_read_stay_whole(put, monkeypatch):
    rows = [{"text": 'é\\"\n🙂' * n, "n": [1.5e10, -12, True, None]} for n in range(30)]
    for size in (1, 3, 64):
        monkeypatch.setattr(storage, "CHUNK", size)
        for name, content in (
            ("a.json", json.dumps(rows)),
            ("a.jsonl", "\n".join(map(json.dumps, rows))),
            ("b.json", json.dumps({str(n): row for n, row in enumerate(rows)}, ensure_ascii=False, indent=1)),
        ):
            for pack in (bytes, gzip.compress):
                read, errors = outcome(put(pack(content.encode()), name))
                assert [{key: row[key] for key in ("text", "n")} for _, row in read] == rows and not errors


def test_a_row_may_be_long(put):
    text = "é" * 50_000_000
    for name, content in (
        ("a.jsonl", '{"a": "%s"}\n{"a": 2}'),
        ("a.json", '[{"a": "%s"}, {"a": 2}]'),
        ("a.csv", 'a,b\n"%s",1\n2,2'),
    ):
        (first, second), errors = outcome(put(content % text, name))
        assert first[1]["a"] == text and str(second[1]["a"]) == "2" and not errors


# Tables


@pytest.mark.parametrize(
    ("name", "content", "names", "count"),
    [
        ("a.csv", "question,answer\nWho?,Me\n", ["question", "answer"], 1),
        ("a.csv", "Who is it?,Me and you.\nWhere?,Here\n", ["1", "2"], 2),
        ("a.csv", "good film,positive\nnice,positive\n", ["1", "2"], 2),  # a name does not come again below itself
        ("a.csv", "12,yes\n13,no\n", ["1", "2"], 2),
        ("a.csv", ",question,answer\n0,Who?,Me\n", ["1", "question", "answer"], 1),  # pandas' index
        ("a.csv", "question;answer\nWho, then?;Me\n", ["question", "answer"], 1),
        ("a.csv", "text\nWho?\n", ["text"], 1),
        ("a.csv", "a,a\nb,c\n", ["1", "2"], 2),
        ("a.tsv", '"Who?"\\nAnswer.\tme\nNo\tyou\n', ["1", "2"], 2),
        ("a.tsv", "input\ttarget\nWho?\t\n", ["input", "target"], 1),
        ("table", "input\ttarget\nWho?\tMe\n", ["input", "target"], 1),
        ("table.txt", "input,target\nWho?,Me", ["input", "target"], 1),
    ],
)  # fmt: skip
def test_a_header_is_known_by_rule(name, content, names, count, put):
    rows, errors = outcome(put(content, name))
    assert [list(row) for _, row in rows] == [names] * count and not errors


def test_a_tsv_keeps_its_quotes_unless_it_quotes_as_a_csv_does(put):
    plain = '"Is it so?"\\nSay yes or no.\tno\tSays "who".\n"yes"\tyes\t"\n'
    assert [row["1"] for _, row in outcome(put(plain, "a.tsv"))[0]] == ['"Is it so?"\\nSay yes or no.', '"yes"']
    quoted = 'q\ta\n"one\n""two""\tthree"\t\\neq\n'
    assert outcome(put(quoted, "a.tsv"))[0] == [(2, {"q": 'one\n"two"\tthree', "a": "\\neq"})]
    long = "q\ta\n" + '"one\ntwo\nthree"\tx\n' * 150
    rows, errors = outcome(put(long, "a.tsv"))
    assert (len(rows), rows[-1], errors) == (150, (449, {"q": "one\ntwo\nthree", "a": "x"}), [])


LATEX = "instruction\toutput\nIs $a \\neq b$ where $\\nabla f = 0$?\tYes, and $\\nu = 2$; see C:\\new\\notes.txt\n"


def test_a_backslash_and_an_n_stay_as_they_are_unless_a_source_asks_for_line_ends(put):
    path = put(LATEX, "a.tsv")
    ((_, row),) = read_rows(path)
    assert row["instruction"] == r"Is $a \neq b$ where $\nabla f = 0$?"
    assert row["output"] == r"Yes, and $\nu = 2$; see C:\new\notes.txt"
    ((_, row),) = read_rows(path, unescape_newlines=True)
    assert row["instruction"].startswith("Is $a \neq b$")


def test_objects_of_a_parquet_file_have_no_field_that_arrow_padded_them_with(put):
    tools = [{"name": "weather", "arguments": {"city": "Lima"}}, {"name": "time", "arguments": {"zone": "UTC"}}]
    rows = [{"calls": [tool], "note": None, "kept": [None, {"a": [{"b": 1}, {"c": None}]}]} for tool in tools]
    read = [row for _, row in read_rows(put(as_parquet(rows), "a.parquet"))]
    assert [row["calls"] for row in read] == [[tool] for tool in tools]
    assert all(row["note"] is None and row["kept"] == [None, {"a": [{"b": 1}, {}]}] for row in read)
    (_, plain), *_ = read_rows(put(json.dumps({"arguments": {"city": None}}), "a.jsonl"))
    assert plain == {"arguments": {"city": None}}  # in JSON null was written by somebody


def test_a_wrong_row_of_a_table_costs_only_itself(put):
    content = b'a,b\n1,2\n3\n4,5,6\n"7\n8",9\n\x00,1\n\xff,1\n"x"y,2\n"open,3\n10,11\n'
    rows, errors = outcome(put(content, "a.csv"))
    assert rows == [(2, {"a": "1", "b": "2"}), (5, {"a": "7\n8", "b": "9"}), (11, {"a": "10", "b": "11"})]
    assert [error.row for error in errors] == [3, 4, 7, 8, 9, 10]
    for error, told in zip(
        errors, ["1 cells, where the header, 'a,b', has 2", "3 cells", "NUL", "not UTF-8", "expected after",
                 "not closed"],
        strict=True,
    ):  # fmt: skip
        assert told in error.reason


def test_quotes_that_never_close_take_no_long_time(put):
    lines = 20_000
    content = "a,b\n" + '5" x,"a\n' * lines
    rows, errors = outcome(put(content, "a.csv"))
    assert not rows and errors


def test_a_table_that_is_damaged_in_its_first_line_still_gives_its_rows(put):
    rows, errors = outcome(put(b"\xffquestion,answer\nWho?,Me\n", "a.csv"))
    assert [error.row for error in errors] == [1] and rows == [(2, {"1": "Who?", "2": "Me"})]


# Damage

DEEP = "[" * 100_000
BAD = {
    "UTF-16": ('{"a": "é"}'.encode("utf-16"), "not UTF-8 text (byte 0: the byte order mark of UTF-16)"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "as of UTF-16"),
    "big-endian UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-be"), "as of UTF-16"),
    "UTF-32": ('{"a": 1}'.encode("utf-32"), "byte order mark of UTF-32"),
    "Latin-1 list": ('[{"a": 1},\n{"a": "é"}]'.encode("latin-1"), ", row 2: not UTF-8 text (byte 18: "),
    "only NUL bytes": (bytes(10_000), "NUL bytes where rows should be"),
    "bzip2": (b"BZh91AY&SYabcdefgh", "packed with bzip2: unpack it"),
    "a workbook": (b"PK\x03\x04 ...", "save the sheet as CSV"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "a page": (b"\n<!DOCTYPE html><html>", "a web page in place of the data"),
    "Arrow": (b"ARROW1\0\0", "write it as Parquet"),
    "gzip cut off": (gzip.compress(as_jsonl(ROWS))[:-9], "the gzip data end early"),
    "gzip flipped": (gzip.compress(b'{"a": 1}\n' * 9)[:-8] + b"12345678", ", row 10: the gzip data are damaged"),
    "deep list": ("[" + '{"a": 1},' + DEEP, ", row 2: line 1, column 11: the JSON cannot be read"),
    "deep object": ('{\n"a":' * 100_000, "the JSON cannot be read"),
    "deep line": ('{"a": 1}\n{"a": ' + DEEP + "]" * 100_000 + "}", ", row 2: the JSON cannot be read"),
    "list cut off": ('[{"a": 1}, {"a": "tr', ", row 2: line 1, column 18: not valid JSON"),
    "list never closed": ('[{"a": 1}', "expected ',' or ']', found the end of the file: it was cut off"),
    "text after a list": ('[{"a": 1}]\n{"a": 2}', "line 2, column 1: text after the end of the list"),
    "comma missing": ('[{"a": 1}\n {"a": 2}]', "line 2, column 2: not valid JSON: expected ',' or ']', found '{"),
    "comma too many": ('[{"a": 1},\n]', "line 2, column 1: not valid JSON: Expecting value"),
    "key without quotes": ("{\n a: 1}", "expected a key in double quotes"),
    "a number too long": ('[{"a": 1}, {"a": %s}, {"a": 2}]' % ("9" * 5000), ", row 2: line 1, column 12: "),
    "a list a line": ("[1]\n[2]", ", row 1: a row should be an object, found [1]"),
    "a torn emoji": (b'[{"a": "\xf0\x9f', "unexpected end of data, on line 1"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_is_told(kind, put):
    content, told = BAD[kind]
    _, errors = outcome(put(content))
    assert told in str(errors[0])


def test_rows_around_a_wrong_one_and_before_damage_are_given(put):
    rows, errors = outcome(put(b'{"a": 1}\n{"a": "\xe9"}\n{"a": \n[]\n{"a": 5}'))
    assert [number for number, _ in rows] == [1, 5] and [error.row for error in errors] == [2, 3, 4]
    content = b"".join(b'{"a": %d}\n' % n for n in range(100_000))
    damaged = bytearray(gzip.compress(content))
    damaged[-8] ^= 1  # the checksum at the very end
    rows, (error,) = outcome(put(bytes(damaged), "rows.jsonl.gz"))
    assert len(rows) == 100_000 and "damaged" in error.reason
    rows, (error,) = outcome(put(b"[" + content.replace(b"\n", b",") + b"\xff]", "rows.json"))
    assert len(rows) == 100_000 and error.row == 100_001 and "not UTF-8" in error.reason


def test_parquet_that_is_damaged_gives_all_but_the_damaged_row_group(put):
    whole = as_parquet(ROWS)
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        rows, (error,) = outcome(put(whole[:cut], "rows.parquet"))
        assert not rows and "Parquet" in error.reason
    damaged = whole.replace(b"What is 25?", b"What is 26?")
    assert damaged != whole
    rows, (error,) = outcome(put(damaged, "rows.parquet"))
    assert [row for _, row in rows] == ROWS[:20] + ROWS[30:] and [number for number, _ in rows][20] == 31
    assert error.row == 21 and "rows 21 to 30 cannot be read: the Parquet file is damaged" in error.reason


def test_what_is_no_readable_file_is_told(tmp_path):
    for path, told in (
        (tmp_path / "gone", "no such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "nul\0", "no such file"),
        ("/dev/zero", "a pipe or device"),
    ):
        _, (error,) = outcome(path)
        assert told in str(error)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "a pipe or device" in str(outcome(tmp_path / "pipe.jsonl")[1][0])
    (tmp_path / "empty").touch()
    assert outcome(tmp_path / "empty") == ([], [])
    (tmp_path / "empty.jsonl.gz").touch()
    assert "too short to be packed" in str(outcome(tmp_path / "empty.jsonl.gz")[1][0])


@pytest.mark.parametrize(
    ("name", "begin"), [("r.jsonl", '{"text": "'), ("r.json", '[{"text": "'), ("r.csv", 'text\n"'), ("r.txt", "")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_without_end_is_given_up(name, begin, packed, put, monkeypatch):
    for module in (jsontext, tables):
        monkeypatch.setattr(module, "MAX_ROW", 3 << 20)
    text = (begin + "a" * (8 << 20)).encode()
    rows, (error,) = outcome(put(gzip.compress(text) if packed else text, name))
    assert rows == [] and re.search("of more than 3 MiB|neither JSON, JSONL, CSV", str(error)), error


def test_a_long_line_is_read(put):
    text = "so " * 5_000_000
    rows, errors = outcome(put((json.dumps({"text": text}) + "\n") * 2))
    assert [row["text"] == text for _, row in rows] == [True, True] and errors == []


def test_a_missing_package_is_named_with_the_extra(put, monkeypatch):
    import importlib

    def absent(name):
        raise ModuleNotFoundError(name=name.split(".")[0])

    contents = {"a.jsonl.zst": as_zstd(b"{}"), "a.parquet": as_parquet(ROWS)}
    monkeypatch.setattr(importlib, "import_module", absent)
    for name, content in contents.items():
        with pytest.raises(MissingExtraError, match=r"instruct-harness\[data\]"):
            list(read_rows(put(content, name)))
    for where in ("s3://bucket/a.jsonl", "memory://a.jsonl"):
        with pytest.raises(MissingExtraError, match=r"instruct-harness\[data\]"):
            files_of(where)


# Layouts

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
LAYOUTS = {
    "columns of texts": ({"text": ["a", "b"], "n": [1, 2]}, [{"text": "a", "n": 1}, {"text": "b", "n": 2}]),
    "pandas' columns": ({"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}},
                        [{"text": "a", "n": 1}, {"text": "b", "n": 2}]),
    "a viewer's export": (
        {"features": [], "rows": [{"row_idx": 0, "row": {"text": "a"}, "truncated_cells": []}], "num_rows_total": 1},
        [{"text": "a"}],
    ),
    "one row with lists of one length": ({"messages": TALK, "tools": [{}, {}]},
                                         [{"messages": TALK, "tools": [{}, {}]}]),
    "one row with lists of two lengths": ({"text": ["a", "b"], "n": [1]}, [{"text": ["a", "b"], "n": [1]}]),
    "rows by their keys": ({"x": {"text": "a"}, "y": {"text": "b"}},
                           [{"id": "x", "text": "a"}, {"id": "y", "text": "b"}]),
    "rows by keys, with other columns": ({"x": {"1": "a"}, "y": {"2": "b"}},
                                         [{"id": "x", "1": "a"}, {"id": "y", "2": "b"}]),
    "lists of messages": ([TALK, TALK], [{"messages": TALK}, {"messages": TALK}]),
    "lists of turns": ([TURNS], [{"conversations": TURNS}]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_in_another_layout(name, put):
    """A JSON file may hold its rows otherwise than an object each, on one line or on many."""
    content, wanted = LAYOUTS[name]
    for text in (json.dumps(content), json.dumps(content, indent=1)):
        rows, errors = outcome(put(text, "rows.json"))
        assert [row for _, row in rows] == wanted and errors == []


def test_lists_of_messages_a_line(put):
    rows, errors = outcome(put(f"{json.dumps(TALK)}\n{json.dumps(TALK)}\n", "rows.jsonl"))
    assert [row for _, row in rows] == [{"messages": TALK}] * 2 and errors == []


@pytest.mark.parametrize(
    "content",
    [
        {"rows": [{"row_idx": 0, "row": {"text": "a"}}], "system": "Be kind."},
        {"rows": [{"row_idx": 0, "row": {"text": "a"}, "note": "Be kind."}]},
        {"columns": ["answer"], "index": ["Be kind?"], "data": [["Yes."]]},
    ],
)
def test_a_layout_with_a_text_beside_the_rows_is_not_taken_for_rows(content, put):
    rows, errors = outcome(put(json.dumps(content), "rows.json"))
    assert [row for _, row in rows] == [content] and errors == []


def test_cells_that_the_viewer_cut_off_are_an_error(put):
    rows = [{"row_idx": n, "row": {"text": "a"}, "truncated_cells": cut} for n, cut in enumerate(([], ["text"]))]
    read, (error,) = outcome(put(json.dumps({"rows": rows}), "rows.json"))
    assert [row for _, row in read] == [{"text": "a"}] and "has cut off the cells text" in error.reason


@pytest.mark.parametrize("name", ["one.md", "one.txt"])
@pytest.mark.parametrize("text", ["# Title\n\nHello, world.\nBye, world.\n", "[Verse]\nLa la, la.\n"])
def test_a_text_is_one_row(name, text, put):
    assert outcome(put(text, name)) == ([(1, {"text": text})], [])


def test_a_folder_of_texts_is_read_without_what_is_about_it(tmp_path):
    for name in ("b.md", "a.txt", "README.md", "LICENSE.txt", "sub/c.txt", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [os.path.relpath(path, tmp_path) for path in files_of(str(tmp_path))] == ["a.txt", "b.md", "sub/c.txt"]
    assert storage.passed_over(str(tmp_path)) == ["LICENSE.txt", "README.md", "picture.png"]
    (tmp_path / "rows.jsonl").touch()
    assert [os.path.relpath(path, tmp_path) for path in files_of(str(tmp_path))] == ["rows.jsonl"]


# Where they lie


def test_folders_and_globs_give_their_files_in_order(tmp_path):
    for name in (
        "b.jsonl",
        "a.json.gz",
        "sub/c.parquet",
        "sub/README.md",
        ".hidden/d.json",
        ".e.json",
        "f.TSV",
        "notes.txt",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = lambda found: [os.path.relpath(path, tmp_path) for path in found]  # noqa: E731
    assert named(files_of(str(tmp_path))) == ["a.json.gz", "b.jsonl", "f.TSV", "sub/c.parquet"]
    assert named(files_of(f"file://{tmp_path}")) == ["a.json.gz", "b.jsonl", "f.TSV", "sub/c.parquet"]
    assert named(files_of(f"{tmp_path}/*.json*")) == ["a.json.gz", "b.jsonl"]
    assert named(files_of(f"{tmp_path}/**/*.parquet")) == ["sub/c.parquet"]
    assert named(files_of(f"{tmp_path}/s**")) == ["sub/c.parquet"]
    assert named(files_of(f"{tmp_path}/sub/**")) == ["sub/README.md", "sub/c.parquet"]
    assert named(files_of(f"{tmp_path}/s*")) == ["sub/c.parquet"]
    assert named(files_of(str(tmp_path / "notes.txt"))) == ["notes.txt"]
    (tmp_path / "a[1].json").touch()
    assert named(files_of(str(tmp_path / "a[1].json"))) == ["a[1].json"]


def test_a_place_without_files_says_what_is_there(tmp_path):
    (tmp_path / "README.md").touch()
    (tmp_path / "rows.jsonn").touch()
    for where, told in (
        (
            tmp_path,
            r"no data files in this folder\. It holds: README\.md, rows\.jsonn\. Files are taken that end in \.json",
        ),
        (tmp_path / "rows.json", r"no such file\. Did you mean 'rows\.jsonn'\?"),
        (tmp_path / "*.jsonl", r"no file matches this pattern"),
        (tmp_path / "gone" / "a.json", r"no such file: there is no folder .*gone"),
        ("memory://nothing/a.jsonl", "no such file"),
        ("x" * 5000, "cannot be read: File name too long"),
        (" ", "the path is empty"),
        ("nosuch://a/b", "cannot be read: .*nosuch"),
    ):
        with pytest.raises(harness.DataError, match=told):
            files_of(str(where))


@pytest.mark.parametrize("where", ["caf\udce9.csv", "caf*"])
def test_a_file_whose_name_is_no_utf8_is_told(tmp_path, where):
    (tmp_path / "caf\udce9.csv").touch()  # a name in Latin-1
    with pytest.raises(harness.DataError, match="its name is not UTF-8 text"):
        files_of(str(tmp_path / where))


def test_urls_are_read_through_fsspec():
    memory = pytest.importorskip("fsspec").filesystem("memory")
    memory.pipe("/reading/a.jsonl", as_jsonl(ROWS))
    memory.pipe("/reading/b/c.parquet", as_parquet(ROWS))
    memory.pipe("/reading/b/README.md", b"")
    assert files_of("memory://reading/a.jsonl") == ["memory://reading/a.jsonl"]
    assert files_of("memory://reading") == ["memory:///reading/a.jsonl", "memory:///reading/b/c.parquet"]
    assert files_of("memory://reading/*.jsonl") == ["memory:///reading/a.jsonl"]
    for path in files_of("memory://reading"):
        assert [row for _, row in outcome(path)[0]] == ROWS
    memory.pipe("/reading/bad.json.gz", gzip.compress(b'[{"a": 1}, ')[:-4])
    rows, (error,) = outcome("memory://reading/bad.json.gz")
    assert rows == [(1, {"a": 1})] and "end early" in error.reason


def test_http_is_read_as_it_comes():
    pytest.importorskip("aiohttp")
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path.startswith("/rows.jsonl?")
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(as_jsonl(ROWS) if found else b"")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (path,) = files_of(f"{url}/rows.jsonl?download=true")
        assert [row for _, row in outcome(path)[0]] == ROWS
        _, (error,) = outcome(f"{url}/gone.jsonl")
        assert "404" in error.reason
        server.shutdown()
    assert "cannot be read" in str(outcome(f"{url}/rows.jsonl")[1][0])


@pytest.mark.parametrize(
    ("where", "revision", "told"),
    [
        (
            "hub://owner/name",
            None,
            "needs a pinned revision.*40 hexadecimal digits.*path: hub://owner/name, revision: ",
        ),
        ("hub://owner/name", "main", "'main' is no commit: a branch or tag can be moved"),
        ("hub://name", COMMIT, "not a hub dataset: write hub://owner/name"),
        ("hub://owner/name?spilt=test", COMMIT, r"unknown option 'spilt=test'\. Did you mean 'split'\?"),
        (f"hub://owner/name?revision={COMMIT}", COMMIT[::-1], "two revisions"),
        ("rows.jsonl", COMMIT, "`revision` pins a hub dataset"),
    ],
)
def test_a_hub_data_set_is_pinned(where, revision, told):
    with pytest.raises(harness.DataError, match=told):
        files_of(where, revision)


def test_a_hub_data_set_is_streamed(tmp_path, monkeypatch):
    """`datasets` reads a folder as it reads the hub, so a folder stands in for it; the rest is the real thing."""
    pytest.importorskip("datasets")
    from harness.data.read import formats as reading

    folder = tmp_path / "name"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(as_jsonl(ROWS))
    (folder / "test.jsonl").write_bytes(as_jsonl(ROWS[:3]))
    monkeypatch.setattr(reading, "_hub_path", {"owner/name": str(folder)}.__getitem__)
    (address,) = files_of("hub://owner/name", COMMIT)
    assert address == f"hub://owner/name?split=train&revision={COMMIT}"
    assert [row for _, row in outcome(address)[0]] == ROWS
    (address,) = files_of("hub://owner/name/default?split=test", COMMIT)
    assert [row for _, row in outcome(address)[0]] == ROWS[:3]
    (address,) = files_of("hub://owner/name?split=tset", COMMIT)
    _, (error,) = outcome(address)
    assert "tset" in error.reason
    (folder / "train.jsonl").write_bytes(as_jsonl(ROWS) + b"{")
    _, (error,) = outcome(files_of("hub://owner/name", COMMIT)[0])
    assert "cannot be read" in error.reason

    source = DataSource(
        dataset="text",
        path="hub://owner/name?split=test",
        revision=COMMIT,
        columns={"text": "answer"},
        unread=tuple(key for key in ROWS[0] if key != "answer"),
    )
    assert [item.messages[0].content for item in load_source(source, Plugins().datasets)] == [
        row["answer"] for row in ROWS[:3]
    ]


def test_a_hub_that_is_not_reached_is_told(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    (address,) = files_of("hub://nobody-at-all/nothing", COMMIT)
    rows, (error,) = outcome(address)
    assert not rows and error.reason.startswith("the hub dataset cannot be read: ")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nobody-at-all" / "nothing").mkdir(parents=True)
    assert "a folder nobody-at-all/nothing is here" in str(outcome(address)[1][0])


# Anything at all

some = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
FEW = ROWS[:4]


def accounted(rows, errors, wanted):
    """Whether every row is there, or else something was said."""
    return errors or [row for _, row in rows] == wanted


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "keyed.json", "one after the other.json", "csv", "parquet"])
def test_a_file_cut_off_anywhere_gives_the_rows_before_the_cut_or_says_so(kind, packed, put):
    rows = [{"question": f"q{n}", "answer": "é\n" * n} for n in range(3)]
    whole = KINDS[kind](rows)
    content = PACKERS[packed](whole)
    complete = [row for _, row in outcome(put(whole, f"rows.{kind}"))[0]]
    assert len(complete) == len(rows)
    begin = whole.index(b"\n") + 1 if kind == "csv" and not packed else 1  # a cut header is another header
    for cut in range(begin, len(content), 7 if kind == "parquet" else 1):
        found, errors = outcome(put(content[:cut], f"rows.{kind}{packed}"))
        found = [row for _, row in found]
        if kind == "csv" and not packed:  # a cut within the last cell, or after one in quotes, is not to be seen
            assert found[:-1] == complete[: len(found[:-1])]
            assert errors or len(found) == content[:cut].count(b"\nq")
        elif kind in ("jsonl", "one after the other.json") and not packed:  # nor is one between rows
            assert found == complete[: len(found)]
            assert errors or content[:cut].rstrip().endswith(b"}")
        else:
            assert found == complete[: len(found)] and (errors or found == complete)


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_gives_rows_or_errors(kind, packed, put):
    content = PACKERS[packed](KINDS[kind](FEW))

    @some
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, len(content) - 1), st.integers(0, 2), st.binary(max_size=3)),
            min_size=1,
            max_size=4,
        )
    )
    def check(changes):
        mutated = content
        for at, gone, new in changes:
            mutated = mutated[:at] + new + mutated[at + gone :]
        rows, errors = outcome(put(mutated, f"rows.{kind}{packed}"))
        if packed == ".gz" and mutated[10:] != content[10:] and len(mutated) > 10:  # all but the header is checked
            assert errors or [{k: r[k] for k in FEW[0]} for _, r in rows] == FEW
        if kind == "jsonl" and not packed:
            lines = [line for line in mutated.split(b"\n") if line.strip(b" \t\r")]
            assert len(rows) + len(errors) == len(lines) or len(errors) == 1

    check()


@some
@given(
    content=st.binary(max_size=300),
    name=st.sampled_from(["a", "a.json", "a.jsonl", "a.csv", "a.tsv", "a.json.gz", "a.parquet", "a.jsonl.zst"]),
)
@example(content=b"\x1f\x8b", name="a")
@example(content=b"(\xb5/\xfd", name="a")
@example(content=b"PAR1PAR1", name="a")
@example(content=b'{"', name="a")
@example(content=b'"', name="a.csv")
@example(content=b'\n"\n"', name="a.tsv")
def test_any_bytes_give_rows_or_errors(content, name, put):
    for pack in (bytes, gzip.compress, zlib.compress):
        outcome(put(pack(content), name))


@some
@given(
    text=st.text(max_size=200),
    encoding=st.sampled_from(
        ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "shift_jis", "gb18030"]
    ),
    kind=st.sampled_from(["jsonl", "json", "csv"]),
)
def test_text_in_another_encoding_is_refused_or_the_same(text, encoding, kind, put):
    rows = [{"question": text.replace("\r", "").replace("\0", ""), "answer": "é"}]
    whole = KINDS[kind](rows).decode("utf-8", "surrogatepass")
    try:
        content = whole.encode(encoding)
    except UnicodeEncodeError:
        return
    found, errors = outcome(put(content, f"rows.{kind}"))
    assert accounted(found, errors, rows)


@some
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8,
), max_size=4), max_size=5), indent=st.sampled_from([None, 0, 2]), raw=st.booleans())  # fmt: skip
def test_json_reads_what_json_wrote(rows, indent, raw, put):
    text = json.dumps(rows, indent=indent, ensure_ascii=not raw).encode("utf-8", "replace")
    wanted = json.loads(text)
    assert [row for _, row in outcome(put(text, "a.json"))[0]] == wanted
    lines = "\n".join(json.dumps(row) for row in wanted)
    assert [row for _, row in outcome(put(lines, "a.jsonl"))[0]] == wanted


@some
@given(rows=st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=6))
def test_csv_reads_what_csv_wrote(rows, put):
    clean = str.maketrans("", "", "\r\0")
    wanted = [{"left": "L" + one.translate(clean), "right": "R" + other.translate(clean)} for one, other in rows]
    try:
        content = as_table(wanted)
    except UnicodeEncodeError:
        return
    assert [row for _, row in outcome(put(content, "a.csv"))[0]] == wanted


def test_real_tables_are_read_to_the_last_row(real_data):
    for name, count in (("creak", 6915), ("gsm8k", 7473), ("strategyqa", 2061)):
        rows, errors = outcome(real_data / "flan-cot" / f"{name}_train.tsv")
        assert len(rows) == count and not errors and all(list(row) == ["1", "2", "3"] for _, row in rows)
    creak = real_data / "flan-cot" / "creak_train.tsv"
    assert "\nOptions:\n- yes\n- no" in next(iter(read_rows(creak, unescape_newlines=True)))[1]["1"]
    assert "\\nOptions:\\n- yes\\n- no" in next(iter(read_rows(creak)))[1]["1"]
    rows, errors = outcome(real_data / "flan-cot" / "flan_collection_info.csv")
    assert len(rows) == 1945 and not errors and "Source" in rows[0][1]
    assert len(outcome(real_data / "hh-rlhf" / "test.jsonl.gz")[0]) == 2312
    assert [row["id"] for _, row in read_rows(real_data / "sharegpt" / "dialogstudio_sharegpt_converted_example.json")][
        :1
    ] == ["ShareGPT--train--1"]


def test_a_damaged_first_line_of_jsonl_costs_that_line_alone(put):
    lines = b'[0{"a": 1}\n{"a": 2}\n{"a": 3}\n'
    rows, errors = outcome(put(lines, "rows.jsonl"))
    assert [row for _, row in rows] == [{"a": 2}, {"a": 3}] and [error.row for error in errors] == [1]
    pretty = b'[{"a": 1},\n{"a": 2}\n,{"a": 3}\n]\n'
    assert [row for _, row in outcome(put(pretty, "rows.jsonl"))[0]] == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_header_with_a_column_twice_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output,output\na,b,c\n")
    with pytest.raises(harness.DataError, match=r"the column 'output' is there twice: rename one"):
        list(read_rows(str(path)))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_lines_that_end_as_on_old_macs_are_told(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"instruction,output\ra,b\r" if name.endswith("csv") else b'{"text": "a"}\r{"text": "b"}\r')
    with pytest.raises(
        harness.DataError, match=r"its lines end with a carriage return alone, as on old Macs: .*tr '\\r' '\\n'"
    ):
        list(read_rows(str(path)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000 + "]" * 100_000, "the JSON cannot be read: it is nested too deeply"),
        ("1" * 10_000, "the JSON cannot be read: a number of 10000 digits"),
    ],
    ids=["deep", "long"],
)
def test_json_that_python_cannot_hold_is_told_in_plain_words(text, told, tmp_path):
    for name in ("rows.jsonl", "rows.json"):
        path = tmp_path / name
        path.write_text(f'{{"text": {text}}}\n' if name.endswith("l") else f'[\n{{"text": {text}}}]\n')
        errors = []
        list(read_rows(str(path), errors.append))
        assert told in str(errors[0])


def test_rows_under_a_key_of_an_object_are_read_where_the_source_says_so(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": 1, "data": [{"q": "a"}, {"q": "b"}], "no": {}}, indent=1))
    assert list(read_rows(path, key="data")) == [(1, {"q": "a"}), (2, {"q": "b"})]
    with pytest.raises(harness.DataError, match=r"no list of rows under `rows: dta`\. Did you mean 'data'\?"):
        list(read_rows(path, key="dta"))


def test_the_split_layout_of_pandas_is_read(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"columns": ["q", "n"], "index": [0, 1], "data": [["a", 1], ["b", 2]]}))
    assert [row for _, row in read_rows(path)] == [{"q": "a", "n": 1}, {"q": "b", "n": 2}]


def test_columns_of_message_lists_are_rows(tmp_path):
    chats = [[{"role": "user", "content": text}] for text in "ab"]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"messages": chats}))
    assert [row for _, row in read_rows(path)] == [{"messages": chat} for chat in chats]


def test_blanks_around_the_names_of_columns_are_none_of_theirs(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("question, answer\nWhat is it?, A thing.\n")
    assert [row for _, row in read_rows(path)] == [{"question": "What is it?", "answer": " A thing."}]


@pytest.mark.parametrize(
    ("text", "is_written"),
    [
        (r"Read this.\nOptions:\n- yes\n- no", True),
        (r"The end.\n\nWho?", True),
        (r"Is $a \neq b$ where $\nabla f = \nu$?", False),
        (r"C:\new\notes.txt", False),
        ("print('a\\n')\nprint('B.\\n')", False),
        ("one\ntwo", False),
        (json.dumps([{"variant": "a", "answer": "One.\n\nTwo."}]), False),
    ],
)
def test_line_ends_written_as_two_characters_are_told_from_other_backslashes(text, is_written):
    assert writes_line_ends({"id": 1, "text": text}) is is_written
