"""The components of the page and where they stand; `drawing.py` says how they look, `handlers.py` what they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from harness.extras import require
from harness.files import read_json
from harness_serve.answering import Sampling
from harness_serve.catalogue import Known
from harness_serve.session import Session

if TYPE_CHECKING:
    from harness.variants import Variant

MOST_COLUMNS = 4
CHAT, COMPARE, ARENA, LEADERBOARD, VOTES = MODES = ("Chat", "Compare", "Arena", "Leaderboard", "Votes")
REASONS = ("more accurate", "more helpful", "clearer", "better format", "better length", "safer")
ANY = ""  # of a filter


@dataclass(frozen=True)
class Drawn:
    """The components that `drawing.draw` returns new values of, in their order."""

    session: Any
    title: Any
    columns_row: Any
    columns: list[Any]
    standings: Any
    kept: Any  # the pane of the votes
    dock: Any
    examples: Any  # the row of chips
    verdicts: Any  # the row of `best`, `tie`, `bad` and `skip`
    best: list[Any]
    tie: Any
    bad: Any
    skip: Any
    confirmed: Any
    after: Any  # the row of `reasons` and `reveal`
    reasons: Any
    reveal: Any
    composer: Any
    edit: Any
    again: Any
    stop: Any
    send: Any
    following: Any
    one: Any
    picked: Any
    marks: Any
    clear: Any

    @property
    def flat(self) -> list[Any]:
        """The components one after another."""
        values = [getattr(self, each.name) for each in fields(self)]
        return [part for value in values for part in (value if isinstance(value, list) else [value])]


@dataclass(frozen=True)
class Components:
    """The components of the page that handlers read or draw."""

    mode: Any
    drawn: Drawn
    chips: list[Any]
    prompt: Any
    settings: list[Any]  # system prompt, temperature, top p, most tokens, seed, tools
    filters: list[Any]  # of the votes: person, variant, verdict, text
    table: Any
    turning: list[Any]  # the buttons to newer and older votes
    notice: Any  # of what is the matter with the engine
    refresh: Any


def lay_out(known: Known, examples: Sequence[str], variants: Sequence[Variant], *, has_set: bool = False) -> Components:
    """Create the components inside the Blocks that are being built.

    Args:
        has_set: there is a set of prompts to work through, and the page begins with it.
    """
    gr = require("gradio", "serving")
    state: dict[str, Any] = {"session": gr.State(Session())}  # begun when the page is loaded
    models, picked_first = known.models, known.first_picks
    several = len(models) > 1
    notice = gr.HTML(visible=False, elem_id="notice")
    first = ARENA if has_set and several else COMPARE if several else CHAT
    with gr.Row(elem_id="bar"):
        mode = gr.Radio(
            modes_of(models), value=first, show_label=False, container=False, elem_id="mode"
        )  # fmt: skip
        state["title"] = gr.HTML(elem_id="title")
        bare = {"show_label": False, "container": False, "filterable": len(models) > 6, "interactive": True}
        state["one"] = gr.Dropdown(
            list(models), value=picked_first[-1], label="Variant", visible=kept_in_page(first == CHAT),
            elem_id="one", **bare,
        )  # fmt: skip
        state["picked"] = gr.Dropdown(
            list(models), value=list(picked_first), multiselect=True, max_choices=MOST_COLUMNS, label="Variants",
            visible=kept_in_page(first == COMPARE), elem_id="picked", **bare,
        )  # fmt: skip
        state["marks"] = gr.Checkbox(
            value=False, label="Mark differences", container=False, visible=False, elem_id="marks", interactive=True
        )
        state["clear"] = gr.Button("New conversation", size="sm", elem_id="clear", elem_classes="quiet")
    with gr.Row(elem_id="columns") as state["columns_row"]:
        state["columns"] = [gr.HTML(elem_classes="pane", visible=False) for _ in range(MOST_COLUMNS)]
    state["standings"] = gr.HTML(visible=False, elem_id="standings")
    filters, table, turning = _lay_out_votes(models, state)
    with gr.Column(elem_id="dock") as state["dock"]:
        with gr.Row(elem_id="examples") as state["examples"]:
            chips = [gr.Button(example, size="sm", elem_classes="chip") for example in examples[:4]]
        _lay_out_verdicts(state)
        with gr.Row(elem_id="composer") as state["composer"]:
            prompt = gr.Textbox(
                value="", placeholder="Ask…", show_label=False, container=False, lines=1, max_lines=8,
                autofocus=first != ARENA, elem_id="prompt", scale=8,
            )  # fmt: skip
            quiet = {"size": "sm", "elem_classes": "quiet", "visible": False}
            state["edit"] = gr.Button("Edit", elem_id="edit", **quiet)
            state["again"] = gr.Button("Regenerate", elem_id="again", **quiet)
            state["stop"] = gr.Button("Stop", size="sm", elem_id="stop", visible=False)
            state["following"] = gr.Button("Next prompt", size="sm", elem_id="following", visible=False)
            state["send"] = gr.Button("Ask", variant="primary", size="sm", elem_id="send")
        settings = _lay_out_settings(_sampling_defaults(variants))
    refresh = gr.Button("Refresh", elem_id="refresh", visible="hidden")  # for `page.js`
    return Components(mode, Drawn(**state), chips, prompt, settings, filters, table, turning, notice, refresh)


def kept_in_page(is_shown: bool) -> bool | str:
    """Return `visible` of a component that gets its news out of sight, too: one that is not in the page does not."""
    return True if is_shown else "hidden"


def modes_of(models: Sequence[str]) -> tuple[str, ...]:
    """Return the tabs of a page with these variants: with one alone there is nothing to compare."""
    return MODES if len(models) > 1 else (CHAT,)


def of_any(models: Sequence[str]) -> list[tuple[str, str]]:
    """Return the choices of the votes' filter by variant."""
    return [("Any variant", ANY), *((name, name) for name in models)]


