"""From conversations to token ids and masks, ready for batches."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.convert.sources import load_source, reports_of
from harness.data.encode.examples import Examples, ExampleWriter
from harness.data.encode.workers import Encoded, Pending, Workers
from harness.data.prepare.pipeline import begin_report, prepare_items
from harness.data.reports import DataReport, SourceReport
from harness.declarations import Dataset
from harness.errors import DataError
from harness.nouns import Conversation, DataItem

if TYPE_CHECKING:
    from harness.plugins import Plugins, Registry
    from harness.recipe import DataSource, DataSpec
    from harness.template import BoundTemplate

SAMPLE = 256  # conversations that are handed back as they were
BATCH = 512  # conversations that are encoded at once
BATCH_CHARACTERS = 1 << 20  # of what they say, so that long ones do not fill the memory

_Added = tuple[Conversation, SourceReport, int]  # the last: how often it is used


@dataclass(frozen=True, slots=True)
class EncodedData:
    """Examples ready for batches, and the account of how they came about. `sample` is where they begin, unencoded.

    `sha256` is of the ids and masks, in order; `tokens` and `supervised` count the tokens of them all.
    """

    examples: Examples
    reports: tuple[SourceReport, ...]
    overlong: int
    tokens: int
    supervised: int
    sha256: str
    sample: list[Conversation]
    report: DataReport | None = None
    from_cache: bool = False


def encode_data(
    spec: DataSpec,
    plugins: Plugins,
    template: BoundTemplate,
    evaluation: Iterable[tuple[str, str]] = (),
    folder: Path | None = None,
) -> tuple[EncodedData, EncodedData | None]:
    """What is learnt from and what it is validated with (None where the recipe has nothing for that), encoded.

    The training sources are cleaned, decontaminated, split and mixed as `prepare_items` does it; `data.validation` is taken as
    it is. `evaluation` are (id, text) of the evaluation items, for `data.decontaminate`. With a `folder`, the examples
    are written to Arrow files there and read from these, so that memory does not grow with their number.

    Raises:
        DataError: see `prepare_items` and `encode_sources`.
    """
    report = begin_report(spec, plugins)
    files = (folder / "train.arrow", folder / "validation.arrow") if folder else (None, None)
    with Workers(template, spec.train_on, spec.processes) as workers:
        train, held_out = (_Encoder(spec, workers, file) for file in files)
        for prepared in prepare_items(spec, plugins, report, evaluation=evaluation):
            part = train if prepared.part == "train" else held_out
            part.add(as_conversation(prepared.item, prepared.report.source), prepared.report, prepared.times)
        encoded = train.finish(report.train, report)
        if spec.validation_share is not None:
            return encoded, _held_out(held_out, report, spec)
    if not spec.validation:
        return encoded, None
    return encoded, encode_sources(spec.validation, spec, plugins.datasets, template, file=files[1])


def encode_held_out(spec: DataSpec, plugins: Plugins, template: BoundTemplate) -> EncodedData:
    """Only what `data.validation_share` holds out of the training sources, as `encode_data` has it.

    Raises:
        DataError: see `prepare_items`; where no row is held out.
    """
    spec = spec.model_copy(update={"decontaminate": None})  # which concerns only what is learnt
    report = begin_report(spec, plugins)
    with Workers(template, spec.train_on, spec.processes) as workers:
        encoder = _Encoder(spec, workers)
        for prepared in prepare_items(spec, plugins, report):
            if prepared.part == "validation":
                encoder.add(as_conversation(prepared.item, prepared.report.source), prepared.report)
        return _held_out(encoder, report, spec)


def _held_out(encoder: _Encoder, report: DataReport, spec: DataSpec) -> EncodedData:
    if not any(source.kept for source in report.held_out):
        rows = sum(source.kept for source in report.train)
        raise DataError(
            f"data.validation_share = {spec.validation_share:g} holds out none of {rows:,} rows: raise it, or name other data "
            f"under data.validation"
        )
    return encoder.finish(report.held_out)


def encode_sources(
    sources: tuple[DataSource, ...],
    spec: DataSpec,
    datasets: Registry[Dataset],
    template: BoundTemplate,
    file: Path | None = None,
) -> EncodedData:
    """Read, convert and encode every row of the sources as it is, and apply `on_overlong`.

    Raises:
        DataError: for a row that does not fit; for an overlong conversation where `on_overlong` is `error`; where
            nothing is left.
    """
    reports = reports_of(sources, datasets)
    with Workers(template, spec.train_on, spec.processes) as workers:
        encoder = _Encoder(spec, workers, file)
        for source, report in zip(sources, reports, strict=True):
            for item in load_source(source, datasets, report):
                report.used += 1
                encoder.add(as_conversation(item, source.dataset), report)
        return encoder.finish(reports)


def as_conversation(item: DataItem, dataset: str) -> Conversation:
    """Return the item, which must be a conversation. Raises DataError for a preference."""
    if not isinstance(item, Conversation):
        raise DataError(
            f"{item.source} {item.id}: the data set {dataset!r} yields preferences; this needs conversations"
        )
    return item


class _Encoder:
    """Has conversations encoded in batches as they come, and keeps count of them."""

    def __init__(self, spec: DataSpec, workers: Workers, file: Path | None = None) -> None:
        self.spec, self.workers = spec, workers
        self.writer = ExampleWriter(file)
        self.sample: list[Conversation] = []
        self.overlong = self.tokens = self.supervised = 0
        self.digest = hashlib.sha256()
        self.pending: list[_Added] = []
        self.characters = 0
        self.running: deque[tuple[list[_Added], Pending]] = deque()

    def add(self, conversation: Conversation, report: SourceReport, times: int = 1) -> None:
        """Take a conversation that is used `times` times."""
        self.pending.append((conversation, report, times))
        for message in conversation.messages:
            self.characters += len(message.content)
        if len(self.pending) == BATCH or self.characters >= BATCH_CHARACTERS:
            self._submit()
            while len(self.running) > self.workers.batches:
                self._collect()

    def finish(self, reports: tuple[SourceReport, ...], report: DataReport | None = None) -> EncodedData:
        """Everything that was added. Raises DataError where nothing is left of it."""
        self._submit()
        while self.running:
            self._collect()
        if not self.tokens:
            raise DataError(
                "nothing is left to learn from: every conversation was left out; see `harness data validate`"
                + "".join(f"\n  {n:,} {reason}" for r in reports for reason, n in r.left_out.items())
            )
        examples = self.writer.finish()
        return EncodedData(
            examples,
            reports,
            self.overlong,
            self.tokens,
            self.supervised,
            self.digest.hexdigest(),
            self.sample,
            report,
        )

    def _submit(self) -> None:
        if not self.pending:
            return
        conversations = [conversation for conversation, _, _ in self.pending]
        self.sample.extend(conversations[: SAMPLE - len(self.sample)])
        self.running.append((self.pending, self.workers.submit(conversations)))
        self.pending, self.characters = [], 0

    def _collect(self) -> None:
        batch, encoded = self.running.popleft()
        for (_, report, times), made in zip(batch, encoded.result(), strict=True):
            kept: Encoded | None = made
            if len(made.ids) > self.spec.max_tokens:
                self.overlong += 1
                kept = _shortened(made, self.spec, report)
            if kept is None:
                report.kept -= 1
                report.used -= times
                report.leave_out(made.id, f"longer than {self.spec.max_tokens} tokens")
                continue
            tokens, supervised = times * len(kept.ids), times * kept.mask.count(1, 1)
            report.escaped.update(made.escaped)
            report.tokens += tokens
            report.supervised += supervised
            self.tokens += tokens
            self.supervised += supervised
            for _ in range(times):
                self.digest.update(len(kept.ids).to_bytes(4))
                self.digest.update(kept.ids)
                self.digest.update(kept.mask)
            self.writer.add(kept, times)


def _shortened(made: Encoded, spec: DataSpec, report: SourceReport) -> Encoded | None:
    """What `on_overlong` makes of an example that is too long; None leaves it out."""
    if spec.on_overlong == "error":
        raise DataError(
            f"{report.path}: {made.id} has {len(made.ids)} tokens, more than data.max_tokens = {spec.max_tokens}. Raise that, or "
            f"choose data.on_overlong: drop (leave such conversations out) or truncate (cut their end off)"
        )
    if spec.on_overlong == "drop":
        return None
    cut = made._replace(ids=made.ids[: spec.max_tokens], mask=made.mask[: spec.max_tokens])
    return cut if cut.mask.count(1, 1) else None
