"""ShareGPT rows: whoever speaks, calls become tool calls that their results answer, and a wrong turn is named."""

import json
import re
from collections import Counter

import pytest
from harness_datasets import turns
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import convert_row, read_rows
from harness.plugins import Plugins


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


@pytest.fixture(scope="module")
def convert(datasets):
    return lambda *said, **row: convert_row(
        datasets["sharegpt"], {"conversations": [{"from": who, "value": text} for who, text in said], **row}
    )[0]


@pytest.mark.parametrize("asks", ["human", "user"])
@pytest.mark.parametrize("answers", ["gpt", "chatgpt", "bing", "bard", "assistant", "model"])
def test_both_sides_have_many_names(convert, asks, answers):
    made = convert(("system", "Be brief."), (asks, "Hi"), (answers, "Hello."), id=7)
    assert made == harness.Conversation.of(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), id="7")


def test_a_call_and_its_result_are_linked(convert):
    call = {"name": "weather", "arguments": {"city": "Rome"}}
    made = convert(
        ("human", "Rain?"),
        ("function_call", json.dumps(call)),
        ("observation", '{"rain": true}'),
        ("gpt", "Yes."),
        tools=json.dumps([{"name": "weather", "parameters": {"type": "object"}}]),
        system="Be brief.",
    )
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "tool", "assistant"]
    (asked,) = made.messages[2].tool_calls
    assert (asked.name, asked.arguments) == ("weather", {"city": "Rome"})
    assert asked.id == made.messages[3].tool_call_id
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", asked.id)  # what Mistral's templates take
    assert made.tools == ({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},)
    assert made.trained == (2, 4)


CALLS = [{"name": "a", "arguments": {}}, {"name": "b", "arguments": '{"x": 1}'}]


@pytest.mark.parametrize(
    "said",
    [
        [("function_call", json.dumps(CALLS)), ("observation", "1"), ("observation", "2")],
        [("function_call", json.dumps(CALLS)), ("observation", '["1", "2"]')],
        [("function_call", json.dumps(CALLS[0])), ("function_call", json.dumps(CALLS[1])), ("tool", "1"),
         ("function", "2")],
    ],
    ids=["a list of calls", "one result for both", "a turn a call"],
)  # fmt: skip
def test_parallel_calls_are_one_message_and_each_has_its_result(convert, said):
    made = convert(("human", "q"), *said, ("gpt", "done"))
    _, asks, first, second, _ = made.messages
    assert [call.name for call in asks.tool_calls] == ["a", "b"] and asks.tool_calls[1].arguments == {"x": 1}
    assert [(one.content, one.tool_call_id) for one in (first, second)] == [
        ("1", asks.tool_calls[0].id),
        ("2", asks.tool_calls[1].id),
    ]


def test_what_is_said_with_a_call_is_its_text(convert):
    made = convert(("human", "q"), ("gpt", "Let me look."), ("function_call", '{"name": "a", "arguments": {}}'))
    assert made.messages[1].content == "Let me look." and made.messages[1].tool_calls[0].name == "a"


def test_a_weight_keeps_a_turn_out_of_the_loss(datasets):
    said = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0}, {"from": "gpt", "value": "b"}]
    (made,) = convert_row(datasets["sharegpt"], {"conversations": said})
    assert made.trained == (2,)


