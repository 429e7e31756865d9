"""The chat template in the model's own folder: its Jinja source, its stop tokens and the parser of its tool calls."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any

import pydantic

import harness
from harness.errors import nearest
from harness.template.escape import unprotected
from harness.template.habits import Thinking
from harness.template.stops import of_generation_config
from harness_templates.sources import CLOCK, fixed_clock, set_variables, without
from harness_templates.stops import eos

ENDINGS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end_of_turn|>")
# What the model writes to call a tool, and vLLM's parser of that format. The first that matches decides; serving tries
# it first, and others where it does not read the call.
TOOL_CALLS = tuple(
    (re.compile(pattern), parser)
    for pattern, parser in (
        (r"\[TOOL_CALLS\]", "mistral"),
        (r"<｜DSML｜tool_calls>", "deepseek_v4"),
        (r"<｜DSML｜", "deepseek_v32"),
        (r"<｜tool▁call▁begin｜>function<", "deepseek_v3"),
        (r"<｜tool▁call▁begin｜>", "deepseek_v31"),
        (r"<\|tool_calls_section_begin\|>", "kimi_k2"),
        (r"<\|START_ACTION\|>", "cohere_command3"),
        (r"<\|tool_call_start\|>", "lfm2"),
        (r"<\|tool_call>call:", "gemma4"),
        (r"<\|tool_call\|>", "granite"),
        (r"<\|action_start\|>", "internlm"),
        (r"<\|channel\|>", "openai"),
        (r"<\|python_start\|>\s*\[\w+\(", "llama4_pythonic"),
        (r"<tool_calls>\s*\[", "hunyuan_a13b"),
        (r"<parameter=", "qwen3_coder"),
        (r"<arg_key>", "glm45"),
        (r"<tool_call>", "hermes"),
        (r"\[\w+\(\w+=", "pythonic"),
        (r"\"parameters\":", "llama3_json"),
        (r"\A\s*\[\{\"name\"", "xlam"),
    )
)
DAY = datetime.date(2024, 7, 26)  # what Llama 3.2's template falls back to
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token")
_WORDS = {
    *[
        "and",
        "elif",
        "else",
        "endfor",
        "endif",
        "endmacro",
        "for",
        "if",
        "in",
        "is",
        "macro",
        "not",
        "or",
        "set",
        "defined",
        "none",
        "true",
        "false",
    ]
}  # of Jinja
_SWITCHES = re.compile(r"^{%- set (\w*(?:think|reason)\w*) = (?:true|false|-?\d+|\"\w+\") %}$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ModelsOwn(harness.Options):
    """`variables` are set before the template, as in `enable_thinking: false`; the run saves them as a part of it.

    `date` is the day that a template gets from `strftime_now`: one day, in tuning as in serving. Left
    out, it is that of the run which the model comes from, or else DAY. `thinking: on` asks every answer for thoughts
    and `off` for none, where the template has a switch; `auto` asks for what the answer has.
    """

    date: datetime.date | None = None
    thinking: Thinking = "auto"
    variables: dict[str, bool | int | Annotated[float, pydantic.Field(allow_inf_nan=False)] | str] = pydantic.Field(
        default_factory=dict
    )

    @pydantic.field_validator("variables")
    @classmethod
    def _are_variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        for name in variables:
            if name in _GIVEN:
                raise ValueError(f"{name!r} comes from the conversation or the tokenizer and cannot be set")
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a valid variable name: expected letters, digits and _")
        return variables


def models_own(tokenizer: Any, options: ModelsOwn | None = None) -> str:
    """Return the model's chat template, with the variables of the recipe set before it.

    They replace those of the run that the model comes from, if any.

    Raises:
        TemplateError: if the model has no template, or the template does not read such a variable.
    """
    options = options or ModelsOwn()
    source, variables = unprotected(_own(tokenizer)), options.variables
    read = (
        set(_NAME.findall(" ".join(re.findall(r"{[{%].*?[%}]}", source, re.DOTALL)))) - _WORDS if variables else set()
    )
    for name in variables:
        if name not in read:
            raise harness.TemplateError(f"the model's template reads no variable {name!r}.{nearest(name, read)}")
    sets_clock = "strftime_now" in source and (options.date is not None or CLOCK not in source)
    clock = fixed_clock(options.date or DAY) if sets_clock else ""
    # A run that was tuned with `thinking: on` or `off` has its switch set there.
    switches = _SWITCHES.findall(source) if options.thinking != "auto" else []
    return clock + set_variables(**variables) + without(source, [*variables, *switches], clock=sets_clock)


def _own(tokenizer: Any) -> str:
    source = tokenizer.chat_template
    if isinstance(source, dict):
        # Several named ones. With tools, transformers and vLLM take `tool_use` where there is one.
        default, with_tools = source.get("default"), source.get("tool_use")
        if default and with_tools:
            default, with_tools = default.removesuffix("\n"), with_tools.removesuffix("\n")
            return f"{{%- if tools +%}}{with_tools}{{%+ else +%}}{default}{{%+ endif +%}}"
        source = default
    if not source:
        raise harness.TemplateError(
            "the model brings no chat template of its own (base models often do not); choose one by name, such as "
            "chatml"
        )
    return str(source)


def stops(tokenizer: Any) -> tuple[str, ...]:
    """Return the tokens that can end a turn in a model's own template, beside what its trial shows.

    These are the usual end-of-turn tokens that it writes, and the eos tokens of `generation_config.json` and tokenizer.
    """
    source, vocabulary = _own(tokenizer), tokenizer.get_vocab()
    named = tuple(token for token in ENDINGS if token in source and token in vocabulary)
    return tuple(dict.fromkeys((*named, *of_generation_config(tokenizer), *eos(tokenizer))))


def tool_parser(call: str) -> str | None:
    """Return vLLM's name for the parser of a call that the template has written, as far as the call shows it."""
    return next((parser for pattern, parser in TOOL_CALLS if pattern.search(call)), None)


TEMPLATES = (
    harness.Template(
        "model",
        "the template that the model's own folder brings",
        models_own,
        stops,
        takes_system=None,
        takes_tools=None,
        takes_turns=None,
        tool_parser=tool_parser,
        options=ModelsOwn,
    ),
)
