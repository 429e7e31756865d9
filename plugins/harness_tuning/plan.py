"""The plan of a run: everything that decides what is trained on, and its time and memory, in rows for a person."""

from __future__ import annotations

import datetime
import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from harness.checks.methods import require_saved
from harness.errors import HarnessError, PluginError, first_line, listed
from harness.model.configs import positions_of
from harness.model.forward import causal_lm
from harness.variants import Variant
from harness_tuning.batching import Schedule
from harness_tuning.memory import OPTIMIZER_BYTES
from harness_tuning.targets import left_out, moving_and_resting

if TYPE_CHECKING:
    from harness.data import EncodedData
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
    if spec.rope_scaling is not None:
        yield "positions", f"{positions_of(tuner.model.config):,}, stretched by {spec.rope_scaling}"
    yield "attention", str(tuner.attention)
    yield "fused", str(tuner.fused)
    yield "template", f"{tuner.template.name}; an answer ends with {' '.join(tuner.template.stop_tokens)}"
    habits = tuner.template.habits
    if habits.switch and tuner.template.thinking == "auto":
        switch = f"{habits.switch}: {json.dumps(habits.variables(habits.thinks)[habits.switch])}"
        yield "", f"requests that do not set the switch ask with thinking {'on' if habits.thinks else 'off'} ({switch})"
    yield from (("", remark) for remark in tuner.template.remarks)
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
        yield "", f"the run saves a whole model ({_size(tuner)}), the adapter merged into it: {tuner.whole}"


def _size(tuner: Tuner) -> str:
    size = tuner.size_bytes
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _data(tuner: Tuner) -> Iterator[Row]:
    train, validation, spec = tuner.data.train, tuner.data.validation, tuner.recipe.data
    for report, source in zip(train.reports, spec.train, strict=True):
        out = "".join(f"; {count:,} left out: {reason}" for reason, count in report.left_out.items())
        again = f", used {report.used:,} times" if report.used != report.kept else ""
        yield "train", f"{report.source}  {report.path}  {report}{again}{out}"
        if source.unread:
            yield "", f"unread, as the recipe says: {', '.join(source.unread)}"
        if pairs := report.lengths["pairs"]:
            means = (f"{report.lengths[side] / pairs:,.0f}" for side in ("chosen", "rejected"))
            longer = f"the chosen answer is the longer one in {report.lengths['longer']:,} of {pairs:,}"
            yield "", f"{longer} ({' tokens on average, the rejected '.join(means)})"
        for token, count in report.escaped.most_common(MOST_SAID):
            yield "", f"{count:,} of them say {token}, which stays text: it is no control token there"
        yield from (("", line) for line in (*_use(report), *_thoughts(report, tuner)))
    if train.report:
        for line in train.report.lines():
            yield "", line
    cut = _overlong(train, tuner)
    cached = "; from cache" if train.from_cache else ""
    share = train.supervised / train.tokens
    yield "", f"{train.tokens:,} tokens, {train.supervised:,} of them ({share:.0%}) supervised{cut}{cached}"
    if validation:
        yield (
            "validation",
            f"{len(validation.items):,} {tuner.objective.reads}, {validation.supervised:,} supervised tokens",
        )


def _overlong(data: EncodedData, tuner: Tuner) -> str:
    """Say how many items were longer than the recipe's limit or than the model reaches, and what is done with them."""
    spec, positions = tuner.recipe.data, positions_of(tuner.model.config)
    counts = {
        f"{spec.max_tokens:,} tokens": sum(report.overlong for report in data.reports),
        f"the model's {positions or 0:,} positions": sum(report.beyond_positions for report in data.reports),
    }
    return "".join(f"; {count:,} longer than {limit}: {spec.on_overlong}" for limit, count in counts.items() if count)


def _use(report: SourceReport) -> Iterator[str]:
    """Say which items became several, and which count by a weight of their own."""
    if report.parted:
        yield f"{report.parted:,} of them are longer than a row, and are trained on in {report.parts:,} pieces"
    if report.weighted:
        yield f"{report.weighted:,} of them have a weight: all together count as {report.weight:,.6g} rows"


