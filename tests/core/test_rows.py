"""Reading rows: whatever is in a file, the error names the file and the row; nothing is dropped in silence."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness.data import SourceReport, convert_row, load_source, read_rows
from harness.data.prepare.cleaning import leaving_out
from harness.plugins import Plugins
from harness.recipe import DataSource

GOOD = {"instruction": "Say hi", "output": "Hi"}
FORMATS = ("alpaca", "messages", "text")


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


@pytest.fixture
def load(datasets):
    return lambda path, dataset="alpaca", **options: list(
        load_source(DataSource(dataset=dataset, path=str(path), **options), datasets)
    )


# Files


def test_json_and_jsonl_give_the_same_rows(tmp_path):
    rows = [GOOD, {"instruction": "é\u2028", "output": "ß"}]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    (tmp_path / "a.jsonl").write_text(
        "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
    )
    assert (
        [row for _, row in read_rows(tmp_path / "a.json")]
        == rows
        == [row for _, row in read_rows(tmp_path / "a.jsonl")]
    )
    assert [number for number, _ in read_rows(tmp_path / "a.json")] == [1, 2]
    assert [number for number, _ in read_rows(tmp_path / "a.jsonl")] == [1, 3]  # the line, as an editor counts


@pytest.mark.parametrize("name", ["bom.json", "bom.jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(name, tmp_path, load):
    text = json.dumps([GOOD]) if name.endswith("json") else json.dumps(GOOD)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert load(tmp_path / name)[0].messages[1].content == "Hi"


BAD_FILES = {
    "truncated line": (
        b'{"instruction": "a", "output": "b"}\n{"instruction": "a", "out',
        r", row 2: not valid JSON at column 22",
    ),
    "truncated list": (b'[{"instruction": "a"', r": line 1, column 21: not valid JSON"),
    "NUL bytes": (b'{"instruction": "a", "output": "b"}\n\x00\x00\x00\n', r", row 2: not valid JSON"),
    "raw NUL in a text": (b'{"instruction": "a\x00", "output": "b"}\n', r", row 1: not valid JSON.*control character"),
    "not UTF-8": (b'{"instruction": "caf\xe9", "output": "b"}\n', r": not UTF-8 text \(byte 20: .*iconv"),
    "not UTF-8, far down": (
        b'{"instruction": "a", "output": "b"}\n' * 1000 + b'{"instruction": "caf\xe9", "output": "b"}\n',
        r": not UTF-8 text \(byte 36020: .*on line 1001\)",
    ),
    "UTF-16": ('{"instruction": "a"}'.encode("utf-16"), r": not UTF-8 text \(byte 0"),
    "a number in a row's place": (b"3\n", r", row 1: a row should be an object, found 3"),
    "a list in a row's place": (b'[[1], {"instruction": "a"}]', r", row 1: a row should be an object, found \[1\]"),
    "one JSON object over several lines, and more": (
        b'{\n  "instruction": "a", "output": "b"\n}\nx',
        r", row 2: line 4, column 1: expected another object.*one object a line",
    ),
    "no rows": (b"", r": the dataset is empty: 0 rows read"),
    "only blank lines": (b"\n \n\t\n", r": the dataset is empty: 0 rows read"),
    "an empty list": (b"[]", r": the dataset is empty: 0 rows read"),
    "nested too deeply": (b"[" * 100_000, r"the JSON cannot be read|not valid JSON"),
    "a line nested too deeply": (b'{"instruction": ' + b"[" * 100_000 + b"\n", r", row 1: "),
    "a number too long": (b'{"instruction": ' + b"9" * 5000 + b"}\n", r", row 1: the JSON cannot be read: .*digits"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_named_with_the_row_and_the_reason(kind, tmp_path, load):
    content, told = BAD_FILES[kind]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(harness.DataError) as caught:
        load(path)
    assert re.match(re.escape(str(path)) + f".*({told})", str(caught.value), re.DOTALL), caught.value


def test_a_file_that_is_not_there_or_is_a_folder_is_named(tmp_path, load):
    for path, told in ((tmp_path / "gone.jsonl", "no such file"), (tmp_path, "no data files in this folder")):
        with pytest.raises(harness.DataError, match=told):
            load(path)


# Rows

BAD_ROWS = [
    ("alpaca", {"instruction": "a"}, r"the field 'output' is missing\. The row has: instruction"),
    ("alpaca", {"instrction": "a", "output": "b"}, r"the field 'instruction' is missing\. Did you mean 'instrction'\?"),
    ("alpaca", {"instruction": 3, "output": "b"}, r"'instruction' should be text, found 3"),
    ("alpaca", {"instruction": "a", "output": ["b"]}, r"'output' should be text, found \[\"b\"\]"),
    ("alpaca", {"instruction": "a", "output": None}, r"the field 'output' is null"),
    ("alpaca", {"instruction": "a", "output": " \n"}, r"message 2 \(assistant\) is empty"),
    ("alpaca", {"instruction": "a", "output": "b", "history": [["q"]]},
     r"history entry 1 should be \[question, answer\], found \['q'\]"),
    ("messages", {"messages": [{"role": "assistant", "content": "a", "weight": "0"}]},
     r"message 1: the weight should be 0 or 1, found '0'"),
    ("messages", {"messages": [{"role": "assistant", "content": "a"}], "tools": ["x"]},
     r"tool 1 should be an object, found 'x'"),
    ("messages", {"messages": {}}, r"'messages' should be a list, found \{\}"),
    ("messages", {"messages": []}, r"the conversation has no messages"),
    ("messages", {"messages": ["hi"]}, r"message 1 should be an object"),
    ("messages", {"messages": [{"content": "hi"}]}, r"message 1 has the role null"),
    ("messages", {"messages": [{"role": "human", "content": "hi"}]}, r"message 1 has the role 'human'\. Use 'user'"),
    ("messages", {"messages": [{"role": "user", "content": 3}]}, r"message 1: content should be text"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
     r"message 1: content should be text"),
    ("messages", {"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "a"}]},
     r"message 1 \(user\) is empty: there is nothing to answer"),
    ("messages",
     {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": False}]},
     r"no message is trained on"),
    ("messages", {"messages": [{"role": "user", "content": "q"}]},
     r"no message is the assistant's: a prompt without an answer is nothing to train on"),
    ("messages",
     {"messages": [{"role": "user", "content": "q"}, {"role": "system", "content": "s"},
                   {"role": "assistant", "content": "a"}]}, r"message 2 is a system prompt"),
    (
        "messages",
        {"messages": [{"role": "assistant", "content": "",
                       "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        r"message 1: the arguments of a tool call are not valid JSON",
    ),
    ("messages", {"messages": [{"role": "assistant", "content": "a", "tool_calls": [3]}]},
     r"'call' should be an object, found 3"),
    ("messages", {"messages": [{"role": "user", "content": "a"}], "tools": "f"},
     r"'tools' should be a list, found 'f'"),
    ("text", {"txt": "a"}, r"the field 'text' is missing\. Did you mean 'txt'\?"),
]  # fmt: skip


def test_half_of_an_emoji_is_named_before_a_tokenizer_trips_over_it(tmp_path, load):
    (tmp_path / "cut.jsonl").write_text('{"instruction": "a \\ud83d", "output": "b"}\n')
    with pytest.raises(harness.DataError, match=r"row 1: message 1 \(user\) is not valid Unicode"):
        load(tmp_path / "cut.jsonl")


@pytest.mark.parametrize("error", [RuntimeError("no"), ZeroDivisionError("no"), AssertionError("no")])
def test_whatever_a_plugin_trips_over_names_the_row(error):
    def convert(row, options):
        raise error

    with pytest.raises(harness.DataError, match=f"does not fit dataset 'mine': {type(error).__name__}: no"):
        convert_row(harness.Dataset("mine", "", convert), {})


@pytest.mark.parametrize(("dataset", "row", "told"), BAD_ROWS)
def test_a_bad_row_is_named_with_its_field(dataset, row, told, write_rows, load):
    good = {"alpaca": GOOD, "messages": {"messages": [{"role": "assistant", "content": "a"}]}, "text": {"text": "a"}}[
        dataset
    ]
    path = write_rows(good, row)
    with pytest.raises(harness.DataError) as caught:
        load(path, dataset)
    assert re.match(re.escape(f"{path}, row 2: ") + ".*" + told, str(caught.value)), caught.value
    assert (caught.value.path, caught.value.row) == (str(path), 2)


def test_a_plugins_own_mistakes_with_a_row_become_data_errors():
    for raising in (KeyError("a"), IndexError("i"), TypeError("t"), ValueError("v"), AttributeError("x")):

        def convert(row, options, raising=raising):
            raise raising

        with pytest.raises(harness.DataError):
            convert_row(harness.Dataset("d", "", convert), {})
    with pytest.raises(harness.DataError, match="gave 'text', neither Conversation nor Preference"):
        convert_row(harness.Dataset("d", "", lambda row, options: "text"), {})


def test_a_dataset_yields_what_it_is_declared_to():
    talk = harness.Conversation.of(("user", "q"), ("assistant", "a"))
    for yields in ("conversations", "either", "not stated"):
        assert convert_row(harness.Dataset("d", "", lambda row, options: talk, yields=yields), {}) == (talk,)
    with pytest.raises(harness.DataError, match="'d' gave a Conversation, and is declared to yield preferences"):
        convert_row(harness.Dataset("d", "", lambda row, options: talk, yields="preferences"), {})


def test_rows_that_a_data_set_leaves_out_are_counted(write_rows, datasets):
    picky = {
        "picky": harness.Dataset(
            "picky", "", lambda row, options: None if row["skip"] else harness.Conversation.of(("assistant", "a"))
        )
    }
    path = write_rows({"skip": True}, {"skip": False}, {"skip": True})
    report = SourceReport("picky", str(path))
    items = list(load_source(DataSource(dataset="picky", path=str(path)), picky, report))
    assert [item.id for item in items] == ["rows.jsonl:2"]
    assert (report.rows, report.kept, dict(report.left_out)) == (3, 1, {"picky leaves it out": 2})
    with pytest.raises(harness.DataError, match="the dataset is empty: 1 rows read, none kept"):
        list(load_source(DataSource(dataset="picky", path=str(write_rows({"skip": True}))), picky))


def test_a_limit_stops_reading_before_what_follows(write_rows, load):
    path = write_rows(GOOD, GOOD)
    with path.open("a") as file:
        file.write("not JSON\n")
    assert len(load(path, limit=2)) == 2


def test_a_data_set_without_data_of_its_own_asks_for_a_path(datasets):
    with pytest.raises(harness.DataError, match="'alpaca' brings no data of its own: give it a `path`"):
        list(load_source(DataSource(dataset="alpaca"), datasets))


def test_reading_streams(tmp_path):
    """The first row is there before the second is looked at."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nnot JSON\n')
    rows = read_rows(path)
    assert next(rows) == (1, {"a": 1})
    with pytest.raises(harness.DataError):
        next(rows)


# Anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from(
    ["instruction", "input", "output", "system", "history", "messages", "tools", "text", "role", "content", "weight",
     "id", "tool_calls", "function", "name", "arguments", "type", "tool_call_id", "user", "assistant"]
)  # fmt: skip
likely = st.recursive(
    names | json_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=15,
)
some = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@some
@given(row=st.dictionaries(names, likely, max_size=6))
def test_any_row_is_a_conversation_or_a_data_error(row, datasets):
    for name in FORMATS:
        try:
            items = convert_row(datasets[name], row)
        except harness.DataError:
            continue
        for item in items:
            assert isinstance(item, harness.Conversation) and item.messages
            json.dumps([message.as_dict() for message in item.messages], default=str)


@some
@given(content=st.binary(max_size=200) | st.lists(likely, max_size=4).map(lambda rows: json.dumps(rows).encode()))
def test_any_file_gives_rows_or_a_data_error(content, tmp_path, datasets):
    path = tmp_path / "any"
    path.write_bytes(content)
    try:
        for number, row in read_rows(path):
            assert number >= 1 and isinstance(row, dict)
    except harness.DataError as error:
        assert str(error).startswith(str(path))


@some
@given(content=st.binary(max_size=200), keep=st.integers(0, 120))
def test_a_checker_sees_every_bad_line_and_still_gets_the_good_ones(content, keep, tmp_path):
    lines = [line for line in content.replace(b"\r", b"").split(b"\n") if line.strip() and line.isascii()]
    good = json.dumps(GOOD).encode()
    path = tmp_path / "any.jsonl"
    path.write_bytes(b"\n".join([good, *lines, good]))
    errors: list[harness.DataError] = []
    rows = [number for number, _ in read_rows(path, errors.append)]
    assert rows[0] == 1 and all(error.row is not None for error in errors)
    assert len(rows) + len(errors) >= 2


