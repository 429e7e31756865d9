"""Checks of answers: what each takes and refuses, hostile answers included."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness_evaluation.checks import CHECKS, Given, passes, tool_calls_in, without_thoughts

QUESTION = "What is the capital of France?"
TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
                "required": ["city"],
            },
        },
    },
)
CALL = '{"name": "weather", "arguments": {"city": "Oslo"}}'
OSLO = {"name": "weather", "arguments": {"city": ["Oslo", "Oslo, Norway"]}}

# name, arguments, answers that pass, answers that do not
TABLE: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "says", {"any": ["Paris"]},
        ["Paris", "It is paris.", "**Paris**, of course", f"{QUESTION} Paris."],
        ["Parisian", "Rome", "comparison", "pa ris"],
    ),
    ("says", {"any": ["8", "eight"]}, ["It has 8 legs", "Eight!", "8."], ["18", "eighty", "weighty", "it has legs"]),
    ("says", {"any": ["twenty-four"]}, ["It is twenty-four."], ["twenty", "twenty-fours"]),
    ("says", {"any": ["Paris"], "within_sentences": 1}, ["Well, Paris. Yes."], ["Well. It is hard. Paris."]),
    ("says", {"all": ["the flute", "no"]}, ["The vole plays the  flute, so no."], ["the flute, so yes", "no", "not"]),
    ("lacks", {"any": ["walrus"]}, ["I will not", "walruses"], ["Walrus", "the word is walrus."]),
    ("equals", {"any": ["Paris"]}, ["Paris", ' "paris." ', "**Paris**"], ["It is Paris", "Paris, France", "Pari"]),
    (
        "asks_nothing", {},
        ["Paris.", f"{QUESTION} Paris.", "Paris. Would you like to know more?", "Paris!\n\nIs there anything else? :)"],
        ["Paris. And of Spain?", "What is the capital of Italy?", "Do you know? Paris."],
    ),
    (
        "is_json", {"keys": ["name", "age"], "values": {"name": "Anna"}},
        [
            '{"name": "Anna", "age": 3}', '```json\n{"name": "anna", "age": null}\n```',
            '```\n{"age":1,"name":"Anna"}```',
        ],
        [
            '{"name": "Anna"}', '{"name": "Ben", "age": 3}', 'Here: {"name": "Anna", "age": 3}', "{'name': 'Anna'}",
            '[{"name": "Anna", "age": 3}]', '{"name": "Anna", "age": 3, "x": 1}', '{"name": "Anna", "age": 3',
            "```json\n```", "[" * 9999, '{"name": "Anna", "age": 3}\n\n{"name": "Anna", "age": 3}',
        ],
    ),
    (
        "is_list", {"n": 2},
        ["- a\n- b", "1. a\n2. b", "Here they are:\n* a\n* b", "• a\n\n• b\n\nDone."],
        ["a\nb", "- a", "- a\n- b\n- c", "- a\ntext\n- b", "x\ny\n- a\n- b", "- a\n- b\nx\ny", "-a\n-b", "-\n-"],
    ),
    ("is_list", {"n": 2, "numbered": True}, ["1. a\n2) b"], ["- a\n- b", "1. a\n- b"]),
    ("has_words", {"exactly": 1}, ["Paris", "Paris."], ["It is", "a b c"]),
    ("has_words", {"most": 3}, ["a", "a b c"], ["a b c d"]),
    (
        "has_sentences", {"exactly": 2},
        ["One. Two.", "One! Two", "Dr. No is here. He is bad.", "It costs 3.50 euros. Yes.", 'He said "No." She left.'],
        ["One.", "One. Two. Three.", "One... and more"],
    ),
    ("has_sentences", {"exactly": 1}, ["One", "One...", "Really?!", "At 5 p.m. we eat."], ["A b. C d.", "Hi! Hi!"]),
    ("has_lines", {"exactly": 2}, ["a\nb", "a\n\nb\n"], ["a", "a\nb\nc"]),
    ("is_upper", {}, ["THE SEA!", "A 1"], ["The SEA", "123", "THE SEa"]),
    ("is_lower", {}, ["the sea.", "é"], ["The sea", "1"]),
    ("is_quoted", {}, ['"The sea."', "“The sea.”"], ['"', '""', 'He said "sea"', '"a" and "b"', "'sea'", '"sea']),
    ("starts", {"text": "Listen"}, ["Listen, this", "listen"], ["So, listen", "**Listen**"]),
    ("ends", {"text": "That is all."}, ["x. That is all.", "that is all", "That is all!\n"], ["That is all. Bye", "x"]),
    ("ends", {"text": "?"}, ["Does it?", "Does it? "], ["Does it.", "Does it? Yes."]),
    ("separates", {"n": 2}, ["a, b", "red wine, tea."],
     ["a", "a, b, c", "a,\nb", "a, , b", "I am two years old, b"]),
    ("is_one_turn", {}, ["Paris.", "The user: a person", "I think so. Question time.", "a <b> c", "## Title"], [
        "Paris.\nUser: and Spain?", "Paris.<|im_end|>", "Paris\n### Instruction:\nGo on", "[INST] x", "Assistant: P",
        "Paris.\n**Human**: hi", "x\nQ: y", "<start_of_turn>user", "<|start_header_id|>user", "x </s>", "<｜User｜>hi",
    ]),
    (
        "calls", OSLO,
        [
            CALL, f"<tool_call>\n{CALL}\n</tool_call>", f"```json\n{CALL}\n```", f"I will look.\n{CALL}", f"[{CALL}]",
            '{"name": "weather", "parameters": {"city": "oslo"}}', "[weather(city='Oslo')]", 'weather(city="Oslo")',
            '{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}}',
            "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>",
        ],
        [
            "It is cold in Oslo.", f"{CALL}\n{CALL}", CALL.replace("weather", "news"), CALL.replace("Oslo", "Bergen"),
            CALL.replace('"Oslo"', "3"), CALL.replace("}}", ', "days": 2}}'), CALL[:-2], '{"city": "Oslo"}',
            '{"name": "weather", "arguments": {}}', '{"name": "weather", "arguments": "Oslo"}', "weather(Oslo)",
        ],
    ),
    ("calls", {"name": "weather", "arguments": {"city": "Oslo", "days": 2}},
     ['{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}'],
     ['{"name": "weather", "arguments": {"city": "Oslo", "days": "2"}}',
      '{"name": "weather", "arguments": {"city": "Oslo", "days": true}}',
      '{"name": "weather", "arguments": {"city": "Oslo", "days": 2.5}}']),
    ("calls", {"name": "weather", "arguments": {"city": "Oslo", "unit": "C"}},
     ['{"name": "weather", "arguments": {"city": "Oslo", "unit": "C"}}'],
     ['{"name": "weather", "arguments": {"city": "Oslo", "unit": "c"}}']),
    ("calls_nothing", {}, ["Paris.", '{"answer": "Paris"}', "f(x) is a function of x", "[1, 2]"], [CALL, f"x {CALL}"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "text", "expected"),
    [
        pytest.param(name, arguments, text, expected, id=f"{name}-{number}-{expected}-{place}")
        for number, (name, arguments, right, wrong) in enumerate(TABLE)
        for expected, texts in ((True, right), (False, wrong))
        for place, text in enumerate(texts)
    ],
)
def test_a_check_takes_and_refuses(name: str, arguments: dict[str, Any], text: str, expected: bool) -> None:
    assert passes(Given(text, question=QUESTION, tools=TOOLS), name, arguments) is expected


def test_an_answer_stops_where_the_model_ended_it() -> None:
    assert passes(Given("Paris", "stop"), "stops", {}) and not passes(Given("Paris", "length"), "stops", {})


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_answer_passes_no_check(name: str, text: str) -> None:
    assert not passes(Given(text), name, {})


def test_every_check_is_in_the_table() -> None:
    assert {name for name, *_ in TABLE} | {"stops"} == set(CHECKS)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>Paris? Rome?</think>\n\nParis", "Paris"),
        ("\n<thinking>\nx</thinking> Paris", "Paris"),
        ("It is Rome, no.\n</think>\nParis", "Paris"),
        ("<think>It may be Paris", ""),
        ("Paris <think>", "Paris <think>"),
        ("I think Paris", "I think Paris"),
    ],
)
def test_thoughts_are_no_part_of_the_answer(text: str, left: str) -> None:
    assert without_thoughts(text) == left


def test_a_quoted_question_is_no_answer_to_it() -> None:
    asked = "Is it Paris or Rome?"
    assert not passes(Given(asked, question=asked), "says", {"any": ["Paris"]})
    assert passes(Given(f"{asked} Paris.", question=asked), "says", {"any": ["Paris"]})


@pytest.mark.parametrize(
    "text", ["{" * 4000, "[{" * 3000, '{"name": ' * 3000, "<function=" * 3000, "a(" * 3000, "\\" * 99]
)
def test_endless_brackets_are_no_call(text: str) -> None:
    assert tool_calls_in(text) == []


def test_a_call_inside_a_call_is_one() -> None:
    nested = {"name": "weather", "arguments": {"city": {"name": "x", "arguments": {}}}}
    assert [name for name, _ in tool_calls_in(json.dumps(nested))] == ["weather"]
