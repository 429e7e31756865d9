"""The plan of a run: everything that decides what is trained on, and its time and memory, in rows for a person."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from harness.errors import listed
from harness_tuning.batching import Schedule

if TYPE_CHECKING:
    from harness.data.reports import SourceReport
    from harness.recipe import MethodSpec, ObjectiveSpec
    from harness_tuning.gates import Gate
    from harness_tuning.loop import Tuner

Row = tuple[str, str]

MOST_SAID = 5  # control-token strings in the data that are named
FEW_STEPS = 20  # with fewer, warm-up and decay leave nearly nothing between them
WISHED_STEPS = 50


def plan_rows(tuner: Tuner, folder: object) -> list[Row]:
    """Return the plan of the run in `folder` as pairs of a label and a text; an empty label goes on with the last."""
    return [
        ("run", str(folder)),
        *_model(tuner),
        *_data(tuner),
        *_steps(tuner),
        *_cost(tuner),
    ]


def as_table(rows: list[Row]) -> Table:
    """Return the rows for the console."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for label, text in rows:
        # Not markup: it quotes the data, and names of tokens such as [/INST].
        table.add_row(Text(label, "bold yellow") if label == "warning" else label, Text(text))
    return table


def _model(tuner: Tuner) -> Iterator[Row]:
    spec = tuner.recipe.model
    yield "model", f"{spec.path}  ({tuner.parameters / 1e6:,.1f} M parameters, {spec.dtype}, on {tuner.device})"
    yield "attention", str(tuner.attention)
    yield "template", f"{tuner.template.name}; an answer ends with {' '.join(tuner.template.stop_tokens)}"
    yield "", f"before the first question, where the data bring no system prompt: {tuner.template.opening!r}"
    if not tuner.recipe.template.add_tokens:
        return
    if not tuner.added:
        yield "added tokens", "none: the tokenizer has all that the template writes"
        return
    named = ", ".join(f"{token} ({id})" for token, id in tuner.added.items())
    first = min(tuner.added.values())
    yield "added tokens", f"{named}: their embeddings begin as the mean of the {first:,} before them, and are trained"
    if tuner.merges:
        size = f"{tuner.size_bytes / 1e9:,.1f} GB" if tuner.size_bytes >= 1e9 else f"{tuner.size_bytes / 1e6:,.1f} MB"
        yield (
            "",
            f"the run saves a whole model ({size}), the adapter merged into it: an adapter cannot carry embeddings",
        )


def _data(tuner: Tuner) -> Iterator[Row]:
    train, validation, spec = tuner.data.train, tuner.data.validation, tuner.recipe.data
    for report, source in zip(train.reports, spec.train, strict=True):
        out = "".join(f"; {count:,} left out: {reason}" for reason, count in report.left_out.items())
        again = f", used {report.used:,} times" if report.used != report.kept else ""
        yield "train", f"{report.source}  {report.path}  {report}{again}{out}"
        if source.unread:
            yield "", f"unread, as the recipe says: {', '.join(source.unread)}"
        for token, count in report.escaped.most_common(MOST_SAID):
            yield "", f"{count:,} of them say {token}, which stays text: it is no control token there"
        yield from (("", line) for line in _thoughts(report, tuner))
    if train.report:
        for line in train.report.lines():
            yield "", line
    cut = f"; {train.overlong:,} longer than {spec.max_tokens} tokens: {spec.on_overlong}" if train.overlong else ""
    cached = "; from cache" if train.from_cache else ""
    share = train.supervised / train.tokens
    yield "", f"{train.tokens:,} tokens, {train.supervised:,} of them ({share:.0%}) supervised{cut}{cached}"
    if validation:
        yield (
            "validation",
            f"{len(validation.items):,} {tuner.objective.reads}, {validation.supervised:,} supervised tokens",
        )


def _thoughts(report: SourceReport, tuner: Tuner) -> Iterator[str]:
    """Say what becomes of thoughts, and what it takes that the template changes earlier turns."""
    template, kept = tuner.template, tuner.recipe.data.reasoning
    without = report.kept - report.with_thoughts
    if report.with_thoughts:
        done = {"learn": "trained on", "context": "in the prompt, not trained on", "drop": "left out"}[kept]
        yield f"{report.with_thoughts:,} of them have thoughts, which are {done}"
    if template.habits.takes_thoughts and template.thinking == "auto" and without:
        if template.habits.switch:
            yield f"{without:,} have none: their prompts switch thinking off ({template.habits.switch}: false)"
            if template.habits.thinks and not report.with_thoughts:
                yield "evaluations and serving ask with thinking on: `thinking: off` in `template` switches it off"
        else:
            yield f"{without:,} have none: they teach answers without thoughts; the template has no switch"
    if report.one_an_answer:
        yield (
            f"{report.one_an_answer:,} are one example an answer, because the template changes earlier turns: "
            f"{report.examples:,} examples of {report.tokens:,} tokens"
        )


