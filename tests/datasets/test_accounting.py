"""Nothing is dropped unseen: a column or a key of a message that a dataset does not read is refused by its name."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import harness_datasets
import pytest

import harness
from harness.data import SourceReport, UnreadError, convert_row, load_source
from harness.data.convert.accounting import check_accounted, within, without
from harness.data.convert.fields import alternatives_of
from harness.plugins import Plugins
from harness.recipe import DataSource, source_model
from tests.datasets.test_shapes import ROWS as SHAPE_ROWS
from tests.following import text_of

SYSTEM, USER = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Weather in Lima?"}
CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": {"city": "Lima"}}}
CHAT = [
    SYSTEM,
    USER,
    {"role": "assistant", "content": None, "reasoning_content": "I should look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "name": "weather", "content": "21 degrees"},
    {"role": "assistant", "content": [{"type": "text", "text": "Mild."}], "loss": True},
]
TOOL = {"type": "function", "function": {"name": "weather", "description": "tells", "parameters": {"type": "object"}}}
SHARED = [{"from": "human", "value": "Greet me."}, {"from": "gpt", "value": "Good morning!", "train": True}]
GOOD, BAD = [{"role": "assistant", "content": "Good morning!"}], [{"role": "assistant", "content": "Go away."}]
TREE = {
    "message_id": "m",
    "role": "prompter",
    "text": "Why is the sky blue?",
    "replies": [{"message_id": "n", "role": "assistant", "text": "Air scatters blue light."}],
}
SIDES = [{"messages": [USER], "answer": text, "finish": "stop", "variant": "v"} for text in ("Mild today.", "Dunno.")]

# A row of each form that a dataset reads, by its name.
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "alpaca": [{"instruction": "Translate", "input": "Haus", "output": "house", "system": "Be brief."}],
    "dolly": [{"instruction": "Name it", "context": "The Arle is a river", "response": "Arle", "category": "qa"}],
    "feedback": [
        {"prompt": "Greet me.", "completion": "Good morning!", "label": True},
        {"messages": [USER, *GOOD], "label": False},
        {"instruction": "Translate", "input": "Haus", "output": "house", "label": True, "system": "Be brief."},
        {"instruction": "Translate", "input": "Haus", "output": "mouse", "kto_tag": False},
    ],
    "flan": [
        {"premise": "A cat sleeps.", "hypothesis": "A dog barks.", "label": "neutral"},
        {"question": "How many pens?", "answer": "Two and two.\n#### 4"},
        {"1": "Is it so?", "2": "Yes it is", "3": "Because of that"},
    ],
    "hh": [{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Leave."}],
    "instructgpt": [
        {"prompt": "Greet me.", "completions": ["Good morning!", "Go away."], "scores": [0.9, 0.1]},
        {"prompt": "Greet me.", "completions": [{"text": "Hello.", "rank": 1}, {"text": "Go away.", "rank": 2}]},
        {"prompt": "Greet me.", "demonstration": "Good morning!"},
    ],
    "messages": [{"messages": CHAT, "tools": [TOOL]}, {"conversations": [USER, *GOOD]}],
    "natural_instructions": [
        {"Definition": ["Name the colour."], "Instances": [{"input": "a leaf", "output": ["green"]}]},
        {"definition": "Name the colour.", "inputs": "a leaf", "targets": "green"},
    ],
    "oasst": [{"message_tree_id": "m", "prompt": TREE}, TREE],
    "platypus": [{"instruction": "Translate", "input": "Haus", "output": "house", "data_source": "ARB"}],
    "preferences": [
        {
            "question": "Greet me.",
            "chosen": "Good morning!",
            "rejected": "Go away.",
            "system": "Be kind.",
            "history": [["Hi", "Yes?"]],
        },
        {"prompt": "Greet me.", "chosen": "Good morning!", "rejected": "Go away.", "system": "Be kind."},
        {"prompt": "Greet me.", "chosen": "Good morning!", "rejected": "Go away."},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"chosen": [USER, *GOOD], "rejected": [USER, *BAD], "score_chosen": 2.0, "score_rejected": 1.0},
        {"input": {"messages": [USER]}, "preferred_output": GOOD, "non_preferred_output": BAD},
        {
            "instruction": "Greet me.",
            "completions": [{"response": "Hello.", "overall_score": 9}, {"response": "Go away.", "overall_score": 1}],
        },
    ],
    "prompt_completion": [
        {"prompt": "Greet me.", "completion": "Good morning!"},
        {"system_prompt": "Be kind.", "question": "Greet me.", "response": "Good morning!"},
        {"instruction": "Translate", "input": "Haus", "response": "house"},
        {"prompt": [USER], "completion": GOOD},
    ],
    "seed_tasks": [{"instruction": "Name the colour.", "instances": [{"input": "a leaf", "output": "green"}]}],
    "self_instruct": [{"instruction": "Translate", "input": "Haus", "output": "house", "generator": {"name": "m"}}],
    "sharegpt": [
        {"conversations": SHARED, "system": "Be kind."},
        {"log": [{"user utterance": "Greet me.", "system response": "Good morning!"}]},
    ],
    "text": [{"text": "Once upon a time."}],
    "tools": [
        {"system": "Be kind.", "chat": "USER: Greet me.\n\nASSISTANT: Good morning!"},
        {"conversations": SHARED, "category": "greetings"},
    ],
    "votes": [{"sides": SIDES, "verdict": "best", "best": 0, "system_prompt": "Be kind."}],
}
# What a dataset selects or orders rows by, and marks: read, and rightly not in any text.
SELECTS = {
    "dolly": {"category"},
    "flan": {"label", "genre"},
    "oasst": {"lang", "tree_state", "message_tree_id", "parent_id", "rank", "labels", "message_id", "role"},
    "platypus": {"data_source"},
    "self_instruct": {"generator"},
    "tools": {"category"},
    "votes": {"verdict", "best", "finish"},
}
STRUCTURE = {
    "role",
    "from",
    "type",
    "id",
    "tool_call_id",
    "name",
    "train",
    "loss",
    "weight",
    "loss_weight",
    "trainable",
}
PLAIN = ("notes", "label", "passage", "context", "options", "solution", "images", "rejected_response", "title", "kind")


MARKS = re.compile(r"####|\n|Human: |Assistant: |USER: |ASSISTANT: ")  # what stands between texts in one column


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


def converted(dataset, row):
    """Return all texts of the items that a row becomes, in one string."""
    items = convert_row(dataset, row, source_model(dataset)(dataset=dataset.name))
    if not (items := [item for item in items if item]):
        raise harness.DataError("left out, which is counted")
    return text_of(items)


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every object in a row, the row itself first."""
    if isinstance(value, dict):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from objects(inner, (*path, key))


