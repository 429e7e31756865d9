"""Probes: log-probabilities of a few fixed texts under the base and the tuned model.

Serving asks the engine for the same figures: an adapter that was not applied answers like the base, and is refused.
"""

from __future__ import annotations

from typing import Any

from harness.data import EncodedData
from harness.model.logprobs import sequence_logprobs
from harness.nouns import without_thoughts
from harness.recipe import DataSpec
from harness.template import BoundTemplate

COUNT = 4
MAX_TOKENS = 256


def choose_probes(data: EncodedData, template: BoundTemplate, spec: DataSpec) -> list[dict[str, Any]]:
    """Return a few conversations, evenly spread, each with the prompt that asks for its last trained answer."""
    stride = max(1, len(data.sample) // COUNT)
    probes = []
    for conversation in data.sample[::stride][:COUNT]:
        conversation = without_thoughts(conversation) if spec.reasoning == "drop" else conversation
        prompt = conversation.messages[: conversation.trained[-1]]
        thinks = bool(conversation.messages[len(prompt)].reasoning)
        probes.append(
            {
                "messages": [message.as_dict() for message in prompt],
                "tools": [dict(tool) for tool in conversation.tools],
                "thinks": thinks,
                "prompt_tokens": len(template.prompt_ids(prompt, conversation.tools, thinks=thinks)),
                "input_ids": template.encode(conversation, "last").input_ids[:MAX_TOKENS],
            }
        )
    return probes


def measure_probes(model: Any, probes: list[dict[str, Any]]) -> list[list[float]]:
    """Return the log-probabilities of each probe's tokens, one list a probe, one figure a token but the first."""
    was_training = model.training
    model.eval()
    measured = [sequence_logprobs(model, probe["input_ids"]) for probe in probes]
    model.train(was_training)
    return measured


def mean_difference(some: list[list[float]], others: list[list[float]]) -> float:
    """Return the mean absolute difference of two measurements, in nats; 0 for measurements of nothing."""
    differences = [
        abs(a - b) for left, right in zip(some, others, strict=True) for a, b in zip(left, right, strict=True)
    ]
    return sum(differences) / max(len(differences), 1)
