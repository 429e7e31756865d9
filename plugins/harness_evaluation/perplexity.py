"""The evaluation `perplexity`: the loss of whole texts, each token given those before it, as far as the model reads.

Nats a token depend on the tokenizer; bits a byte do not, and are what to compare models by.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import pydantic
from pydantic import Field

from harness.contract import Backend, Evaluation, EvaluationContext, Request
from harness.errors import HarnessError
from harness.files import read_text
from harness.measure import statistics
from harness.nouns import Result, Sample, Score
from harness.options import Options
from harness.recipe import DataSource

if TYPE_CHECKING:
    from harness.template import BoundTemplate

Positive = Annotated[int, Field(gt=0)]


class PerplexityOptions(Options):
    """The options in a recipe: a text file (`text_path`, one text), or sources of a dataset (`data`, a text a row).

    `window` is the most tokens that one window has; the model's own length by default.
    """

    text_path: Path | None = None
    data: tuple[DataSource, ...] = ()
    window: Annotated[int, Field(gt=1)] | None = None
    limit: Positive | None = None

    @pydantic.model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.text_path is not None and self.data:
            raise ValueError("text_path and data exclude each other")
        return self


class Text(NamedTuple):
    """A whole text: its id, the text, and the windows in which it is scored."""

    id: str
    text: str
    windows: tuple[Request, ...]


def run(backend: Backend, options: PerplexityOptions, context: EvaluationContext) -> Iterator[Result]:
    """Yield one result: `nll` in nats a token, `perplexity`, and `bits_per_byte`. Texts are the independent items."""
    windowed = list(_windowed(backend, options, context))
    answers = dict(backend.ask([request for one in windowed for request in one.windows]))
    losses = iter(-math.fsum(answers[index].logprobs or ()) for index in range(len(answers)))
    samples = tuple(_as_sample(one, math.fsum(next(losses) for _ in one.windows)) for one in windowed)
    nll = statistics.of_samples(samples, "nll")
    scores = {
        "nll": Score(*nll, higher_is_better=False),
        "perplexity": Score(*statistics.exponential(nll), higher_is_better=False),
        "bits_per_byte": Score(*statistics.of_samples(samples, "bits_per_byte"), higher_is_better=False),
    }
    details = {"tokens": int(sum(sample.weight for sample in samples)), "window": _longest(backend, options)}
    yield Result("perplexity", scores, samples, details)


def requests(backend: Backend, options: PerplexityOptions, context: EvaluationContext) -> Iterator[Request]:
    """Yield the windows of all texts."""
    for one in _windowed(backend, options, context):
        yield from one.windows


def texts(options: PerplexityOptions, context: EvaluationContext) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of each text. Raises HarnessError where none is named, or it cannot be read."""
    if options.text_path is not None:
        yield options.text_path.name, read_text(options.text_path)
        return
    if not options.data:
        raise HarnessError("perplexity has no text: name text_path, a text file, or data, sources of a dataset")
    from harness.data import load_source, text_of

    rows = ((item.id, text_of(item)) for one in options.data for item in load_source(one, context.plugins.datasets))
    yield from islice(rows, options.limit)


EVALUATION = Evaluation(
    "perplexity",
    "loss of whole texts in nats a token and bits a byte, in rolling windows",
    PerplexityOptions,
    run,
    texts,
    needs=("template", "score"),
    requests=requests,
)


def windows(ids: Sequence[int], before: int, longest: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield (context, scored ids) so that each token is scored once, with as much before it as lm-eval gives it.

    The first window begins behind the id `before`. A later one has one token of context; the last is filled up with
    what stands before it.

    Args:
        longest: the most ids that are scored in one window.
    """
    for start in range(0, len(ids), longest):
        end = min(len(ids), start + longest)
        yield (ids[max(0, end - longest - 1) : start] if start else [before]), ids[start:end]


def _windowed(backend: Backend, options: PerplexityOptions, context: EvaluationContext) -> Iterator[Text]:
    template: BoundTemplate = backend.template
    before, longest = _first(template), _longest(backend, options)
    for id, text in texts(options, context):
        ids: list[int] = template.tokenizer.encode(text, add_special_tokens=False)
        if not ids:
            raise HarnessError(f"perplexity: the text {id} is empty")
        pairs = windows(ids, before, longest or len(ids))
        yield Text(id, text, tuple(Request(tuple(context_ids), scored=tuple(scored)) for context_ids, scored in pairs))


def _longest(backend: Backend, options: PerplexityOptions) -> int | None:
    """Return the most ids that are scored in one window: one fewer than the model takes."""
    known = [length for length in (backend.longest_scored, options.window) if length is not None]
    return min(known) - 1 if known else None


def _first(template: BoundTemplate) -> int:
    """Return the id before a text: the tokenizer's BOS, else its EOS, as in lm-eval; else the template's stop token."""
    tokenizer: Any = template.tokenizer
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, template.stop_ids[0])
    return int(next(id for id in known if id is not None))


def _as_sample(one: Text, nll: float) -> Sample:
    tokens, size_bytes = sum(len(request.scored) for request in one.windows), len(one.text.encode())
    content = hashlib.sha256(one.text.encode()).hexdigest()[:12]
    return Sample(
        id=f"{one.id}:{content}",
        metrics={"nll": nll / tokens, "bits_per_byte": nll / math.log(2) / size_bytes},
        prompt=one.text[:200],
        weight=tokens,
        weights={"bits_per_byte": size_bytes},
        log_likelihoods=(-nll,),
    )
