"""Templates: chat templates as they are declared, before they are bound to a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.contract.checking import require_functions, require_options, require_texts

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template: its Jinja source for a given tokenizer, and the tokens that end an assistant's turn.

    `jinja(tokenizer, options)` returns the source in the form that transformers and vLLM take (`messages`, `tools`,
    `add_generation_prompt`, `bos_token`, `eos_token`). Control-token strings in messages and tools are made ordinary
    text before it sees them. `stop_tokens(tokenizer)` returns token strings of the tokenizer's own vocabulary.

    `control_tokens` are those it writes, besides bos and eos: a tokenizer fits that has them. `takes_system`,
    `takes_tools` and `takes_turns` say whether it has a place for system prompts, tools and more than one exchange;
    None: its trial decides. `tool_parser` is vLLM's name for the parser that reads its tool calls, or a function that
    finds it from the source. `default` makes it the one of recipes that name none; first-party only.
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
    """Refuse a declaration that would break where a recipe uses it. Raises PluginError."""
    require_functions(template, jinja="tokenizer, options", stop_tokens="tokenizer")
    require_options(template, optional=True)
    require_texts(template, "description")
