"""The local backend: a loaded variant, asked in batches of like lengths and stopped where its turn ends.

Importing this module imports torch and transformers.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from harness.contract.backends import Answer, Capability, Identity, Request, Sampling
from harness.errors import HarnessError
from harness.measure.weights import weights_of
from harness.model.load import LoadedVariant, positions_of
from harness.model.logprobs import batch_logprobs
from harness.template import BoundTemplate, fingerprint
from harness.template.thoughts import thoughts_and_words

SCORED_TOKENS = 8192  # in a batch, its padding included


class LocalBackend:
    """A variant in the memory of this process. It can tell everything."""

    def __init__(self, loaded: LoadedVariant, batch_size: int = 16) -> None:
        self.loaded, self.batch_size = loaded, batch_size
        self.name = loaded.variant.name

    @property
    def capabilities(self) -> frozenset[Capability]:
        taken: dict[Capability, bool] = {"tools": self.template.takes_tools, "system": self.template.takes_system}
        return frozenset(("token_ids", "logprobs", "template", "score", *(name for name in taken if taken[name])))

    @property
    def template(self) -> BoundTemplate:
        """The template that prompts are rendered with."""
        return self.loaded.template

    @property
    def identity(self) -> Identity:
        return Identity(
            weights_of(self.loaded.variant),
            {
                "name": self.template.name,
                "sha256": fingerprint(self.template),
                "stop_tokens": self.template.stop_tokens,
            },
            "transformers",
            transformers.__version__,
            self.loaded.variant.model.dtype,
            str(self.loaded.device),
        )

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers batch by batch, the longest prompts first.

        Raises:
            HarnessError: for a prompt that does not fit.
        """
        prompts = [self._ids(request) for request in requests]
        longest = positions_of(self.loaded.model)
        groups: dict[tuple[Sampling, bool], list[int]] = defaultdict(list)
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            if longest is not None and len(prompt) + request.sampling.max_tokens > longest:
                raise HarnessError(
                    f"{self.name}: a prompt of {len(prompt)} tokens, with {request.sampling.max_tokens} more for the "
                    f"answer, does not fit into the model's {longest} tokens. Nothing is cut off: lower max_tokens, "
                    f"or leave it out"
                )
            groups[request.sampling, request.logprobs].append(index)
        for settings, indices in groups.items():
            indices.sort(key=lambda index: (-len(prompts[index]), prompts[index]))
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                yield from zip(batch, self._answers([prompts[index] for index in batch], *settings), strict=True)

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability (natural log, float32) of each token but the first of every sequence of ids."""
        scored: dict[int, list[float]] = {}
        batch: list[int] = []
        order = sorted(range(len(sequences)), key=lambda index: (-len(sequences[index]), list(sequences[index])))
        for index in order:
            if batch and (len(batch) + 1) * len(sequences[batch[0]]) > SCORED_TOKENS:
                scored |= self._scored(sequences, batch)
                batch = []
            batch.append(index)
        scored |= self._scored(sequences, batch) if batch else {}
        return [scored[index] for index in range(len(sequences))]

    def _scored(self, sequences: Sequence[Sequence[int]], batch: Sequence[int]) -> dict[int, list[float]]:
        scored = batch_logprobs(self.loaded.model, [sequences[index] for index in batch])
        return dict(zip(batch, scored, strict=True))

    def _ids(self, request: Request) -> list[int]:
        if (messages := request.messages) is not None:
            return list(self.template.prompt_ids(messages, request.tools))
        if isinstance(request.prompt, str):
            ids: list[int] = self.template.tokenizer.encode(request.prompt, add_special_tokens=False)
            return ids
        return list(request.prompt)  # type: ignore[arg-type]

    def _answers(self, prompts: Sequence[list[int]], sampling: Sampling, with_logprobs: bool) -> Iterator[Answer]:
        settings: dict[str, Any] = {"do_sample": sampling.temperature > 0}
        if settings["do_sample"]:
            settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
        stops = sorted(self.template.stop_ids)
        ids = generate(self.loaded, prompts, stops, sampling.stop, sampling.max_tokens, settings)
        for prompt, row in zip(prompts, ids, strict=True):
            ended = next((place for place, id in enumerate(row) if id in stops), None)
            thoughts, words = thoughts_and_words(self.template, prompt, row[:ended])
            text, is_cut_by_text = text_of(self.template.tokenizer, words, sampling.stop)
            text = text.lstrip("\n") if len(words) < len(row[:ended]) else text
            end = len(row) if ended is None else ended + 1
            finish = "stop" if ended is not None or is_cut_by_text else "length"
            chosen = None
            if with_logprobs:  # scored afterwards: keeping the logits of every step takes a vocabulary a token
                chosen = tuple(self.logprobs([[*prompt, *row[:end]]])[0][len(prompt) - 1 :])
            yield Answer(text, finish, tuple(row[:end]), chosen, tuple(prompt), thoughts)


def generate(
    loaded: LoadedVariant,
    prompts: Sequence[list[int]],
    stop_ids: Sequence[int],
    stop_texts: Sequence[str],
    max_tokens: int,
    settings: dict[str, Any],
) -> list[list[int]]:
    """Return the ids after each prompt, padded to the longest answer of the batch.

    Args:
        settings: those of transformers' GenerationConfig, such as `do_sample`. The model's own defaults are not used.
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
                **settings,
            ),
            stopping_criteria=StoppingCriteriaList(
                [StopAtText(loaded.template.tokenizer, stop_texts, width)] if stop_texts else []
            ),
        )
    answers: list[list[int]] = out[:, width:].tolist()
    return answers


def text_of(tokenizer: Any, ids: Sequence[int], stop_texts: Sequence[str]) -> tuple[str, bool]:
    """Return the text of an answer without its stop token, cut where a stop text begins, and True where it was cut."""
    whole: str = tokenizer.decode(ids, skip_special_tokens=True)
    text = whole
    for stop in stop_texts:
        text = text.split(stop, 1)[0]
    return text, text != whole


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
