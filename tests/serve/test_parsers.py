"""vLLM's parsers are found by what a template writes: each takes a rendered sample apart again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from harness.plugins import Plugins
from harness.template import BoundTemplate, bind, missing_tokens
from harness.testing.models import tiny_tokenizer

pytestmark = pytest.mark.vllm


def bound(name: str, *, special: bool = True) -> BoundTemplate:
    """The family on a small vocabulary that is given its tokens; those of thoughts are special, or ordinary ones."""
    template, tokenizer = Plugins().templates[name], tiny_tokenizer()
    tokens = list(missing_tokens(template, tokenizer))
    ordinary = [] if special else [token for token in tokens if "think" in token]
    tokenizer.add_tokens(ordinary)
    more: dict[str, Any] = {"extra_special_tokens": [token for token in tokens if token not in ordinary]}
    tokenizer.add_special_tokens(more, replace_extra_special_tokens=False)
    return bind(template, tokenizer)


@pytest.mark.parametrize(
    ("name", "reasoning", "tools"),
    [
        ("qwen3", "qwen3", "hermes"),
        ("deepseek-r1", "qwen3", None),
        ("gemma4", "gemma4", "gemma4"),
        ("chatml", None, "hermes"),
        ("llama3.1", None, "llama3_json"),
        ("gemma3", None, "pythonic"),
        ("vicuna", None, None),
    ],
)
def test_the_parsers_of_a_family_are_found(name: str, reasoning: str | None, tools: str | None) -> None:
    from harness_serve.parsers import find

    assert find(bound(name)) == {"reasoning": reasoning, "tools": tools}


def tried(found: dict[str, str | None]) -> dict[str, str | None]:
    """What was found, without remarks on parsers that were not tried: one wants a package that may not be here."""
    return {key: value for key, value in found.items() if "not tried" not in (value or "")}


def test_the_parsers_of_gpt_oss_are_found_in_ids_of_its_vocabulary_only(harmony_tokenizer: Any) -> None:
    """vLLM reads what a gpt-oss writes by the ids of its own vocabulary, whatever the tokenizer says."""
    from harness_serve.parsers import find

    family = Plugins().templates["gpt-oss"]
    assert find(bind(family, harmony_tokenizer)) == {"reasoning": "openai_gptoss", "tools": "openai"}
    assert tried(find(bound("gpt-oss"))) == {"reasoning": None, "tools": None}


def test_a_parser_that_takes_every_answer_for_thoughts_is_named_with_what_it_loses() -> None:
    """LFM2.5 thinks always; vLLM's parsers of such tags take what never closes a thought for one."""
    from harness_serve.parsers import find

    model, tokenizer = Plugins().templates["model"], bound("qwen3").tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    loses = "an answer without thoughts comes back as thoughts"
    assert find(bind(model, tokenizer)) == {"reasoning": "qwen3", "tools": None, "reasoning_remark": loses}


def test_a_parser_that_reads_text_is_taken_only_where_the_marks_stay_in_it() -> None:
    """vLLM leaves special tokens out of an answer's text, and `deepseek_r1` looks for `</think>` in the text."""
    from harness_serve.parsers import find

    assert find(bound("deepseek-r1", special=False)) == {"reasoning": "deepseek_r1", "tools": None}


# Calls as published templates write them, by vLLM's parser of that format.
NAME, ARGUMENTS = "{{ call.function.name }}", "{{ call.function.arguments | tojson }}"
PYTHONIC = (
    "[" + NAME + "({% for key, value in call.function.arguments.items() %}{{ ', ' if not loop.first }}"
    "{{ key }}={{ value | tojson }}{% endfor %})]"
)
JSON = '{"name": "' + NAME + '", "arguments": ' + ARGUMENTS + "}"
DSML = (
    '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="'
    + NAME
    + '">\n{% for key, value in call.function.arguments.items() %}'
    '<｜DSML｜parameter name="{{ key }}" string="{{ (value is string) | lower }}">{{ value if value is string else '
    "value | tojson }}</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
)
CALLS = {
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions." + NAME + ":0<|tool_call_argument_begin|>"
    + ARGUMENTS + "<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>" + NAME + "<｜tool▁sep｜>" + ARGUMENTS
    + "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v4": DSML,
    "lfm2": "<|tool_call_start|>" + PYTHONIC + "<|tool_call_end|>",
    "granite": "<|tool_call|>[" + JSON + "]",
    "internlm": "<|action_start|><|plugin|>\n" + JSON.replace("arguments\"", "parameters\"") + "<|action_end|>\n",
    "pythonic": PYTHONIC,
    "llama4_pythonic": "<|python_start|>" + PYTHONIC + "<|python_end|>",
    "hunyuan_a13b": "<tool_calls>[" + JSON + "]</tool_calls>",
    "xlam": "[" + JSON + "]",
}  # fmt: skip


def calling(call: str, *more: str) -> BoundTemplate:
    """A template of the model's own that writes calls so, on a vocabulary with its tokens and `more`."""
    tokenizer = tiny_tokenizer()
    tokens = [*re.findall(r"<\|\w+\|>|｜DSML｜", call), *more]
    tokenizer.add_tokens(re.findall(r"<｜tool[^｜]*｜>", call))  # ordinary ones, as published
    tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    tokenizer.chat_template = (
        "{{ tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for call in m.tool_calls or [] %}" + call + "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return bind(Plugins().templates["model"], tokenizer)


@pytest.mark.parametrize("parser", CALLS)
def test_the_parser_of_calls_follows_from_a_call(parser: str) -> None:
    from harness_serve.parsers import find

    template = calling(CALLS[parser])
    assert template.tool_parser == parser
    assert find(template) == {"reasoning": None, "tools": parser}


LLAMA = JSON.replace('arguments"', 'parameters"')


@pytest.mark.parametrize(
    ("call", "remark"),
    [
        (LLAMA, "llama3_json does on a vocabulary with <|python_tag|>"),
        (
            "[TOOL_CALLS]" + NAME + "[CALL_ID]call00001[ARGS]" + ARGUMENTS,
            "mistral makes look_upcall00001 of the name look_up",
        ),
        ("<call>" + NAME + " " + ARGUMENTS + "</call>", None),
    ],
)
def test_where_no_parser_reads_a_call_the_reason_is_given(call: str, remark: str | None) -> None:
    from harness_serve.parsers import find

    template = calling(call, "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
    found = find(template)
    assert tried(found) == {"reasoning": None, "tools": None} | ({"tools_remark": remark} if remark else {})


def test_a_call_that_llama_writes_is_read_on_its_vocabulary() -> None:
    from harness_serve.parsers import find

    assert find(calling(LLAMA, "<|python_tag|>")) == {"reasoning": None, "tools": "llama3_json"}