def test_real_files_are_read_as_what_they_are(real_data, load):
    folder = real_data / "llamafactory-demo"
    alpaca = load(folder / "alpaca_en_demo.json")
    assert len(alpaca) == len(json.loads((folder / "alpaca_en_demo.json").read_text()))
    assert all(item.trained for item in alpaca)
    assert len(load(folder / "c4_demo.jsonl", "text")) > 100


def test_a_task_loses_only_the_instance_without_an_output_and_it_is_named(tmp_path, datasets):
    instances = [
        {"input": "snow", "output": ["white"]},
        {"input": "air", "output": [""]},
        {"input": "coal", "output": "black"},
        {"input": "sea", "output": []},
    ]
    (tmp_path / "task.json").write_text(json.dumps({"Definition": ["Name the colour."], "Instances": instances}))
    report = SourceReport("natural_instructions", "", ids={})
    source = DataSource(dataset="auto", path=str(tmp_path / "task.json"))
    items = list(load_source(source, datasets, report))
    assert [(item.id, item.messages[-1].content) for item in items] == [
        ("task.json:1.1", "white"),
        ("task.json:1.3", "black"),
    ]
    assert report.ids == {"natural_instructions: an instance without an output": ["task.json:1.2", "task.json:1.4"]}
    assert (report.rows, report.kept) == (1, 2)