def _steps(tuner: Tuner) -> Iterator[Row]:
    spec = tuner.spec
    own = _options(spec.objective)
    yield "objective", tuner.objective.name + (f": {own}" if own else "")
    own = _options(spec.method)
    share = f"{tuner.trainable:,} weights move ({tuner.trainable / tuner.parameters:.1%})"
    yield "method", f"{tuner.method.name}: {share}" + (f"; {own}" if own else "")
    adapter = getattr(tuner.model, "peft_config", {}).get("default")
    if left_out := getattr(adapter, "exclude_modules", None):
        names = listed({name.rsplit(".", 1)[-1] for name in left_out})
        yield "", f"{len(left_out)} linear layers get no adapter: {names} (they compute in a way of their own)"
    yield (
        "steps",
        f"{tuner.total_steps:,} of at most {spec.step_tokens:,} tokens; learning rate "
        f"{spec.learning_rate:g}, {spec.schedule} after {spec.warmup_ratio:.0%} warm-up; seed {spec.seed}",
    )
    yield from _gate(tuner.gate)
    yield "batches", f"{tuner.layout}; {tuner.estimate.fill:.1%} full"
    yield "", f"at most {tuner.source.split.positions:,} positions at once; the split does not change the gradient"
    if tuner.progress.step:
        yield "goes on", f"from step {tuner.progress.step:,}"
    if tuner.total_steps < FEW_STEPS and spec.steps is None:
        yield "warning", _few_steps(tuner)


def _gate(gate: Gate | None) -> Iterator[Row]:
    """Say which checks before the first step were passed, and which experts they did not reach."""
    if gate is None:
        return
    start = "" if gate.at_start is None else f"; the loss begins at {gate.at_start:.4f}, as it should"
    within = f"within {gate.difference:.0e} nats" if gate.difference else "to the bit"
    layers = f"; a gradient in each of {gate.layers} layers" if gate.layers else ""
    yield (
        "tried",
        f"{gate.supervised} supervised tokens: the loss is that of plain logits in float32 ({within}){layers}{start}",
    )
    if gate.unseen:
        few = listed(gate.unseen[:3])
        yield "", f"{len(gate.unseen)} experts saw no token of it, and get their gradient when one reaches them: {few}"


def _options(part: ObjectiveSpec | MethodSpec) -> str:
    return ", ".join(f"{key} {value}" for key, value in part.model_dump(exclude={"name"}).items())


def _few_steps(tuner: Tuner) -> str:
    """Say that there are few steps, and with which values there would be enough."""
    spec, sizes = tuner.spec, tuner.source.sizes
    total = tuner.total_steps
    enough = f"tune.epochs={math.ceil(spec.epochs * WISHED_STEPS / total)}"
    step_tokens = 2 ** round(math.log2(max(sum(sizes.tokens) * spec.epochs / WISHED_STEPS, 1)))
    if Schedule(sizes, step_tokens, spec.seed).total_steps(spec.epochs) >= WISHED_STEPS / 2:
        enough = f"tune.step_tokens={step_tokens} or {enough}"
    steps = f"{total} step{'s' if total > 1 else ''}"
    return f"only {steps}: they hardly change the model. For about {WISHED_STEPS}: --set {enough}"


def _cost(tuner: Tuner) -> Iterator[Row]:
    cost, left = tuner.estimate, tuner.total_steps - tuner.progress.step
    end = datetime.datetime.now() + datetime.timedelta(seconds=cost.seconds)
    until = f", until about {end:%H:%M}" if cost.seconds >= 60 else ""
    yield (
        "time",
        f"about {duration(cost.seconds)} ({cost.tokens_per_s:,.0f} tokens/s measured; {left:,} "
        f"step{'s' if left > 1 else ''} of {duration(cost.step_seconds)}){until}",
    )
    free = "" if cost.free_bytes is None else f", of {gib(cost.free_bytes)}"
    if cost.peak_bytes is None:
        yield (
            "memory",
            f"not measured: the widest batch of {cost.widest_tokens:,} tokens takes long"
            + (free and f"; there are {gib(cost.free_bytes or 0)}"),
        )
        return
    yield (
        "memory",
        f"about {gib(cost.peak_bytes)} at its peak (measured at the widest batch of {cost.widest_tokens:,} "
        f"tokens){free}",
    )
    if cost.free_bytes is not None and cost.peak_bytes > cost.free_bytes:
        yield (
            "warning",
            f"that is more memory than {tuner.device} has free ({gib(cost.free_bytes)}): lower "
            f"tune.microbatch_tokens, or set tune.gradient_checkpointing: true",
        )


def duration(seconds: float) -> str:
    """Return a duration as a person says it: `0.31 s`, `42 s`, `3 min`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def gib(size_bytes: float) -> str:
    """Return a size in GiB, with a decimal where it is small."""
    size = size_bytes / 2**30
    return f"{size:.0f} GiB" if size >= 10 else f"{size:.1f} GiB"


def as_json(tuner: Tuner, rows: list[Row]) -> dict[str, Any]:
    """Return the plan for programs: its rows, the steps and the estimate in seconds and bytes."""
    return {"plan": [list(row) for row in rows], "steps": tuner.total_steps, "estimate": asdict(tuner.estimate)}
