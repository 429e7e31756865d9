"""Sentences about how answers ended and how steady they are, shown under the scores that are made of them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.nouns import Sample


def warnings_of(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return a sentence about answers that were cut off, and one about thoughts that never ended; none without any."""
    cut = [sample for sample in samples if sample.finish == "length"]
    lost = [sample for sample in cut if sample.reasoning and not sample.response.strip()]
    raising = "raise max_tokens (of a task: max_gen_toks)"
    sentences = []
    if lost:
        sentences.append(
            f"{len(lost)} of {len(samples)} answers are thoughts that never ended, and were scored as empty: "
            f"{raising}, or ask without thoughts"
        )
    if more := len(cut) - len(lost):
        sentences.append(
            f"{more} of {len(samples)} answers were cut off at the most tokens allowed (finish: length) and scored as "
            f"far as they went: {raising}, or see if the model ends its turns"
        )
    return tuple(sentences)


def noise_of(samples: Sequence[Sample]) -> str:
    """Return a sentence about the items that were asked twice: how many of them scored otherwise; empty without any."""
    twice = [sample for sample in samples if sample.again]
    if not twice:
        return ""
    differ = [
        sample for sample in twice if any(sample.again[name] != sample.metrics.get(name) for name in sample.again)
    ]
    items = f"{len(twice)} item{'s' * (len(twice) > 1)} asked twice"
    if not differ:
        return f"the engine's own noise: none in {items}"
    largest = {
        name: max(abs(sample.again[name] - sample.metrics[name]) for sample in differ if name in sample.again)
        for name in differ[0].again
    }
    parts = ", ".join(f"{name} by up to {value:.2g}" for name, value in largest.items() if value)
    return f"the engine's own noise: {len(differ)} of {items} scored otherwise ({parts})"
