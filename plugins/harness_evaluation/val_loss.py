"""The evaluation `val_loss`: negative log-likelihood per supervised token, and perplexity, on held-out data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.contract import Backend, Evaluation, EvaluationContext
from harness.extras import require
from harness.measure import statistics
from harness.nouns import Item, Result, Sample, Score
from harness.options import Options
from harness.recipe import DataSource
from harness_evaluation.held_out import encoded_held_out
from harness_evaluation.local import LOCAL, loaded_of
from harness_evaluation.progress import progress_bar

if TYPE_CHECKING:
    from harness.data import EncodedData
    from harness.model.load import LoadedVariant
    from harness.nouns import Example
    from harness.template import BoundTemplate

Positive = Annotated[int, Field(gt=0)]


class ValLossOptions(Options):
    """The options in a recipe. `data` is measured on instead of the recipe's `data.validation`."""

    data: tuple[DataSource, ...] = ()
    limit: Positive | None = None
    max_tokens: Positive | None = None
    on_overlong: Literal["error", "drop", "truncate"] | None = None
    batch_tokens: Positive = 8192


def run(backend: Backend, options: ValLossOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield one result: `nll` per supervised token and `perplexity`, each with a standard error.

    The standard error takes conversations, not tokens, as the independent items: tokens of one conversation vary
    together. See `statistics.mean`, whose weights are the token counts.
    """
    require("torch", "evaluation")
    from harness.model.scores import logprob_items

    loaded = loaded_of(backend)
    sources, encoded = _encoded(options, context, loaded.template)
    examples = encoded.examples[: options.limit]
    items = [Item((example,), ("answer",)) for example in examples]
    with progress_bar(f"{loaded.variant.name}  val_loss") as bar:
        bar.expect(len(examples))
        losses: dict[int, float] = {}
        for index, (logprob,) in logprob_items(loaded, items, options.batch_tokens):
            losses[index] = -logprob
            bar.advance(1)
    samples = tuple(_as_sample(loaded, example, losses[index]) for index, example in enumerate(examples))
    nll = statistics.of_samples(samples, "nll")
    scores = {
        "nll": Score(*nll, higher_is_better=False),
        "perplexity": Score(*statistics.exponential(nll), higher_is_better=False),
    }
    details = {
        "data": [source.model_dump() for source in sources],
        "data_sha256": encoded.sha256,
        "supervised_tokens": sum(example.supervised for example in examples),
        "left_out": sum(sum(report.left_out.values()) for report in encoded.reports),
        "overlong": encoded.overlong,
        "trained_on": (trained := trained_on(loaded, examples)),
    }
    yield Result("val_loss", scores, samples, details, _warnings(loaded, trained, len(examples)))


def texts(options: ValLossOptions, context: EvaluationContext) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every conversation that is measured on, but for those of a `validation_share`."""
    from harness.data import load_source, text_of

    for source in options.data or context.recipe.data.validation:
        for item in load_source(source, context.plugins.datasets):
            yield item.id, text_of(item)


EVALUATION = Evaluation(
    "val_loss",
    "loss per supervised token and perplexity on held-out conversations",
    ValLossOptions,
    run,
    texts,
    needs=LOCAL,
)


def _as_sample(loaded: LoadedVariant, example: Example, nll_sum: float) -> Sample:
    """Return the item of one conversation: its mean loss, weighted by its supervised tokens."""
    tokens = example.supervised
    content = hashlib.sha256(json.dumps([example.input_ids, example.loss_mask]).encode()).hexdigest()
    first = example.loss_mask.index(True)
    decode = loaded.template.tokenizer.decode
    return Sample(
        id=f"{example.id}:{content[:12]}",
        metrics={"nll": nll_sum / tokens},
        prompt=decode(example.input_ids[:first], skip_special_tokens=True),
        target=decode(
            [id for id, supervised in zip(example.input_ids, example.loss_mask, strict=True) if supervised],
            skip_special_tokens=True,
        ),
        weight=tokens,
        input=decode(example.input_ids),
    )


def trained_on(loaded: LoadedVariant, examples: Sequence[Example]) -> int | None:
    """Return the number of examples that the variant's run was trained on; None where the run did not keep its rows."""
    from harness.data.encode.trained import count_trained

    variant = loaded.variant
    if variant.run is None or not variant.is_tuned:
        return 0
    return count_trained(variant.run.trained_rows_path, examples)


def _warnings(loaded: LoadedVariant, trained: int | None, n: int) -> tuple[str, ...]:
    if trained is None:
        return (
            "unknown how many of these rows the run was trained on: "
            "it was tuned by a version that did not keep their hashes",
        )
    if not trained:
        return ()
    return (f"{trained} of these {n} rows are rows that the run was trained on: this is no loss on held-out data",)


def _encoded(
    options: ValLossOptions, context: EvaluationContext, template: BoundTemplate
) -> tuple[Sequence[DataSource], EncodedData]:
    limits = {"max_tokens": options.max_tokens, "on_overlong": options.on_overlong}
    chosen = {key: value for key, value in limits.items() if value is not None}
    return encoded_held_out(
        options.data, context, template, changed=chosen, reads="conversations", reader="val_loss", kind="data"
    )
