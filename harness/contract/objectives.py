"""Objectives: the losses that tuning minimises, as sums over what a batch holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, get_args

from harness.contract.batches import Batch
from harness.contract.checking import require_functions, require_options, require_texts
from harness.errors import PluginError
from harness.nouns import Item, Reads

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a loss: the sum over its units in the batch, and the weight with which it counts."""

    sum: Tensor
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure to watch: a sum over a batch, and over how many it is one."""

    sum: Tensor
    count: float


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of one batch: terms by name, each a sum, and metrics by name.

    The loop divides each term by the units of its name over the whole step and all ranks, so that neither the split of
    a step into batches nor the number of ranks changes the gradient.
    """

    terms: Mapping[str, Term]
    metrics: Mapping[str, Metric] = field(default_factory=dict)

    def mean(self, units: Mapping[str, float], names: Collection[str] | None = None) -> Tensor:
        """Return the sum of the terms, or of those named, each by its weight and divided by its units."""
        terms = self.terms if names is None else {name: self.terms[name] for name in names}
        first, *others = (term.sum * term.weight / (units[name] or 1) for name, term in terms.items())
        return sum(others, first)


class Policy(Protocol):
    """The model that is trained, as an objective asks it."""

    def logprobs(self, batch: Batch) -> Tensor:
        """Return the log-probability of each target, float32 [n], with its gradient."""
        ...

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what `logprobs` returns, and the entropies of some of the predictions, to watch: float32 [m]."""
        ...

    def last_hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden state of each position, [b, s, h], with its gradient."""
        ...

    def scores(self, batch: Batch) -> Tensor:
        """Return the figure that the objective's head gives each document at its last token, float32 [d]."""
        ...

    def without_adapter(self) -> AbstractContextManager[None]:
        """Make the model answer as it did before it was tuned, for the block."""
        ...

    def noisy_embeddings(self, batch: Batch, alpha: float) -> AbstractContextManager[None]:
        """Add noise to the embeddings while training, for the block: NEFTune's, by the length of each document."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss over what it `reads`: conversations, preferences, or pairs (preferences with both completions).

    `loss(policy, batch, options)` returns the batch's Loss; `units(batch)` returns the number of units of each of its
    terms, without a forward pass. `value_at_start(options)` is the loss at step 0 if it is known for any model and data
    (ln 2 for DPO), else None; a run whose first loss differs is refused. It is per unit, over the terms with their
    weights: of all of them, or, as a mapping, of those that are known by their names.

    `encode(item, template, longest, options)` returns the items that are trained on in the place of one that the
    template encoded, with ids and masks of their own; what has more than `longest` tokens is for `data.on_overlong`.

    `prepare(policy, batch, options)` returns figures of each document in the starting state, [d] by name: the loop asks
    it once for every example, before step 1 and without a gradient, and they are among the batches' extras ever after.
    `beside(items, index, options)` returns an item with as many examples as items[index], which is observed with it.
    `observe(policy, batches, options)` sees all batches of a step, without a gradient; the mean of each Metric over the
    whole step and all ranks is among the extras of its batches. `head(hidden_size)` returns a module from hidden states
    to one figure, not zero at the start; it is trained, and saved with the run.

    `default` selects it in recipes that name none; first-party only.
    """

    name: str
    description: str
    options: type[Options]
    loss: Callable[[Policy, Batch, Any], Loss]
    units: Callable[[Batch], Mapping[str, float]]
    reads: Reads = "conversations"
    value_at_start: Callable[[Any], float | Mapping[str, float] | None] | None = None
    default: bool = False
    encode: Callable[[Item, Any, int, Any], Sequence[Item]] | None = None
    prepare: Callable[[Policy, Batch, Any], Mapping[str, Tensor]] | None = None
    beside: Callable[[Sequence[Item], int, Any], Item] | None = None
    observe: Callable[[Policy, Sequence[Batch], Any], Mapping[str, Metric]] | None = None
    head: Callable[[int], Module] | None = None


class ValueAtStart(NamedTuple):
    """The value of a loss, and the one that its objective knows for the starting state."""

    value: float
    known: float


def value_at_start(objective: Objective, options: Any, loss: Callable[[], Loss], batch: Batch) -> ValueAtStart | None:
    """Return the loss of a batch in the starting state beside the one that is known, None where none is."""
    if objective.value_at_start is None or (known := objective.value_at_start(options)) is None:
        return None
    units = objective.units(batch)
    if isinstance(known, Mapping):
        return ValueAtStart(float(loss().mean(units, known)), sum(known.values()))
    return ValueAtStart(float(loss().mean(units)), known)


def check_objective(objective: Objective) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(objective, loss="policy, batch, options", units="batch")
    require_options(objective)
    require_texts(objective, "description")
    optional = {
        "value_at_start": "options",
        "encode": "item, template, longest, options",
        "prepare": "policy, batch, options",
        "beside": "items, index, options",
        "observe": "policy, batches, options",
        "head": "hidden_size",
    }
    require_functions(objective, **{name: of for name, of in optional.items() if getattr(objective, name) is not None})
    if objective.reads not in get_args(Reads):
        raise PluginError(f"{objective.name!r} reads {objective.reads!r}, expected {' or '.join(get_args(Reads))}")
