"""The sections of a recipe as frozen, validated data.

What a dataset, filter, template, objective, method, evaluation, tracker or engine lets a recipe set is declared by its
plugin as `Options`; `combined` adds these keys to the section that names it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field
from ruamel.yaml import YAML

from harness.options import Options

if TYPE_CHECKING:
    from harness.contract import Dataset

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of recipes and runs: a folder, and a model name in the served endpoint

T = TypeVar("T", bound=Options)
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


class RopeScaling(Options):
    """A rotary embedding stretched to `factor` times the positions that the model was trained on.

    `yarn` is Peng et al. 2023 (https://arxiv.org/abs/2309.00071), `linear` Chen et al. 2023
    (https://arxiv.org/abs/2306.15595).
    """

    type: Literal["yarn", "linear"]
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)]

    def __str__(self) -> str:
        return f"{self.type} x {self.factor:g}"

    @pydantic.field_validator("type", mode="before")
    @classmethod
    def _of_every_length_alike(cls, value: Any) -> Any:
        if value == "dynamic":
            raise ValueError(
                "a dynamic one changes with the longest row of a batch, so that a loss would depend on its "
                "neighbours, and vLLM computes another function by that name: expected yarn or linear"
            )
        return value


class ModelSpec(Options):
    """A base model: a local folder or a hub id, and how to load it. `rope_scaling` stretches its positions."""

    path: str
    revision: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    trust_remote_code: bool = False
    rope_scaling: RopeScaling | None = None

    @property
    def is_local(self) -> bool:
        return os.path.isdir(self.path)  # noqa: PTH112 - Path's raises for a name that is too long

    @property
    def short_name(self) -> str:
        """The last part of the path or hub id, for model names and tables."""
        return Path(self.path.rstrip("/")).name or "model"


class TemplateSpec(Options):
    """The chat template: a registered one, by its name alone or with the keys that it adds to these.

    `add_tokens` gives the tokenizer the control tokens that the template needs and it lacks, and trains their
    embeddings.
    """

    name: str
    add_tokens: bool = False


class DataSource(Options):
    """One source of rows: a registered dataset, and the place it is read from if it does not bring its own data.

    `path` is a file, folder, glob, URL, or `hub://owner/name?split=train` with its commit as `revision`. The dataset
    adds its own keys to these. `rows` is the key under which a JSON object holds the rows. `columns` renames the
    columns of a file: `{instruction: question}`; `unread` names those that are left out, `messages.name` those inside
    another. `on_bad_row: drop` leaves out rows that cannot be converted and counts them. `unescape_newlines` turns
    `\\n` in a cell of a table into a line end, as FLAN's files mean it.
    `limit` reads only the beginning; `cap`, `weight` and `epochs` say how much of what was read goes into the mixture.
    """

    dataset: str
    path: str | None = None
    revision: str | None = None
    rows: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    unread: tuple[str, ...] = ()
    on_bad_row: Literal["error", "drop"] = "error"
    unescape_newlines: bool = False
    limit: Positive | None = None
    cap: Positive | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0


def combined(base: type[T], *added: type[Options] | None) -> type[T]:
    """Return a section with the keys of `base` and those that plugins add, which are others: see `Kind.check`."""
    own = [options for options in added if options is not None and options is not Options]
    return type(base.__name__, (*own, base), {}) if own else base


def source_model(dataset: Dataset) -> type[DataSource]:
    """Return DataSource with the keys that `dataset` adds to it."""
    return combined(DataSource, dataset.options)


def read_as(source: DataSource, dataset: Dataset) -> DataSource:
    """Return the same source, read as `dataset`."""
    return source_model(dataset)(**source.model_dump() | {"dataset": dataset.name})


class CleanStep(Options):
    """One step of cleaning. The filter adds its own keys to this."""

    filter: str


class DecontaminateSpec(Options):
    """Action on training rows that share `ngram` consecutive words with an item of the recipe's evaluations.

    An item with fewer words counts whole, down to `min_words`. Words that more than `shared_by` items share are the
    phrasing of a task, and are not compared.
    """

    ngram: Annotated[int, Field(ge=3)] = 13
    min_words: Annotated[int, Field(ge=3)] = 5
    shared_by: Positive = 10
    action: Literal["warn", "drop", "error"] = "warn"


class DataSpec(Options):
    """Training and validation data, and their preparation."""

    train: tuple[pydantic.SerializeAsAny[DataSource], ...] = Field(min_length=1)
    validation: tuple[pydantic.SerializeAsAny[DataSource], ...] = ()
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    clean: tuple[pydantic.SerializeAsAny[CleanStep], ...] = ()
    decontaminate: DecontaminateSpec | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    seed: int = 0
    train_on: Literal["all", "last", "marked"] = "all"
    reasoning: Literal["learn", "context", "drop"] = "learn"
    max_tokens: Positive = 2048
    on_overlong: Literal["error", "drop", "truncate"] = "error"
    processes: Annotated[int, Field(ge=0)] | None = None  # that encode; decides nothing but the time it takes


class ObjectiveSpec(Options):
    """The loss: a registered objective, by its name alone or with the keys that it adds to this."""

    name: str


class MethodSpec(Options):
    """The weights that are trained: a registered method, by its name alone or with the keys that it adds to this."""

    name: str


class EarlyStopping(Options):
    """The end of a run that gains nothing more.

    It ends once `patience` validations in a row were not below the lowest before by more than `min_delta`.
    """

    patience: Positive
    min_delta: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class TuneSpec(Options):
    """Settings of tuning: objective, method, optimizer and schedule."""

    objective: pydantic.SerializeAsAny[ObjectiveSpec]
    method: pydantic.SerializeAsAny[MethodSpec]
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    steps: Positive | None = None
    step_tokens: Positive = 4096
    microbatch_tokens: Positive | Literal["auto"] = "auto"
    layout: Literal["auto", "padded", "packed"] = "auto"
    warmup_ratio: Share = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_learning_rate_ratio: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] = 0  # what torch takes
    checkpoint_every: Positive | None = None
    validate_every: Positive | None = None
    samples: Annotated[int, Field(ge=0, le=64)] | tuple[str, ...] = 0
    keep: Literal["last", "best"] = "last"
    early_stopping: EarlyStopping | None = None
    on_spike: Literal["warn", "stop", "ignore"] = "warn"
    parallel: Literal["auto", "data", "fsdp"] = "auto"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, values: Any) -> Any:
        """Read `batch_tokens` and `accumulate`, whose product was the tokens of a step."""
        if not isinstance(values, Mapping) or not (former := {"batch_tokens", "accumulate"} & values.keys()):
            return values
        if "step_tokens" in values:
            raise ValueError(f"{' and '.join(sorted(former))} became `step_tokens`, which is given too: leave it alone")
        rest = {key: value for key, value in values.items() if key not in former}
        counts = values.get("batch_tokens", 4096), values.get("accumulate", 1)
        if not all(type(count) is int and count > 0 for count in counts):
            raise ValueError(f"batch_tokens and accumulate became `step_tokens`, their product: {counts} have none")
        return rest | {"step_tokens": counts[0] * counts[1]}


class EvaluateSpec(Options):
    """One evaluation to run. The evaluation adds its own keys to this."""

    evaluation: str


_POINTS = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*points?")


class GateRule(Options):
    """One rule of `harness gate`: on every metric of every task, or on the one that `task` and `metric` name.

    It is `no_significant_loss`, or bounds on the difference to the other variant: `at_least`, `at_most`, in the
    metric's unit, or in percentage points as in `2 points`. A bound holds for the whole 95 % interval, or for the
    difference alone with `by: estimate`.
    """

    task: str | None = None
    metric: str | None = None
    category: str | None = None
    no_significant_loss: bool = False
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    by: Literal["interval", "estimate"] = "interval"

    @pydantic.model_validator(mode="before")
    @classmethod
    def _in_points(cls, values: Any) -> Any:
        """Read `2 points` as 0.02."""
        if not isinstance(values, Mapping):
            return values
        read = dict(values)
        for key in ("at_least", "at_most"):
            if isinstance(bound := read.get(key), str):
                if (points := _POINTS.fullmatch(bound.strip())) is None:
                    raise ValueError(f"{key} is {bound!r}, expected a number, or percentage points as in '2 points'")
                read[key] = float(points[1]) / 100
        return read

    @pydantic.model_validator(mode="after")
    def _is_one_rule(self) -> GateRule:
        bounds = self.at_least is not None or self.at_most is not None
        if self.no_significant_loss == bounds:
            raise ValueError("a rule is either `no_significant_loss: true`, or `at_least` or `at_most` with a bound")
        return self


class TrackSpec(Options):
    """One tracker to switch on. The tracker adds its own keys to this."""

    tracker: str


class ServeSpec(Options):
    """The engine that serves. It adds its own keys to this."""

    engine: str


class DataRecipe(Options):
    """A recipe to prepare data with, which may name no model and no tuning.

    `plugins` are single-file plugins that the recipe needs, relative to its folder: reading the recipe runs them.
    """

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    model: ModelSpec | None = None
    template: pydantic.SerializeAsAny[TemplateSpec]
    data: DataSpec
    tune: pydantic.SerializeAsAny[TuneSpec] | None = None
    evaluate: tuple[pydantic.SerializeAsAny[EvaluateSpec], ...] = ()
    gate: tuple[GateRule, ...] = ()
    track: tuple[pydantic.SerializeAsAny[TrackSpec], ...] = ()
    serve: pydantic.SerializeAsAny[ServeSpec] | None = None
    plugins: tuple[str, ...] = ()

    @pydantic.model_serializer(mode="wrap")
    def _without_no_plugins(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out an empty `plugins`: the hash of a recipe that has none stays what it was before there were any."""
        return {key: value for key, value in dump(self).items() if key != "plugins" or value}


class Recipe(DataRecipe):
    """A whole recipe, with every path absolute and every default filled in."""

    model: ModelSpec
    tune: pydantic.SerializeAsAny[TuneSpec]

    def as_yaml(self) -> str:
        """Return the resolved recipe as YAML, in the order in which a person reads it."""
        out = io.StringIO()
        yaml = YAML()
        yaml.default_flow_style = False
        yaml.width = 120
        yaml.dump(self.model_dump(mode="json"), out)
        return out.getvalue()

    @property
    def sha256(self) -> str:
        """Hash of the resolved recipe: equal for equal settings, however they were written."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
