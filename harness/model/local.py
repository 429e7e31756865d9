"""The local backend: a loaded variant, asked in batches of like lengths and stopped where its turn ends.

Importing this module imports torch and transformers.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from harness.contract.backends import Answer, Capability, Identity, Request, Sampling, Scorer
from harness.measure.weights import weights_of
from harness.model.configs import positions_of
from harness.model.likelihoods import BATCH_TOKENS, likelihoods
from harness.model.load import LoadedVariant
from harness.template import BoundTemplate
from harness.template.exchange import Stops, identity_of, prompt_ids, read_answer, rendered_by, require_fits, stops_of
from harness.variants import Variant

Tell = Callable[[str, str], None]  # takes the thoughts and the words of an answer so far
READINGS = 10  # of an answer that is shown as it comes: one takes this part of the time until the next


class LocalBackend(Scorer):
    """A variant in the memory of this process. It can tell everything."""

    def __init__(self, loaded: LoadedVariant, batch_size: int = 16, reason: str = "") -> None:
        self.loaded, self.batch_size, self.reason = loaded, batch_size, reason
        self.batch_tokens = BATCH_TOKENS
        self.name = loaded.variant.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(("token_ids", "logprobs", "template", "score", "weights", *rendered_by(self.template)))

    @property
    def variant(self) -> Variant:
        """The variant that answers."""
        return self.loaded.variant

    @property
    def template(self) -> BoundTemplate:
        """The template that prompts are rendered with."""
        return self.loaded.template

    @property
    def longest(self) -> int | None:
        """The most tokens of a prompt with its answer."""
        return positions_of(self.loaded.model.config)

    @property
    def longest_scored(self) -> int | None:
        """The most tokens of a prompt with ids that are scored behind it: the last one is no input."""
        return None if self.longest is None else self.longest + 1

    @property
    def identity(self) -> Identity:
        return Identity(
            weights_of(self.variant),
            self._template_identity,
            "transformers",
            transformers.__version__,
            self.variant.model.dtype,
            str(self.loaded.device),
            {"batch_size": self.batch_size, "reason": self.reason},
        )

    @functools.cached_property
    def _template_identity(self) -> dict[str, Any]:
        return identity_of(self.template)

    def ask(self, requests: Sequence[Request], tell: Tell | None = None) -> Iterator[tuple[int, Answer]]:
        """Yield the answers batch by batch, the longest prompts first.

        `tell` gets the thoughts and words of an answer so far, as it comes; it goes with one request.

        Raises:
            HarnessError: for a prompt that does not fit.
        """
        prompts = [prompt_ids(self.template, request) for request in requests]
        scored: list[int] = []
        groups: dict[tuple[Sampling, bool], list[int]] = defaultdict(list)  # alike but for the seed
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            require_fits(self, len(prompt), request)
            alike = replace(request.sampling, seed=None)
            (scored if request.scored else groups[alike, request.logprobs]).append(index)
        began = time.perf_counter()
        pairs = [(prompts[index], requests[index].scored) for index in scored]
        for number, one in likelihoods(self.loaded, pairs, self.batch_size, self.batch_tokens):
            index = scored[number]
            ids, seconds = requests[index].scored, time.perf_counter() - began
            yield index, Answer("", "", ids, one.logprobs, tuple(prompts[index]), "", one.is_greedy, seconds)
        for settings, indices in groups.items():
            indices.sort(key=lambda index: (-len(prompts[index]), prompts[index]))
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                seeds = [requests[index].sampling.seed for index in batch]
                answers = self._answers([prompts[index] for index in batch], seeds, *settings, tell)
                yield from zip(batch, answers, strict=True)

    def _answers(
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[int | None],
        sampling: Sampling,
        with_logprobs: bool,
        tell: Tell | None = None,
    ) -> Iterator[Answer]:
        began = time.perf_counter()
        stops = stops_of(self.template, sampling.stop)
        drawing = drawn(sampling, seeds, self.loaded.device) if sampling.temperature > 0 else LogitsProcessorList()
        streamer = None if tell is None else Streamed(self.template, prompts[0], stops, tell)
        rows = generate(self.loaded, prompts, stops.ids, stops.texts, sampling.max_tokens, drawing, streamer)
        seconds = time.perf_counter() - began
        for prompt, row in zip(prompts, rows, strict=True):
            read = read_answer(self.template, prompt, row, stops)
            ids, chosen = tuple(row[: read.length]), None
            if with_logprobs:  # scored afterwards: keeping the logits of every step takes a vocabulary a token
                chosen = next(one.logprobs for _, one in likelihoods(self.loaded, [(prompt, ids)], 1))
            yield Answer(read.text, read.finish, ids, chosen, tuple(prompt), read.reasoning, seconds=seconds)


def generate(
    loaded: LoadedVariant,
    prompts: Sequence[list[int]],
    stop_ids: Sequence[int],
    stop_texts: Sequence[str],
    max_tokens: int,
    drawing: LogitsProcessorList,
    streamer: Streamed | None = None,
) -> list[list[int]]:
    """Return the ids after each prompt, padded to the longest answer of the batch: greedily, after `drawing`.

    The model's own defaults are not used.
    """
    width, pad_id = max(map(len, prompts)), loaded.template.pad_id
    ids = torch.full((len(prompts), width), pad_id, device=loaded.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left, so that answers begin side by side
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=loaded.device)
        mask[row, width - len(prompt) :] = 1
    with torch.inference_mode(), _own_defaults_set_aside(loaded):
        out = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=GenerationConfig(
                max_new_tokens=max_tokens,
                eos_token_id=list(stop_ids),
                pad_token_id=pad_id,
                do_sample=False,
            ),
            logits_processor=drawing,
            stopping_criteria=StoppingCriteriaList(
                [StopAtText(loaded.template.tokenizer, stop_texts, width)] if stop_texts else []
            ),
            streamer=streamer,
        )
    answers: list[list[int]] = out[:, width:].tolist()
    return answers


class Streamed(BaseStreamer):  # type: ignore[misc]
    """Passes on the thoughts and words of one answer so far, read as the finished answer is.

    Reading takes as long as the answer is: so much happens between two readings that they take a tenth of the time.
    """

    def __init__(self, template: BoundTemplate, prompt: Sequence[int], stops: Stops, tell: Tell) -> None:
        self.template, self.prompt, self.stops, self.tell = template, prompt, stops, tell
        self.ids: list[int] | None = None  # the first call brings the prompt
        self.next_s = 0.0  # when the answer is read again

    def put(self, value: torch.Tensor) -> None:
        """Take the ids that are new: int64 [1, prompt], then [1] each."""
        if self.ids is None:
            self.ids = []
            return
        self.ids += value.flatten().tolist()
        if (began := time.perf_counter()) < self.next_s:
            return
        read = read_answer(self.template, self.prompt, self.ids, self.stops)
        self.next_s = began + READINGS * (time.perf_counter() - began)
        self.tell(read.reasoning, read.text)

    def end(self) -> None:
        """Do nothing: the whole answer is read once more by who asked."""


def drawn(sampling: Sampling, seeds: Sequence[int | None], device: torch.device) -> LogitsProcessorList:
    """Return what draws a token for each row of a batch by a seed of its own, where the likeliest is taken then.

    So an answer does not depend on what shares its batch, nor on what was answered before the process was killed.
    """
    steps: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*steps, Drawn(seeds, device)])


class Drawn(LogitsProcessor):  # type: ignore[misc]
    """Adds Gumbel noise to the logits of each row: its likeliest token is then a draw from the softmax of its logits.

    Maddison, Tarlow and Minka (2014), A* Sampling, https://arxiv.org/abs/1411.0030. A row without a seed gets one from
    torch's own generator.
    """

    def __init__(self, seeds: Sequence[int | None], device: torch.device) -> None:
        self.generators = [torch.Generator(device) for _ in seeds]
        for generator, seed in zip(self.generators, seeds, strict=True):
            generator.manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [b, vocabulary] with the noise, in float32."""
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log()


