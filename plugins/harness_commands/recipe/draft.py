"""A drafted recipe: what was chosen for a file and a model, with the reasons, and its YAML."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness_commands.recipe.drafting import (
    CHARACTERS_A_TOKEN,
    ENOUGH_ROWS,
    MEASURED,
    OBJECTIVES,
    RATES,
    VALIDATIONS,
    WISHED_STEPS,
    Choice,
    Figures,
    Kind,
    Schedule,
)

if TYPE_CHECKING:
    from harness.data.convert.ways import Way
    from harness.template import BoundTemplate

TRAINED_ON = {
    "conversations": "questions and answers: the answers are trained on",
    "texts": "texts without questions: each is trained on whole",
    "pairs": "a better and a worse answer to each prompt: the better one is to be preferred",
    "judged": "answers that were judged good or bad, each alone",
}


@dataclass(frozen=True)
class Draft:
    """All that is known of a recipe before it is written."""

    name: str
    data: Path
    model: str
    way: Way
    kind: Kind
    figures: Figures
    template: str
    bound: BoundTemplate | None
    why_template: str
    schedule: Schedule
    share: float | None
    rows: str | None
    max_tokens: int
    overlong: int
    billions: float | None

    @property
    def rate(self) -> float:
        """The learning rate: smaller for larger models, and a tenth of it for answers that are compared."""
        rate = next(rate for limit, rate in RATES if (self.billions if self.billions is not None else 7.0) < limit)
        return rate / 10 if self.kind in ("pairs", "judged") else rate


def choices_of(draft: Draft) -> Iterator[Choice]:
    """Yield what was chosen, part by part, with the reason."""
    figures, way, schedule = draft.figures, draft.way, draft.schedule
    yield Choice("data", f"dataset {way.dataset}", way.why)
    if way.columns:
        renamed = ", ".join(f"{ours}: {theirs}" for ours, theirs in way.columns.items())
        yield Choice("", renamed, "names of the file; exchange them in the recipe's `columns` if this is wrong")
    if way.unread:
        yield Choice(
            "", f"unread: {', '.join(way.unread)}", "no dataset reads these beside the others: LEFT OUT of training"
        )
    yield Choice("", f"{figures.items:,} of {figures.rows:,} rows", TRAINED_ON[draft.kind])
    if figures.filters:
        names = ", ".join(f"{name} ({count:,})" for name, count in figures.filters.items())
        yield Choice("", f"clean: {names}", "rows with nothing to learn from are left out, and counted")
    if figures.wrong:
        yield Choice("", "on_bad_row: drop", f"{len(figures.wrong):,} rows cannot be read: {figures.wrong[0]}")
    if draft.share is None:
        yield Choice("", "no validation rows", f"with fewer than {ENOUGH_ROWS} rows there are none to spare")
    else:
        held_out = round(draft.share * figures.items)
        yield Choice("", f"validation_share: {draft.share:g}", f"about {held_out:,} rows are held out, to measure on")
    counted = (
        "counted with the model's tokenizer" if draft.bound else f"estimated: {CHARACTERS_A_TOKEN} characters each"
    )
    longest = f"the longest row has {figures.longest:,} tokens, {counted}"
    yield Choice(
        "", f"max_tokens: {draft.max_tokens}", longest if draft.kind != "texts" else "texts are cut into pieces"
    )
    if draft.overlong:
        yield Choice("", "on_overlong: drop", "longer rows do not fit the model's positions; they are counted")
    yield Choice("template", draft.template, draft.why_template)
    yield Choice("tune", f"objective {OBJECTIVES[draft.kind]}", TRAINED_ON[draft.kind].partition(":")[0])
    yield Choice("", "method lora", "few weights move, and several variants of one base are served together")
    size = "size unknown, taken as large" if draft.billions is None else f"a model of {_size(draft.billions)} weights"
    yield Choice("", f"learning_rate: {draft.rate:.1e}", f"usual for LoRA on {size}")
    yield Choice(
        "",
        f"epochs: {schedule.epochs}",
        f"passes over {round(figures.tokens):,} tokens, {schedule.step_tokens:,} a step: about {schedule.steps:,} "
        f"steps; fewer than {WISHED_STEPS} teach little",
    )
    if draft.share is not None:
        yield Choice("", "keep: best", "of a small file, too many passes memorise it: the best validation counts")
    if measured := evaluation_of(draft):
        yield Choice("evaluate", measured, "base and tuned variant, on the rows held out")
    else:
        yield Choice(
            "evaluate", "nothing", "it takes rows that are held out, or a task: `harness plugins list evaluation`"
        )


def yaml_of(draft: Draft, out: Path) -> str:
    """Return the recipe as text, with paths relative to its folder."""
    schedule, figures = draft.schedule, draft.figures
    model = _beside(draft.model, out) if Path(draft.model).expanduser().is_dir() else draft.model
    source = [f"    - dataset: {draft.way.dataset}", f"      path: {_text(_beside(str(draft.data), out))}"]
    if draft.rows:
        source.append(f"      rows: {_text(draft.rows)}")
    if draft.way.columns:
        renamed = ", ".join(f"{ours}: {_text(theirs)}" for ours, theirs in draft.way.columns.items())
        source.append(f"      columns: {{{renamed}}}")
    if draft.way.unread:
        source.append(f"      unread: [{', '.join(map(_text, draft.way.unread))}]  # left out of training")
    if figures.wrong:
        source.append("      on_bad_row: drop  # `harness data validate` shows these rows")
    lines = [
        f"# Tunes {Path(draft.model).name} on {draft.data.name}: {figures.items:,} rows, "
        f"{round(figures.tokens):,} tokens.",
        f"name: {draft.name}",
        f"model: {{path: {_text(model)}, dtype: bfloat16}}",
        f"template: {draft.template}",
        "data:",
        f"  max_tokens: {draft.max_tokens}",
        *(["  on_overlong: drop  # longer rows; they are counted"] if draft.overlong else []),
        "  train:",
        *source,
        *([f"  clean: [{', '.join(f'{{filter: {name}}}' for name in figures.filters)}]"] if figures.filters else []),
        *([f"  validation_share: {draft.share:g}"] if draft.share else []),
        "tune:",
        f"  objective: {OBJECTIVES[draft.kind]}",
        "  method: {name: lora, rank: 16, alpha: 32}",
        f"  learning_rate: {draft.rate:.1e}",
        f"  epochs: {schedule.epochs}",
        f"  step_tokens: {schedule.step_tokens}  # about {schedule.steps:,} steps",
        "  warmup_ratio: 0.05",
        *([f"  validate_every: {max(1, schedule.steps // VALIDATIONS)}", "  keep: best"] if draft.share else []),
        "  seed: 0",
    ]
    if measured := evaluation_of(draft):
        lines += ["evaluate:", f"  - {{evaluation: {measured}}}"]
    return "\n".join(lines) + "\n"


def _beside(path: str, out: Path) -> str:
    """Return a path as it is written in a recipe: relative to its folder."""
    here = Path(os.path.relpath(Path(path).expanduser().absolute(), out.absolute().parent)).as_posix()
    return here if here.startswith(".") or here.count("/") != 1 else f"./{here}"  # `a/b` may be a hub id


def _text(value: str) -> str:
    """Return a text as YAML reads it back."""
    from harness.data.convert.accounting import as_yaml

    return as_yaml(value)


def evaluation_of(draft: Draft) -> str | None:
    """Return the evaluation of the rows held out; None where there is nothing to measure on."""
    return MEASURED.get(draft.kind) if draft.share else None


def _size(billions: float) -> str:
    return f"about {billions:.1f} billion" if billions >= 1 else f"about {billions * 1000:.0f} million"
