"""The data that an evaluation measures on, encoded: its own, or what the recipe holds out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.contract import Backend, EvaluationContext
from harness.errors import HarnessError
from harness.recipe import DataSource, DataSpec

if TYPE_CHECKING:
    from harness.data import EncodedData, SourceReport
    from harness.nouns import Reads


def encoded_held_out(
    own: tuple[DataSource, ...],
    context: EvaluationContext,
    backend: Backend,
    *,
    changed: Mapping[str, Any],
    reads: Reads,
    name: str,
    kind: str,
) -> tuple[tuple[DataSource, ...], EncodedData]:
    """Return the sources that are measured on, and their rows, encoded as the recipe's objective has them.

    Args:
        own: the sources that the evaluation names; without any, those that the recipe holds out.
        changed: keys of `data` that are others than the recipe's.
        name: of the evaluation, and `kind` what it measures on, for messages.

    Raises:
        HarnessError: where nothing is held out; see `encode_held_out` and `encode_sources` too.
    """
    from harness.data import Reader, encode_held_out, encode_sources
    from harness.data.cache.store import kept_validation

    recipe, plugins, template = context.recipe, context.plugins, backend.template
    reader = Reader(reads, name, backend.longest)
    if recipe is not None and recipe.tune.objective.name in plugins.objectives:
        own_reader = Reader.of(recipe.tune.objective, plugins, reader.positions)
        if own_reader.reads == reads:
            reader = replace(reader, spec=own_reader.spec, objective=own_reader.objective)
    if recipe is not None and not own and recipe.data.validation_share:
        spec = recipe.data.model_copy(update=changed)
        kept = kept_validation(spec, plugins, template, reader=reader)
        return spec.train, kept or encode_held_out(spec, plugins, template, reader=reader)
    sources = own or (recipe.data.validation if recipe is not None else ())
    if not sources:
        raise HarnessError(
            f"{name} has nothing to measure on: name held-out {kind} in the recipe, under `data.validation` or under "
            "`data` of the evaluation; for a plain model give the recipe with --recipe FILE"
        )
    spec = (recipe.data if recipe is not None else DataSpec(train=sources)).model_copy(update=changed)
    return sources, encode_sources(sources, spec, plugins.datasets, template, reader=reader)


def paired_ids(
    sources: Sequence[DataSource], context: EvaluationContext, reports: Sequence[SourceReport], ids: Sequence[str]
) -> list[str]:
    """Return the ids by which examples are paired: each with a hash of its row, messages and tools, unrendered.

    Args:
        reports: of the encoded sources, which count the examples of each: files of one name in two folders give their
            rows the same ids.
        ids: of the encoded examples in order, the first ones of all.

    Raises:
        HarnessError: where the data have changed since they were encoded.
    """
    paired: list[str] = []
    for source, report in zip(sources, reports, strict=True):
        paired += _paired_in(source, context, ids[len(paired) : len(paired) + report.examples])
    return paired


def _paired_in(source: DataSource, context: EvaluationContext, ids: Sequence[str]) -> list[str]:
    from harness.data import digest_of, load_source
    from harness.data.encode.items import whole_id

    wanted = {whole_id(id) for id in ids}
    items = load_source(source, context.plugins.datasets, on_error=lambda error: None) if wanted else ()
    digests = {item.id: digest_of(item).hex()[:12] for item in items if item.id in wanted}
    if missing := wanted - digests.keys():
        raise HarnessError(f"the row {min(missing)} is not in the data any more; measure again")
    return [f"{id}:{digests[whole_id(id)]}" for id in ids]
