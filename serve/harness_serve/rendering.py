"""A conversation drawn as HTML: the turns, the answers, their figures and the verdict.

The text of the answers is rendered here, with no HTML, images or scripts of theirs, so that nothing a model or a person
writes leaves the page.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence
from typing import Any

from harness.nouns import Verdict
from harness_serve.session import Answer, Session, Turn

CUT = "cut at the most tokens allowed"
LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)


def column_html(state: Session, column: int) -> str:
    """Return one variant's side of the conversation."""
    turns = "".join(turn_html(turn, turn.answers[column], hidden=state.is_hidden) for turn in state.turns)
    body = turns or '<div class="empty">Its answers appear here.</div>'
    name = html.escape(state.names[column])
    header = f'<header><span class="dot dot-{column}"></span>{name}</header>'
    return f'<section class="chat" data-variant="{name}">{header}{body}</section>'


def turn_html(turn: Turn, answer: Answer, *, hidden: bool = False) -> str:
    """Return a prompt, one answer to it, and the figures of the answer.

    Args:
        hidden: show nothing by which the variant could be known, and of the answer the part that is written out.
    """
    streaming = answer.finish is None or turn.share < 1
    text = answer.text[: round(turn.share * len(answer.text))] if hidden else answer.text
    if answer.finish == "error":
        body = f'<div class="failed">No answer: {html.escape(answer.error)}</div>'
    elif streaming and not text:
        body = '<div class="answer"><span class="thinking"><i></i><i></i><i></i></span></div>'
    elif not text:
        body = '<div class="answer none">An empty answer: the model stopped at once.</div>'
    else:
        body = f'<div class="answer{" streaming" if streaming else ""}">{markdown(text)}</div>'
    asked = f'<div class="said">{html.escape(turn.prompt)}</div>'
    if hidden:
        is_cut = answer.finish == "length" and not streaming
        return f'{asked}{body}<div class="stats">{CUT if is_cut else "&nbsp;"}</div>'
    return f'{asked}{_thoughts_html(answer)}{body}<div class="stats">{_stats(answer)}</div>'


def _thoughts_html(answer: Answer) -> str:
    """Return the answer's thoughts, folded; nothing where it has none."""
    if not answer.reasoning:
        return ""
    thoughts = html.escape(answer.reasoning.strip())
    return f'<details class="thoughts"><summary>Thoughts</summary><div>{thoughts}</div></details>'


def _stats(answer: Answer) -> str:
    if answer.finish is None:
        return "&nbsp;" if answer.first_token_s is None else f"first token after {answer.first_token_s:.2f} s"
    figures = []
    if answer.tokens:
        figures.append(f"{answer.tokens} token{'s' if answer.tokens != 1 else ''}")
    if answer.first_token_s is not None:
        figures.append(f"first after {answer.first_token_s:.2f} s")
    if answer.tokens_per_s is not None:
        figures.append(f"{answer.tokens_per_s:,.0f} tokens/s")
    figures += {"length": [CUT], "stopped": ["stopped by you"]}.get(answer.finish, [])
    return " · ".join(figures) or "&nbsp;"


def confirmation_html(state: Session) -> str:
    """Return the verdict on the last turn, or the failure to keep it, or nothing."""
    turn = state.turns[-1] if state.turns else None
    if turn is not None and turn.verdict is not None:
        kept = html.escape(_in_words(turn.verdict, state.variants))
        kept += f"; A is {html.escape(state.variants[0])}, B is {html.escape(state.variants[1])}" if state.blind else ""
        return f'<p role="status"><b>✓</b> Kept: {kept} <span>ballot {turn.ballot}</span></p>'
    if turn is not None and turn.note and not turn.problem:
        return f'<p role="status"><span>Nothing to judge: {turn.note}.</span></p>'
    if turn is None or not turn.problem:
        return ""
    where = "The terminal of <code>harness serve</code> says why."
    return f'<p role="alert" class="problem">The {turn.problem} was not kept. {where}</p>'


def _in_words(verdict: Verdict, variants: Sequence[str]) -> str:
    if verdict.best is not None:
        return f"{variants[verdict.best]} is better"
    return "a tie" if verdict.kind == "tie" else "both bad" if len(variants) == 2 else "all bad"


@functools.cache
def _renderer() -> Any:
    """Return a Markdown renderer without HTML and images, whose links open in a tab of their own and send no referrer.

    Line breaks and indentation stay as they are in the text (the style sheet shows them), for JSON without a fence.
    """
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "newline"])
    renderer.validateLink = lambda url: LINK.match(url.strip()) is not None  # type: ignore[method-assign]

    def link_open(self: Any, tokens: Any, index: int, options: Any, environment: Any) -> str:
        tokens[index].attrs |= {"target": "_blank", "rel": "noopener noreferrer nofollow"}
        return str(self.renderToken(tokens, index, options, environment))

    renderer.add_render_rule("link_open", link_open)
    return renderer


def markdown(text: str) -> str:
    """Return Markdown as HTML. HTML in the text is shown as text."""
    return str(_renderer().render(text))
