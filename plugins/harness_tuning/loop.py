"""The tuning loop: from encoded conversations to an adapter, read from top to bottom.

What it promises: the split of a step into batches does not change the gradient; N steps, stop, resume and M more give
the bytes that N+M steps give on a CPU; the result is on disk before the run is called finished.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import click
import torch

import harness
from harness.contract.events import Artefact, Event, Step, Validation
from harness.data import EncodedData
from harness.data.encode.trained import keep_trained_rows
from harness.files import append_json_line, read_json
from harness.model.forward import causal_lm, check_forward
from harness.model.load import fastest_attention, load_model
from harness.model.templates import added_tokens
from harness.plugins import Plugins
from harness.run import Events, Run
from harness.template import BoundTemplate, fingerprint, source_fingerprint
from harness_tuning.checkpoint import (
    Progress,
    checkpoints,
    load_checkpoint,
    random_state,
    restore_random,
    save_checkpoint,
)  # fmt: skip
from harness_tuning.fit import asking_as_tuned, check_data, computing, record_identity
from harness_tuning.fused import fuse_adapters
from harness_tuning.gates import Gate, check_goes_on, check_unchanged, without_trace
from harness_tuning.layout import choose_layout
from harness_tuning.learner import Figures, Learner
from harness_tuning.memory import fit
from harness_tuning.optimizer import MasterAdamW, check_optimizer, learning_rate_at
from harness_tuning.policy import ModelPolicy
from harness_tuning.precision import in_float32
from harness_tuning.prepared import Beside, Preparation, load_prepared, save_prepared, start_key
from harness_tuning.probes import choose_probes, mean_difference, measure_probes
from harness_tuning.rows import TrainedRows
from harness_tuning.sources import Epochs
from harness_tuning.trial import Stretch, tried
from harness_tuning.world import World

# In nats, on average. The rows of the head are a product of their own, which may round otherwise than the whole head's.
LARGEST_DIFFERENCE_OF_ROWS = 0.02
T = TypeVar("T")
ARCHITECTURE_HINT = "This architecture cannot be tuned here, or its configuration is not that of its weights"


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
        self.quantizing_changed: float | None = None  # log-probabilities of the probes, in nats, on average
        self.progress = Progress()
        self.gate: Gate | None = None  # of a run that begins

    def start(self) -> None:
        """Load the model, measure the probes on it as it is, and put back the newest checkpoint if there is one."""
        check_optimizer(self.spec, self.device)
        torch.manual_seed(self.spec.seed)
        base = load_model(self.recipe.model, for_tuning=True, added_ids=tuple(self.added.values()))
        if self.method.quantize is None:  # else it may not fit there before
            base = base.to(self.device)
        if self.world.is_main:  # here: files of a hub id are there when it is loaded
            record_identity(self.run, fingerprint(self.template), self._asked(self.method.starts_from))
        parts = {"train": self.data.train, "validation": self.data.validation}
        check_data(base, self.template, self.recipe, {part: data.examples for part, data in parts.items() if data})
        self.parameters = sum(weight.numel() for weight in base.parameters())
        self.size_bytes = sum(weight.numel() * weight.element_size() for weight in base.parameters())
        with self._computing("the check of a few tokens"):
            self.attention = fastest_attention(base)
            first = torch.tensor([list(self.data.train.examples[0].input_ids)], device=base.device)
            check_forward(base, first)
            self.probes = choose_probes(self.data.validation or self.data.train, self.template, self.recipe.data)
            self.probes_of_base = measure_probes(base, self.probes)
        with self._computing(f"the method {self.method.name}"):
            if self.method.quantize is not None:
                base = self.method.quantize(base, self.spec.method, self.device)
                self.quantizing_changed = mean_difference(measure_probes(base, self.probes), self.probes_of_base)
            with in_float32():
                exact = measure_probes(base, self.probes[:1])
            self.model = self.method.apply(base, self.spec.method).train()
            fuse_adapters(self.model)
            self._check_applied(exact)
        self.rows = self._train_rows() if self.added else None
        self._plan_batches()
        self.head = None
        if self.objective.head is not None:
            self.head = self.objective.head(causal_lm(self.model).config.get_text_config().hidden_size).to(self.device)
        factor = self.method.rate_factor
        self.optimizer = MasterAdamW(
            self.model, self.spec, lambda name: 1.0 if factor is None else factor(name, self.spec.method), self.head
        )
        self.learner = Learner(
            ModelPolicy(self.model, self.head), self.objective, self.spec.objective, self.optimizer, self.device,
            self.world, is_adapter=self.method.produces == "adapter",
        )  # fmt: skip
        if checkpoints(self.run):  # while the weights are those of the start
            self.prepare()
        with self.world.main_first():  # which removes damaged ones
            saved = load_checkpoint(self.run, self.data.train.sha256)
        if saved is not None:
            self.progress, tensors = saved
            self.source.restore(self.progress.source)
            self.optimizer.load({name: tensor.to(self.device) for name, tensor in tensors.items()})
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
        if self.world.is_main:
            self._rewind_metrics()
            keep_trained_rows(self.run.trained_rows_path, self.data.train.examples)
            self._record()

    def _asked(self, function: Callable[[Any], T] | None) -> T | None:
        """Return what an optional function of the method says of the recipe's options."""
        return None if function is None else function(self.spec.method)

    def _check_applied(self, before: list[list[float]]) -> None:
        """Raise HarnessError where the model does not say what it said before, or what the run it starts from says."""
        start = self._asked(self.method.starts_from)
        if start is None:
            with in_float32():
                check_unchanged(before, measure_probes(self.model, self.probes[:1]), self.method.name)
        elif (probes := start.parent / "probes.json").is_file():
            saved = read_json(probes)
            now = measure_probes(self.model, saved["probes"])
            check_goes_on(saved, now, self.model, start.parent.name)

    def _plan_batches(self) -> None:
        """Choose the layout of the batches, once for a run, and plan its steps."""
        begun = self.run.manifest.get("layout") if checkpoints(self.run) else None
        items, wanted = self.data.train.items, self.spec.layout
        self.layout = choose_layout(self.model, items, self.device, wanted, begun)
        self.source = self._epochs(self.data.train, epochs=self.spec.epochs, steps=self.spec.steps)
        self.source.split = self.layout.split(self.spec, self.source.sizes)
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

    def _record(self) -> None:
        """Write into the manifest what the data, the template and the model turned out to be."""
        self.run.update(
            data_sha256=self.data.train.sha256,
            attention={"name": self.attention.name, "reason": self.attention.reason},
            layout=asdict(self.layout),
            split=asdict(self.source.split),
            checkpointed=self.fit.checkpointed,
            estimate=asdict(self.estimate),
            template={
                "name": self.template.name,
                "stop_tokens": self.template.stop_tokens,
                "sha256": fingerprint(self.template),
                "source_sha256": source_fingerprint(self.template),
                "added_tokens": self.added,
            },
            data=[
                {
                    "dataset": report.source,
                    "path": report.path,
                    "rows": report.rows,
                    "kept": report.kept,
                    "left_out": dict(report.left_out),
                    "used": report.used,
                    "tokens": report.tokens,
                    "supervised_tokens": report.supervised,
                    "control_tokens_said": dict(report.escaped),
                }
                for report in self.data.train.reports
            ],
            overlaps=[]
            if (report := self.data.train.report) is None
            else [str(overlap) for overlap in report.overlaps],
        )

    @property
    def trainable(self) -> int:
        """Return the number of weights that move."""
        return self.learner.trainable

    def _train_rows(self) -> TrainedRows:
        """Let the embeddings of the added tokens move. Raise ModelError where that alone changes its answers."""
        before = measure_probes(self.model, self.probes)
        rows = TrainedRows(self.model, tuple(self.added.values()))
        difference = mean_difference(measure_probes(self.model, self.probes), before)
        if not difference <= LARGEST_DIFFERENCE_OF_ROWS:
            raise harness.ModelError(
                f"{self.recipe.model.path}: its embeddings are not a plain table of rows, so that template.add_tokens "
                f"cannot train some of them alone (log-probabilities differ by {difference:.3g} on average); use "
                f"`method: full`, or another template"
            )
        return rows

    def steps(self, stop: Callable[[], bool]) -> Iterator[dict[str, float]]:
        """Train, one optimizer step at a time, and yield its metrics, until all are done or `stop()` is true.

        A checkpoint is written every `checkpoint_every` steps, at a stop and at the end.
        """
        self.prepare()
        if self.progress.step == 0:
            yield from self._validated()
        if self.world.is_main:
            self.run.metrics_path.touch()
        while self.progress.step < self.total_steps:
            metrics = self._step(self.progress.step + 1)
            self._log(metrics, Step(self.run.name, self.progress.step, metrics))
            yield metrics
            step, stopping = self.progress.step, self.world.any(stop(), self.device)
            if step == self.total_steps or (self.spec.validate_every and step % self.spec.validate_every == 0):
                yield from self._validated()
            if (
                stopping
                or step == self.total_steps
                or (self.spec.checkpoint_every and step % self.spec.checkpoint_every == 0)
            ):
                self.checkpoint()
            if stopping:
                return

    def _step(self, step: int) -> dict[str, float]:
        """Do one optimizer step over the step's batches."""
        began = time.perf_counter()
        figures = self._backward(step)
        learning_rate = learning_rate_at(step, self.total_steps, self.spec)
        norm = self.optimizer.step(learning_rate, self.spec.max_grad_norm)
        self.source.refresh(self.learner.policy)
        if not math.isfinite(figures.loss) or not math.isfinite(norm):
            raise harness.HarnessError(
                f"step {step}: the loss is {figures.loss} and the gradient norm {norm}. The run stops before it saves "
                f"broken weights; the last checkpoint is intact. Lower tune.learning_rate (now "
                f"{self.spec.learning_rate:g}), or use model.dtype: bfloat16 or float32"
            )
        seconds = time.perf_counter() - began
        self.progress = replace(
            self.progress,
            step=step,
            tokens=self.progress.tokens + figures.tokens,
            supervised=self.progress.supervised + figures.supervised,
            seconds=self.progress.seconds + seconds,
        )
        return {
            "step": step,
            **self.source.progress(step),
            "loss": figures.loss,
            **figures.metrics,
            "learning_rate": learning_rate,
            "grad_norm": norm,
            "tokens": self.progress.tokens,
            "supervised_tokens": self.progress.supervised,
            "tokens_per_s": round(figures.tokens / seconds, 1),
            "seconds": round(self.progress.seconds, 3),
        }

    def _backward(self, step: int) -> Figures:
        """Take the gradient of a step; where memory does not suffice, of the same step in smaller batches."""
        while True:
            random = random_state()
            figures = self.learner.backward(self.source.step(step, self.world.rank, self.world.size))
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

    def checkpoint(self) -> None:
        """Write a checkpoint of this moment, in the main process."""
        if not self.world.is_main:
            return
        progress = replace(
            self.progress, source=dict(self.source.state()), metrics_bytes=self.run.metrics_path.stat().st_size
        )
        folder = save_checkpoint(self.run, progress, self.optimizer.state(), self.data.train.sha256)
        self.events.send(Artefact(self.run.name, "checkpoint", folder))

    def _validated(self) -> Iterator[dict[str, float]]:
        if self.data.validation is None:
            return
        figures = self.validation_figures()
        own = {f"validation_{name}": value for name, value in figures.metrics.items()}
        metrics = {"step": self.progress.step, "validation_loss": figures.loss, **own}
        self._log(metrics, Validation(self.run.name, self.progress.step, metrics))
        yield metrics

    def _say(self, what: str) -> None:
        """Warn, from the main process."""
        if self.world.is_main:
            click.echo(f"warning: {what}", err=True)

    def _log(self, metrics: dict[str, float], event: Event) -> None:
        if self.world.is_main:
            append_json_line(self.run.metrics_path, metrics)
            self.events.send(event)

    def _rewind_metrics(self) -> None:
        """Forget the metrics of steps that came after the checkpoint: these steps are done again."""
        if self.run.metrics_path.exists():
            with self.run.metrics_path.open("r+b") as file:
                file.truncate(self.progress.metrics_bytes)
