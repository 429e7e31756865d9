"""The tuning loop: from encoded conversations to an adapter, read from top to bottom.

What it promises: the split of a step into batches does not change the gradient; N steps, stop, resume and M more give
the bytes that N+M steps give on a CPU; the result is on disk before the run is called finished.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import click
import torch

import harness
from harness.contract.events import Artefact, Event, Step, Validation
from harness.data import EncodedData
from harness.data.encode.trained import keep_trained_rows
from harness.errors import command
from harness.files import append_json_line
from harness.model.forward import causal_lm
from harness.model.policy import ModelPolicy
from harness.model.templates import added_tokens
from harness.plugins import Plugins
from harness.run import Events, Run
from harness.template import BoundTemplate, fingerprint
from harness_tuning.checkpoint import (
    Progress,
    checkpoints,
    load_checkpoint,
    random_state,
    restore_random,
    save_checkpoint,
)  # fmt: skip
from harness_tuning.fit import ARCHITECTURE_HINT, asking_as_tuned, check_data, computing, record_identity
from harness_tuning.flops import Work, measured_peak
from harness_tuning.gates import Gate, without_trace
from harness_tuning.layout import choose_layout
from harness_tuning.learner import Figures, Launched, Learner, OutOfMemory, on_its_way
from harness_tuning.memory import fit
from harness_tuning.optimizer import MasterAdamW, check_optimizer, learning_rate_at
from harness_tuning.pace import Pace
from harness_tuning.prepared import Beside, Preparation, load_prepared, save_prepared, start_key
from harness_tuning.rows import trained_rows
from harness_tuning.samples import Sampler, choose_prompts
from harness_tuning.sources import Ahead, Epochs, thread_for
from harness_tuning.starting import Beginning
from harness_tuning.step_rows import rows_of_step
from harness_tuning.trial import Stretch, tried
from harness_tuning.watch import Spikes, rewound
from harness_tuning.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TuningData:
    """The data that are trained on, and those that validate."""

    train: EncodedData
    validation: EncodedData | None


class Tuner:
    """One run's tuning. `start` loads and restores, `steps` trains; `save_result` leaves the result on disk."""

    def __init__(
        self,
        run: Run,
        plugins: Plugins,
        template: BoundTemplate,
        data: TuningData,
        device: torch.device,
        events: Events | None = None,
        world: World | None = None,
    ) -> None:
        self.run, self.plugins, self.data, self.device = run, plugins, data, device
        self.template = asking_as_tuned(template, data.train.reports, run.recipe.data.reasoning)
        self.events, self.world = events or Events(), world or World()
        self.recipe, self.spec = run.recipe, run.recipe.tune
        self.objective = plugins.objectives[self.spec.objective.name]
        self.method = plugins.methods[self.spec.method.name]
        self.added = added_tokens(template, self.recipe.model) if self.recipe.template.add_tokens else {}
        self.whole = "an adapter cannot carry embeddings" if self.added else self._asked(self.method.whole)
        self.merges = self.whole is not None and self.method.produces == "adapter"
        self.changes_base = self._asked(self.method.changes_base)
        self.progress = Progress()
        self.gate: Gate | None = None  # of a run that begins
        self.behind = 0 if device.type == "cpu" else 1  # steps whose figures are not read yet while the next begins
        self.spikes = Spikes()
        self.is_spike = False  # that stops the run
        self.rows_of_spike = ""
        self.is_sharded = False  # each process has a part of the weights

    def start(self) -> None:
        """Load the model, measure the probes on it as it is, and put back the newest checkpoint if there is one."""
        check_optimizer(self.spec, self.device)
        starts_from = self._asked(self.method.starts_from)
        every = [data for data in (self.data.train, self.data.validation) if data is not None]
        first = Beginning(
            self.recipe, self.method, every, self.template, self.device, self.world, tuple(self.added.values()),
            self.whole, self.changes_base, starts_from,
            self.run.manifest.get("fused", {"reason": "not recorded"}) if checkpoints(self.run) else None,
        )  # fmt: skip
        base = first.load()
        if self.world.is_main:  # here: files of a hub id are there when it is loaded
            record_identity(self.run, fingerprint(self.template), starts_from)
        parts = {"train": self.data.train, "validation": self.data.validation}
        check_data(base, self.template, self.recipe, {part: data.examples for part, data in parts.items() if data})
        first.adapt(base)
        self.model, self.is_sharded, self.attention = first.model, first.is_sharded, first.attention
        self.probes, self.probes_of_base = first.probes, first.probes_of_base
        self.parameters, self.size_bytes = first.parameters, first.size_bytes
        self.quantizing_changed, self.fused = first.quantizing_changed, first.fused
        ids, path = tuple(self.added.values()), self.recipe.model.path
        self.rows = trained_rows(self.model, ids, self.probes, path) if ids else None
        self._plan_batches()
        self.head = None
        if self.objective.head is not None:
            self.head = self.objective.head(causal_lm(self.model).config.get_text_config().hidden_size).to(self.device)
        factor = self.method.rate_factor
        self.optimizer = MasterAdamW(
            self.model, self.spec, lambda name: 1.0 if factor is None else factor(name, self.spec.method), self.head,
            self.world,
        )  # fmt: skip
        self.learner = Learner(
            ModelPolicy(self.model, self.head), self.objective, self.spec.objective, self.optimizer, self.device,
            self.world, is_adapter=self.method.produces == "adapter", is_sharded=self.is_sharded,
        )  # fmt: skip
        if checkpoints(self.run):  # while the weights are those of the start
            self.prepare()
        with self.world.main_first():  # which removes damaged ones
            saved = load_checkpoint(self.run, self.data.train.sha256)
        if saved is not None:
            self.progress, tensors = saved
            self.source.restore(self.progress.source)
            self.optimizer.load(tensors)
        elif not self.is_sharded:
            self.world.copy_from_main(self.optimizer.masters.values())
            self.optimizer.publish()
        self.source.at_most(*self.world.least([self.world.positions or math.inf], self.device))
        begun = self.run.manifest.get("checkpointed") if saved is not None else None
        with without_trace(self.learner):
            self.fit = fit(self.learner, self.source, self.spec, begun)
        adapted = hasattr(self.spec.method, "target_modules")
        hint = (
            "Without the adapter it computes: name layers that can be adapted in tune.method.target_modules"
            if adapted
            else ""
        )
        with self._computing(f"a batch of the plan with {self.method.name}", hint or ARCHITECTURE_HINT):
            stretch = Stretch(self.learner, self.source, self.validation, self.spec, self.progress.step)
            self.gate, self.estimate = tried(stretch, self._say)
        peak = measured_peak(self.device, getattr(torch, self.recipe.model.dtype)) if self.world.is_main else 1.0
        left = self.total_steps - self.progress.step
        self.pace = Pace(Work.of(self.model), peak * self.world.size, self.estimate, left, self.device)
        self.sampler: Sampler | None = None
        if self.spec.samples and self.computes_for_people:
            conversations = (self.data.validation or self.data.train).sample
            prompts = choose_prompts(self.spec.samples, conversations, self.template, self.model)
            self.sampler = Sampler(self.run, self.learner, self.template, self.events, prompts)
            self.sampler.rewind(self.progress.step)
        self.spikes = rewound(self.run.metrics_path, self.progress.metrics_bytes, cut=self.world.is_main)
        if self.world.is_main:
            keep_trained_rows(self.run.trained_rows_path, self.data.train.examples)

    @property
    def computes_for_people(self) -> bool:
        """True in the main process, and in those without which it computes nothing."""
        return self.world.is_main or self.is_sharded

    def _asked(self, function: Callable[[Any], T] | None) -> T | None:
        """Return what an optional function of the method says of the recipe's options."""
        return None if function is None else function(self.spec.method)

    def _plan_batches(self) -> None:
        """Choose the layout of the batches, once for a run, and plan its steps."""
        begun = self.run.manifest.get("layout") if checkpoints(self.run) else None
        items, wanted = self.data.train.items, self.spec.layout
        self.layout = choose_layout(self.model, items, self.device, wanted, begun)
        self.source = self._epochs(self.data.train, epochs=self.spec.epochs, steps=self.spec.steps)
        self.source.split = self.layout.split(self.spec, self.source.sizes)
        self.ahead = Ahead(self.source, thread_for(self.device), self.world.rank, self.world.size)
        self.total_steps = self.source.total_steps
        self.validation = None if self.data.validation is None else self._epochs(self.data.validation)

    def _epochs(self, data: EncodedData, **settings: Any) -> Epochs:
        beside = None if self.objective.beside is None else Beside(data.items, self.objective, self.spec.objective)
        return Epochs(
            data.items, self.template.pad_id, self.device, step_tokens=self.spec.step_tokens, beside=beside,
            layout=self.layout.layout, seed=self.spec.seed, **settings,
        )  # fmt: skip

    def prepare(self) -> None:
        """Have the objective's figures of the starting state, from the run or computed now: before the first step."""
        if self.objective.prepare is None or self.source.prepared is not None:
            return
        moving = self.optimizer.weights if self.method.produces == "adapter" else {}  # else the base's files say it all
        key = start_key(self.recipe, moving, [data.sha256 for data in (self.data.train, self.data.validation) if data])
        for part, source in (("train", self.source), ("validation", self.validation)):
            if source is None:
                continue
            path = self.run.prepared_folder / f"{part}.safetensors"
            with self.world.main_first():
                source.prepared = load_prepared(path, key, source.items)
            if self.world.any(source.prepared is None, self.device):
                preparation = Preparation(self.learner, self.template.pad_id, self.source.split.positions)
                with without_trace(self.learner), self._computing("the reference"):
                    source.prepared = preparation.of(source.items, source.beside)
                if self.world.is_main:
                    save_prepared(path, key, source.prepared)

    def _computing(self, what: str, hint: str = ARCHITECTURE_HINT) -> AbstractContextManager[None]:
        return computing(self.recipe.model.path, what, hint)

    @property
    def is_done(self) -> bool:
        """True where no step is left: all are done, or the validation loss has stopped falling."""
        return self.progress.step >= self.total_steps or self.is_stopped_early

    @property
    def is_stopped_early(self) -> bool:
        """True where the validations say that nothing more is gained."""
        rule = self.spec.early_stopping
        return rule is not None and self.progress.best.stale >= rule.patience

    def steps(self, stop: Callable[[], bool]) -> Iterator[dict[str, float]]:
        """Train, one optimizer step at a time, and yield its metrics, until all are done or `stop()` is true.

        A checkpoint is written every `checkpoint_every` steps, at a stop and at the end. On an accelerator a step is
        under way before the figures of the one before are read, so that the device never waits.
        """
        self.prepare()
        if self.progress.step == 0:
            yield from self._looked()
        if self.world.is_main:
            self.run.metrics_path.touch()
        with closing(self.ahead):
            yield from self._trained(stop)

    def _trained(self, stop: Callable[[], bool]) -> Iterator[dict[str, float]]:
        self.pace.go_on()
        under_way: deque[Launched] = deque()
        while not self.is_done:
            under_way.append(self._launch(self.progress.step + len(under_way) + 1))
            step = under_way[-1].step
            yield from self._settled(under_way, leave=0 if self._pauses_after(step) else self.behind)
            stopping = self.world.any(stop() or self.is_spike, self.device)
            if not stopping and not self._pauses_after(step):
                continue
            yield from self._settled(under_way, leave=0)
            if step == self.total_steps or _is_due(step, self.spec.validate_every):
                yield from self._looked()
            is_best = self.spec.keep == "best" and self.progress.best.step == step
            if stopping or is_best or self.is_done or _is_due(step, self.spec.checkpoint_every):
                self.checkpoint()
            if stopping:
                return
            self.pace.go_on()

    def _pauses_after(self, step: int) -> bool:
        dues = (self.total_steps, self.spec.validate_every, self.spec.checkpoint_every)
        return any(_is_due(step, every) for every in dues)

    def _launch(self, step: int) -> Launched:
        """Give the device the work of a step: the gradient of its batches, and the move of the weights."""
        random = random_state()
        figures = self._backward(step)
        learning_rate = learning_rate_at(step, self.total_steps, self.spec)
        norm = self.optimizer.step(learning_rate, self.spec.max_grad_norm)
        self.source.refresh(self.learner.policy)
        return Launched(step, figures, on_its_way(norm[None]), learning_rate, random)

    def _settled(self, under_way: deque[Launched], leave: int) -> Iterator[dict[str, float]]:
        """Yield the metrics of the oldest steps that are under way, all but `leave` of them."""
        while len(under_way) > leave:
            metrics = self._settle(under_way.popleft())
            self._log(metrics, Step(self.run.name, self.progress.step, metrics))
            yield metrics

    def _settle(self, launched: Launched) -> dict[str, float]:
        """Read a step's figures, which waits for the device, and return its metrics."""
        step, figures, norm = launched.step, launched.figures(), launched.norm()[0]
        if not math.isfinite(figures.loss) or not math.isfinite(norm):
            raise self._not_finite(launched, figures.loss, norm)
        seconds, pace = self.pace.of_step(figures)
        self.progress = replace(
            self.progress,
            step=step,
            tokens=self.progress.tokens + figures.tokens,
            supervised=self.progress.supervised + figures.supervised,
            seconds=self.progress.seconds + seconds,
        )
        usual = None if self.spec.on_spike == "ignore" else self.spikes.exceeded(figures.loss)
        self.is_spike = usual is not None and self.spec.on_spike == "stop"
        if usual is not None and self.computes_for_people:
            self.rows_of_spike = rows_of_step(self.learner, self.source, step)
        return {
            "step": step,
            **self.source.progress(step),
            "loss": figures.loss,
            **({} if usual is None else {"spike_above": usual}),
            **figures.metrics,
            "learning_rate": launched.learning_rate,
            "grad_norm": norm,
            "tokens": self.progress.tokens,
            "supervised_tokens": self.progress.supervised,
            **pace,
            "seconds": round(self.progress.seconds, 3),
        }

    def _not_finite(self, launched: Launched, loss: float, norm: float) -> harness.HarnessError:
        """Keep the state before a step whose loss or gradient is not finite, and return the error that says so.

        The optimizer has moved nothing since.
        """
        step, before = launched.step, self.progress.step
        rows = rows_of_step(self.learner, self.source, step) if self.computes_for_people else ""
        kept = "nothing was trained before it"
        if before:
            self.checkpoint(launched.random)
            kept = f"the state after step {before} is kept: `{command('tune', '--resume', self.run.folder)}` goes on"
        return harness.HarnessError(
            f"step {step}: the loss is {loss} and the gradient norm {norm}. The run stops before it saves broken "
            f"weights; {kept}. Its {rows}. Lower tune.learning_rate (now {self.spec.learning_rate:g}), leave out such "
            f"rows, or use model.dtype: bfloat16 or float32, in a new run"
        )

    def _backward(self, step: int) -> Callable[[], Figures]:
        """Take the gradient of a step; where memory does not suffice, of the same step in smaller batches."""
        while True:
            random = random_state()
            try:
                figures = self.learner.backward(self.ahead.step(step))
            except OutOfMemory as error:
                raise self.source.too_large(step) from error
            if figures is not None:
                return figures
            restore_random(random)
            self._say(self.source.halve(step))
            if self.world.is_main:
                self.run.update(split=asdict(self.source.split))

    def validation_figures(self) -> Figures:
        """Return the figures of the validation data: the mean loss over their units, and metrics."""
        assert self.validation is not None
        source, world = self.validation, self.world
        source.split = self.source.split  # what fits with a gradient fits without
        steps = range(1, source.total_steps + 1)
        return self.learner.measure(batch for step in steps for batch in source.step(step, world.rank, world.size))

    def checkpoint(self, random: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint of this moment, in the main process; torch's random state may be an earlier one."""
        state = self.optimizer.state() if self.computes_for_people else {}  # which gathers what is shared out
        if not self.world.is_main:
            return
        progress = replace(
            self.progress, source=dict(self.source.state()), metrics_bytes=self.run.metrics_path.stat().st_size
        )
        folder = save_checkpoint(self.run, progress, state, self.data.train.sha256, random)
        self.events.send(Artefact(self.run.name, "checkpoint", folder))

    def _looked(self) -> Iterator[dict[str, float]]:
        """Validate, and ask for the sampled answers."""
        yield from self._validated()
        if self.sampler is not None:
            self.sampler.ask(self.progress.step)

    def _validated(self) -> Iterator[dict[str, float]]:
        if self.data.validation is None:
            return
        figures = self.validation_figures()
        own = {f"validation_{name}": value for name, value in figures.metrics.items()}
        metrics = {"step": self.progress.step, "validation_loss": figures.loss, **own}
        self._log(metrics, Validation(self.run.name, self.progress.step, metrics))
        if self.progress.step:
            rule = self.spec.early_stopping
            best = self.progress.best.after(self.progress.step, figures.loss, rule.min_delta if rule else 0.0)
            self.progress = replace(self.progress, best=best)
        yield metrics

    def _say(self, what: str) -> None:
        """Warn, from the main process."""
        if self.world.is_main:
            click.echo(f"warning: {what}", err=True)

    def _log(self, metrics: dict[str, float], event: Event) -> None:
        if self.world.is_main:
            append_json_line(self.run.metrics_path, metrics)
            self.events.send(event)


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