def at(row: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        row = row[part]
    return row


def texts(value: Any, ignored: set[str]) -> Iterator[str]:
    """Yield the texts of a row but for those under keys that are structure."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in ignored:
                yield from texts(inner, ignored)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, ignored)


def ignored_in(dataset) -> set[str]:
    alternatives = dataset.fields
    if dataset.fields_of:
        options = source_model(dataset)(dataset=dataset.name)
        alternatives += tuple(one for row in EXAMPLES[dataset.name] for one in dataset.fields_of(row, options))
    metadata = {name for one in alternatives_of(alternatives, dataset.metadata) for name in one.metadata}
    return STRUCTURE | SELECTS.get(dataset.name, set()) | {name.rpartition(".")[2] for name in metadata}


def whole(text: str) -> str:
    """Return a text as it may be found in `converted`: as JSON, and without what datasets strip."""
    return json.dumps(text.strip(), ensure_ascii=False)[1:-1]


def lost(dataset, row, out: str) -> list[str]:
    """Return the texts of a row that are not in what it became; transcripts and workings are looked for in pieces."""
    pieces = (piece for text in texts(row, ignored_in(dataset)) for piece in MARKS.split(text))
    return [piece for piece in pieces if whole(piece) not in out]


CASES = [(name, number) for name, rows in EXAMPLES.items() for number in range(len(rows))]


def test_every_dataset_has_an_example(datasets):
    assert set(harness_datasets.MODULES) - {"auto"} <= EXAMPLES.keys() <= set(datasets)
    assert all(datasets[name].fields for name in EXAMPLES)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_an_example_loses_no_text(name, number, datasets):
    row = EXAMPLES[name][number]
    assert lost(datasets[name], row, converted(datasets[name], row)) == []


def keys_to_try(dataset) -> list[str]:
    """Return every name that the dataset knows at any depth, and some that it does not."""
    names = (name for one in alternatives_of(dataset.fields, ()) for name in one.reads)
    known = {part for name in names for part in name.split(".")}
    return sorted((known | set(PLAIN)) - {"*"} - ignored_in(dataset))


def places(dataset, row) -> Iterator[tuple[Any, ...]]:
    """Yield the path to each object of a row: the row, a message, a call, a part, a tool."""
    ignored = ignored_in(dataset) - STRUCTURE
    return (path for path in objects(row) if not ignored.intersection(path))


@pytest.mark.parametrize(("name", "number"), CASES)
def test_one_more_text_is_refused_or_read(name, number, datasets):
    """In any object of a row, under any name that the dataset knows somewhere, and under others."""
    dataset = datasets[name]
    assert passed_over(dataset, EXAMPLES[name][number], keys_to_try(dataset)) == []


def passed_over(dataset, example, keys, leave_out=lambda path: False) -> list[tuple[Any, ...]]:
    """Return the places of a row where one more text, under one of the keys, is neither read nor refused."""
    lost_at = []
    for path in places(dataset, example):
        for key in keys:
            row = copy.deepcopy(example)
            if key in at(row, path) or leave_out((*path, key)):
                continue
            at(row, path)[key] = "Zaragoza unseen"
            try:
                if "Zaragoza unseen" not in converted(dataset, row):
                    lost_at.append((*path, key))
            except harness.DataError:
                continue
    return lost_at


SHAPES = [(name, row) for name, row, wanted in SHAPE_ROWS if wanted]
SHAPE_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(SHAPES)]
OF_SHAPES = ("Zaragoza", *PLAIN, "name", "text", "content", "value", "reasoning", "tool_calls", "summary", "parts")


@pytest.mark.parametrize(("name", "example"), SHAPES, ids=SHAPE_IDS)
def test_one_more_text_in_any_object_of_a_shape_is_refused_or_read(name, example, datasets):
    """In the row, a message, a part of it, a node of an export, an annotation and its result."""
    dataset = datasets[name]
    assert passed_over(dataset, example, OF_SHAPES, lambda path: is_metadata(dataset, path)) == []


def is_metadata(dataset, path) -> bool:
    """Return True for a key that the dataset lists as metadata, or that is inside one."""
    return is_under((name for one in alternatives_of(dataset.fields, dataset.metadata) for name in one.metadata), path)


def is_free(dataset, path) -> bool:
    """Return True for an object whose keys are anybody's: the arguments of a call, a tool's response."""
    reads = (name for one in alternatives_of(dataset.fields, dataset.metadata) for name in one.reads)
    return is_under((name.removesuffix(".*") for name in reads if name.endswith(".*")), path)


def is_under(names, path) -> bool:
    parts = [part for part in path if isinstance(part, str)]
    return any(
        len(name) <= len(parts) and all(ours in ("*", theirs) for ours, theirs in zip(name, parts, strict=False))
        for name in (name.split(".") for name in names)
    )


@pytest.mark.parametrize(("name", "example"), SHAPES, ids=SHAPE_IDS)
def test_a_renamed_or_deleted_key_of_a_shape_changes_no_text_in_silence(name, example, datasets):
    """Of a row that is still read, every text comes out that came out before; none comes out that did not."""
    dataset, changed = datasets[name], []
    before = converted(dataset, example)
    known = pieces(before)
    for path in (path for path in places(dataset, example) if not is_free(dataset, path)):
        for old in at(example, path):
            for new in (None, "renamed", "text", "content", "label"):
                row = copy.deepcopy(example)
                if new in at(row, path):
                    continue
                gone = at(row, path).pop(old)
                if new is not None:
                    at(row, path)[new] = gone
                try:
                    after = converted(dataset, row)
                except harness.DataError:
                    continue
                lost = [text for text in texts(row, STRUCTURE) if whole(text) in before and whole(text) not in after]
                invented = [text for text in pieces(after) if not any(text in one for one in known)]
                if lost or invented:
                    changed.append((*path, old, new, lost, invented))
    assert changed == []


def pieces(out: str) -> list[str]:
    """Return the lines of what a row becomes, but for the ids of calls, which are drawn."""
    lines = (line for text in texts(json.loads(out), set()) for line in text.splitlines())
    return [line for line in lines if not re.fullmatch(r"call\d{5}", line)]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_renamed_column_or_key_loses_no_text_in_silence(name, number, datasets):
    dataset, passed_over = datasets[name], []
    for path in places(dataset, EXAMPLES[name][number]):
        for old in at(EXAMPLES[name][number], path).keys() - ignored_in(dataset):
            for new in keys_to_try(dataset):
                row = copy.deepcopy(EXAMPLES[name][number])
                if new in at(row, path):
                    continue
                at(row, path)[new] = at(row, path).pop(old)
                try:
                    if lost(dataset, row, converted(dataset, row)):
                        passed_over.append((*path, old, new))
                except harness.DataError:
                    continue
    assert passed_over == []


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_row_without_one_of_its_columns_never_becomes_other_text(name, number, datasets):
    dataset, row = datasets[name], EXAMPLES[name][number]
    before = json.loads(converted(dataset, row))
    for column in row:
        try:
            after = json.loads(converted(dataset, {key: value for key, value in row.items() if key != column}))
        except harness.DataError:
            continue
        for text in texts(after, set()):
            assert any(text in known for known in texts(before, set())), (column, text)


# The declaration


def dataset(*fields, metadata=(), **more):
    def convert(row, options):
        return harness.Conversation.of(("user", "q"), ("assistant", "a"))

    return harness.Dataset("mine", "d", convert, fields=fields, metadata=metadata, **more)


def unread(declared, row):
    try:
        check_accounted(declared, row, None)
    except UnreadError as error:
        return error.columns
    return ()


def test_columns_are_accounted_for_by_one_alternative():
    two = dataset(("q", "a", "hint?"), ("q", "answers"))
    assert unread(two, {"q": 1, "a": 2, "hint": 3}) == unread(two, {"q": 1, "answers": 2}) == ()
    assert unread(two, {"q": 1, "answers": 2, "hint": 3}) == ("hint",)
    assert unread(two, {"q": 1, "a": 2, "more": 0, "still": False}) == ("more", "still")


def test_what_is_empty_is_not_lost():
    """Tables write null, an empty text or an empty list where a row has nothing."""
    one = dataset(("q",))
    assert unread(one, {"q": 1, "a": None, "b": "", "c": [], "d": {}, "e": [None, {"f": None}]}) == ()
    assert unread(one, {"q": 1, "e": [None, {"f": 0}]}) == ("e",)


def test_dots_lead_into_objects_and_lists_and_a_star_takes_all():
    one = dataset(("turns.who", "turns.says", "turns.parts.text", "meta.*", "-turns.when"))
    turn = {"who": "me", "says": ["a", "b"], "when": {"year": 1}, "parts": [{"text": "a"}, {"text": "b"}]}
    assert unread(one, {"turns": [turn], "meta": {"any": [{"thing": 1}]}}) == ()
    assert unread(one, {"turns": [turn, turn | {"mood": "glad"}]}) == ("turns.mood",)
    assert unread(one, {"turns": [turn | {"parts": [{"text": "a", "image": "b"}]}]}) == ("turns.parts.image",)
    assert unread(one, {"turns": [turn | {"says": {"loudly": "a"}}]}) == ("turns.says.loudly",)


def test_a_star_on_the_way_stands_for_any_key():
    one = dataset(("nodes.*.text", "-nodes.*.when"))
    assert unread(one, {"nodes": {"a": {"text": "x", "when": 1}, "b": {"text": "y"}}}) == ()
    assert unread(one, {"nodes": {"a": {"text": "x"}, "b": {"text": "y", "mood": "glad"}}}) == ("nodes.b.mood",)


def test_metadata_are_known_in_all_alternatives_or_in_one():
    one = dataset(("q", "-url"), ("a",), metadata=("id", "origin"))
    assert unread(one, {"q": 1, "url": "u", "id": 2, "origin": {"file": "f"}}) == () == unread(one, {"a": 1, "id": 2})
    assert unread(one, {"a": 1, "url": "u"}) == ("url",)


def test_a_slip_of_the_pen_is_named():
    with pytest.raises(UnreadError, match=r"'inptu' would be lost.* Did you mean 'input'\? .*`unread: \[inptu\]`"):
        check_accounted(dataset(("instruction", "input?")), {"instruction": "a", "inptu": "b"}, None)


def test_a_nearest_name_is_one_of_the_same_object():
    two = dataset(("input", "output"), ("instruction", "instruction.role", "output"))
    with pytest.raises(UnreadError, match="'instructions' would be lost") as caught:
        check_accounted(two, {"input": 1, "output": 1, "instruction": None, "instructions": "x"}, None)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("value", [True, False, "True", "false"])
def test_true_and_false_are_never_offered_to_be_left_out(value):
    with pytest.raises(UnreadError, match=r"'tag' is true or false: .* trained on$") as caught:
        check_accounted(dataset(("q", "a")), {"q": 1, "a": 1, "note": "x", "tag": value}, None)
    assert "unread:" not in str(caught.value) and caught.value.may_judge


def test_the_dataset_that_reads_judged_answers_is_named(write_rows):
    source = DataSource(dataset="alpaca", path=str(write_rows({"instruction": "a", "output": "b", "tag": True})))
    with pytest.raises(
        harness.DataError, match=r"trained on\. Such a column .* dataset 'feedback' reads as its 'label'$"
    ):
        list(load_source(source, Plugins().datasets))


def test_the_order_of_rows_decides_nothing():
    two = dataset(("q", "a"), ("q", "b", "c?"))
    rows = [{"q": 1, "a": 1}, {"q": 1, "b": 1, "c": 1}, {"q": 1, "a": 1, "c": 1}]
    assert [unread(two, row) for row in rows] == [(), (), ("c",)] == [unread(two, row) for row in rows[::-1]][::-1]


def test_keys_inside_a_field_keep_their_signs():
    assert within("turns", ("who", "-when")) == ("turns.who", "-turns.when")


@pytest.mark.parametrize(("fields", "metadata"), [(("q", "a"), ()), ((("q", 1),), ()), ((("q",),), "id")])
def test_a_declaration_of_other_things_is_refused(fields, metadata):
    from harness.contract.datasets import check_dataset

    declared = harness.Dataset("mine", "d", lambda row, options: None, fields=fields, metadata=metadata)
    with pytest.raises(harness.PluginError, match=r"'mine': (fields|metadata) should be a tuple of"):
        check_dataset(declared)


# In a recipe


def test_unread_columns_are_left_out_also_inside_messages(write_rows, datasets):
    turn = {"role": "assistant", "content": "Hello.", "mood": "glad"}
    path = str(write_rows({"messages": [USER, turn], "label": "greeting"}))
    with pytest.raises(harness.DataError, match=r"'label', 'messages\.mood' would be lost"):
        list(load_source(DataSource(dataset="messages", path=path), datasets))
    source = DataSource(dataset="messages", path=path, unread=("label", "messages.mood"))
    (item,) = load_source(source, datasets)
    assert item.messages[1].content == "Hello."
    (item,) = load_source(DataSource(dataset="auto", path=path, unread=("label", "messages.mood")), datasets)
    assert item.source == "messages"
    assert without({"a.b": 1, "a": [{"b": 2, "c": 3}]}, ("a.b",)) == {"a": [{"b": 2, "c": 3}]}


def test_columns_never_overwrite_another_column(write_rows, datasets):
    path = str(write_rows({"instruction": "Say hi", "question": "What?", "output": "Hi"}))
    columns = {"instruction": "question"}
    with pytest.raises(harness.DataError, match=r"row's own column 'instruction'.*`unread: \[instruction\]`"):
        list(load_source(DataSource(dataset="alpaca", path=path, columns=columns), datasets))
    (item,) = load_source(DataSource(dataset="alpaca", path=path, columns=columns, unread=("instruction",)), datasets)
    assert item.messages[0].content == "What?"
    swapped = {"instruction": "question", "question": "instruction"}
    with pytest.raises(harness.DataError, match="'question' would be lost"):
        list(load_source(DataSource(dataset="alpaca", path=path, columns=swapped), datasets))


def test_bad_rows_are_dropped_where_the_recipe_says_so_and_counted_by_reason(write_rows, datasets):
    good = {"instruction": "Say hi", "output": "Hi"}
    path = str(write_rows(good, good | {"output": 4}, good | {"output": 5}, good | {"note": "x"}, good))
    source = DataSource(dataset="alpaca", path=path, on_bad_row="drop")
    report = SourceReport("alpaca", path, ids={})
    assert len(list(load_source(source, datasets, report))) == 2
    assert (report.rows, report.kept) == (5, 2)
    assert sorted(report.left_out.values()) == [1, 2]
    assert any("the field 'output' should be text, found otherwise" in reason for reason in report.left_out)
    assert any("'note' would be lost" in reason for reason in report.left_out)
    with pytest.raises(harness.DataError, match="row 2: the field 'output' should be text"):
        list(load_source(source.model_copy(update={"on_bad_row": "error"}), datasets))


def test_a_dataset_that_gathers_rows_accounts_for_them_before(write_rows, datasets):
    path = str(write_rows({"instruction": "Say hi", "response": "Hi", "category": "a", "mood": "glad"}))
    with pytest.raises(harness.DataError, match="row 1: the column 'mood' would be lost"):
        list(load_source(source_model(datasets["dolly"])(dataset="dolly", path=path), datasets))
