"""Rows of messages: OpenAI's, Anthropic's and LLaMA-Factory's ways to write content, and the way there and back."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import convert_row
from harness.data.export import as_row
from harness.plugins import Plugins


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


@pytest.fixture(scope="module")
def convert(datasets):
    return lambda *messages, **row: convert_row(datasets["messages"], {"messages": list(messages), **row})[0]


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def test_parts_with_text_or_value_are_joined(convert):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}, {"type": "input_text", "text": "c"}]
    assert convert(user(parts), assistant("d")).messages[0].content == "abc"


def test_anthropic_blocks_become_calls_and_results(convert):
    made = convert(
        user("Rain in Rome and Oslo?"),
        assistant(
            [
                {"type": "thinking", "thinking": "Two calls.", "signature": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "t1", "name": "rain", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "t2", "name": "rain", "input": {"city": "Oslo"}},
            ]
        ),
        user(
            [
                {"type": "tool_result", "tool_use_id": "t2", "content": "no"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "yes"}]},
                {"type": "text", "text": "And "},
                {"type": "text", "text": "snow?"},
            ]
        ),
        assistant("No."),
        system=[{"type": "text", "text": "Be brief."}],
        tools=[{"name": "rain", "description": "d", "input_schema": {"type": "object"}}],
    )
    assert [message.role for message in made.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
        "assistant",
    ]
    asks = made.messages[2]
    assert (asks.reasoning, asks.content) == ("Two calls.", "Let me look.")
    assert asks.tool_calls == (
        harness.ToolCall("rain", {"city": "Rome"}, "t1"),
        harness.ToolCall("rain", {"city": "Oslo"}, "t2"),
    )
    assert [(one.content, one.tool_call_id) for one in made.messages[3:5]] == [("no", "t2"), ("yes", "t1")]
    assert made.messages[5].content == "And snow?"
    assert made.tools == (
        {"type": "function", "function": {"name": "rain", "description": "d", "parameters": {"type": "object"}}},
    )


def test_legacy_function_calls_are_read(convert):
    made = convert(
        {"role": "developer", "content": "s"},
        user("q"),
        assistant(None, function_call={"name": "f", "arguments": '{"x": 1}'}),
        {"role": "function", "name": "f", "content": "2"},
        assistant("2."),
        functions=[{"name": "f", "parameters": {}}],
    )
    assert [message.role for message in made.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert made.messages[2].tool_calls[0].arguments == {"x": 1}
    assert made.messages[3].tool_call_id == made.messages[2].tool_calls[0].id
    assert made.tools[0]["function"]["name"] == "f"


def test_results_without_an_id_are_matched_by_name_then_by_order(convert):
    calls = [{"type": "function", "function": {"name": name, "arguments": "{}"}} for name in "abb"]
    made = convert(
        user("q"),
        assistant("", tool_calls=calls),
        *({"role": "tool", "name": name, "content": text} for name, text in (("b", "1"), ("a", "2"), ("b", "3"))),
    )
    ids = [call.id for call in made.messages[1].tool_calls]
    assert len(set(ids)) == 3
    assert [message.tool_call_id for message in made.messages[2:]] == [ids[1], ids[0], ids[2]]


def test_a_result_that_names_its_call_keeps_that_id(convert):
    made = convert(
        user("q"),
        assistant("", tool_calls=[{"id": "x", "function": {"name": "f", "arguments": ""}}]),
        {"role": "tool", "tool_call_id": "x", "content": "1"},
        {"role": "tool", "tool_call_id": "nobody", "content": "2"},
    )
    assert made.messages[1].tool_calls == (harness.ToolCall("f", {}, "x"),)
    assert [message.tool_call_id for message in made.messages[2:]] == ["x", "nobody"]


def test_tools_may_be_json_text_and_reasoning_a_field(convert):
    made = convert(
        user("q"), assistant("a", reasoning_content="hm"), tools='[{"type": "function", "function": {"name": "f"}}]'
    )
    assert made.tools == ({"type": "function", "function": {"name": "f"}},)
    assert (made.messages[1].reasoning, made.messages[1].content) == ("hm", "a")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_read_under_every_name_and_survive_export(name, datasets):
    row = {"messages": [user("q"), {"role": "assistant", "content": "a", name: "hm"}]}
    (made,) = convert_row(datasets["messages"], row)
    assert made.messages[1] == harness.Message("assistant", "a", reasoning="hm")
    _, exported = as_row(made)
    assert exported["messages"][1] == {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert convert_row(datasets["messages"], exported)[0].messages == made.messages


TAGGED = "<think>\nhm </think>\n\na </think> b"


@pytest.mark.parametrize(("asked", "reasoning", "content"), [(True, "hm", "a </think> b"), (False, "", TAGGED)])
def test_tags_at_the_start_of_an_answer_are_thoughts_where_that_is_asked(asked, reasoning, content, datasets):
    dataset = datasets["messages"]
    (made,) = [dataset.convert({"messages": [user("q"), assistant(TAGGED)]}, dataset.options(think_tags=asked))]
    assert (made.messages[1].reasoning, made.messages[1].content) == (reasoning, content)


def test_conversations_of_role_and_content_are_messages_too(datasets):
    (made,) = convert_row(
        datasets["messages"],
        {"conversations": [user("q"), assistant("a", weight=0), assistant("a", train=False), assistant("b")]},
    )
    assert made.trained == (3,)


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (
            [{"from": "user", "content": "q"}],
            r"message 1 has the role null\. It has from with content: expected "
            r"role and content \(or, for 'sharegpt', from and",
        ),
        ([{"from": "human", "value": "q"}],
         r"message 1 has the role null\. It has from and value: the dataset 'sharegpt'"),
        ([user([{"type": "image_url"}])],
         r"message 1: content should be text or a list of text parts, found \{\"type\": \"image_url\"\}$"),
        ([user([{"type": "tool_use"}])], r"message 1: .*; a tool_use does not belong here"),
        ([user(["text"])], r"message 1: content should be text or a list of text parts, found 'text'"),
        ([user([{"type": "text"}])], r"message 1: a text part should have its text under 'text' or 'value'"),
        ([user("q"), assistant([{"type": "redacted_thinking", "data": "x"}])],
         r"message 2: redacted thinking is encrypted"),
        ([user("q"), assistant([{"type": "tool_use", "id": "x"}])],
         r"message 2: in a tool call, the field 'name' is missing"),
        ([user("q"), assistant("", tool_calls={})], r"message 2: 'tool_calls' should be a list, found \{\}"),
        ([user("q", tool_calls=[{"function": {"name": "f"}}])],
         r"message 1: only the assistant can call tools, found tool_calls of the user"),
        ([user("q"), assistant("", tool_calls=[{"function": {"name": ""}}])], r"message 2: a tool call has no name"),
        ([user("q"), assistant("", tool_calls=[{"function": {"name": "f"}, "id": 3}])],
         r"message 2: in a tool call, the field 'id' should be text"),
        ([user("q"), {"role": "tool", "content": "1", "tool_call_id": 3}],
         r"message 2: the field 'tool_call_id' should be text"),
        ([user("q"), assistant("a", weight=0.5)], r"message 2: the weight should be 0 or 1, found 0\.5"),
    ],
)  # fmt: skip
def test_a_wrong_message_is_named(convert, messages, told):
    with pytest.raises(harness.DataError, match=told):
        convert(*messages)


def test_two_system_prompts_are_refused_and_the_same_one_twice_is_not(convert):
    said = ({"role": "system", "content": "a"}, user("q"), assistant("r"))
    assert len(convert(*said, system="a").messages) == 3
    with pytest.raises(harness.DataError, match="there are two system prompts: 'b' in the field 'system'"):
        convert(*said, system="b")


# There and back

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
made_calls = st.builds(
    lambda name, arguments, id: {"type": "function", "function": {"name": name, "arguments": arguments}} | id,
    texts,
    st.dictionaries(texts, data, max_size=2) | st.dictionaries(texts, data, max_size=2).map(json.dumps),
    st.just({}) | texts.map(lambda id: {"id": id}),
)
any_message = st.one_of(
    texts.map(user),
    texts.map(lambda text: user([{"type": "text", "text": text}])),
    texts.map(assistant),
    st.lists(made_calls, min_size=1, max_size=3).map(lambda calls: assistant(None, tool_calls=calls)),
    st.builds(lambda text, name: {"role": "tool", "content": text, "name": name}, texts | st.just('["1", "2"]'), texts),
    st.builds(lambda text, id: {"role": "tool", "content": text, "tool_call_id": id}, texts, texts),
)


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(any_message, min_size=1, max_size=8),
    tools=st.lists(st.dictionaries(st.sampled_from(["type", "parameters"]), texts, max_size=2), max_size=2),
    bare=st.booleans(),
)  # fmt: skip
def test_a_conversation_survives_the_way_there_and_back(messages, tools, bare, datasets):
    tools = [
        {"name": "look", **tool} if bare else {"type": "function", "function": {"name": "look", **tool}}
        for tool in tools
    ]
    messages = [*messages, {"role": "assistant", "content": "Yes."}]
    (made,) = convert_row(datasets["messages"], {"messages": messages, "tools": tools, "id": "x"})
    row = {"messages": [message.as_dict() for message in made.messages], "tools": list(made.tools), "id": made.id}
    assert convert_row(datasets["messages"], row) == (made,)
    assert convert_row(datasets["messages"], json.loads(json.dumps(row))) == (made,)


def test_every_row_of_a_real_file_is_read_and_survives_the_way_back(real_data, datasets):
    lines = (real_data / "llamafactory-demo" / "reason_tool_use_demo_50.jsonl").read_text().splitlines()
    made = [convert_row(datasets["messages"], json.loads(line))[0] for line in lines]
    assert len(made) == 50
    assert sum(len(message.tool_calls) for one in made for message in one.messages) == 68
    assert all(message.reasoning for one in made for message in one.messages if message.is_trained)
    roles = Counter(message.role for one in made for message in one.messages)
    assert roles["system"] == 50 and roles["user"] == 70 and roles["assistant"] == 112
    assert all(message.tool_call_id for one in made for message in one.messages if message.role == "tool")
    for one in made:
        row = {"messages": [message.as_dict() for message in one.messages], "tools": list(one.tools)}
        assert convert_row(datasets["messages"], row) == (one,)


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ({"type": "function", "function": {"description": "d"}}, "tool 1 has no name"),
        ({"description": "d"}, "tool 1 has no name"),
        ({"type": "function", "function": "look"}, "tool 1 has no name"),
        ({"name": ""}, "tool 1 has no name"),
    ],
)
def test_a_tool_without_a_name_is_refused(tool, told, datasets):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": [tool]}
    with pytest.raises(harness.DataError, match=told):
        convert_row(datasets["messages"], row)


def test_an_argument_given_twice_in_text_is_refused(datasets):
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "mill", "at": "pond"}'}}
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]}
    with pytest.raises(harness.DataError, match="not valid JSON: the key 'at' comes twice, as 'mill' and as 'pond'"):
        convert_row(datasets["messages"], row)


@pytest.mark.parametrize("where", ["arguments", "tool"])
def test_half_a_surrogate_pair_in_a_call_or_a_tool_is_refused(where, datasets):
    half = "\ud83d"
    function = {"name": "look", "arguments": {"at": half if where == "arguments" else "mill"}}
    tool = {"name": "look", "description": half if where == "tool" else "d"}
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [{"function": function}]},
        ],
        "tools": [tool],
    }
    with pytest.raises(
        harness.DataError,
        match=r"(message 2 \(assistant\): the call of 'look'|tool 1) is not valid Unicode: it holds half of a",
    ):
        convert_row(datasets["messages"], row)
