"""Each family renders what was published for it, and refuses what it does not support."""

from __future__ import annotations

import copy
import datetime
import json
from functools import partial
from pathlib import Path
from typing import Any

import pydantic
import pytest
from harness_templates.sources import fixed_clock
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.nouns import Conversation, Message, ToolCall
from harness.template import bind as bind_to_tokenizer
from harness.template.sandbox import compiled

TURNS = (Message("user", "Who keeps the key?"), Message("assistant", "The heron."))
AGAIN = (Message("user", "And the bell?"), Message("assistant", "The otter."))
SYSTEM = Message("system", "Be brief.")
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {
            "type": "object",
            "properties": {
                "at": {"type": "string", "description": "Where."},
                "how": {"type": "integer", "description": "How often."},
            },
            "required": ["at"],
        },
    },
}
CALLING = (
    Message("user", "Is it there?"),
    Message("assistant", "", (ToolCall("look", {"at": "the mill", "how": 2}),)),
    Message("tool", '{"seen": true}'),
    Message("assistant", "Yes."),
)
TWO_CALLS = (
    Message("user", "Is it there?"),
    Message("assistant", "Let me see.", (ToolCall("look", {"at": "a"}), ToolCall("look", {"at": "b"}))),
    Message("tool", "no"),
    Message("tool", "yes"),
    Message("assistant", "In b."),
)

QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
SIGNATURES = json.dumps(LOOK)
QWEN_TOOLS = f"""\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{SIGNATURES}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
HERMES_TOOLS = """\
You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags. \
You may call one or more functions to assist with the user query. Don't make assumptions about what values to plug \
into functions. Here are the available tools: <tools> {"type": "function", "function": {"name": "look", "description": \
"look(at: str, how: int) - Looks somewhere.

    Args:
        at(str): Where.        how(int): How often.", "parameters": {"type": "object", "properties": {"at": {"type": \
"string", "description": "Where."}, "how": {"type": "integer", "description": "How often."}}, "required": ["at"]}} \
</tools>Use the following pydantic model json schema for each tool call you will make: {"properties": {"name": \
{"title": "Name", "type": "string"}, "arguments": {"title": "Arguments", "type": "object"}}, "required": \
["name", "arguments"], "title": "FunctionCall", "type": "object"}}
For each function call return a json object with function name and arguments within <tool_call></tool_call> XML tags \
as follows:
<tool_call>
{"name": <function-name>, "arguments": <args-dict>}
</tool_call>"""
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."


def chatml(*turns: str) -> str:
    """ChatML from `role: words` each."""
    return "".join("<|im_start|>{}\n{}<|im_end|>\n".format(*turn.split(": ", 1)) for turn in turns)


# Question and answer, then the same behind a system prompt with a second exchange. None: refused.
TALK = ("user: Who keeps the key?", "assistant: The heron.", "user: And the bell?", "assistant: The otter.")
RENDERED: dict[str, tuple[str, str | None]] = {
    "chatml": (chatml(*TALK[:2]), chatml("system: Be brief.", *TALK)),
    "qwen2": (
        chatml("system: You are a helpful assistant.", *TALK[:2]),
        chatml("system: Be brief.", *TALK),
    ),
    "qwen2.5": (chatml(f"system: {QWEN}", *TALK[:2]), chatml("system: Be brief.", *TALK)),
    "hermes": ("<s>" + chatml(*TALK[:2]), "<s>" + chatml("system: Be brief.", *TALK)),
    "gemma": (
        "<s><start_of_turn>user\nWho keeps the key?<end_of_turn>\n<start_of_turn>model\nThe heron.<end_of_turn>\n",
        None,
    ),
    "gemma3": (
        "<s><start_of_turn>user\nWho keeps the key?<end_of_turn>\n<start_of_turn>model\nThe heron.<end_of_turn>\n",
        "<s><start_of_turn>user\nBe brief.\n\nWho keeps the key?<end_of_turn>\n<start_of_turn>model\n"
        "The heron.<end_of_turn>\n"
        "<start_of_turn>user\nAnd the bell?<end_of_turn>\n<start_of_turn>model\nThe otter.<end_of_turn>\n",
    ),
    "phi3": (
        "<|user|>\nWho keeps the key?<|end|>\n<|assistant|>\nThe heron.<|end|>\n",
        "<|system|>\nBe brief.<|end|>\n<|user|>\nWho keeps the key?<|end|>\n<|assistant|>\nThe heron.<|end|>\n"
        "<|user|>\nAnd the bell?<|end|>\n<|assistant|>\nThe otter.<|end|>\n",
    ),
    "zephyr": (
        "<|user|>\nWho keeps the key?</s>\n<|assistant|>\nThe heron.</s>\n",
        "<|system|>\nBe brief.</s>\n<|user|>\nWho keeps the key?</s>\n<|assistant|>\nThe heron.</s>\n"
        "<|user|>\nAnd the bell?</s>\n<|assistant|>\nThe otter.</s>\n",
    ),
    "vicuna": (
        f"{VICUNA} USER: Who keeps the key? ASSISTANT: The heron.</s>",
        "Be brief. USER: Who keeps the key? ASSISTANT: The heron.</s>USER: And the bell? ASSISTANT: The otter.</s>",
    ),
    "alpaca": (
        f"{ALPACA}\n\n### Instruction:\nWho keeps the key?\n\n### Response:\nThe heron.</s>",
        "Be brief.\n\n### Instruction:\nWho keeps the key?\n\n### Response:\nThe heron.</s>"
        "\n\n### Instruction:\nAnd the bell?\n\n### Response:\nThe otter.</s>",
    ),
    "plain": (
        "Who keeps the key?The heron.</s>",
        "Be brief.Who keeps the key?The heron.</s>And the bell?The otter.</s>",
    ),
}
FAMILIES = sorted(RENDERED)
PROMPTS = {
    "gemma": "<start_of_turn>model\n",
    "gemma3": "<start_of_turn>model\n",
    "phi3": "<|assistant|>\n",
    "zephyr": "<|assistant|>\n",
    "vicuna": "ASSISTANT:",
    "alpaca": "\n\n### Response:\n",
    "plain": "",
}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "the mill", "how": 2}}\n</tool_call>'
WITH_TOOLS = {
    "chatml": chatml(
        f"system: {QWEN_TOOLS}",
        "user: Is it there?",
        f"assistant: {CALL}",
        'user: <tool_response>\n{"seen": true}\n</tool_response>',
        "assistant: Yes.",
    ),
    "qwen2.5": chatml(
        f"system: {QWEN}\n\n{QWEN_TOOLS}",
        "user: Is it there?",
        f"assistant: {CALL}",
        'user: <tool_response>\n{"seen": true}\n</tool_response>',
        "assistant: Yes.",
    ),
    "hermes": "<s>"
    + chatml(f"system: {HERMES_TOOLS}", "user: Is it there?", f"assistant: {CALL}")
    + '<|im_start|>tool\n<tool_response>\n{"seen": true}\n</tool_response>\n<|im_end|>'
    + chatml("assistant: Yes."),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_question_and_its_answer(name, bind):
    assert bind(name).render(TURNS) == RENDERED[name][0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_prompt_and_several_exchanges(name, bind):
    expected = RENDERED[name][1]
    if expected is None:
        with pytest.raises(harness.TemplateError, match=f"'{name}' does not support a system prompt"):
            bind(name).render((SYSTEM, *TURNS))
    else:
        assert bind(name).render((SYSTEM, *TURNS, *AGAIN)) == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_the_generation_prompt_is_what_stands_before_an_answer(name, bind):
    template = bind(name)
    prompt = template.render(TURNS[:1], generation_prompt=True)
    assert prompt == template.render(TURNS[:1]) + PROMPTS.get(name, "<|im_start|>assistant\n")
    assert RENDERED[name][0].startswith(prompt)


@pytest.mark.parametrize("name", sorted(WITH_TOOLS))
def test_tools_their_calls_and_their_results(name, bind):
    template = bind(name)
    assert template.render(CALLING, (LOOK,)) == WITH_TOOLS[name]
    for turn in (1, 3):
        assert WITH_TOOLS[name].startswith(template.render(CALLING[:turn], (LOOK,), generation_prompt=True))


@pytest.mark.parametrize("name", ["chatml", "qwen2.5"])
def test_several_calls_and_results_share_a_turn(name, bind):
    turns = chatml(
        "user: Is it there?",
        'assistant: Let me see.\n<tool_call>\n{"name": "look", "arguments": {"at": "a"}}\n</tool_call>'
        '\n<tool_call>\n{"name": "look", "arguments": {"at": "b"}}\n</tool_call>',
        "user: <tool_response>\nno\n</tool_response>\n<tool_response>\nyes\n</tool_response>",
        "assistant: In b.",
    )
    assert bind(name).render(TWO_CALLS, (LOOK,)).endswith(turns)


def test_hermes_keeps_what_is_said_beside_calls(bind):
    rendered = bind("hermes").render(TWO_CALLS, (LOOK,))
    assert "assistant\nLet me see.\n<tool_call>" in rendered
    assert "<tool_response>\nno\n</tool_response>\n<tool_response>\nyes\n</tool_response>\n<|im_end|>" in rendered


def test_a_system_prompt_stands_before_the_tools(bind):
    for name in ("chatml", "qwen2.5"):
        assert bind(name).render((SYSTEM, *CALLING), (LOOK,)).startswith(chatml(f"system: Be brief.\n\n{QWEN_TOOLS}"))
    rendered = bind("hermes").render((SYSTEM, *CALLING), (LOOK,))
    assert rendered.startswith("<s>" + chatml(f"system: {HERMES_TOOLS}", "system: Be brief."))


@pytest.mark.parametrize(
    ("schema", "python"),
    [
        ({"type": "number"}, "float"),
        ({"type": "boolean"}, "bool"),
        ({"type": "object"}, "dict"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "dict[str, int]"),
        ({"type": ["string", "null"]}, "Union[str,Any]"),
        ({"type": "null"}, "Any"),
        ({"type": "array", "items": {"type": "string"}}, "list[Union[]]"),  # as published
        ({}, "Union[]"),
    ],
)
def test_hermes_writes_signatures_with_python_types(schema, python, bind):
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"x": schema}}}
    rendered = bind("hermes").render(TURNS, ({"type": "function", "function": function},))
    assert f'"description": "f(x: {python}) - d\n\n    Args:\n        x({python}): "' in rendered


@pytest.mark.parametrize("name", sorted(WITH_TOOLS))
def test_a_tool_without_parameters_or_description_is_rendered(name, bind):
    rendered = bind(name).render(TURNS, ({"type": "function", "function": {"name": "now"}},))
    assert '"name": "now"' in rendered
    assert "None" not in rendered


@pytest.mark.parametrize("name", FAMILIES)
def test_no_content_is_not_written_as_none(name, bind):
    template = bind(name)
    call = [{"type": "function", "function": {"name": "look", "arguments": {}}}] if template.takes_tools else None
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": call}]
    assert "None" not in template.renderer(turns, None, False)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_unknown_role_is_refused_by_the_family(name, bind):
    turns = [{"role": "user", "content": "q"}, {"role": "narrator", "content": "aside"}]
    with pytest.raises(
        harness.TemplateError, match=rf"the {name} template does not support a message of role 'narrator'"
    ):
        bind(name).renderer(turns, None, False)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_has_no_place_is_refused_by_the_server_too(name, bind):
    """As transformers and vLLM render the saved template, which know nothing of ours."""
    template = bind(name)
    render = partial(template.tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    question, calls = (
        [{"role": "user", "content": "q"}],
        [{"type": "function", "function": {"name": "look", "arguments": {}}}],
    )
    called = [*question, {"role": "assistant", "content": None, "tool_calls": calls}]
    system = [{"role": "system", "content": "s"}, *question]
    assert render(question)
    with pytest.raises(Exception, match=r"message 1 \(user\) says nothing: its content is null"):
        render([{"role": "user", "content": None}])
    for taken, what, asked in (
        (template.takes_tools, "tools", partial(render, question, tools=[LOOK])),
        (template.takes_tools, "tools", partial(render, called)),
        (template.takes_system, "a system prompt", partial(render, system)),
        (template.takes_turns, "more than one exchange",
         partial(render, [*question, {"role": "assistant", "content": "a"}, *question])),
    ):  # fmt: skip
        if taken:
            assert asked()
        else:
            with pytest.raises(Exception, match=f"^template '{name}' does not support {what}$"):
                asked()
    if not template.takes_tools:
        with pytest.raises(harness.TemplateError, match=f"'{name}' does not support tools"):
            template.render(TURNS, (LOOK,))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_prompt_alone_is_written_or_refused(name, bind):
    template = bind(name)
    render = partial(
        template.tokenizer.apply_chat_template, [{"role": "system", "content": "Be brief."}], tokenize=False
    )
    try:
        text = render(add_generation_prompt=True)
    except Exception as error:
        assert "system prompt" in str(error)
    else:
        assert "Be brief." in text


@pytest.mark.parametrize("name", ["gemma", "gemma3"])
def test_gemma_takes_user_and_assistant_in_turn(name, bind):
    with pytest.raises(
        harness.TemplateError, match=f"the {name} template takes user and assistant in turn, the user first"
    ):
        bind(name).render((TURNS[0], TURNS[0]))
    assert "\nkeys <end_of_turn>" not in bind(name).render((Message("user", " keys "),))


def test_an_alpaca_instruction_with_an_input_has_its_own_wording(bind):
    rendered = bind("alpaca").render((Message("user", "Translate.\n\n### Input:\nSchlüssel"),), generation_prompt=True)
    assert rendered == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nTranslate.\n\n### Input:\nSchlüssel\n\n### Response:\n"
    )


# The default system prompt


@pytest.mark.parametrize("name", ["chatml", "qwen2", "qwen2.5", "vicuna"])
def test_the_default_system_prompt_is_an_option(name, bind):
    words = 'Say "hm" 🦩 \\n {{ x }} %}\n<|im_end|>'
    own, none = bind(name, system=words), bind(name, system=None)
    assert own.render(TURNS) == own.render((Message("system", "?"), *TURNS)).replace("?", words, 1)
    assert (
        none.render(TURNS)
        == RENDERED[name][0][RENDERED[name][0].index("USER:" if name == "vicuna" else "<|im_start|>user") :]
    )
    assert own.render((SYSTEM, *TURNS)) == none.render((SYSTEM, *TURNS)) == bind(name).render((SYSTEM, *TURNS))


def test_the_default_system_prompt_is_there_to_be_shown(templates):
    shown = {name: templates[name].options().system for name in ("chatml", "qwen2", "qwen2.5", "vicuna")}
    assert shown == {"chatml": None, "qwen2": "You are a helpful assistant.", "qwen2.5": QWEN, "vicuna": VICUNA}


# Growing by appending

words = st.text("abä🦩 \n\t<|>", max_size=12)


@st.composite
def conversations(draw: st.DrawFn, tools: bool, system: bool) -> tuple[tuple[Message, ...], tuple[Any, ...]]:
    turns = [Message("system", draw(words))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Message("user", draw(words)))
        for _ in range(draw(st.integers(0, 2)) if tools else 0):
            calls = draw(
                st.lists(st.dictionaries(words, words | st.integers() | st.none(), max_size=2), min_size=1, max_size=2)
            )
            turns.append(Message("assistant", draw(words), tuple(ToolCall("look", arguments) for arguments in calls)))
            turns += [Message("tool", draw(words)) for _ in calls]
        turns.append(Message("assistant", draw(words)))
    return tuple(turns), (LOOK,) if tools and draw(st.booleans()) else ()


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_prompts_grow_by_appending(name, data, bind):
    template = bind(name)
    messages, tools = data.draw(conversations(template.takes_tools, template.takes_system))
    whole = template.render(messages, tools)
    for turn, message in enumerate(messages):
        if message.role == "assistant":
            assert whole.startswith(template.render(messages[:turn], tools, generation_prompt=True))
            assert whole.startswith(template.render(messages[: turn + 1], tools))


# Published renderings

GOLDENS = {
    "Qwen-Qwen2-7B-Instruct-{}": ("qwen2", ("simple", "system")),
    "Qwen-Qwen2.5-7B-Instruct-{}": ("qwen2.5", ("simple", "system", "tool_use")),
    "NousResearch-Hermes-2-Pro-Mistral-7B-default-{}": ("hermes", ("simple", "system")),
    "NousResearch-Hermes-2-Pro-Mistral-7B-tool_use-{}": ("hermes", ("tool_use",)),
    "teknium-OpenHermes-2.5-Mistral-7B-{}": ("chatml", ("simple", "system")),
}


def golden(folder: Path, name: str, template: Any, context_name: str, **changes: Any) -> tuple[str, str]:
    """What was published for a context, and what the template as it is saved renders for it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    context = json.loads((folder / "contexts" / f"{context_name}.json").read_text()) | changes
    if template.name != "hermes":  # Hermes' prints the JSON string as it came
        for message in context["messages"]:
            for call in message.get("tool_calls", ()):
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    (rendered,), _ = render_jinja_template(
        conversations=[context["messages"]],
        tools=context.get("tools"),
        chat_template=template.tokenizer.chat_template,
        add_generation_prompt=context["add_generation_prompt"],
        bos_token=context["bos_token"],
        eos_token=context["eos_token"],
    )
    return (folder / "goldens" / f"{name.format(context_name)}.txt").read_text(), rendered