def _lay_out_verdicts(state: dict[str, Any]) -> None:
    gr = require("gradio", "serving")
    looks = {"elem_classes": "verdict", "size": "sm"}
    with gr.Row(elem_id="verdicts", visible=False) as state["verdicts"]:
        state["best"] = [gr.Button(elem_id=f"best-{number}", visible=False, **looks) for number in range(MOST_COLUMNS)]
        state["tie"] = gr.Button("Tie", elem_id="tie", **looks)
        state["bad"] = gr.Button("Both bad", elem_id="bad", **looks)
        state["skip"] = gr.Button("Skip", elem_id="skip", visible=False, **looks)
    state["confirmed"] = gr.HTML(elem_id="confirmed", visible=False)
    with gr.Row(elem_id="after", visible=False) as state["after"]:
        state["reasons"] = gr.CheckboxGroup(REASONS, show_label=False, container=False, elem_id="reasons")
        state["reveal"] = gr.Button("Show the names", size="sm", elem_id="reveal", visible=False)


def _lay_out_votes(models: Sequence[str], state: dict[str, Any]) -> tuple[list[Any], Any, list[Any]]:
    """Return the filters of the votes, their table, and the buttons that turn its pages."""
    gr = require("gradio", "serving")
    verdicts = [("Any verdict", ANY), ("One is best", "best"), ("Tie", "tie"), ("All bad", "bad")]
    plain = {"show_label": False, "container": False, "interactive": True}
    with gr.Column(visible=False, elem_id="kept") as state["kept"]:
        with gr.Row(elem_id="filters"):
            person = gr.Textbox(placeholder="Person", elem_id="by_person", max_lines=1, **plain)
            variant = gr.Dropdown(of_any(models), value=ANY, **plain)
            verdict = gr.Dropdown(verdicts, value=ANY, **plain)
            text = gr.Textbox(placeholder="Words to find", elem_id="by_text", max_lines=1, **plain)
            newer = gr.Button("Newer", size="sm", elem_id="newer", visible=False)
            older = gr.Button("Older", size="sm", elem_id="older", visible=False)
        table = gr.HTML(elem_id="ballots")
    return [person, variant, verdict, text], table, [newer, older]


def _lay_out_settings(defaults: Sampling) -> list[Any]:
    gr = require("gradio", "serving")
    with gr.Accordion("Settings", open=False, elem_id="settings"), gr.Row():
        return [
            gr.Textbox(
                value="", label="System prompt", placeholder="none", lines=2, max_lines=6, scale=3, elem_id="system"
            ),
            gr.Slider(
                0, 2, value=defaults.temperature, step=0.05, label="Temperature",
                info="0: the likeliest token", elem_id="temperature",
            ),
            gr.Slider(
                0.05, 1, value=defaults.top_p, step=0.05, label="Top p",
                info="1: no token is ruled out", elem_id="top_p",
            ),
            gr.Slider(
                16, 2048, value=defaults.max_tokens, step=16, label="Max tokens",
                info="of one answer", elem_id="max_tokens",
            ),
            gr.Textbox(value="", label="Seed", placeholder="none", info="of the sampling", elem_id="seed"),
            gr.Textbox(
                value="", label="Tools", placeholder='[{"type": "function", "function": {"name": …}}]', lines=2,
                max_lines=6, scale=3, elem_id="tools",
            ),
        ]  # fmt: skip


def _sampling_defaults(variants: Sequence[Variant]) -> Sampling:
    """Return the settings from the variants' own generation defaults."""
    folder = next((variant.chat_folder for variant in variants if variant.chat_folder is not None), None)
    if folder is None:
        return Sampling()
    saved = read_json(folder / "generation_config.json")
    return Sampling(float(saved.get("temperature") or 0.0), float(saved.get("top_p") or 1.0))