def test_a_system_prompt_in_mid_conversation_says_which_filter_takes_such_rows(tmp_path, datasets):
    from harness.data import prepare_items
    from harness.recipe import DataSpec, load_data_recipe

    turns = [("user", "Hi"), ("assistant", "Hello."), ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello.")]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps({'messages': row['messages'][:2]})}\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {train: [{dataset: messages, path: rows.jsonl}]}\n")
    plugins = Plugins()
    with pytest.raises(harness.DataError, match=r"message 3 is a system prompt.*The filter `roles`") as refused:
        list(prepare_items(load_data_recipe(recipe, plugins).data, plugins))
    step = re.search(r"`- (\{.*?\})` to data.clean", str(refused.value))[1]
    recipe.write_text(recipe.read_text().replace("}]}", "}], clean: [" + step + "]}"))
    spec: DataSpec = load_data_recipe(recipe, plugins).data
    assert [prepared.item.id for prepared in prepare_items(spec, plugins)] == ["rows.jsonl:2"]


def test_of_filters_that_may_leave_a_row_out_the_first_that_objects_is_named():
    plugins = Plugins()
    unanswered = harness.Conversation.of(("user", "Hi"), ("assistant", " "))
    assert "`empty_turns` leaves such rows out" in leaving_out(unanswered, plugins.filters)
    assert leaving_out(harness.Conversation.of(("user", "Hi"), ("assistant", "Hello.")), plugins.filters) == ""
