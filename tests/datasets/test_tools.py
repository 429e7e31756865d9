"""Transcripts of tool use: calls that are written into texts become real calls, and their results answer them."""

import json

import pytest
from harness_datasets import tools
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import convert_row
from harness.plugins import Plugins


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


@pytest.fixture(scope="module")
def convert(datasets):
    return lambda row: convert_row(datasets["tools"], row)[0]


def said(*turns, **row):
    return {"conversations": [{"from": who, "value": text} for who, text in turns], **row}


def roles(made):
    return [message.role for message in made.messages]


TIP = {"name": "tip", "description": "A tip {of} a bill", "parameters": {"type": "object"}}

# Glaive

SYSTEM = (
    "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    + json.dumps(TIP, indent=4)
    + "\n\n"
    + json.dumps(TIP | {"name": "split"}, indent=4)
    + "\n"
)
CHAT = """USER: What do I tip for Jo's dinner at 60?


ASSISTANT: Let me see. <functioncall> {"name": "tip", "arguments": '{"bill": 60, "who": "Jo's dinner"}'} <|endoftext|>


FUNCTION RESPONSE: {"tip": 12}


ASSISTANT: Tip 12.
USER: is how a line may begin? No. <|endoftext|>


USER: Thanks.


ASSISTANT: Gladly! <|endoftext|>

"""


def test_a_glaive_row_has_its_tools_calls_and_results(convert):
    made = convert({"system": SYSTEM, "chat": CHAT.replace("\nUSER: is how a line may begin? No.", "")})
    assert roles(made) == ["system", "user", "assistant", "tool", "assistant", "user", "assistant"]
    assert (
        made.messages[0].content
        == "You are a helpful assistant with access to the following functions. Use them if required"
    )
    assert [tool["function"]["name"] for tool in made.tools] == ["tip", "split"]
    assert made.tools[0]["function"] == TIP
    asks, result = made.messages[2:4]
    assert asks.content == "Let me see."
    assert asks.tool_calls[0].arguments == {"bill": 60, "who": "Jo's dinner"}
    assert result.content == '{"tip": 12}' and result.tool_call_id == asks.tool_calls[0].id
    assert made.messages[-1].content == "Gladly!"


def test_a_glaive_row_without_tools_is_a_plain_conversation(convert):
    system = "SYSTEM: You are a helpful assistant, with no access to external functions."
    made = convert({"system": system, "chat": "USER: Hi\n\n\nASSISTANT: Hello <|endoftext|>"})
    assert made == harness.Conversation.of(
        ("system", system.removeprefix("SYSTEM: ")), ("user", "Hi"), ("assistant", "Hello")
    )


@pytest.mark.parametrize("between", ["\n", " "])
def test_a_glaive_row_may_be_one_text_and_one_line(convert, between):
    text = between.join(
        [
            "SYSTEM: Answer.",
            "USER: Tip?",
            'ASSISTANT: <functioncall> {"name": "tip", "arguments": {"bill": 1}} <|endoftext|>',
            "FUNCTION RESPONSE: 2",
            "ASSISTANT: Two. <|endoftext|>",
        ]
    )
    made = convert({"sample": text})
    assert roles(made) == ["system", "user", "assistant", "tool", "assistant"]
    assert made.messages[2].tool_calls[0].arguments == {"bill": 1} and made.messages[4].content == "Two."


def test_an_escaped_quote_in_quoted_arguments_is_a_quote(convert):
    call = """<functioncall> {"name": "say", "arguments": '{"text": "It\\'s"}'}"""
    made = convert({"system": "", "chat": f"USER: q\nASSISTANT: {call}"})
    assert made.messages[1].tool_calls[0].arguments == {"text": "It's"}


# Hermes

PROMPT = (
    "You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML tags. "
    "Don't make assumptions about what values to plug into functions.\n<tools>\n"
    + str([{"type": "function", "function": TIP}])
    + "\n</tools>\nFor each function call return a json object with function "
    "name and arguments within <tool_call> </tool_call> "
    "tags with the following schema:\n<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>\n"
)


