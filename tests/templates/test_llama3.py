"""Llama 3's formats: the examples on Meta's prompt-format page come out as they are printed there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest
from harness_templates.llama3 import Llama31Options
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import TemplateError
from harness.nouns import Conversation, Message, ToolCall

DATED = {"date": "21 September 2024", "trim": False}
BOTH_TOOLS = {"builtin_tools": ("brave_search", "wolfram_alpha")}
SYSTEM_TEXT = "You are a helpful assistant.\n"


@pytest.fixture(scope="module")
def page(real_data: Path) -> dict[str, tuple[str, str]]:
    """Prompt and answer of each example of the page, by its title."""
    text = (real_data / "llama-prompt-format" / "llama3_1_prompt_format.md").read_text(encoding="utf-8")
    block = r"##### {}\n```\n(.*?)\n```\n"
    example = re.compile(
        r"^## ([^\n]*)\n(?:(?!^## ).)*?"
        + block.format("Input Prompt Format")
        + r"\s*"
        + block.format("Model Response Format"),
        re.MULTILINE | re.DOTALL,
    )
    examples = {title: (prompt, answer) for title, prompt, answer in example.findall(text)}
    assert len(examples) == 7
    return examples


def assert_as_printed(template: Any, example: tuple[str, str], messages: list[Message]) -> None:
    prompt, answer = (part.replace("<|begin_of_text|>", template.tokenizer.bos_token) for part in example)
    assert template.render(messages[:-1], generation_prompt=True) == prompt
    assert template.render(messages) == prompt + answer


def called(name: str, **arguments: Any) -> Message:
    return Message("assistant", "", (ToolCall(name, arguments),))


def test_a_conversation_is_as_meta_prints_it(bind: Any, page: dict[str, tuple[str, str]]) -> None:
    messages = [
        Message("system", "You are a helpful assistant"),
        Message("user", "Answer who are you in the form of jeopardy?"),
        Message("assistant", 'Here\'s my response\n\n"What is a helpful assistant?"'),
    ]
    for template in (bind("llama3.1", date=None), bind("llama3")):
        assert_as_printed(template, page["User and assistant conversation"], messages)


def test_a_built_in_tool_is_called_as_meta_prints_it(bind: Any, page: dict[str, tuple[str, str]]) -> None:
    messages = [
        Message("system", SYSTEM_TEXT),
        Message("user", "Search the web for the latest price of 1oz gold?"),
        called("brave_search", query="latest price of 1oz gold"),
    ]
    assert_as_printed(bind("llama3.1", **DATED, **BOTH_TOOLS), page["Builtin Tool Calling"], messages)


def test_a_whole_interaction_with_a_built_in_tool_is_as_meta_prints_it(
    bind: Any, page: dict[str, tuple[str, str]]
) -> None:
    example = page["Built-in tools full interaction"]
    (result,) = re.findall(
        r"<\|start_header_id\|>ipython<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", example[0], re.DOTALL
    )
    messages = [
        Message("user", "What is the 100th decimal of pi?"),
        called("wolfram_alpha", query="100th decimal of pi"),
        Message("tool", result),
        Message("assistant", "The 100th decimal of pi is 7."),
    ]
    assert "100th digit | π" in result
    assert_as_printed(bind("llama3.1", date=None, **BOTH_TOOLS), example, messages)


def test_code_is_called_as_meta_prints_it(bind: Any, page: dict[str, tuple[str, str]]) -> None:
    prompt, answer = page["Builtin Code Interpreter"]
    asked = Message("user", "Write code to check if number is prime, use that to see if the number 7 is prime")
    code = answer.removeprefix("<|python_tag|>").removesuffix("<|eom_id|>")
    template = bind("llama3.1", date=None, builtin_tools=("code_interpreter",))
    # A line end stands behind `Environment: ipython` here, as on the page where tools are named, but not on this
    # example.
    ours = prompt.replace("ipython<|eot_id|>", "ipython\n<|eot_id|>")
    assert_as_printed(template, (ours, answer), [asked, called("code_interpreter", code=code)])
    plain = bind("llama3.1", date=None)
    prompt = prompt.replace("<|begin_of_text|>", plain.tokenizer.bos_token)
    assert plain.render([Message("system", "Environment: ipython"), asked], generation_prompt=True) == prompt


@pytest.mark.parametrize("title", ["JSON based tool calling", "`<function>` based tool calling"])
def test_tools_described_in_words_of_ones_own_are_as_meta_prints_them(
    bind: Any, page: dict[str, tuple[str, str]], title: str
) -> None:
    prompt, answer = page[title]
    described, asked = re.findall(r"user<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", prompt, re.DOTALL)
    system = (
        f"Environment: ipython\n\nCutting Knowledge Date: December 2023\nToday Date: 21 September 2024\n\n{SYSTEM_TEXT}"
    )
    messages = [Message("system", system), Message("user", described), Message("user", asked)]
    template = bind("llama3.1", date=None, trim=False)
    expected = prompt.replace("<|begin_of_text|>", template.tokenizer.bos_token)
    assert template.render(messages, generation_prompt=True) == expected
    if answer.endswith(
        "<|eot_id|>"
    ):  # the other answer is a call as JSON in a layout of its own, behind <|python_tag|>
        messages.append(Message("assistant", answer.removesuffix("<|eot_id|>")))
        assert_as_printed(template, page[title], messages)


def turn(role: str, words: str, end: str = "<|eot_id|>") -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{words}{end}"


LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
CALLING = [
    Message("system", " Be brief. "),
    Message("user", "Is it there?"),
    called("look", at="the mill", how=2),
    Message("tool", '{"seen": true}'),
    Message("assistant", "Yes."),
]
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
FORMAT = (
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
    f"Do not use variables.\n\n{json.dumps(LOOK, indent=4)}\n\n"
)
REST = (
    turn("assistant", '{"name": "look", "parameters": {"at": "the mill", "how": 2}}')
    + turn("ipython", '{"seen": true}')
    + turn("assistant", "Yes.")
)


def test_tools_are_offered_in_the_first_user_message(bind: Any) -> None:
    template = bind("llama3.1")
    given = (
        "Given the following functions, please respond with a JSON for a "
        "function call with its proper arguments that best "
        f"answers the given prompt.\n\n{FORMAT}"
    )
    expected = turn("system", f"Environment: ipython\n{DATES}Be brief.") + turn("user", f"{given}Is it there?") + REST
    assert template.render(CALLING, [LOOK]) == template.tokenizer.bos_token + expected


def test_tools_are_offered_in_the_system_prompt_where_the_recipe_says_so(bind: Any) -> None:
    template = bind("llama3.1", tools_in_user_message=False)
    given = (
        "You have access to the following functions. To call a function, please respond with JSON for a function call."
        f"{FORMAT}"
    )
    expected = turn("system", f"Environment: ipython\n{DATES}{given}Be brief.") + turn("user", "Is it there?") + REST
    assert template.render(CALLING, [LOOK]) == template.tokenizer.bos_token + expected


def test_the_date_is_fixed_and_null_leaves_the_system_prompt_to_the_conversation(bind: Any) -> None:
    asked = [Message("user", "Hi")]
    bos = bind("llama3.1").tokenizer.bos_token
    assert bind("llama3.1").render(asked) == bos + turn("system", DATES) + turn("user", "Hi")
    in_may = turn("system", DATES.replace("26 Jul 2024", "1 May 2025"))
    assert bind("llama3.1", date="1 May 2025").render(asked) == bos + in_may + turn("user", "Hi")
    assert bind("llama3.1", date=None).render(asked) == bos + turn("user", "Hi")


def test_a_bare_assistant_header_asks_for_an_answer(bind: Any) -> None:
    for template in (bind("llama3"), bind("llama3.1")):
        prompt = template.render([Message("user", "Hi")], generation_prompt=True)
        assert prompt.endswith("Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")


@pytest.mark.parametrize(
    "options", [{}, {"tools_in_user_message": False}, {"date": None, "builtin_tools": ("brave_search",)}]
)
def test_every_answer_and_call_is_learnt_with_its_stop_token(bind: Any, options: dict[str, Any]) -> None:
    template = bind("llama3.1", **options)
    conversation = Conversation((*CALLING, Message("user", "Again?"), Message("assistant", "No.")), (LOOK,))
    assert template.check_turns(conversation) == 3
    example = template.encode(conversation)
    learnt = [token for token, mask in zip(example.input_ids, example.loss_mask, strict=True) if mask]
    assert sum(token in template.stop_ids for token in learnt) == 3
    assert ("<|eom_id|>" in template.tokenizer.decode(learnt)) == bool(options.get("builtin_tools"))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=40, deadline=None)
@given(system=st.none() | words, exchanges=st.lists(st.tuples(words, words.filter(str.strip)), min_size=1, max_size=3))
@pytest.mark.parametrize("name", ["llama3", "llama3.1"])
def test_every_prompt_is_the_beginning_of_the_conversation(
    bind: Any, name: str, system: str | None, exchanges: list[tuple[str, str]]
) -> None:
    messages = [] if system is None else [Message("system", system)]
    for asked, answered in exchanges:
        messages += [Message("user", asked), Message("assistant", answered)]
    assert bind(name).check_turns(Conversation(tuple(messages))) == len(exchanges)


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([Message("user", "x").as_dict(), {"role": "narrator", "content": "x"}],
         "knows system, user, assistant and tool messages, not the role 'narrator'"),
        ([{"role": "assistant", "content": "x"}], "does not begin with one"),
        ([Message("user", "x").as_dict(), Message("assistant", "So: ", (ToolCall("look", {}),)).as_dict()],
         "words beside a tool call"),
        ([Message("user", "x").as_dict(), Message("assistant", "", (ToolCall("look", {}),) * 2).as_dict()],
         "one tool call in a message, and this one has 2"),
    ],
)  # fmt: skip
def test_what_the_format_has_no_place_for_is_refused(bind: Any, messages: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(TemplateError, match=rf"llama3.1 .*{says}"):
        bind("llama3.1").renderer(messages, [LOOK], False)


def test_llama3_has_no_tools(bind: Any) -> None:
    with pytest.raises(TemplateError, match="not support tools"):
        bind("llama3").render(CALLING, [LOOK])
    with pytest.raises(TemplateError, match="not the role 'tool'"):
        bind("llama3").renderer([{"role": "tool", "content": "x"}], None, False)


def test_code_without_code_is_refused(bind: Any) -> None:
    template = bind("llama3.1", builtin_tools=("code_interpreter",))
    with pytest.raises(TemplateError, match=r'takes the arguments \{"code": "…"\}, not \{"source": "1"\}'):
        template.render([Message("user", "x"), called("code_interpreter", source="1")])


def test_an_unknown_built_in_tool_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="brave_search"):
        Llama31Options(builtin_tools=("google",))  # type: ignore[arg-type]
