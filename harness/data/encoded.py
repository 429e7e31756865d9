"""From conversations to token ids and masks, ready for batches."""

from __future__ import annotations

import hashlib
from array import array
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data.examples import Examples, ExampleWriter
from harness.data.prepare import Account, prepare
from harness.data.sources import SourceReport, as_conversation, load_conversations, where_of
from harness.declarations import Dataset
from harness.errors import DataError
from harness.nouns import Conversation, Example

if TYPE_CHECKING:
    from harness.plugins import Plugins, Registry
    from harness.recipe import DataSource, DataSpec
    from harness.template import BoundTemplate

SAMPLE = 256  # conversations that are handed back as they were
BATCH = 256  # conversations that are encoded at once
THREADS = 2  # one renders while the other tokenizes
AHEAD = 3  # batches that are read while others are encoded


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
    account: Account | None = None
    from_cache: bool = False


def encode_data(
    spec: DataSpec,
    plugins: Plugins,
    template: BoundTemplate,
    evaluation: Iterable[tuple[str, str]] = (),
    folder: Path | None = None,
) -> tuple[EncodedData, EncodedData | None]:
    """What is learnt from and what it is validated with (None where the recipe has nothing for that), encoded.

    The training sources are cleaned, decontaminated, split and mixed as `prepare` does it; `data.validation` is taken as
    it is. `evaluation` are (id, text) of the evaluation items, for `data.decontaminate`. With a `folder`, the examples
    are written to Arrow files there and read from these, so that memory does not grow with their number.

    Raises:
        DataError: see `prepare` and `encode_sources`.
    """
    account = Account.of(spec, plugins)
    files = (folder / "train.arrow", folder / "validation.arrow") if folder else (None, None)
    train, held_out = (_Encoder(spec, template, file) for file in files)
    for prepared in prepare(spec, plugins, account, evaluation=evaluation):
        part = train if prepared.part == "train" else held_out
        part.add(as_conversation(prepared.item, prepared.report.source), prepared.report, prepared.times)
    encoded = train.finish(account.reports, account)
    if spec.validation_share is None:
        if not spec.validation:
            return encoded, None
        return encoded, encode_sources(spec.validation, spec, plugins.datasets, template, file=files[1])
    return encoded, _held_out(held_out, account, spec)


def encode_held_out(spec: DataSpec, plugins: Plugins, template: BoundTemplate) -> EncodedData:
    """Only what `data.validation_share` holds out of the training sources, as `encode_data` has it.

    Raises:
        DataError: see `prepare`; where no row is held out.
    """
    spec = spec.model_copy(update={"decontaminate": None})  # which concerns only what is learnt
    account, encoder = Account.of(spec, plugins), _Encoder(spec, template)
    for prepared in prepare(spec, plugins, account):
        if prepared.part == "validation":
            encoder.add(as_conversation(prepared.item, prepared.report.source), prepared.report)
    return _held_out(encoder, account, spec)


def _held_out(encoder: _Encoder, account: Account, spec: DataSpec) -> EncodedData:
    if not any(report.kept for report in account.held_out):
        rows = sum(report.kept for report in account.reports)
        raise DataError(
            f"data.validation_share = {spec.validation_share:g} holds out none of {rows:,} rows: raise it, or name other data "
            f"under data.validation"
        )
    return encoder.finish(account.held_out)


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
    encoder = _Encoder(spec, template, file)
    reports = tuple(SourceReport(source.dataset, where_of(source, datasets[source.dataset])) for source in sources)
    for source, report in zip(sources, reports, strict=True):
        for conversation in load_conversations(source, datasets, report):
            report.used += 1
            encoder.add(conversation, report)
    return encoder.finish(reports)


class _Encoder:
    """Encodes conversations in batches as they come, and keeps count of them.

    A batch is tokenized in a thread (on all cores, and without Python's lock) while the next ones are read and rendered.
    """

    def __init__(self, spec: DataSpec, template: BoundTemplate, file: Path | None = None) -> None:
        self.spec, self.template = spec, template
        self.writer = ExampleWriter(file)
        self.sample: list[Conversation] = []
        self.overlong = self.tokens = self.supervised = 0
        self.digest = hashlib.sha256()
        self.pending: list[tuple[Conversation, SourceReport, int]] = []
        self.threads = ThreadPoolExecutor(THREADS)
        self.running: deque[tuple[list[tuple[Conversation, SourceReport, int]], Future[list[Example]]]] = deque()

    def add(self, conversation: Conversation, report: SourceReport, times: int = 1) -> None:
        """Take a conversation that is used `times` times."""
        self.pending.append((conversation, report, times))
        if len(self.pending) == BATCH:
            self._submit()
            if len(self.running) > AHEAD:
                self._collect()

    def finish(self, reports: tuple[SourceReport, ...], account: Account | None = None) -> EncodedData:
        """Everything that was added. Raises DataError where nothing is left of it."""
        self._submit()
        while self.running:
            self._collect()
        self.threads.shutdown()
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
            account,
        )

    def _submit(self) -> None:
        if not self.pending:
            return
        conversations = [conversation for conversation, _, _ in self.pending]
        self.sample.extend(conversations[: SAMPLE - len(self.sample)])
        self.running.append(
            (self.pending, self.threads.submit(self.template.encode_batch, conversations, self.spec.train_on))
        )
        self.pending = []

    def _collect(self) -> None:
        batch, encoded = self.running.popleft()
        for (conversation, report, times), example in zip(batch, encoded.result(), strict=True):
            if len(example) > self.spec.max_tokens:
                self.overlong += 1
                example = _shortened(example, self.spec, report)  # type: ignore[assignment]
                if example is None:
                    report.kept -= 1
                    report.used -= times
                    report.leave_out(conversation.id, f"longer than {self.spec.max_tokens} tokens")
                    continue
            ids, mask = array("i", example.input_ids), bytes(example.loss_mask)
            tokens, supervised = times * len(ids), times * mask.count(1, 1)
            report.tokens += tokens
            report.supervised += supervised
            self.tokens += tokens
            self.supervised += supervised
            for _ in range(times):
                self.digest.update(len(ids).to_bytes(4))
                self.digest.update(ids)
                self.digest.update(mask)
            self.writer.add(example, ids, mask, times)


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
