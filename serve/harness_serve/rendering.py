"""A conversation drawn as HTML: the turns, the answers, their figures and the verdict.

The text of the answers is rendered by `markup`, with no HTML, images or scripts of theirs, so that nothing a model or a
person writes leaves the page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from harness.nouns import FINISHES, Verdict
from harness_serve.answering import Answer, Turn
from harness_serve.differences import Marked, marked
from harness_serve.markup import markdown
from harness_serve.session import Session

CUT = "cut at the token limit"
COPY = '<button class="copy" type="button" data-of="answer">Copy</button>'


def column_html(state: Session, column: int) -> str:
    """Return one variant's side of the conversation."""
    marking = state.marks and not state.blind
    turns = "".join(
        turn_html(turn, turn.answers[column], state.is_hidden, _marks(turn, column) if marking else None)
        for turn in state.turns
    )
    body = turns or '<div class="empty">Its answers appear here.</div>'
    name = html.escape(state.names[column])
    header = f'<header><span class="dot dot-{column}"></span>{name}</header>'
    kind = "chat blind" if state.blind else "chat"
    return f'<section class="{kind}" data-variant="{name}">{header}{body}</section>'


def over_html(prompts: int) -> str:
    """Return what stands in place of the columns once a person has worked through the set of prompts."""
    done = "The one prompt is done" if prompts == 1 else f"All {prompts} prompts are done"
    return (
        f'<section class="over" role="status"><h2>{done}</h2><p>Thank you. Your verdicts are under Votes.</p></section>'
    )


def turn_html(turn: Turn, answer: Answer, hidden: bool = False, marks: Marked | None = None) -> str:
    """Return a prompt, one answer to it, and the figures of the answer.

    Args:
        hidden: show nothing by which the variant could be known, and of the answer the part that is written out.
        marks: the answer with its differences from the others marked.
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
        source = "" if streaming else f'<div class="source" hidden>{html.escape(text)}</div>'
        drawn = marks.html if marks else markdown(text)
        body = f'<div class="answer{" streaming" if streaming else ""}">{drawn}</div>{source}'
    asked = f'<div class="said">{html.escape(turn.prompt)}</div>'
    if hidden:
        is_cut = answer.finish == "length" and not streaming
        thoughts, stats = "", CUT if is_cut else "&nbsp;"
    else:
        thoughts, stats = _thoughts_html(answer), _stats(answer)
        if marks is not None:
            stats += f" · {marks.words - marks.shared} of {marks.words} words differ"
    copy = COPY if text and not streaming else ""
    return f'<article>{asked}{thoughts}{body}<div class="stats">{copy}<span>{stats}</span></div></article>'


def _marks(turn: Turn, column: int) -> Marked | None:
    """Return one of several answers with its marks, once all are there; None where there is nothing to compare."""
    texts = [answer.text for answer in turn.answers if answer.finish in FINISHES]
    if len(texts) != len(turn.answers) or len(texts) < 2 or not all(texts):
        return None
    compared = marked(tuple(map(markdown, texts)))
    return None if compared is None else compared[column]


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
    turn = state.last
    if turn is None or not (turn.problem or turn.verdict is not None or turn.note):
        return ""
    if turn.problem:
        where = "The terminal of <code>harness serve</code> says why."
        return f'<p role="alert" class="problem">The {turn.problem} was not kept. {where}</p>'
    if turn.verdict is None:
        return f'<p role="status"><span>Nothing to judge: {turn.note}.</span></p>'
    kept = html.escape(_in_words(turn.verdict, state.names))
    if state.blind and not state.is_hidden:
        kept += f"; A is {html.escape(state.variants[0])}, B is {html.escape(state.variants[1])}"
    more = "" if turn.closed else " · can be changed until you go on"
    return f'<p role="status"><b>✓</b> Kept: {kept} <span>ballot {turn.ballot}{more}</span></p>'


def _in_words(verdict: Verdict, variants: Sequence[str]) -> str:
    if verdict.best is not None:
        return f"{variants[verdict.best]} is better"
    return "a tie" if verdict.kind == "tie" else "both bad" if len(variants) == 2 else "all bad"