@pytest.mark.parametrize(
    ("published", "name", "context"),
    [(published, name, context) for published, (name, contexts) in GOLDENS.items() for context in contexts],
)
def test_what_was_published_is_rendered_byte_for_byte(published, name, context, real_data, bind):
    expected, rendered = golden(real_data / "minja-goldens", published, bind(name), context)
    assert rendered == expected


@pytest.mark.parametrize("context", ["simple", "system"])
def test_hermes_frames_the_tools_as_published(context, real_data, bind):
    """The published rendering has no tool between the tags, which never happens; ours without the tool is the same."""
    published = "NousResearch-Hermes-2-Pro-Mistral-7B-tool_use-{}"
    expected, rendered = golden(real_data / "minja-goldens", published, bind("hermes"), context, tools=[LOOK])
    between = rendered[rendered.index('{"type": "function", "function"') : rendered.index(" </tools>Use")]
    assert rendered.replace(between, "") == expected


# The model's own

THINKING = (
    "\n{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{{ thought }}{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ thought if think is false else '' }}{% endif %}\n"
)


@pytest.fixture
def own(bind):
    """A tokenizer that brings a chat template."""

    def bring(source: str | dict[str, str] | None) -> Any:
        tokenizer = copy.copy(bind("model").tokenizer)
        tokenizer.chat_template = source
        return tokenizer

    return bring


