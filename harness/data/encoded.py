"""From conversations to token ids and masks, ready for batches."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.data.sources import SourceReport, load_conversations, where_of
from harness.declarations import Dataset
from harness.errors import DataError
from harness.nouns import Conversation, Example

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.recipe import DataSource, DataSpec
    from harness.template import BoundTemplate

SAMPLE = 256  # conversations that `encode_sources` hands back as they were


@dataclass(frozen=True, slots=True)
class EncodedData:
    """Examples ready for batches, and the account of how they came about. `sample` is where they begin, unencoded."""

    examples: list[Example]
    reports: tuple[SourceReport, ...]
    overlong: int
    sha256: str
    sample: list[Conversation]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.examples))

    @property
    def supervised(self) -> int:
        return sum(example.supervised for example in self.examples)


def encode_sources(
    sources: tuple[DataSource, ...],
    spec: DataSpec,
    datasets: Registry[Dataset],
    template: BoundTemplate,
    batch: int = 256,
) -> EncodedData:
    """Read, convert and encode sources, and apply `on_overlong`.

    Raises:
        DataError: for a row that does not fit; for an overlong conversation where `on_overlong` is `error`; where
            nothing is left.
    """
    examples: list[Example] = []
    sample: list[Conversation] = []
    reports = []
    overlong = 0
    digest = hashlib.sha256()
    for source in sources:
        report = SourceReport(source.dataset, where_of(source, datasets[source.dataset]))
        reports.append(report)
        pending: list[Conversation] = []

        def flush(pending: list[Conversation], report: SourceReport) -> None:
            nonlocal overlong
            sample.extend(pending[: SAMPLE - len(sample)])
            for example in template.encode_batch(pending):
                if len(example) > spec.max_tokens:
                    overlong += 1
                    example = _shortened(example, spec, report)  # type: ignore[assignment]
                    if example is None:
                        report.kept -= 1
                        report.left_out[f"longer than {spec.max_tokens} tokens"] += 1
                        continue
                digest.update(json.dumps([example.input_ids, example.loss_mask]).encode())
                examples.append(example)
            pending.clear()

        for conversation in load_conversations(source, datasets, report):
            pending.append(conversation)
            if len(pending) == batch:
                flush(pending, report)
        flush(pending, report)
    if not examples:
        raise DataError("nothing is left to learn from: every conversation was left out; see `harness data validate`")
    return EncodedData(examples, tuple(reports), overlong, digest.hexdigest(), sample)


def _shortened(example: Example, spec: DataSpec, report: SourceReport) -> Example | None:
    """What `on_overlong` makes of an example that is too long; None leaves it out."""
    if spec.on_overlong == "error":
        raise DataError(
            f"{report.path}: {example.id} has {len(example)} tokens, more than data.max_tokens = {spec.max_tokens}. Raise that, or "
            f"choose data.on_overlong: drop (leave such conversations out) or truncate (cut their end off)"
        )
    if spec.on_overlong == "drop":
        return None
    cut = Example(example.input_ids[: spec.max_tokens], example.loss_mask[: spec.max_tokens], example.id)
    return cut if cut.supervised else None
