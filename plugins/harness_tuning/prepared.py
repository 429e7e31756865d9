"""Figures of the starting state, such as a reference's log-probabilities: computed once, before the first step.

They are kept in the run until it has finished, so that a resumed run goes on with the same bytes. Where the file is
lost they are computed again: the loop asks for them before it puts the trained weights back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import harness
from harness.data.encode.storage import Items
from harness.files import replacing
from harness.measure.weights import hashes_of_model
from harness.model.batching import nothing, padded
from harness.model.folders import folder_of
from harness.nouns import Item
from harness.recipe import Recipe
from harness_tuning.batching import Sizes, Split, split_step
from harness_tuning.learner import Learner

OBSERVED = "observed/"  # before the names of figures that belong to the items beside


class Beside(Sequence[Item]):
    """The items that an objective observes beside those that it is trained on, one for each; made when asked for."""

    def __init__(self, items: Items, objective: harness.Objective, options: Any) -> None:
        self._items, self._objective, self._options = items, objective, options

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        assert self._objective.beside is not None
        item = self._objective.beside(self._items, index, self._options)
        if len(item.examples) != len(self._items[index].examples):
            raise harness.HarnessError(
                f"the objective {self._objective.name!r}: `beside` returned {len(item.examples)} examples for an item "
                f"of {len(self._items[index].examples)}, expected as many"
            )
        return item


@dataclass(frozen=True, slots=True)
class Prepared:
    """Figures by name, float32 [examples]; `firsts` has the place of each item's first example, and the end."""

    figures: Mapping[str, Tensor]
    firsts: Sequence[int]

    def item(self, items: Sequence[Item], index: int, prefix: str = "") -> Item:
        """Return items[index] with its figures among its extras."""
        place = slice(self.firsts[index], self.firsts[index + 1])
        own = {
            name.removeprefix(prefix): tuple(values[place].tolist())
            for name, values in self.figures.items()
            if name.startswith(OBSERVED) == bool(prefix)
        }
        item = items[index]
        return replace(item, extras={**item.extras, **own})


@dataclass(frozen=True, slots=True)
class Preparation:
    """The computing of figures: the learner in its starting state, and how its batches are made."""

    learner: Learner
    pad_id: int
    positions: int  # of a batch, at most, where no example alone has more

    def of(self, items: Items, beside: Sequence[Item] | None) -> Prepared:
        """Ask the objective for the figures of every example, each process for its share of the batches."""
        learner = self.learner
        firsts = list(accumulate(items.example_counts(), initial=0))
        sources: list[tuple[str, Sequence[Item]]] = (
            [("", items), (OBSERVED, beside)] if beside is not None else [("", items)]
        )
        learner.model.eval()
        figures = {
            prefix + name: torch.zeros(firsts[-1])
            for prefix, _ in sources
            for name in learner.prepare(nothing(self.pad_id, learner.device))
        }
        for prefix, source in sources:
            plan = split_step(Sizes.of_items(source), range(len(source)), Split(self.positions))
            mine, most = plan[learner.world.rank :: learner.world.size], len(plan[0 :: learner.world.size])
            for _ in range(most - len(mine)):  # all compute equally often
                learner.prepare(nothing(self.pad_id, learner.device))
            for part in mine:
                places = [place for index in part.items for place in range(firsts[index], firsts[index + 1])]
                batch = padded([source[index] for index in part.items], self.pad_id, learner.device)
                for name, values in learner.prepare(batch).items():
                    figures[prefix + name][places] = values.float().cpu()
        learner.model.train()
        return Prepared(learner.world.sum_tensors(figures, learner.device), firsts)


def load_prepared(path: Path, key: Mapping[str, Any], items: Items) -> Prepared | None:
    """Return the figures that were kept under the same key; None where there are none, or the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            figures = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
    firsts = list(accumulate(items.example_counts(), initial=0))
    if about != {"key": dict(key), "sha256": _digest(figures)}:
        return None
    return Prepared(figures, firsts)


def save_prepared(path: Path, key: Mapping[str, Any], prepared: Prepared) -> None:
    """Write the figures with their key."""
    path.parent.mkdir(exist_ok=True)
    about = json.dumps({"key": dict(key), "sha256": _digest(prepared.figures)})
    with replacing(path) as temporary:
        save_file(dict(prepared.figures), temporary, {"about": about})


def start_key(recipe: Recipe, moving: Mapping[str, Tensor], data: Sequence[str]) -> dict[str, Any]:
    """Return what figures of the starting state depend on: weights, hashes of the data, dtype, objective."""
    folder = folder_of(recipe.model)
    assert folder is not None  # `record_identity` has refused it
    return {
        **hashes_of_model(folder),
        "weights_sha256": digest_of_weights(moving),
        "data_sha256": data,
        "dtype": recipe.model.dtype,
        "objective": recipe.tune.objective.model_dump(mode="json"),
    }


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named weights."""
    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _digest(figures: Mapping[str, Tensor]) -> str:
    return digest_of_weights(dict(sorted(figures.items())))