def test_variables_become_part_of_the_models_own_template(own, templates):
    model = templates["model"]
    told = {"think": False, "thought": 'é 🦩 "\n{{ x }}'}
    bound = bind_to_tokenizer(model, own(THINKING), model.options(variables=told))
    assert bound.render(TURNS) == "\n" + chatml(TALK[0], f"assistant: {told['thought']}The heron.")
    assert bound.render(TURNS[:1], generation_prompt=True).endswith(f"assistant\n{told['thought']}")
    assert bind_to_tokenizer(model, own(THINKING)).render(TURNS) == "\n" + chatml(*TALK[:2])


@pytest.mark.parametrize(
    ("name", "told"),
    [("thouhgt", "reads no variable 'thouhgt'. Did you mean 'thought'"), ("zzz", "reads no variable 'zzz'.$")],
)
def test_a_variable_that_the_models_template_does_not_read_is_refused(name, told, own, templates):
    model = templates["model"]
    with pytest.raises(harness.TemplateError, match=told):
        bind_to_tokenizer(model, own(THINKING), model.options(variables={name: 1}))


@pytest.mark.parametrize(
    "variables", [{"messages": ""}, {"eos_token": "x"}, {"a b": 1}, {"a": None}, {"a": float("nan")}]
)
def test_what_is_no_variable_of_a_template_is_refused(variables, templates):
    with pytest.raises(pydantic.ValidationError):
        templates["model"].options(variables=variables)