def test_a_hermes_row_has_its_tools_calls_and_results(convert):
    made = convert(
        said(
            ("system", PROMPT),
            ("human", "Tip for 10 and 20?"),
            (
                "gpt",
                "Two calls.\n<tool_call>\n{'arguments': {'bill': 10, 'cash': True}, 'name': 'tip'}\n</tool_call>\n"
                '<tool_call>\\n{"name": "split", "arguments": {"bill": 20}}\\n</tool_call>',
            ),
            (
                "tool",
                '<tool_response>\n{"name": "split", "content": 4}\n</tool_response>\n'
                '<tool_response>\n{"name": "tip", "content": 2}\n</tool_response>',
            ),
            ("gpt", "2 and 4."),
            category="x",
        )
    )
    assert roles(made) == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert made.messages[0].content == (
        "You are a function calling AI model. Don't make assumptions about what values to plug into functions."
    )
    assert made.tools == ({"type": "function", "function": TIP},)
    tip, split = made.messages[2].tool_calls
    assert made.messages[2].content == "Two calls."
    assert (tip.arguments, split.arguments) == ({"bill": 10, "cash": True}, {"bill": 20})
    assert [one.tool_call_id for one in made.messages[3:5]] == [split.id, tip.id]


def test_results_may_stand_in_the_users_turn_and_tools_one_a_line(convert):
    system = f"Be brief.\n\n# Tools\n<tools>\n{json.dumps(TIP)}\n{json.dumps({'name': 'b'})}\n</tools>"
    made = convert(
        {
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": "Tip?"},
                {"role": "assistant", "content": '<tool_call>{"name": "tip", "arguments": {}}</tool_call>'},
                {"role": "user", "content": "<tool_response>\n2\n</tool_response>"},
                {"role": "assistant", "content": "Two."},
            ]
        }
    )
    assert roles(made) == ["system", "user", "assistant", "tool", "assistant"]
    assert made.messages[3].content == "2" and made.messages[3].tool_call_id
    assert [tool["function"]["name"] for tool in made.tools] == ["tip", "b"]
    assert made.messages[0].content == "Be brief.\n# Tools"


def test_the_rows_own_tools_count_before_those_in_the_prompt(convert):
    made = convert(said(("system", PROMPT), ("human", "q"), ("gpt", "a"), tools=json.dumps([{"name": "other"}])))
    assert [tool["function"]["name"] for tool in made.tools] == ["other"]


# Code

CODE = "Let me run it.\n```python\nprint(1)\n```"


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (CODE, ("ipython", "1\n")),
        (CODE, ("execution", "1")),
        (CODE, ("observation", "1")),
        (CODE, ("human", "Observation:\n1")),
        (CODE, ("user", "Execution result: 1")),
        ("Let me run it.\n<execute>\nprint(1)\n</execute>", ("human", "Observation:\n1")),
        ("Let me run it.\n<execute>print(1)</execute>", ("code_output", "1")),
    ],
)
def test_code_that_was_run_is_a_call_of_python(convert, code, output):
    made = convert(said(("human", "q"), ("gpt", code), output, ("gpt", "One.")))
    assert roles(made) == ["user", "assistant", "tool", "assistant"]
    asks, result = made.messages[1:3]
    (call,) = asks.tool_calls
    assert (asks.content, call.name, call.arguments) == ("Let me run it.", "python", {"code": "print(1)"})
    assert (result.content, result.tool_call_id) == ("1", call.id)
    assert made.tools == (tools.PYTHON,)


def test_code_that_was_not_run_stays_text(convert):
    made = convert(said(("human", "q"), ("gpt", CODE), ("human", "Thanks")))
    assert made == harness.Conversation.of(("user", "q"), ("assistant", CODE), ("user", "Thanks"))


def test_several_blocks_are_one_call_of_the_last(convert):
    made = convert(said(("human", "q"), ("gpt", f"```python\na = 1\n```\n{CODE}"), ("ipython", "1"), ("gpt", "1")))
    assert made.messages[1].content == "```python\na = 1\n```\nLet me run it."
    assert made.messages[1].tool_calls[0].arguments == {"code": "print(1)"}


