"""The evaluation `preferences`: how often a variant prefers the chosen completion of held-out pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from harness.contract import Backend, Evaluation, EvaluationContext, Request
from harness.measure import statistics
from harness.nouns import Result, Sample, Score
from harness.options import Options
from harness.recipe import DataSource
from harness_evaluation.held_out import encoded_held_out, paired_ids
from harness_evaluation.local import in_batches, loaded_of, variant_of
from harness_evaluation.progress import progress_bar
from harness_evaluation.val_loss import logprobs_of, scoring, trained_on

if TYPE_CHECKING:
    from harness.nouns import Item
    from harness.template import BoundTemplate

Positive = Annotated[int, Field(gt=0)]


class PreferenceOptions(Options):
    """The options in a recipe. `data` is measured on instead of the recipe's `data.validation`."""

    data: tuple[DataSource, ...] = ()
    limit: Positive | None = None
    batch_tokens: Positive = 8192


def run(backend: Backend, options: PreferenceOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield one result: `win_rate`, the share of pairs whose chosen completion has more, and `win_rate_per_token`.

    More log-probability, and more of it a token, so that a longer completion is not at a disadvantage. A reward model's
    scores are compared as they are in both. A tie counts half.
    """
    sources, encoded = encoded_held_out(
        options.data, context, backend, changed={}, reads="pairs", name="the evaluation 'preferences'",
        kind="pairs",
    )  # fmt: skip
    items = encoded.items[: options.limit]
    by = "score" if variant_of(backend).head is not None else "log-probability"
    figures = (_scores if by == "score" else _logprobs)(backend, items, options.batch_tokens)
    examples = [example for item in items for example in item.examples]
    rows = [item.examples[0].id.removesuffix(" chosen") for item in items for _ in item.examples]
    ids = paired_ids(sources, context, encoded.reports, rows)[::2]
    samples = tuple(
        _as_sample(backend.template, id, item, figures[number], by)
        for number, (id, item) in enumerate(zip(ids, items, strict=True))
    )
    names = samples[0].metrics
    scores = {name: Score(*statistics.of_samples(samples, name)) for name in names}
    trained = trained_on(backend, examples)
    details = {
        "data": [source.model_dump() for source in sources],
        "data_sha256": encoded.sha256,
        "compared_by": by,
        "trained_on": trained,
    }
    warnings = (
        (f"{trained} of these {len(examples)} completions are some that the run was trained on: nothing is held out",)
        if trained
        else ()
    )
    yield Result("preferences", scores, samples, details, warnings)


def requests(backend: Backend, options: PreferenceOptions, context: EvaluationContext) -> Iterator[Request]:
    """Yield what is scored: both completions of each pair."""
    _, encoded = encoded_held_out(
        options.data, context, backend, changed={}, reads="pairs", name="the evaluation 'preferences'",
        kind="pairs",
    )  # fmt: skip
    yield from (scoring(example) for item in encoded.items[: options.limit] for example in item.examples)


EVALUATION = Evaluation(
    "preferences",
    "how often the chosen completion of held-out pairs is preferred, by score or log-probability",
    PreferenceOptions,
    run,
    needs=("template", "score"),
    requests=requests,
)


def _logprobs(backend: Backend, items: Sequence[Item], batch_tokens: int) -> dict[int, list[float]]:
    """Return the log-probability of both completions of each pair."""
    with in_batches(backend, tokens=batch_tokens):
        figures = iter(logprobs_of(backend, [example for item in items for example in item.examples]))
    return {number: [next(figures) for _ in item.examples] for number, item in enumerate(items)}


def _scores(backend: Backend, items: Sequence[Item], batch_tokens: int) -> dict[int, list[float]]:
    """Return the score that a reward model gives both completions of each pair."""
    from harness.model.scores import score_items

    figures = {}
    with progress_bar(f"{backend.name}  preferences") as bar:
        bar.expect(len(items))
        for number, of_examples in score_items(loaded_of(backend), items, batch_tokens):
            figures[number] = of_examples
            bar.advance(1)
    return figures


def _as_sample(template: BoundTemplate, id: str, item: Item, figures: list[float], by: str) -> Sample:
    """Return the record of one pair."""
    chosen, rejected = figures
    lengths = [1, 1] if by == "score" else [example.supervised for example in item.examples]
    metrics = {
        "win_rate": _wins(chosen, rejected),
        "win_rate_per_token": _wins(chosen / lengths[0], rejected / lengths[1]),
    }
    prompt, texts = _texts(template, item)
    return Sample(
        id=id,
        metrics=metrics,
        prompt=prompt,
        target=texts[0],
        response=texts[0 if chosen > rejected else 1],
        weight=float(item.extras.get("weight", 1.0)),  # type: ignore[arg-type]
        input=prompt,
        log_likelihoods=(chosen, rejected),
    )


def _wins(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _texts(template: BoundTemplate, item: Item) -> tuple[str, list[str]]:
    """Return the prompt and the two completions as text."""
    decode = template.tokenizer.decode
    starts = [list(example.loss_mask).index(True) for example in item.examples]
    texts = [
        decode(example.input_ids[start:], skip_special_tokens=True).strip()
        for example, start in zip(item.examples, starts, strict=True)
    ]
    return decode(item.examples[0].input_ids[: starts[0]], skip_special_tokens=True), texts