LLAMA_32_DATE = (  # how Llama 3.2's asks for the day
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set '
    'date_string = "never" %}{%- endif %}{%- endif %}'
    "{{- 'Today: ' + date_string + '\n' }}"
)


@pytest.mark.parametrize(
    ("given", "day"),
    [({}, "26 Jul 2024"), ({"date": "2026-01-05"}, "05 Jan 2026"), ({"variables": {"date_string": "May"}}, "May")],
)
def test_a_template_that_asks_the_clock_is_told_one_day_in_tuning_and_serving(given, day, own, templates):
    model = templates["model"]
    bound = bind_to_tokenizer(model, own(LLAMA_32_DATE + THINKING), model.options.model_validate(given))
    assert bound.opening.startswith(f"Today: {day}\n")
    served = bound.tokenizer.apply_chat_template([TURNS[0].as_dict()], tokenize=False, add_generation_prompt=True)
    assert served == bound.render(TURNS[:1], generation_prompt=True)


def test_what_a_recipe_sets_outranks_what_the_run_that_a_model_comes_from_has_set(own, templates):
    model = templates["model"]
    first = bind_to_tokenizer(
        model,
        own(LLAMA_32_DATE + THINKING),
        model.options(date="2026-01-05", variables={"think": False, "thought": "Hm. "}),
    )
    saved = first.tokenizer.chat_template
    assert "Today: 05 Jan 2026" in first.opening
    again = bind_to_tokenizer(model, own(saved))
    assert again.render(TURNS) == first.render(TURNS) and again.tokenizer.chat_template == saved
    other = bind_to_tokenizer(model, own(saved), model.options(date="2026-02-06", variables={"thought": "Oh. "}))
    assert "Today: 06 Feb 2026" in other.opening and "Oh. The heron." in other.render(TURNS)
    assert (
        other.tokenizer.chat_template.count("macro strftime_now") == 1
        and other.tokenizer.chat_template.count("Written by the harness") == 1
    )


