"""The page as a session has it: a new value for each component that changes."""

from __future__ import annotations

from typing import Any

from harness.extras import require
from harness_serve.layout import ARENA, CHAT, COMPARE, LEADERBOARD, MOST_COLUMNS, VOTES, Drawn, kept_in_page
from harness_serve.rendering import column_html, confirmation_html
from harness_serve.session import Session

ADVICE = {
    CHAT: "One variant, one conversation.",
    COMPARE: "",  # its bar is full
    LEADERBOARD: "What people judged without knowing the names.",
    VOTES: "Every vote that is final.",
}
KEYS = "Judge, then see the names. Keys: ← and →, = tie, b both bad, s skip"


def draw(state: Session, mode: str, standings: str = "", progress: str = "") -> list[Any]:
    """Return a value for every component as `state` has it, in the order of `Drawn.flat`.

    Args:
        standings: HTML of the leaderboard.
        progress: how far the person is with the set of prompts; empty where there is none.
    """
    gr = require("gradio", "serving")
    count, last, talks = len(state.variants), state.last, mode in (CHAT, COMPARE, ARENA)
    judging = last is not None and last.is_open and not state.streaming
    voted = last is not None and last.verdict is not None and not last.closed and not state.streaming
    can_redo = last is not None and not state.streaming and not state.blind
    has_set = bool(progress) and mode == ARENA
    advice = ADVICE.get(
        mode,
        f"{KEYS}{', n next' if has_set else ''}." if state.is_hidden else "The next question goes to another pair.",
    )
    html, button, row = gr.HTML, gr.Button, gr.Row
    drawn = Drawn(
        session=state,
        title=html(value=f"<p>{f'<b>{progress}</b> · ' if has_set else ''}{advice}</p>"),
        columns_row=row(visible=talks),
        columns=[
            *[html(value=column_html(state, column), visible=True) for column in range(count)],
            *[html(value="", visible=False)] * (MOST_COLUMNS - count),
        ],
        standings=html(value=standings, visible=mode == LEADERBOARD),
        kept=gr.Column(visible=mode == VOTES),
        dock=gr.Column(visible=talks),
        examples=row(visible=last is None and not progress),
        verdicts=row(visible=judging, elem_classes=f"of-{last.ballot}-{last.tries}" if last else ""),
        best=_best(state),
        tie=button(variant=_chosen(state, "tie")),
        bad=button(value="Both bad" if count == 2 else "All bad", variant=_chosen(state, "bad")),
        skip=button(visible=state.blind and not voted),
        confirmed=html(value=confirmation_html(state), visible=bool(confirmation_html(state))),
        after=row(visible=voted),
        reasons=gr.CheckboxGroup(value=last.reasons if last else []),
        reveal=button(visible=voted and state.is_hidden),
        composer=row(elem_classes="editing" if state.editing is not None else ""),
        edit=button(visible=can_redo),
        again=button(visible=can_redo),
        stop=button(visible=state.streaming),
        send=button(visible=not state.streaming, variant="secondary" if has_set else "primary"),
        following=button(
            visible=has_set and not state.streaming,
            variant="primary" if last is None or not judging or voted else "secondary",
        ),
        one=gr.Dropdown(interactive=not state.streaming, visible=kept_in_page(mode == CHAT)),
        picked=gr.Dropdown(interactive=not state.streaming, visible=kept_in_page(mode == COMPARE)),
        marks=gr.Checkbox(visible=mode == COMPARE and count > 1),
        clear=button(value="Next round" if state.blind else "New conversation", visible=talks and not has_set),
    )
    return drawn.flat


def _best(state: Session) -> list[Any]:
    gr = require("gradio", "serving")
    count = len(state.variants)
    labels = ["← A is better", "B is better →"] if state.blind else ["← Left is better", "Right is better →"]
    if count != 2:
        labels = [f"{name} is best" for name in state.variants]
    return [
        gr.Button(
            value=labels[number] if number < count else "", visible=number < count,
            variant=_chosen(state, "best", number),
        )
        for number in range(MOST_COLUMNS)
    ]  # fmt: skip


def _chosen(state: Session, kind: str, best: int | None = None) -> str:
    """Return the looks of a verdict's button: it stands out where it is the verdict that is kept."""
    verdict = state.last.verdict if state.last else None
    return "primary" if verdict is not None and (verdict.kind, verdict.best) == (kind, best) else "secondary"