# What is wrong


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"system": "SYSTEM: x"}, r"the field 'chat' is missing"),
        ({"system": "", "chat": "hello"},
         r"the field 'chat' should hold turns such as USER: and ASSISTANT:, found 'hello'"),
        ({"chat": "Hm.\nUSER: q\nASSISTANT: a"}, r"'chat' begins with text outside of any turn: 'Hm\.'"),
        ({"chat": "USER: q\nASSISTANT: <functioncall> tip(3)"}, r"turn 2: the call is not valid JSON: .*'tip\(3\)'"),
        ({"chat": "USER: q\nASSISTANT: <functioncall> {\"name\": \"tip\", \"arguments\": '{'}"},
         r"turn 2: the arguments of a tool call are not valid JSON"),
        ({"chat": "USER: q\nFUNCTION RESPONSE: 1\nASSISTANT: a"},
         r"turn 2 is a tool's result, but no call comes before it: .* found 'q'"),
        ({"system": "SYSTEM: access to functions -\n{\"name\": ", "chat": "USER: q\nASSISTANT: a"},
         r"the text of the tools in the field 'system' is not valid JSON"),
        (said(("human", "q"), ("gpt", "no code"), ("ipython", "1")),
         r"turn 3 is a code's output, but no call comes before it"),
        (said(("human", "q"), ("gpt", "<tool_call>{}</tool_call>")),
         r"turn 2: in a tool call, the field 'name' is missing"),
        (said(("human", "q"), ("gpt", "<tool_call>{'name': {1}}</tool_call>")), r"turn 2: the call is not valid JSON"),
        (said(("robot", "q")), r"turn 1 is from 'robot'\."),
        (said(("human", 3)), r"turn 1: the field 'value' should be text, found 3"),
        ({"conversations": ["q"]}, r"turn 1 should be an object with from and value"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named(convert, row, told):
    with pytest.raises(harness.DataError, match=told):
        convert(row)


pieces = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<functioncall>", '{"name": "f", "arguments": {}}', "{'name': 'f'}",
     "<tools>[]</tools>", "<tools>", "</tools>", "<tool_response>", "</tool_response>", "<execute>",
     "```python\n1\n```", "USER:", "ASSISTANT:", "\n", "FUNCTION RESPONSE:", "SYSTEM:", "<|endoftext|>", "Observation:",
     "{", "[", "function", '"arguments": \'', "a"]
)  # fmt: skip
written = st.lists(pieces | st.text(max_size=4), max_size=8).map(" ".join)
turn = st.fixed_dictionaries(
    {"from": st.sampled_from(list(tools._SPEAKERS)), "value": written | st.none() | st.integers()}
)


@settings(max_examples=300, deadline=None)
@given(
    row=st.fixed_dictionaries(
        {},
        optional={
            "system": written,
            "chat": written,
            "sample": written,
            "conversations": st.lists(turn, max_size=6),
            "tools": written | st.none(),
        },
    )
)
def test_any_row_is_a_conversation_or_a_data_error(row, datasets):
    try:
        (made,) = convert_row(datasets["tools"], row)
    except harness.DataError as error:
        assert "does not fit dataset" not in str(error)  # what nobody thought of
        return
    json.dumps([message.as_dict() for message in made.messages])


def test_rows_of_real_calls_written_into_texts_give_the_same_conversations(real_data, datasets):
    """LLaMA-Factory's rows are Glaive's with the calls taken out; written back in, they are read as the same."""
    rows = json.loads((real_data / "llamafactory-demo" / "glaive_toolcall_en_demo.json").read_text())
    marks = {
        "human": "USER: ",
        "gpt": "ASSISTANT: ",
        "function_call": "ASSISTANT: <functioncall> ",
        "observation": "FUNCTION RESPONSE: ",
    }
    hermes = {
        "function_call": ("gpt", "<tool_call>\n{}\n</tool_call>"),
        "observation": ("tool", "<tool_response>\n{}\n</tool_response>"),
    }
    for row in rows:
        (wanted,) = convert_row(datasets["sharegpt"], row)
        functions = "\n\n".join(json.dumps(tool, indent=4) for tool in json.loads(row["tools"]))
        glaive = {
            "system": f"SYSTEM: You have access to the following functions -\n{functions}",
            "chat": "\n\n\n".join(
                marks[turn["from"]] + turn["value"] + (" <|endoftext|>" if marks[turn["from"]].startswith("A") else "")
                for turn in row["conversations"]
            ),
        }
        (made,) = convert_row(datasets["tools"], glaive)
        assert made.messages[0].role == "system"
        assert (stripped(made.messages[1:]), made.tools) == (stripped(wanted.messages), wanted.tools)
        tagged = [hermes.get(turn["from"], (turn["from"], "{}")) for turn in row["conversations"]]
        texts = [
            form.replace("{}", turn["value"]) for (_, form), turn in zip(tagged, row["conversations"], strict=True)
        ]
        turns = [("system", f"Tools: <tools>{row['tools']}</tools>")] if wanted.tools else []
        (made,) = convert_row(
            datasets["tools"], said(*turns, *((who, text) for (who, _), text in zip(tagged, texts, strict=True)))
        )
        assert (stripped(made.messages), made.tools) == (stripped(wanted.messages), wanted.tools)


def stripped(messages):
    return [(one.role, one.content.strip(), one.tool_calls, one.tool_call_id) for one in messages]
