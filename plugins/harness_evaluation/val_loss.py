"""The evaluation `val_loss`: negative log-likelihood per supervised token, and perplexity, on held-out data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from harness.contract import Backend, Evaluation, EvaluationContext, Request
from harness.measure import statistics
from harness.nouns import Result, Sample, Score
from harness.options import Options
from harness.recipe import DataSource
from harness_evaluation.held_out import encoded_held_out, paired_ids
from harness_evaluation.local import in_batches, variant_of

if TYPE_CHECKING:
    from harness.data import EncodedData
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
    """Yield one result: `nll` per supervised token, `perplexity` and `bits_per_byte`, each with a standard error.

    Bits a byte are those of all supervised tokens, a stop token too, over the bytes of the supervised text, which is
    the same text whatever tokenizer cut it up.

    The standard error takes conversations, not tokens, as the independent items: tokens of one conversation vary
    together. See `statistics.mean`, whose weights are the token counts.
    """
    sources, encoded = _encoded(options, context, backend)
    examples = encoded.examples[: options.limit]
    with in_batches(backend, tokens=options.batch_tokens):
        logprobs = logprobs_of(backend, examples)
    ids = paired_ids(sources, context, encoded.reports, [example.id for example in examples])
    samples = tuple(
        _as_sample(backend.template, id, example, -logprob)
        for id, example, logprob in zip(ids, examples, logprobs, strict=True)
    )
    nll = statistics.of_samples(samples, "nll")
    scores = {
        "nll": Score(*nll, higher_is_better=False),
        "perplexity": Score(*statistics.exponential(nll), higher_is_better=False),
        "bits_per_byte": Score(*statistics.of_samples(samples, "bits_per_byte"), higher_is_better=False),
    }
    details = {
        "data": [source.model_dump() for source in sources],
        "data_sha256": encoded.sha256,
        "supervised_tokens": sum(example.supervised for example in examples),
        "left_out": sum(sum(report.left_out.values()) for report in encoded.reports),
        "overlong": encoded.overlong,
        "trained_on": (trained := trained_on(backend, examples)),
    }
    yield Result("val_loss", scores, samples, details, _warnings(trained, len(examples)))


def requests(backend: Backend, options: ValLossOptions, context: EvaluationContext) -> Iterator[Request]:
    """Yield what is scored: of each conversation, everything from its first supervised token on."""
    _, encoded = _encoded(options, context, backend)
    yield from map(scoring, encoded.examples[: options.limit])


def scoring(example: Example) -> Request:
    """Return the request by which an example is scored, from its first supervised token on."""
    first = max(1, list(example.loss_mask).index(True))
    return Request(tuple(example.input_ids[:first]), scored=tuple(example.input_ids[first:]))


def logprobs_of(backend: Backend, examples: Sequence[Example]) -> list[float]:
    """Return the summed log-probability (natural log) of each example's supervised tokens."""
    asked = [scoring(example) for example in examples]
    answers = dict(backend.ask(asked))
    return [
        math.fsum(
            logprob
            for logprob, supervised in zip(
                answers[number].logprobs or (), example.loss_mask[len(asked[number].prompt) :], strict=True
            )
            if supervised
        )
        for number, example in enumerate(examples)
    ]


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
    needs=("template", "score"),
    requests=requests,
)


def _as_sample(template: BoundTemplate, id: str, example: Example, nll_sum: float) -> Sample:
    """Return the item of one conversation: its mean loss, weighted by its supervised tokens."""
    tokens = example.supervised
    first = example.loss_mask.index(True)
    decode = template.tokenizer.decode
    supervised = [
        token for token, is_supervised in zip(example.input_ids, example.loss_mask, strict=True) if is_supervised
    ]
    target = decode(supervised, skip_special_tokens=True)
    size_bytes = max(1, len(target.encode()))  # a stop token alone has no text
    return Sample(
        id=id,
        metrics={"nll": nll_sum / tokens, "bits_per_byte": nll_sum / math.log(2) / size_bytes},
        prompt=decode(example.input_ids[:first], skip_special_tokens=True),
        target=target,
        weight=tokens,
        weights={"bits_per_byte": size_bytes},
        input=decode(example.input_ids),
    )


def trained_on(backend: Backend, examples: Sequence[Example]) -> int | None:
    """Return the number of examples that the variant's run was trained on; None where the run did not keep its rows."""
    from harness.data.encode.trained import count_trained

    variant = variant_of(backend)
    if variant.run is None or not variant.is_tuned:
        return 0
    return count_trained(variant.run.trained_rows_path, examples)


def _warnings(trained: int | None, n: int) -> tuple[str, ...]:
    if trained is None:
        return (
            "unknown how many of these rows the run was trained on: "
            "it was tuned by a version that did not keep their hashes",
        )
    if not trained:
        return ()
    return (f"{trained} of these {n} rows are rows that the run was trained on: this is no loss on held-out data",)


def _encoded(
    options: ValLossOptions, context: EvaluationContext, backend: Backend
) -> tuple[Sequence[DataSource], EncodedData]:
    limits = {"max_tokens": options.max_tokens, "on_overlong": options.on_overlong}
    chosen = {key: value for key, value in limits.items() if value is not None}
    return encoded_held_out(
        options.data, context, backend, changed=chosen, reads="conversations", name="val_loss", kind="data"
    )