def _thoughts(report: SourceReport, tuner: Tuner) -> Iterator[str]:
    """Say what becomes of thoughts, and what it takes that the template changes earlier turns."""
    template, kept = tuner.template, tuner.recipe.data.reasoning
    without = report.kept if kept == "drop" else report.kept - report.with_thoughts
    if report.with_thoughts:
        done = {"learn": "trained on", "context": "in the prompt, not trained on", "drop": "left out"}[kept]
        yield f"{report.with_thoughts:,} of them have thoughts, which are {done}"
    if template.habits.takes_thoughts and template.thinking != "off" and without:
        have = f"all {without:,} have" if without == report.kept else f"{without:,} have"
        have = f"so that {have}" if kept == "drop" and report.with_thoughts else have
        if not template.habits.switch:
            yield f"{have} none: they teach answers without thoughts; the template has no switch"
        elif template.thinking == "on":
            yield f"{have} none: their prompts ask for thoughts all the same"
        else:
            ((switch, off),) = template.habits.variables(False).items()
            yield f"{have} none: their prompts switch thinking off ({switch}: {json.dumps(off)})"
    if report.one_an_answer:
        yield (
            f"{report.one_an_answer:,} are one example an answer, because the template changes earlier turns: "
            f"{report.examples:,} examples of {report.tokens:,} tokens"
        )


def _steps(tuner: Tuner) -> Iterator[Row]:
    spec = tuner.spec
    own = _options(spec.objective)
    yield "objective", tuner.objective.name + (f": {own}" if own else "")
    yield from _method(tuner)
    yield (
        "steps",
        f"{tuner.total_steps:,} of at most {spec.step_tokens:,} tokens; learning rate "
        f"{spec.learning_rate:g}, {spec.schedule} after {spec.warmup_ratio:.0%} warm-up; seed {spec.seed}",
    )
    yield from _gate(tuner.gate)
    if (size := tuner.world.size) > 1:
        how = "the weights are shared out among them (FSDP2)" if tuner.is_sharded else "each has the whole model"
        yield "processes", f"{size:,}, which share the batches of a step; {how}"
    yield "batches", f"{tuner.layout}; {tuner.estimate.fill:.1%} full"
    yield "", f"{tuner.fit}; the split of a step does not change its gradient"
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


def _method(tuner: Tuner) -> Iterator[Row]:
    """Say which layers move and which do not, what the method does to the base, and what becomes of the result."""
    own = _options(tuner.spec.method)
    share = f"{tuner.learner.trainable:,} weights move ({tuner.learner.trainable / tuner.parameters:.1%})"
    yield "method", f"{tuner.method.name}: {share}" + (f"; {own}" if own else "")
    moving, resting = moving_and_resting(tuner.model)
    yield "layers", "that move: " + (_counted(moving) or "none")
    if resting:
        reasons = Counter(f"{name.rsplit('.', 1)[-1]} ({reason})" for name, reason in left_out(tuner.model).items())
        why = f"; of these get no adapter: {_counted(reasons)}" if reasons and tuner.learner.is_adapter else ""
        yield "", f"that stay: {_counted(resting)}{why}"
    if tuner.quantizing_changed is not None:
        yield (
            "base",
            f"{tuner.changes_base}: log-probabilities change by {tuner.quantizing_changed:.2g} nats on average. Probes "
            f"are measured on the base that serving loads ({tuner.recipe.model.dtype})",
        )
    elif tuner.changes_base is not None:
        yield "base", tuner.changes_base
    if tuner.whole is not None and not tuner.added:
        yield "", f"the run saves a whole model ({_size(tuner)}), the adapter merged into it: {tuner.whole}"
    elif (refusal := refused_by_engine(tuner)) is not None:
        yield "warning", refusal
    if tuner.objective.name == "sft" and tuner.method.name in ("lora", "qlora"):
        yield from published_rate(causal_lm(tuner.model).config, tuner.spec.learning_rate)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in kinds.items())


def refused_by_engine(tuner: Tuner) -> str | None:
    """Return why the engine of the recipe would not serve the adapter, and the way out; None where it would.

    Raises:
        HarnessError: where the method saves no adapter.
    """
    if not tuner.learner.is_adapter:
        return None
    with tempfile.TemporaryDirectory(prefix="harness-adapter-") as folder:
        try:
            tuner.method.save(tuner.model, Path(folder))
        except (HarnessError, OSError):
            raise
        except Exception as error:
            raise PluginError(
                f"the method {tuner.method.name!r}: save failed: {type(error).__name__}: {first_line(error)}"
            ) from error
        require_saved(Path(folder), "adapter", tuner.method.name)
        reason = why_not_served(tuner, Path(folder))
    if reason is None:
        return None
    return (
        f"{reason}. The run can be tuned and evaluated; `harness runs merge {tuner.run.name}` makes a model of it, "
        f"which is served"
    )


