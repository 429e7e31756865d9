"""From conversations and preferences to token ids and masks, ready for batches."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contract import Dataset
from harness.data.convert.sources import reports_of
from harness.data.encode.items import part_id, sequences_of
from harness.data.encode.reader import CONVERSATIONS, Reader
from harness.data.encode.storage import Examples, Items, ItemWriter
from harness.data.encode.workers import Pending, Workers
from harness.data.prepare.pipeline import Prepared, begin_report, prepare_items, unprepared
from harness.data.reports import DataReport, SourceReport
from harness.errors import DataError
from harness.nouns import Conversation, Item, Preference, Reads, messages_of, without_thoughts

if TYPE_CHECKING:
    from harness.plugins import Plugins, Registry
    from harness.recipe import DataSource, DataSpec
    from harness.template import BoundTemplate

SAMPLE = 256  # conversations that are handed back as they were
BATCH = 512  # items that are encoded at once
BATCH_CHARACTERS = 1 << 20  # in their messages, so that long ones do not fill the memory


@dataclass(frozen=True, slots=True)
class EncodedData:
    """Items ready for batches, and the reports on how they came about.

    `sample` are the first conversations of them, not encoded.

    `sha256` is of the ids and masks, in order; `tokens` and `supervised` count the tokens of all examples.
    """

    items: Items
    reports: tuple[SourceReport, ...]
    tokens: int
    supervised: int
    sha256: str
    sample: list[Conversation]
    report: DataReport | None = None
    from_cache: bool = False

    @property
    def examples(self) -> Examples:
        """The examples of the items, one after the other: one for each conversation."""
        return self.items.examples

    @property
    def overlong(self) -> int:
        """The number of items that were longer than the recipe's limit, or than the model's positions."""
        return sum(report.overlong + report.beyond_positions for report in self.reports)


def encode_data(
    spec: DataSpec,
    plugins: Plugins,
    template: BoundTemplate,
    evaluation: Iterable[tuple[str, str]] = (),
    folder: Path | None = None,
    *,
    reader: Reader = CONVERSATIONS,
) -> tuple[EncodedData, EncodedData | None]:
    """Encode what is trained on and what it is validated with (None where the recipe has nothing for that).

    The training sources are cleaned, decontaminated, split and mixed by `prepare_items`; `data.validation` is taken as
    it is.

    Args:
        evaluation: (id, text) of the evaluation items, for `data.decontaminate`.
        folder: where the items are written to Arrow files and read from; memory then does not grow with their number.
        reader: the objective that reads them; a dataset that yields what it does not read is refused.

    Raises:
        DataError: see `prepare_items` and `encode_sources`.
        TemplateError: for an item that the template cannot encode; see `BoundTemplate.encode_batch` and `items_of`.
    """
    report = begin_report(spec, plugins)
    files = (folder / "train.arrow", folder / "validation.arrow") if folder else (None, None)
    with _workers(template, spec, reader) as workers:
        train, held_out = (_Encoder(spec, template, workers, reader, file) for file in files)
        for prepared in prepare_items(spec, plugins, report, evaluation=evaluation):
            (train if prepared.part == "train" else held_out).add(prepared)
        encoded = train.finish(report.train, report)
        if spec.validation_share is not None:
            return encoded, _held_out(held_out, report, spec)
    if not spec.validation:
        return encoded, None
    return encoded, encode_sources(spec.validation, spec, plugins.datasets, template, files[1], reader=reader)


def encode_held_out(
    spec: DataSpec, plugins: Plugins, template: BoundTemplate, *, reader: Reader = CONVERSATIONS
) -> EncodedData:
    """Encode only what `data.validation_share` holds out of the training sources, as `encode_data` does.

    Raises:
        DataError: see `prepare_items`; where no row is held out.
    """
    spec = spec.model_copy(update={"decontaminate": None})  # which concerns only what is trained on
    report = begin_report(spec, plugins)
    with _workers(template, spec, reader) as workers:
        encoder = _Encoder(spec, template, workers, reader)
        for prepared in prepare_items(spec, plugins, report):
            if prepared.part == "validation":
                encoder.add(prepared)
        return _held_out(encoder, report, spec)


def _held_out(encoder: _Encoder, report: DataReport, spec: DataSpec) -> EncodedData:
    if not any(source.kept for source in report.held_out):
        rows = sum(source.kept for source in report.train)
        raise DataError(
            f"data.validation_share = {spec.validation_share:g} holds out none of {rows:,} rows (each is drawn "
            "by a hash of its content, so that of few it may be none): raise it, or name other data under "
            "data.validation"
        )
    return encoder.finish(report.held_out)


def encode_sources(
    sources: tuple[DataSource, ...],
    spec: DataSpec,
    datasets: Registry[Dataset],
    template: BoundTemplate,
    file: Path | None = None,
    *,
    reader: Reader = CONVERSATIONS,
) -> EncodedData:
    """Read, convert and encode every row of the sources as it is, and apply `on_overlong`.

    Raises:
        DataError: for a row that does not fit; for an overlong item with `on_overlong: error`; where nothing is left.
    """
    reports = reports_of(sources, datasets)
    with _workers(template, spec, reader) as workers:
        encoder = _Encoder(spec, template, workers, reader, file)
        for prepared in unprepared(sources, datasets, reports):
            encoder.add(prepared)
        return encoder.finish(reports)


def require_kind(prepared: Prepared, reader: Reader) -> None:
    """Raise DataError for an item that is not what is read."""
    item, reads = prepared.item, reader.reads
    yields = "preferences" if isinstance(item, Preference) else "conversations"
    if reads == "pairs" and isinstance(item, Preference):
        if not (item.chosen and item.rejected):
            raise DataError(
                f"has no {'rejected' if item.chosen else 'chosen'} completion; {reader.name} reads pairs, of which it "
                f"needs both. Objectives that read preferences take completions that were judged alone: "
                f"`harness plugins list`"
            )
    elif yields != reads:
        wanted = "preferences" if reads == "pairs" else reads
        raise DataError(
            f"the dataset {prepared.report.source!r} yields {yields}; {reader.name} reads {reads}: name a dataset of "
            f"{wanted}, see `harness data list`"
        )


def require_train_on(spec: DataSpec, reads: Reads) -> None:
    """Raise DataError for a `data.train_on` that preferences cannot have."""
    if reads != "conversations" and spec.train_on != "all":
        raise DataError(
            f"data.train_on is {spec.train_on}, which chooses among the answers of a conversation; of a preference "
            f"whole completions are trained on: leave data.train_on out"
        )


def _workers(template: BoundTemplate, spec: DataSpec, reader: Reader) -> Workers:
    require_train_on(spec, reader.reads)
    return Workers(template, spec.train_on, spec.processes, spec.reasoning)


class _Encoder:
    """Has items encoded in batches as they come, and keeps count of them."""

    def __init__(
        self, spec: DataSpec, template: BoundTemplate, workers: Workers, reader: Reader, file: Path | None = None
    ) -> None:
        self.spec, self.template, self.workers, self.reader = spec, template, workers, reader
        self.writer = ItemWriter(file)
        self.sample: list[Conversation] = []
        self.tokens = self.supervised = 0
        self.digest = hashlib.sha256()
        self.pending: list[Prepared] = []
        self.characters = 0
        self.running: deque[tuple[list[Prepared], Pending]] = deque()

    def add(self, prepared: Prepared) -> None:
        """Take an item that is used. Raises DataError for one that is not what is read."""
        try:
            require_kind(prepared, self.reader)
        except DataError as error:
            raise DataError(f"{prepared.item.source} {prepared.item.id}: {error}") from None
        self.pending.append(prepared)
        for message in messages_of(prepared.item):
            self.characters += len(message.content) + len(message.reasoning)
        if len(self.pending) == BATCH or self.characters >= BATCH_CHARACTERS:
            self._submit()
            while len(self.running) > self.workers.batches:
                self._collect()

    def finish(self, reports: tuple[SourceReport, ...], report: DataReport | None = None) -> EncodedData:
        """Return everything that was added. Raises DataError where nothing is left of it."""
        self._submit()
        while self.running:
            self._collect()
        if not self.tokens:
            raise DataError(
                f"nothing is left to learn from: all {self.reader.reads} were left out; see `harness data validate`"
                + "".join(f"\n  {n:,} {reason}" for r in reports for reason, n in r.left_out.items())
            )
        items, sha256 = self.writer.finish(), self.digest.hexdigest()
        return EncodedData(items, reports, self.tokens, self.supervised, sha256, self.sample, report)

    def _submit(self) -> None:
        if not self.pending:
            return
        batch = [prepared.item for prepared in self.pending]
        self.running.append((self.pending, self.workers.submit(batch)))
        if (wanted := SAMPLE - len(self.sample)) > 0:
            sequences = [sequence for item in batch[:wanted] for sequence in sequences_of(item)][:wanted]
            self.sample += map(without_thoughts, sequences) if self.spec.reasoning == "drop" else sequences
        self.pending, self.characters = [], 0

    def _collect(self) -> None:
        batch, encoded = self.running.popleft()
        for prepared, item in zip(batch, encoded.result(), strict=True):
            items = fitted(item, prepared, self.spec, self.reader, self.template)
            if items:
                self._count(items, prepared)
            for number, one in enumerate(items, 1):
                id = prepared.item.id
                self.writer.add(one, part_id(id, number) if len(items) > 1 else id, prepared.times)

    def _count(self, items: Sequence[Item], prepared: Prepared) -> None:
        """Count what became of a row, and add its ids and masks to the digest as often as it is used."""
        tokens = supervised = 0
        examples = [example for item in items for example in item.examples]
        buffers: list[tuple[Any, Any]] = [(example.input_ids, example.loss_mask) for example in examples]
        for ids, mask in buffers:
            tokens += len(ids)
            supervised += mask.count(1, 1)
        report, times = prepared.report, prepared.times
        if any(example.escaped for example in examples):
            report.escaped.update({token for example in examples for token in example.escaped})
        if isinstance(prepared.item, Conversation):
            report.one_an_answer += any(len(item.examples) > 1 for item in items)
        report.examples += times * len(examples)
        if len(items) > 1:
            report.parted += 1
            report.parts += times * len(items)
        for item in items:
            if set(item.roles) == {"chosen", "rejected"}:
                chosen, rejected = (item.examples[item.roles.index(role)].supervised for role in ("chosen", "rejected"))
                counted = {"pairs": 1, "longer": chosen > rejected, "chosen": chosen, "rejected": rejected}
                report.lengths.update({name: times * count for name, count in counted.items()})
        report.weighted += prepared.item.weight != 1.0
        report.weight += times * prepared.item.weight
        report.with_thoughts += any(message.reasoning for message in messages_of(prepared.item))
        report.tokens += times * tokens
        report.supervised += times * supervised
        self.tokens += times * tokens
        self.supervised += times * supervised
        for _ in range(times):
            for ids, mask in buffers:
                self.digest.update(len(ids).to_bytes(4))
                self.digest.update(ids)
                self.digest.update(mask)
            for item in items:
                if item.extras:
                    self.digest.update(f"{item.roles} {item.extras}".encode())


def fitted(
    encoded: Item, prepared: Prepared, spec: DataSpec, reader: Reader, template: BoundTemplate
) -> Sequence[Item]:
    """Return the items that are used of one that the template encoded, none where the whole row is left out.

    What becomes of it is counted in its report.

    Raises:
        DataError: for one that is too long, with `on_overlong: error`.
    """
    items, report = reader.items(encoded, template, spec), prepared.report
    longest = max((len(one.input_ids) for item in items for one in item.examples), default=0)
    if longest <= reader.longest(spec) and items:
        return items
    reason = f"{reader.name} makes nothing of it"
    if longest > spec.max_tokens:
        report.overlong += 1
        reason = f"longer than {spec.max_tokens} tokens"
    elif items:
        report.beyond_positions += 1
        reason = f"longer than the model's {reader.positions} positions"
    if items and spec.on_overlong == "error":
        raise _overlong(prepared, items, spec, reader)
    if items and spec.on_overlong == "truncate":
        cut = [_cut(item, reader.longest(spec)) for item in items]
        if all(True in one.loss_mask[1:] for item in cut for one in item.examples):
            return cut
    report.kept -= 1
    report.used -= prepared.times
    report.leave_out(prepared.item.id, reason)
    return ()


def _cut(item: Item, end: int) -> Item:
    examples = (replace(one, input_ids=one.input_ids[:end], loss_mask=one.loss_mask[:end]) for one in item.examples)
    return replace(item, examples=tuple(examples))


def _overlong(prepared: Prepared, items: Sequence[Item], spec: DataSpec, reader: Reader) -> DataError:
    longest = max((one for item in items for one in item.examples), key=len)
    such = "conversations" if isinstance(prepared.item, Conversation) else "preferences"
    if len(longest) > spec.max_tokens:
        limit, more = f"data.max_tokens = {spec.max_tokens}", "Raise that, or"
    else:
        limit = f"the model's {reader.positions} positions"
        more = "Take a model with more, stretch these (model.rope_scaling: {type: yarn, factor: 2}), or"
    return DataError(
        f"{len(longest)} tokens, more than {limit}. {more} choose data.on_overlong: drop (leave such {such} out) or "
        f"truncate (cut their end off)",
        path=f"{prepared.report.path}: {longest.id}",
    )
