"""Remarks on a comparison: what a reader of its figures has to know about how the two sides were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.nouns import Sample

if TYPE_CHECKING:
    from harness.measure.records import Record

_AROUND = 24  # characters shown of two renderings, on both sides of where they part


def remarks(a: Record, b: Record, pairs: Sequence[tuple[Sample, Sample]]) -> tuple[str, ...]:
    """Return a sentence on each: another template or rendering, other units, answers that were cut off."""
    lines = [*_renderings(a, b, pairs), *_units(a, b, pairs), *_cut_off(a, b, pairs)]
    return tuple(lines)


def _renderings(a: Record, b: Record, pairs: Sequence[tuple[Sample, Sample]]) -> list[str]:
    """Return the sentence on templates and renderings; none where all items were rendered alike or none is known."""
    templates = [record.entries["template"] for record in (a, b)]
    names = [template.get("name") or "its endpoint's own" for template in templates]
    rendered = [(x, y) for x, y in pairs if (x.input and y.input) or (x.prompt_ids and y.prompt_ids)]
    otherwise = [(x, y) for x, y in rendered if (x.input or x.prompt_ids) != (y.input or y.prompt_ids)]
    if templates[0].get("sha256") == templates[1].get("sha256"):
        if not otherwise:
            return []
        line = f"the same template ({names[0]}) rendered {_of(otherwise, pairs)} otherwise for the two"
    else:
        line = f"the templates differ: {a.variant} was asked through {names[0]}, {b.variant} through {names[1]}"
        if not rendered:
            return [f"{line}; how one of them renders the items is not known"]
        line += f"; {_of(otherwise, pairs)} were rendered otherwise" if otherwise else "; all items were rendered alike"
    if examples := [(x.input, y.input) for x, y in otherwise if x.input and y.input]:
        line += f", such as {_parting(*examples[0])}"
    return [line]


def _of(some: Sequence[object], of: Sequence[object]) -> str:
    return f"{len(some)} of {len(of)} items"


def _parting(a: str, b: str) -> str:
    """Return the two texts around the place where they part."""
    at = next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    cut = slice(max(0, at - _AROUND), at + _AROUND)
    return f"{a[cut]!r} against {b[cut]!r}"


def _units(a: Record, b: Record, pairs: Sequence[tuple[Sample, Sample]]) -> list[str]:
    """Return the sentences on metrics whose items weigh otherwise for the two."""
    lines = []
    for metric in dict.fromkeys(name for x, _ in pairs for name in x.metrics):
        weights = [(x.weight_of(metric), y.weight_of(metric)) for x, y in pairs if metric in x.metrics]
        if any(of_a != of_b for of_a, of_b in weights):
            of_a, of_b = (sum(side) for side in zip(*weights, strict=True))
            lines.append(
                f"{metric} is a mean over {of_a:,.0f} units for {a.variant} and {of_b:,.0f} for {b.variant}: its items "
                f"are cut into tokens otherwise, and only a figure by bytes is of the same unit"
            )
    return lines


def _cut_off(a: Record, b: Record, pairs: Sequence[tuple[Sample, Sample]]) -> list[str]:
    """Return the sentence on answers that ended because no more tokens were allowed."""
    counts = [sum(sample.finish == "length" for sample in side) for side in zip(*pairs, strict=True)]
    if not any(counts):
        return []
    return [
        f"cut off at the most tokens that an answer may have: {counts[0]} of {len(pairs)} answers of {a.variant}, "
        f"{counts[1]} of {b.variant}"
    ]


def unapplied(
    a: str, b: str, records: Sequence[tuple[Record, Record]], pairs: Sequence[tuple[Sample, Sample]]
) -> str | None:
    """Return the warning that an adapter seems not to be applied; None where the two answer at all unlike.

    Their adapters differ by their hashes, and each answer, likelihood and metric of every task is the same to the last
    digit.
    """
    adapters = {tuple(record.entries["weights"].get("adapter_sha256") for record in both) for both in records}
    if any(of_a == of_b for of_a, of_b in adapters):
        return None
    if len(pairs) < 2 or any(_answered(x) != _answered(y) for x, y in pairs):
        return None
    return (
        f"{b} answered all {len(pairs)} items exactly as {a} did, as if its adapter were not applied. `harness serve` "
        f"checks that it is; an adapter that was trained too little to change an answer looks the same"
    )


def _answered(sample: Sample) -> tuple[object, ...]:
    return sample.response, sample.reasoning, sample.log_likelihoods, dict(sample.metrics)