def why_not_served(tuner: Tuner, adapter: Path) -> str | None:
    """Return why the engine of the recipe would not serve an adapter's folder; None where it would."""
    engines, serve = tuner.plugins.engines, tuner.recipe.serve
    named = serve.engine if serve is not None else next(iter(engines.defaults), None)
    if named is None or (engine := engines[named]).refuses is None:
        return None
    reason = engine.refuses(Variant(tuner.run.name, tuner.recipe.model, adapter))
    return None if reason is None else f"the engine {engine.name} will not serve this adapter: {reason}"


# 5e-4 * (2000 / hidden size)^P for LoRA on SFT, as tinker-cookbook (Thinking Machines, 2025) fitted it.
RATE_POWERS = {"qwen": 0.0775, "llama": 0.781}


def published_rate(config: Any, now: float) -> Iterator[Row]:
    """Yield the learning rate of a published formula for LoRA, for the families that it was fitted to."""
    text = config.get_text_config()
    for family, power in RATE_POWERS.items():
        if text.model_type.startswith(family):
            rate = 5e-4 * (2000 / text.hidden_size) ** power
            yield (
                "learning rate",
                f"{now:g}; a published formula for LoRA on {family.capitalize()} models, 5e-4 x (2000 / "
                f"{text.hidden_size:,})^{power:g}, gives {rate:.2g} (--set tune.learning_rate={rate:.2g})",
            )


def _options(part: ObjectiveSpec | MethodSpec) -> str:
    """Return a section's own options; one that is off, as by default, is left out."""
    off = {key for key, field in type(part).model_fields.items() if field.default in (False, (), None, "default")}
    shown = part.model_dump(exclude={"name"})
    return ", ".join(
        f"{key} {_written(value)}"
        for key, value in shown.items()
        if not (key in off and value in (False, (), None, "default"))
    )


def _written(value: Any) -> str:
    """Return a value as a recipe has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _few_steps(tuner: Tuner) -> str:
    """Say that there are few steps, and with which values there would be enough."""
    spec, sizes = tuner.spec, tuner.source.sizes
    total = tuner.total_steps
    enough = f"tune.epochs={math.ceil(spec.epochs * WISHED_STEPS / total)}"
    step_tokens = 2 ** round(math.log2(max(sum(sizes.tokens) * spec.epochs / WISHED_STEPS, 1)))
    if Schedule(sizes, step_tokens, spec.seed).total_steps(spec.epochs) >= WISHED_STEPS / 2:
        enough = f"tune.step_tokens={step_tokens} or {enough}"
    steps = f"{total} step{'s' if total > 1 else ''}"
    return f"only {steps}: too few to change the model much. For about {WISHED_STEPS}: --set {enough}"


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
    growth, widest = tuner.fit.growth_bytes, f"the widest batch of {cost.widest_tokens:,} tokens"
    if cost.peak_bytes is not None:
        yield "memory", f"about {gib(cost.peak_bytes)} at its peak (measured at {widest}){free}"
    else:
        yield "memory", f"not measured: {widest} takes long" + (free and f"; there are {gib(cost.free_bytes or 0)}")
    if growth is not None:
        own = OPTIMIZER_BYTES * tuner.learner.trainable
        parts = f"{gib(tuner.size_bytes)} of weights, {gib(own)} for what moves, {gib(growth - own)} for {widest}"
        yield "", f"estimated: {parts}"
    if tuner.fit.why_not is not None:
        yield "", f"not estimated, since the model does not compute without contents ({tuner.fit.why_not})"
    if cost.free_bytes is not None and (cost.peak_bytes or 0) > cost.free_bytes:
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
    """Return a size in GiB, with a decimal where it is small, or in MiB."""
    size = size_bytes / 2**30
    if size < 0.1:
        return f"{size * 1024:.1f} MiB"
    return f"{size:.0f} GiB" if size >= 10 else f"{size:.1f} GiB"


def as_json(tuner: Tuner, rows: list[Row]) -> dict[str, Any]:
    """Return the plan for programs: its rows, the steps and the estimate in seconds and bytes."""
    return {"plan": [list(row) for row in rows], "steps": tuner.total_steps, "estimate": asdict(tuner.estimate)}
