"""Items in a report: those that changed, folded away, and answers before and after side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from harness.measure.comparison import Flip, TaskComparison
from harness.measure.side_by_side import SideBySide
from harness.run import Run

SHOWN_FLIPS = 40  # of a task, each way; the rest is in the records
SHOWN_SAMPLES = 3  # in sight; the others are folded away
LONGEST = 1200  # characters of a text

STYLE = """\
.item { border-top: 1px solid var(--line); padding: 12px 0 4px; }
.prompt { font-weight: 550; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 8px; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); gap: 10px; }
.answers > div { background: var(--fill); border-radius: 8px; padding: 8px 10px; min-width: 0; }
.answers h4 { font-size: .72rem; letter-spacing: .04em; text-transform: uppercase; color: var(--soft); margin: 0 0 4px;
  overflow-wrap: anywhere; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; max-height: 9em; overflow-y: auto; }
.text:empty::after { content: "(nothing)"; color: var(--soft); font-style: italic; }
.thoughts { color: var(--soft); border-left: 3px solid var(--line); padding-left: 8px; margin-bottom: 6px; }
details { margin-top: 8px; } summary { cursor: pointer; font-size: .9rem; }
summary:hover { color: var(--accent); }
"""


def flipped(compared: SideBySide) -> str:
    """Return the section of items that changed, regressions first; empty where none has answers to show."""
    parts = []
    for rival in compared.rivals:
        for task in rival.tasks:
            names = (compared.first, rival.name)
            for kind, flips in zip(("worse", "better"), task.flips(), strict=True):
                if flips and any(flip.a.response or flip.b.response for flip in flips):
                    parts.append((kind, _folded(task, kind, flips, names)))
    if not parts:
        return ""
    ordered = [html for wanted in ("worse", "better") for kind, html in parts if kind == wanted]
    return f"<section><h2>Items that changed</h2>{''.join(ordered)}</section>"


def _folded(task: TaskComparison, kind: str, flips: Sequence[Flip], names: Sequence[str]) -> str:
    items = []
    for flip in flips[:SHOWN_FLIPS]:
        metric = f" · {flip.metric}" if len(task.wholes) > 1 else ""
        figures = [f"{side.metrics[flip.metric]:g}" for side in (flip.a, flip.b)]
        columns = [
            (f"{names[0]}: {figures[0]}", flip.a.response, flip.a.reasoning),
            (f"{names[1]}: {figures[1]}", flip.b.response, flip.b.reasoning),
            *([(f"wanted{metric}", flip.a.target, "")] if flip.a.target else []),
        ]
        items.append(_item(flip.a.prompt, columns))
    more = f"<p>{len(flips) - SHOWN_FLIPS} more are in the records.</p>" if len(flips) > SHOWN_FLIPS else ""
    plural = "" if len(flips) == 1 else "s"
    title = (
        f'{escape(task.task)}: <b class="{kind}">{len(flips)} item{plural} {kind}</b> with {escape(names[1])} '
        f"(of {len(task.pairs)})"
    )
    return f"<details><summary>{title}</summary>{''.join(items)}{more}</details>"


def _item(prompt: str, columns: Sequence[tuple[str, str, str]]) -> str:
    answers = "".join(
        f"<div><h4>{escape(title)}</h4>"
        + (f'<div class="text thoughts">{escape(_cut(thoughts))}</div>' if thoughts else "")
        + f'<div class="text">{escape(_cut(text.strip()))}</div></div>'
        for title, text, thoughts in columns
    )
    return (
        f'<div class="item"><div class="prompt">{escape(_cut(prompt.strip()))}</div>'
        f'<div class="answers">{answers}</div></div>'
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def before_and_after(run: Run) -> str:
    """Return the answers to a run's sampled prompts before tuning and at its end; empty where none were sampled."""
    path = run.folder / "samples.jsonl"
    asked: list[dict[str, Any]] = []
    if path.is_file():
        asked = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not asked:
        return ""
    first, last = asked[0], asked[-1]
    items = []
    for before, after in list(zip(first["samples"], last["samples"], strict=False)):
        columns = [(f"after step {last['step']:,}", after["answer"], after.get("reasoning") or "")]
        if first["step"] == 0 and last["step"] > 0:
            columns.insert(0, ("before tuning", before["answer"], before.get("reasoning") or ""))
        if after["target"]:
            columns.append(("in the data", after["target"], ""))
        items.append(_item(after["prompt"], columns))
    rest = items[SHOWN_SAMPLES:]
    more = f"<details><summary>{len(rest)} more</summary>{''.join(rest)}</details>" if rest else ""
    shown = "".join(items[:SHOWN_SAMPLES])
    return f"<section><h2>{escape(run.name)}: answers before and after</h2>{shown}{more}</section>"


def answers(compared: SideBySide) -> str:
    """Return a few answered items of every variant side by side, evenly spread over the tasks' items."""
    items = []
    rival = compared.rivals[0]
    tasks = [task for task in rival.tasks if any(a.response for a, _ in task.pairs)]
    for task in tasks:
        wanted = max(1, SHOWN_SAMPLES // len(tasks))
        others = [{b.id: b for _, b in of.pairs} for r in compared.rivals[1:] for of in r.tasks if of.task == task.task]
        names = [r.name for r in compared.rivals[1:] if any(of.task == task.task for of in r.tasks)]
        items.append(f"<h3>{escape(task.task)}</h3>")
        for a, b in task.pairs[:: max(1, len(task.pairs) // wanted)][:wanted]:
            columns = [(compared.first, a.response, a.reasoning), (rival.name, b.response, b.reasoning)]
            for name, of in zip(names, others, strict=True):
                if a.id in of:
                    columns.append((name, of[a.id].response, of[a.id].reasoning))
            if a.target:
                columns.append(("wanted", a.target, ""))
            items.append(_item(a.prompt, columns))
    return f"<section><h2>Answers side by side</h2>{''.join(items)}</section>" if items else ""