def test_empty_user_turns_and_turns_out_of_order_are_left_to_cleaning(convert):
    made = convert(("human", ""), ("human", "q"), ("observation", "alone"), ("gpt", "a"))
    assert [message.role for message in made.messages] == ["user", "user", "tool", "assistant"]
    assert made.messages[2].tool_call_id is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([("humn", "q")], r"turn 1 is from 'humn'\. Did you mean 'human'\? Known are: system, human"),
        ([(None, "q")], r"turn 1 is from null"),
        ([("human", "q"), ("gpt", None)], r"turn 2: the field 'value' is null"),
        ([("human", "q"), ("gpt", 3)], r"turn 2: the field 'value' should be text, found 3"),
        ([("human", "q"), ("gpt", " ")], r"message 2 \(assistant\) is empty"),
        ([("human", "q"), ("gpt", '<div class="markdown prose">a</div>')], r"turn 2 is a web page's HTML"),
        ([("human", "q"), ("function_call", "a(1)")], r"turn 2: the call is not valid JSON: Expecting value.*'a\(1\)'"),
        ([("human", "q"), ("function_call", "[]]")], r"turn 2: the call is not valid JSON: Extra data"),
        ([("human", "q"), ("function_call", "")], r"turn 2 is a function_call without a call"),
        ([("human", "q"), ("function_call", "3")], r"turn 2: a tool 'call' should be an object, found 3"),
        ([("human", "q"), ("function_call", '{"nam": "a"}')],
         r"turn 2: in a tool call, the field 'name' is missing\. Did you mean 'nam'\?"),
        ([("human", "q"), ("function_call", '{"name": "a", "arguments": "{"}')],
         r"turn 2: the arguments of a tool call are not valid JSON"),
        ([("human", "q"), ("function_call", '{"name": "a", "arguments": [1]}')],
         r"turn 2: the arguments of a tool call should be an object, found \[1\]"),
        ([("human", "q"), ("gpt", '<tool_call>{"name": "a"}</tool_call>'), ("tool", "1")],
         r"turn 3 answers a call that is written into the text of turn 2\. The dataset 'tools'"),
        ([], r"the conversation has no messages"),
    ],
)  # fmt: skip
def test_a_wrong_turn_is_named(convert, said, told):
    with pytest.raises(harness.DataError, match=told):
        convert(*said)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"conversations": "q"}, r"'conversations' should be a list, found 'q'"),
        ({"conversations": ["q"]}, r"turn 1 should be an object with from and value, found 'q'"),
        ({"conversations": [{"role": "user", "content": "q"}]},
         r"turn 1 has role and content, .* dataset 'messages' reads that"),
        ({"conversation": []}, r"the field 'conversations' is missing\. Did you mean 'conversation'\?"),
        ({"conversations": [{"from": "human", "value": "q"}], "tools": "[{"}, r"the field 'tools' is not valid JSON"),
        ({"conversations": [{"from": "human", "value": "q"}], "tools": [1]}, r"tool 1 should be an object, found 1"),
        ({"conversations": [{"from": "system", "value": "a"}], "system": "b"},
         r"two system prompts: 'b' in the field 'system', 'a' in message 1"),
        ({"log": ["q"]}, r"log entry 1 should be an object"),
        ({"log": [{"user utterance": "q"}]}, r"turn 1: the field 'system response' is missing"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(datasets, row, told):
    with pytest.raises(harness.DataError, match=told):
        convert_row(datasets["sharegpt"], row)


def test_dialogstudio_logs_are_read(datasets):
    log = [{"turn id": n, "user utterance": f"q{n}", "system response": f"a{n}"} for n in (1, 2)]
    (made,) = convert_row(datasets["sharegpt"], {"id": "x", "log": log})
    assert made == harness.Conversation.of(
        ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2"), id="x"
    )


values = st.recursive(
    st.none()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from(['{"name": "f", "arguments": {}}', "[]", "{", "1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["from", "value", "name", "arguments", "function", "weight"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
turn = st.fixed_dictionaries(
    {"from": st.sampled_from(list(turns.SPEAKERS)) | values, "value": values},
    optional={"weight": values, "role": values},
)


@settings(max_examples=200, deadline=None)
@given(
    row=st.fixed_dictionaries(
        {"conversations": st.lists(turn | values, max_size=6) | values},
        optional={"tools": values, "system": values, "id": values, "log": values},
    )
)
def test_any_row_is_a_conversation_or_a_data_error(row, datasets):
    try:
        (made,) = convert_row(datasets["sharegpt"], row)
    except harness.DataError as error:
        assert "does not fit dataset" not in str(error)  # what nobody thought of
        return
    json.dumps([message.as_dict() for message in made.messages])


def test_real_files_lose_no_row(real_data, datasets):
    def rows(name):
        return json.loads((real_data / name).read_text())

    calls = [
        convert_row(datasets["sharegpt"], row)[0] for row in rows("llamafactory-demo/glaive_toolcall_en_demo.json")
    ]
    assert len(calls) == 300
    roles = Counter(message.role for made in calls for message in made.messages)
    assert roles == {"user": 746, "assistant": 746 + 211, "tool": 211}
    assert all(message.tool_call_id for made in calls for message in made.messages if message.role == "tool")
    assert sum(bool(made.tools) for made in calls) == 300 - 109
    assert len([convert_row(datasets["sharegpt"], row) for row in rows("sharegpt/dummy_conversation.json")]) == 500
    original = [
        convert_row(datasets["sharegpt"], row)[0]
        for row in rows("sharegpt/dialogstudio_sharegpt_original_example.json")
    ]
    path = real_data / "sharegpt" / "dialogstudio_sharegpt_converted_example.json"
    converted = [convert_row(datasets["sharegpt"], row)[0] for _, row in read_rows(path)]
    assert len(original) == len(converted) == 5
    assert [made.messages for made in converted] == [made.messages for made in original]
