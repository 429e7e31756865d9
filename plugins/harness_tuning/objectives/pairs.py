"""Pairs of completions, as several objectives see them: sums of log-probabilities, weights, and what people watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import harness
from harness.contract.batches import Batch
from harness.contract.objectives import Policy
from harness_tuning.objectives.sft import entropies

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = "reference"  # the figure of a document: its completion's log-probability in the starting state


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of a batch: the documents of the chosen and of the rejected completions, and the weights, [p] each."""

    chosen: Tensor
    rejected: Tensor
    weight: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Pairs:
        """Return the pairs of a batch each of whose items is one."""
        chosen, rejected = batch.index("chosen"), batch.index("rejected")
        return cls(chosen, rejected, batch.figures("weight", 1.0)[chosen])

    def both(self, figures: Tensor) -> tuple[Tensor, Tensor]:
        """Return figures of documents [d] as those of the chosen and those of the rejected ones."""
        return figures[self.chosen], figures[self.rejected]

    def term(self, losses: Tensor, weight: float = 1.0) -> harness.Term:
        """Return the term of one loss a pair, each with the weight of its item."""
        return harness.Term((losses * self.weight).sum(), weight)

    def metrics(self, **figures: Tensor) -> dict[str, harness.Metric]:
        """Return the mean of figures [p] over the pairs, each pair once."""
        return {
            name: harness.Metric(values.detach().float().sum(), len(self.chosen)) for name, values in figures.items()
        }

    def rewards(self, chosen: Tensor, rejected: Tensor) -> dict[str, harness.Metric]:
        """Return what is watched of rewards [p]: their means, their margin, and how often the chosen one is higher.

        A tie counts half: before the first step all are ties.
        """
        return self.metrics(
            rewards_chosen=chosen,
            rewards_rejected=rejected,
            reward_margin=chosen - rejected,
            reward_accuracy=((chosen > rejected).float() + (chosen >= rejected).float()) / 2,
        )

    def completions(self, batch: Batch, logprobs: Tensor, entropy: Tensor) -> dict[str, harness.Metric]:
        """Return what is watched of the completions: log-probabilities (sums, [d]), lengths in tokens, entropies."""
        (chosen, rejected), (long, short) = self.both(logprobs), self.both(batch.targets_by_document())
        return self.metrics(
            logprobs_chosen=chosen, logprobs_rejected=rejected, length_chosen=long, length_rejected=short
        ) | entropies(entropy)


def pair_units(batch: Batch) -> float:
    """Return the sum of the weights of the batch's pairs."""
    return sum(batch.weights[document] for document in batch.of_role("chosen"))


def reference(policy: Policy, batch: Batch, options: object) -> dict[str, Tensor]:
    """Return the log-probability of each completion: of the starting state, when the loop asks it then."""
    return {REFERENCE: batch.by_document(policy.logprobs(batch))}


def drift(batch: Batch, ratios: Tensor) -> dict[str, harness.Metric]:
    """Return how far the policy has moved from the reference: the mean of |log-ratio|, [d], a token of a completion.

    In nats, on the completions of the data. A KL would need completions of the policy's own.
    """
    moved = means(batch, ratios).detach().abs()
    chosen, rejected = (moved[batch.index(role)] for role in ("chosen", "rejected"))  # not prompts that they share
    return {"drift": harness.Metric(chosen.sum() + rejected.sum(), len(chosen) + len(rejected))}


def means(batch: Batch, sums: Tensor) -> Tensor:
    """Return sums over the targets of each document as means, [d]."""
    return sums / batch.targets_by_document().clamp_min(1)


def smoothed(margin: Tensor, smoothing: float) -> Tensor:
    """Return -log sigmoid of a margin [p], where a share `smoothing` of the labels is taken to be wrong."""
    return -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)


def log_sigmoid(figures: Tensor) -> Tensor:
    """Return log(1 / (1 + exp(-x))) of each figure, without overflow."""
    return -(-figures).logaddexp(figures.new_zeros(()))


def chosen_nll(batch: Batch, logprobs: Tensor, weight: float = 1.0) -> harness.Term:
    """Return the negative log-likelihood of the chosen completions' tokens, of log-probabilities of targets [n]."""
    return harness.Term(-(logprobs * _chosen_weights(batch)).sum(), weight)


def chosen_tokens(batch: Batch) -> float:
    """Return the number of tokens of the chosen completions, each by the weight of its pair."""
    return sum(batch.weights[document] * batch.target_counts[document] for document in batch.of_role("chosen"))


def _chosen_weights(batch: Batch) -> Tensor:
    """Return the weight of the pair for each target of a chosen completion, 0 for the others, [n]."""
    weight, chosen = batch.figures("weight", 1.0), Pairs.of(batch).chosen
    of_documents = weight.new_zeros(len(weight))
    of_documents[chosen] = weight[chosen]
    return of_documents[batch.targets.document]
