"""The page as a session has it: a new value for each component that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.extras import require
from harness_serve.layout import ARENA, CHAT, COMPARE, LEADERBOARD, MOST_COLUMNS, VOTES, Drawn, kept_in_page
from harness_serve.rendering import column_html, confirmation_html, over_html
from harness_serve.session import Session

if TYPE_CHECKING:
    from harness_serve.prompt_sets import PromptSet

ADVICE = {LEADERBOARD: "What people judged without knowing the names.", VOTES: "Every vote that is final."}
HIDDEN = 'Judge, then see the names. <span class="keys">Keys: ← and →, = tie, b both bad, s skip, n next.</span>'
REVEALED = "The next question goes to another pair."


def draw(state: Session, mode: str, standings: str = "", prompts: PromptSet | None = None) -> list[Any]:
    """Return a value for every component as `state` has it, in the order of `Drawn.flat`.

    Args:
        standings: HTML of the leaderboard.
        prompts: those to work through in the arena.
    """
    gr = require("gradio", "serving")
    count, last, talks = len(state.variants), state.last, mode in (CHAT, COMPARE, ARENA)
    judging = last is not None and last.is_open and not state.streaming
    voted = last is not None and last.verdict is not None and not last.closed and not state.streaming
    can_redo = last is not None and not state.streaming and not state.blind
    total = len(prompts.prompts) if prompts is not None and mode == ARENA else 0
    has_set = total > 0
    is_over = has_set and state.done >= total and last is None
    advice = (HIDDEN if state.is_hidden else REVEALED) if mode == ARENA else ADVICE.get(mode, "")
    lines = [f"<b>{state.done} of {total} done</b>" if has_set else "", "" if is_over else advice]
    html, button, row = gr.HTML, gr.Button, gr.Row
    panes = [over_html(total)] if is_over else [column_html(state, column) for column in range(count)]
    drawn = Drawn(
        session=state,
        title=html(value=f"<p>{' · '.join(filter(None, lines))}</p>"),
        columns_row=row(visible=talks),
        columns=[
            *[html(value=pane, visible=True) for pane in panes],
            *[html(value="", visible=False)] * (MOST_COLUMNS - len(panes)),
        ],
        standings=html(value=standings, visible=mode == LEADERBOARD),
        kept=gr.Column(visible=mode == VOTES),
        dock=gr.Column(visible=talks and not is_over),
        examples=row(visible=last is None and not has_set),
        verdicts=row(
            visible=judging,
            elem_classes=f"of-{last.ballot}-{last.tries}{' pair' if count == 2 else ''}" if last else "",
        ),
        best=_best(state),
        tie=button(variant=_chosen(state, "tie")),
        bad=button(value="Both bad" if count == 2 else "All bad", variant=_chosen(state, "bad")),
        skip=button(visible=state.blind and not voted and not has_set),  # the next prompt is as near
        confirmed=html(value=confirmation_html(state), visible=bool(confirmation_html(state))),
        after=row(visible=voted),
        reasons=gr.CheckboxGroup(value=last.reasons if last else []),
        reveal=button(visible=voted and state.is_hidden),
        composer=row(elem_classes="editing" if state.editing is not None else ""),
        edit=button(value="Cancel" if state.editing is not None else "Edit", visible=can_redo),
        again=button(visible=can_redo),
        stop=button(visible=state.streaming),
        send=button(visible=not state.streaming, variant="secondary" if has_set else "primary"),
        following=button(
            value=_following(state, prompts),
            visible=has_set and not state.streaming,
            variant="primary" if last is None or not judging or voted else "secondary",
        ),
        one=gr.Dropdown(interactive=not state.streaming, visible=kept_in_page(mode == CHAT)),
        picked=gr.Dropdown(interactive=not state.streaming, visible=kept_in_page(mode == COMPARE)),
        marks=gr.Checkbox(visible=mode == COMPARE and count > 1),
        clear=button(value="Next round" if state.blind else "New conversation", visible=talks and not has_set),
    )
    return drawn.flat


def _following(state: Session, prompts: PromptSet | None) -> str:
    if state.last is None and not state.done:
        return "First prompt"
    is_last = prompts is not None and state.done >= len(prompts.prompts) and not prompts.repeats
    return "Finish" if is_last else "Next prompt"


def _best(state: Session) -> list[Any]:
    gr = require("gradio", "serving")
    count = len(state.variants)
    names = ["A", "B"] if state.blind else state.variants
    labels = [f"{name} is {'better' if count == 2 else 'best'}" for name in names]
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