@contextlib.contextmanager
def _own_defaults_set_aside(loaded: LoadedVariant) -> Iterator[None]:
    """Put the template's stops in the place of the model's own generation defaults.

    `generate` fills settings that it is not given from these: a model's own repetition penalty would change
    greedy answers, and serving, which reads the run's generation defaults, does not have it.
    """
    own = loaded.model.generation_config
    loaded.model.generation_config = GenerationConfig(
        eos_token_id=list(loaded.template.stop_ids), pad_token_id=loaded.template.pad_id, do_sample=False
    )
    try:
        yield
    finally:
        loaded.model.generation_config = own


class StopAtText(StoppingCriteria):  # type: ignore[misc]
    """Ends each row of a batch once its answer holds one of the stop texts, however they were tokenized."""

    def __init__(self, tokenizer: Any, texts: Sequence[str], prompt_width: int) -> None:
        self.tokenizer, self.texts, self.prompt_width = tokenizer, texts, prompt_width
        # No text is longer in tokens than in bytes; one more token may begin before it, one end after it.
        self.lookback = max(len(text.encode()) for text in texts) + 2
        self.done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Return bool [b], True where a row is done. input_ids: int64 [b, prompt_width + answer so far]."""
        if self.done is None:
            self.done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        going = (~self.done).nonzero()[:, 0]
        recent = input_ids[going, max(self.prompt_width, input_ids.shape[1] - self.lookback) :]
        tails = self.tokenizer.batch_decode(recent, skip_special_tokens=True)
        for row, tail in zip(going.tolist(), tails, strict=True):
            self.done[row] = any(text in tail for text in self.texts)
        return self.done
