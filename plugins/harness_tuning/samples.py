"""Sampled answers: the same few prompts, asked before tuning and at every validation, for people to look at.

samples.jsonl has a line for each time, samples.html shows them side by side, and trackers get them as `Samples`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import harness
from harness import pages
from harness.contract.backends import Request, Sampling
from harness.contract.events import Samples
from harness.files import append_json_line, write_text
from harness.model.configs import positions_of
from harness.model.load import LoadedVariant
from harness.model.local import LocalBackend
from harness.nouns import Sample
from harness.run import Events, Run
from harness.template import BoundTemplate
from harness.variants import Variant
from harness_tuning.gates import without_trace
from harness_tuning.learner import Learner

TASK = "tune.samples"
MOST_TOKENS = 128  # of an answer
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as it is asked and as people read it, and the answer that the data have to it, if any."""

    request: Request
    text: str
    target: str


def choose_prompts(
    wanted: int | Sequence[str], conversations: Sequence[harness.Conversation], template: BoundTemplate, model: Any
) -> list[Prompt]:
    """Return the prompts that the recipe states, or those of `wanted` conversations, evenly spread.

    One that leaves no room for an answer within the model's positions is left out.
    """
    if isinstance(wanted, int):
        chosen = _spread(conversations, wanted)
    else:
        chosen = [harness.Conversation.of(("user", text), ("assistant", "")) for text in wanted]
    positions, prompts = positions_of(model.config), []
    for conversation in chosen:
        last = conversation.trained[-1]
        messages, target = conversation.messages[:last], conversation.messages[last].content
        room = MOST_TOKENS
        if positions is not None:
            room = min(room, positions - len(template.prompt_ids(messages, conversation.tools)))
        if room > 0:
            request = Request(messages, conversation.tools, Sampling(max_tokens=room))
            prompts.append(Prompt(request, _as_text(messages), target))
    return prompts


@dataclass(frozen=True, slots=True)
class Sampler:
    """Asks the model that is tuned its prompts, and keeps the answers in the run's folder."""

    run: Run
    learner: Learner
    template: BoundTemplate
    events: Events
    prompts: Sequence[Prompt]

    @property
    def lines(self) -> Path:
        """The file of all answers."""
        return self.run.folder / "samples.jsonl"

    def ask(self, step: int) -> None:
        """Ask all prompts, greedily, and show the answers; nothing of it stays in the run's random state."""
        variant, learner = Variant(self.run.name, self.run.recipe.model), self.learner
        backend = LocalBackend(LoadedVariant(variant, learner.model, self.template, learner.device), AT_ONCE)
        with without_trace(learner):
            learner.model.eval()
            answers = dict(backend.ask([prompt.request for prompt in self.prompts]))
        samples = []
        for number, prompt in enumerate(self.prompts):
            answer = answers[number]
            tokens = {"tokens": float(len(answer.token_ids or ()))}
            samples.append(
                Sample(str(number), tokens, prompt.text, answer.text, prompt.target, reasoning=answer.reasoning)
            )
        if not learner.world.is_main:
            return
        rows = [
            {"prompt": sample.prompt, "target": sample.target, "answer": sample.response, "reasoning": sample.reasoning}
            for sample in samples
        ]
        append_json_line(self.lines, {"step": step, "samples": rows})
        asked = [json.loads(line) for line in self.lines.read_text(encoding="utf-8").splitlines()]
        write_text(self.run.folder / "samples.html", page(self.run.name, asked))
        self.events.send(Samples(self.run.name, self.run.name, TASK, tuple(samples), self.run.folder, step))

    def rewind(self, step: int) -> None:
        """Forget the answers after steps that are done again: those behind `step`, and all where none was done."""
        if self.lines.exists() and self.learner.world.is_main:
            lines = self.lines.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.lines, "".join(line for line in lines if step and json.loads(line)["step"] <= step))


def _spread(conversations: Sequence[harness.Conversation], count: int) -> list[harness.Conversation]:
    """Return `count` of the conversations, evenly spread; of those with the same prompt the first."""
    by_prompt: dict[str, harness.Conversation] = {}
    for conversation in conversations:
        by_prompt.setdefault(_as_text(conversation.messages[: conversation.trained[-1]]), conversation)
    different = list(by_prompt.values())
    return different[:: max(1, len(different) // count)][:count]


def _as_text(messages: Sequence[harness.Message]) -> str:
    """Return a prompt as people read it: the question alone where it is one, else each message with its role."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)


STYLE = """\
.prompt { font-size: 1.02rem; font-weight: 600; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 12px; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px; }
.answers > div { background: var(--fill); border-radius: 8px; padding: 10px 12px; min-width: 0; }
.answers .now { outline: 2px solid var(--accent); }
h3 { font-size: .74rem; letter-spacing: .04em; text-transform: uppercase; color: var(--soft); margin: 0 0 6px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .92rem; }
.text:empty::after { content: "(nothing)"; color: var(--soft); font-style: italic; }
.thoughts { color: var(--soft); border-left: 3px solid var(--line); padding-left: 8px; margin-bottom: 6px; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; margin-bottom: 8px; }
"""


def page(run: str, asked: Sequence[dict[str, Any]]) -> str:
    """Return the page of all answers: before tuning, now, and as the data have them; those between are folded away."""
    last = asked[-1]["step"]
    prompts = len(asked[-1]["samples"])
    sections = []
    for number in range(prompts):
        rows = [(times["step"], times["samples"][number]) for times in asked]
        now = rows[-1][1]
        first = [_answer("before tuning", rows[0][1])] if rows[0][0] == 0 else []
        latest = [_answer(f"after step {last:,}", now, "now")] if last or not first else []
        target = [_answer("in the data", {"answer": now["target"]})] if now["target"] else []
        between = [_answer(f"after step {step:,}", sample) for step, sample in rows[len(first) : -1]]
        folded = (
            f"<details><summary>{len(between)} answer{'s' if len(between) > 1 else ''} between</summary>"
            f'<div class="answers">{"".join(between)}</div></details>'
            if between
            else ""
        )
        sections.append(
            f'<section>\n<div class="prompt">{escape(now["prompt"])}</div>\n'
            f'<div class="answers">{"".join([*first, *latest, *target])}</div>\n{folded}</section>\n'
        )
    figures = pages.figures(
        [("prompts", str(prompts)), ("times asked", str(len(asked))), ("last after step", f"{last:,}")]
    )
    lead = f"The same prompts, answered greedily with at most {MOST_TOKENS} tokens, each time the run was validated."
    return pages.page(f"{run}: sampled answers", lead, figures + "".join(sections), STYLE)


def _answer(title: str, sample: dict[str, Any], kind: str = "") -> str:
    thoughts = f'<div class="text thoughts">{escape(sample["reasoning"])}</div>' if sample.get("reasoning") else ""
    return (
        f'<div class="{kind}"><h3>{escape(title)}</h3>{thoughts}'
        f'<div class="text">{escape(sample["answer"].strip())}</div></div>'
    )