@pytest.mark.parametrize("format", ["%d %b %Y", "%A, %B %d, %Y %H:%M", "%-d/%m/%y %%Y %j %I%p", "%F %T %e", "day"])
def test_a_fixed_clock_writes_the_day_as_strftime_does(format):
    day = datetime.date(2024, 7, 6)
    written = compiled(fixed_clock(day) + "{{ strftime_now(format) }}").render(format=format)
    assert written == day.strftime(format)


def test_an_empty_block_that_the_template_writes_before_the_words_is_learnt(own, templates):
    bound = bind_to_tokenizer(templates["model"], own(THINKING.replace("{{ thought }}", "<think></think>")))
    example = bound.encode(Conversation(TURNS))
    learnt = [id for id, seen in zip(example.input_ids, example.loss_mask, strict=True) if seen]
    assert bound.decoded(learnt).startswith("<think></think>")


def test_of_several_templates_the_one_for_tools_is_used_with_tools(own, templates):
    macro = "{% macro f(x) %}{{ '[' + (f(x - 1) if x else '') + ']' }}{% endmacro %}"
    named = {
        "default": THINKING,
        "tool_use": "{{ 'tools: ' + tools[0].function.name }}" + macro + "{{ f(1) }}\n" + THINKING,
    }
    bound = bind_to_tokenizer(templates["model"], own(named))
    assert bound.takes_tools is False  # it writes no calls
    assert bound.render(TURNS) == "\n" + chatml(*TALK[:2])
    turns = [{"role": message.role, "content": message.content} for message in TURNS]
    assert bound.renderer(turns, [LOOK], False) == "tools: look[[]]\n\n" + chatml(*TALK[:2])


def test_a_model_without_a_template_is_told_to_choose_one(own, templates):
    with pytest.raises(harness.TemplateError, match=r"brings no chat template of its own.*such as chatml"):
        bind_to_tokenizer(templates["model"], own(None))


def test_the_tokens_that_end_a_turn_of_the_models_own_are_found(own, templates):
    assert templates["model"].stop_tokens(own(THINKING)) == ("<|im_end|>", "</s>")
    assert templates["model"].stop_tokens(own("{{ messages }}")) == ("</s>",)


@pytest.mark.parametrize("name", ["hermes", "qwen2.5", "qwen3", "llama3.1", "mistral-v3", "gemma3", "gemma4", "phi3"])
def test_who_reads_the_tool_calls_of_the_models_own_follows_from_a_call(name, bind, templates):
    """From what our own families write, whose parsers are known."""
    family = bind(name)
    own = bind_to_tokenizer(templates["model"], copy.copy(family.tokenizer))
    assert own.tool_parser == family.tool_parser


@pytest.mark.parametrize(
    ("name", "first"), [("alpaca", ["▁Below", "▁is"]), ("vicuna", ["▁A", "▁chat"]), ("zephyr", ["▁<", "|", "user"])]
)
def test_the_first_word_behind_bos_is_one_on_a_sentencepiece_vocabulary(name, first, bind):
    template = bind(name, "tok-tinyllama")
    tokens = template.tokenizer.convert_ids_to_tokens(template.prompt_ids([Message("user", "Hi")]))
    assert tokens[: len(first) + 1] == ["<s>", *first]
