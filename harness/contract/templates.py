"""Templates: declarations of chat templates, not yet bound to a tokenizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.contract.checking import require_functions, require_options, require_texts
from harness.contract.deprecation import deprecated

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template: its Jinja source for a given tokenizer, and the tokens that end an assistant's turn.

    `jinja(tokenizer, options)` returns the source in the form that transformers and vLLM take (`messages`, `tools`,
    `add_generation_prompt`, `bos_token`, `eos_token`). Control-token strings in messages and tools are ordinary text
    when they reach it. `stop_tokens(tokenizer)` returns token strings of the tokenizer's own vocabulary.

    `control_tokens` are the ones that it writes, besides bos and eos; the tokenizer must have them. `takes_system`,
    `takes_tools` and `takes_turns` say if it has a place for system prompts, tools and more than one exchange; with
    None, its trial decides. `tool_parser` is vLLM's name for the parser of its tool calls, or a function that derives
    the name from the text of a call. `default` selects it in recipes that name none; first-party only.
    """

    name: str
    description: str
    jinja: Callable[[Any, Any], str]
    stop_tokens: Callable[[Any], tuple[str, ...]]
    control_tokens: tuple[str, ...] = ()
    takes_system: bool | None = True
    takes_tools: bool | None = False
    takes_turns: bool | None = True
    tool_parser: str | Callable[[str], str | None] | None = None
    options: type[Options] | None = None
    default: bool = False


def check_template(template: Template) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(template, jinja="tokenizer, options", stop_tokens="tokenizer")
    require_options(template, optional=True)
    require_texts(template, "description")
    if parses_source(template):
        deprecated(
            "tool_parser(source)", "1.0", "write `tool_parser(call)`, which gets a call as the template writes it"
        )


def parses_source(template: Template) -> bool:
    """Return True for a `tool_parser` as it was: it gets the template's source, as its argument says."""
    parser = template.tool_parser
    return inspect.isfunction(parser) and list(inspect.signature(parser).parameters) == ["source"]
