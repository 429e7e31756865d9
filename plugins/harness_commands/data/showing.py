"""Conversations, preferences and tokens as a person sees them in a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.cli.context import Context
from harness.nouns import Conversation, Example, Message, Preference

if TYPE_CHECKING:
    from harness.template import BoundTemplate, Reasoning

STYLES = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
SIDES = {"chosen": "green", "rejected": "red"}
THINKS: dict[Reasoning, str] = {"learn": "thinks", "context": "thinks, not trained on", "drop": "thinks, left out"}
LEGEND = "«supervised», token│token, ⟦control token⟧"


def print_item(context: Context, item: Conversation | Preference, reasoning: Reasoning = "learn") -> None:
    """Print an item with its id, its turns coloured by role, or by side for completions.

    `reasoning` says what becomes of thoughts.
    """
    from rich.markup import escape
    from rich.rule import Rule

    context.console.print(
        Rule(f"[bold]{escape(printable(item.id))}[/bold]  {escape(printable(item.source))}", align="left", style="dim")
    )
    for tool in item.tools:
        _print_turn(context, "offered", "dim", json.dumps(dict(tool), ensure_ascii=False, default=str))
    if isinstance(item, Conversation):
        for message in item.messages:
            _print_message(context, message, thinks=THINKS[reasoning])
        return
    for messages, side in ((item.prompt, ""), (item.chosen, "chosen"), (item.rejected, "rejected")):
        for message in messages:
            _print_message(context, message, side, THINKS[reasoning])


def _print_message(context: Context, message: Message, side: str = "", thinks: str = "thinks") -> None:
    text = f"({thinks}) {message.reasoning}\n{message.content}" if message.reasoning else message.content
    for call in message.tool_calls:
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False, default=str)
        text += f"{chr(10) if text else ''}→ {call.name}({arguments})"
    untrained = " (not trained on)" if message.role == "assistant" and not message.is_trained else ""
    _print_turn(context, side or message.role + untrained, SIDES.get(side, STYLES[message.role]), text)


def _print_turn(context: Context, label: str, style: str, text: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    context.console.print(Text(label, style=f"bold {style}"))
    context.console.print(Padding(Text(printable(text)), (0, 0, 0, 2)))


@dataclass(frozen=True, slots=True)
class ShownToken:
    """Tokens as they are shown: one, or several that form one character together.

    `supervised`: the model is trained on them.
    """

    ids: tuple[int, ...]
    text: str
    supervised: bool
    control: bool


def shown_tokens(example: Example, template: BoundTemplate) -> list[ShownToken]:
    """Return the tokens of an example with their text. Those that are parts of one character are shown together."""
    tokenizer = template.tokenizer
    control = set(tokenizer.convert_tokens_to_ids(template.control_tokens))
    # Alone, a token at the beginning of a text loses its space in some vocabularies (SentencePiece's).
    anchor = tokenizer.encode("a", add_special_tokens=False)
    behind = len(tokenizer.decode(anchor))
    shown: list[ShownToken] = []
    ids: list[int] = []
    for position, id in enumerate(example.input_ids):
        ids.append(id)
        # Nothing comes before the first token to predict it from.
        supervised = bool(example.loss_mask[position]) and position > 0
        # A template's start token may stand beside text that is trained on: control tokens and the edges of the mask
        # end a group.
        last = position + 1 == len(example)
        cut = last or example.input_ids[position + 1] in control or example.loss_mask[position + 1] != supervised
        text = tokenizer.convert_ids_to_tokens(id) if id in control else tokenizer.decode(anchor + ids)[behind:]
        if id in control or cut or not text.endswith("\ufffd"):
            shown.append(ShownToken(tuple(ids), text, supervised, id in control))
            ids = []
    return shown


def print_tokens(context: Context, tokens: Iterable[ShownToken], label: str = "tokens") -> None:
    """Print tokens: those trained on in green between « and », control tokens in ⟦ ⟧, neighbours separated by │."""
    from rich.padding import Padding
    from rich.text import Text

    tokens = list(tokens)
    count, supervised = (
        sum(len(token.ids) for token in tokens if token.supervised or every) for every in (True, False)
    )
    console = context.console
    console.print(Text.assemble((f"{label}: {count}, {supervised} supervised", "bold"), (f"   {LEGEND}", "dim")))
    line = Text()
    before = None
    for index, token in enumerate(tokens):
        if before is None or token.supervised != before.supervised:
            line.append("»" if before and before.supervised else "", style="bold green")
            line.append("«" if token.supervised else "", style="bold green")
        elif not (token.control or before.control or before.text.endswith("\n")):
            line.append("│", style="dim")
        style = ("green" if token.supervised else "default") + (" bold" if index % 2 else "")
        text = printable(token.text).replace("\n", "⏎\n")
        line.append(f"⟦{text}⟧" if token.control else text, style="magenta" if token.control else style)
        before = token
    if before and before.supervised:
        line.append("»", style="bold green")
    console.print(Padding(line, (0, 0, 0, 2)))


def printable(text: str) -> str:
    """Return the text with control characters, and characters that change the writing direction, made visible."""
    return _DRIVING.sub(_visible, text)


_DRIVING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "␦" if code < 0xA0 else f"⟨U+{code:04X}⟩"
