"""vLLM's parsers are found by what a template writes: each takes a rendered sample apart again."""

from __future__ import annotations

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


def test_the_parsers_of_gpt_oss_are_found_in_ids_of_its_vocabulary_only(harmony_tokenizer: Any) -> None:
    """vLLM reads what a gpt-oss writes by the ids of its own vocabulary, whatever the tokenizer says."""
    from harness_serve.parsers import find

    family = Plugins().templates["gpt-oss"]
    assert find(bind(family, harmony_tokenizer)) == {"reasoning": "openai_gptoss", "tools": "openai"}
    assert find(bound("gpt-oss")) == {"reasoning": None, "tools": None}


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
    assert find(bind(model, tokenizer)) == {"reasoning": "qwen3", "tools": None, "loses": loses}


def test_a_parser_that_reads_text_is_taken_only_where_the_marks_stay_in_it() -> None:
    """vLLM leaves special tokens out of an answer's text, and `deepseek_r1` looks for `</think>` in the text."""
    from harness_serve.parsers import find

    assert find(bound("deepseek-r1", special=False)) == {"reasoning": "deepseek_r1", "tools": None}
