"""The components of the page and where they stand; `page.py` says what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.extras import require
from harness.files import read_json
from harness_serve.session import Sampling, Session

if TYPE_CHECKING:
    from harness.variants import Variant

MOST_COLUMNS = 4
COMPARE, ARENA, LEADERBOARD = MODES = ("Compare", "Arena", "Leaderboard")


class Components(NamedTuple):
    """The components of the page that handlers read or draw."""

    session: Any
    mode: Any
    title: Any
    picked: Any
    clear: Any
    columns_row: Any
    columns: list[Any]
    standings: Any
    dock: Any
    examples: Any  # the row of `chips`
    chips: list[Any]
    verdicts: Any  # the row of `best`, `tie` and `bad`
    best: list[Any]
    tie: Any
    bad: Any
    skip: Any
    confirmed: Any
    prompt: Any
    again: Any
    stop: Any
    send: Any
    settings: list[Any]  # system prompt, temperature, top p, most tokens

    @property
    def drawn(self) -> list[Any]:
        """The components in the order in which `_draw` returns them."""
        frame = [self.title, self.columns_row, self.standings, self.dock]
        buttons = [*self.best, self.tie, self.bad, self.skip, self.confirmed, self.again, self.stop, self.send]
        return [self.session, *frame, *self.columns, self.examples, self.verdicts, *buttons, self.picked, self.clear]


def lay_out(
    models: Sequence[str], picked_first: Sequence[str], examples: Sequence[str], variants: Sequence[Variant]
) -> Components:
    """Create the components inside the Blocks that are being built."""
    gr = require("gradio", "serving")
    session = gr.State(Session())  # begun when the page is loaded
    with gr.Row(elem_id="bar"):
        mode = gr.Radio(
            MODES if len(models) > 1 else MODES[:1], value=COMPARE, show_label=False, container=False, elem_id="mode",
        )  # fmt: skip
        title = gr.HTML(elem_id="title")
        picked = gr.Dropdown(
            list(models), value=list(picked_first), multiselect=True, max_choices=MOST_COLUMNS, label="Variants",
            show_label=False, container=False, filterable=len(models) > 6, elem_id="picked", interactive=True,
        )  # fmt: skip
        clear = gr.Button("New conversation", size="sm", elem_id="clear", elem_classes="quiet")
    with gr.Row(elem_id="columns") as columns_row:
        columns = [gr.HTML(elem_classes="pane", visible=False) for _ in range(MOST_COLUMNS)]
    standings = gr.HTML(visible=False, elem_id="standings")
    with gr.Column(elem_id="dock") as dock:
        with gr.Row(elem_id="examples") as examples_row:
            chips = [gr.Button(example, size="sm", elem_classes="chip") for example in examples[:4]]
        with gr.Row(elem_id="verdicts", visible=False) as verdict_row:
            best = [
                gr.Button(elem_id=f"best-{number}", elem_classes="verdict", size="sm", visible=False)
                for number in range(MOST_COLUMNS)
            ]
            tie = gr.Button("Tie", elem_id="tie", elem_classes="verdict", size="sm")
            bad = gr.Button("Both bad", elem_id="bad", elem_classes="verdict", size="sm")
            skip = gr.Button("Skip", elem_id="skip", elem_classes="verdict", size="sm", visible=False)
        confirmed = gr.HTML(elem_id="confirmed", visible=False)
        with gr.Row(elem_id="composer"):
            prompt = gr.Textbox(
                value="", placeholder="Ask every variant…", show_label=False, container=False, lines=1, max_lines=8,
                autofocus=True, elem_id="prompt", scale=8,
            )  # fmt: skip
            again = gr.Button("Regenerate", size="sm", elem_id="again", elem_classes="quiet", visible=False)
            stop = gr.Button("Stop", size="sm", elem_id="stop", visible=False)
            send = gr.Button("Ask", variant="primary", size="sm", elem_id="send")
        settings = _lay_out_settings(_sampling_defaults(variants))
    return Components(
        session, mode, title, picked, clear, columns_row, columns, standings, dock, examples_row, chips, verdict_row,
        best, tie, bad, skip, confirmed, prompt, again, stop, send, settings,
    )  # fmt: skip


def _lay_out_settings(defaults: Sampling) -> list[Any]:
    gr = require("gradio", "serving")
    with gr.Accordion("Settings", open=False, elem_id="settings"), gr.Row():
        return [
            gr.Textbox(
                value="", label="System prompt", placeholder="none", lines=2, max_lines=6, scale=3, elem_id="system"
            ),
            gr.Slider(
                0, 2, value=defaults.temperature, step=0.05, label="Temperature",
                info="0: always the likeliest token", elem_id="temperature",
            ),
            gr.Slider(
                0.05, 1, value=defaults.top_p, step=0.05, label="Top p",
                info="1: no token is ruled out", elem_id="top_p",
            ),
            gr.Slider(
                16, 2048, value=defaults.max_tokens, step=16, label="Most tokens",
                info="of one answer", elem_id="max_tokens",
            ),
        ]  # fmt: skip


def _sampling_defaults(variants: Sequence[Variant]) -> Sampling:
    """Return the settings from the variants' own generation defaults."""
    folder = next((variant.chat_folder for variant in variants if variant.chat_folder is not None), None)
    if folder is None:
        return Sampling()
    saved = read_json(folder / "generation_config.json")
    return Sampling(float(saved.get("temperature") or 0.0), float(saved.get("top_p") or 1.0))
