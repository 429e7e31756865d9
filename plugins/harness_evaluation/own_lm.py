"""lm-eval's own Hugging Face model over a loaded variant, for figures to be compared with others' (`as_lm_eval`).

It has none of what `backend_lm` does otherwise. Its answers are kept as they come, too: lm-eval's cache of its own
writes them down under the arguments of a request alone, whatever the weights. Importing this module imports torch,
transformers and lm_eval.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM

from harness.contract.backends import Answer
from harness.measure.answers import KEY_LENGTH, Journal, KeptBackend, source_of
from harness.model.load import LoadedVariant
from harness.model.tokenizer import load_tokenizer
from harness_evaluation.progress import Bar


class LmEvalLM(HFLM):  # type: ignore[misc]
    """lm-eval's own model, as its command line builds it with `softmax_dtype=float32`, over a loaded variant."""

    def __init__(self, loaded: LoadedVariant, batch_size: int, bar: Bar, kept: Kept | None = None) -> None:
        self.bar, self.kept = bar, kept
        self.questions: dict[str, str] = {}
        self.answers: dict[tuple[str, ...], Answer] = {}  # lm-eval's model tells no more of an answer than its text
        variant = loaded.variant
        tokenizer = loaded.template.tokenizer
        if variant.chat_folder is None and variant.template in (None, "model", "plain"):  # the model's own, untouched
            model = variant.model
            tokenizer = load_tokenizer(model.path, model.revision, trust_remote_code=model.trust_remote_code)
        super().__init__(
            pretrained=loaded.model, tokenizer=copy.deepcopy(tokenizer), backend="causal", batch_size=batch_size,
            softmax_dtype="float32",
        )  # fmt: skip
        if kept is not None:
            self.cache_hook = kept  # it is shown each answer as it comes

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        rendered: str = super().apply_chat_template(chat_history, add_generation_prompt)
        self.questions[rendered] = next(
            (turn["content"] for turn in reversed(chat_history) if turn["role"] == "user"), ""
        )
        return rendered

    def get_model_info(self) -> dict[str, Any]:
        """Return nothing: the record names model and adapter by hash, and HFLM would ask the hub."""
        return {}

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._missing("loglikelihood", requests, super().loglikelihood)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        ask = functools.partial(super().loglikelihood_rolling, disable_tqdm=True)
        size = int(self.batch_size)

        def in_parts(missing: list[Any]) -> list[float]:  # lm-eval's own tells nothing before the last text is scored
            parts = (missing[start : start + size] for start in range(0, len(missing), size))
            return [answer for part in parts for answer in ask(part)]

        return self._missing("loglikelihood_rolling", requests, in_parts)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        return self._missing("generate_until", requests, functools.partial(super().generate_until, disable_tqdm=True))

    def _missing(self, kind: str, requests: Sequence[Any], ask: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """Return the answers to requests, of which those are asked that are not kept."""
        answers = [self.kept.get(kind, one.args) if self.kept is not None else None for one in requests]
        missing = [one for one, answer in zip(requests, answers, strict=True) if answer is None]
        asked = iter(ask(missing) if missing else ())
        return [next(asked) if answer is None else answer for answer in answers]

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        self.bar.expect(len(requests))
        scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, *args, **kwargs | {"disable_tqdm": True}
        )
        return scores

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, *args, **kwargs)
        self.bar.advance(len(inps))
        return logits


class Kept:
    """The answers of lm-eval's model in a journal, by all that decided them.

    Args:
        settings: what decides answers besides the weights and the request: batch size, template or none.
        again: True reads nothing that was kept before.
    """

    def __init__(self, journal: Journal, source: str, settings: Sequence[Any], *, again: bool = False) -> None:
        self.journal, self.again = journal, again
        self.settings = [source, "as lm-eval", lm_eval.__version__, *settings]

    @classmethod
    def of(cls, backend: Any, settings: Sequence[Any]) -> Kept | None:
        """Return what keeps the answers of a backend; None for one whose answers are not kept."""
        if not isinstance(backend, KeptBackend):
            return None
        return cls(backend.journal, source_of(backend.identity), settings, again=backend.again)

    def get(self, kind: str, args: Iterable[Any]) -> Any:
        """Return an answer as lm-eval's model gives it, or None. What is sampled is asked anew."""
        answer = None if self.again or _is_sampled(kind, args) else self.journal.get(self._key(kind, args))
        if answer is None:
            return None
        if kind == "generate_until":
            return answer.text
        (logprob,) = answer.logprobs or ()
        return logprob if kind == "loglikelihood_rolling" else (logprob, *(answer.is_greedy or ()))

    def add_partial(self, kind: str, args: Iterable[Any], answer: Any) -> None:
        """Keep an answer. lm-eval's models call this, as they would its own cache."""
        if _is_sampled(kind, args):
            return
        if kind == "generate_until":
            kept = Answer(answer, "stop")
        else:
            logprob, *greedy = answer if kind == "loglikelihood" else (answer,)
            kept = Answer("", "", logprobs=(float(logprob),), is_greedy=tuple(map(bool, greedy)))
        self.journal.put(self._key(kind, args), kept)

    def _key(self, kind: str, args: Iterable[Any]) -> str:
        text = json.dumps([self.settings, kind, list(args)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _is_sampled(kind: str, args: Iterable[Any]) -> bool:
    return kind == "generate_until" and bool(list(args)[1].get("do_sample"))
