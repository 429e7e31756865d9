"""lm-eval's own Hugging Face model over a loaded variant, for figures to be compared with others' (`as_lm_eval`).

It has none of what `backend_lm` does otherwise. Importing this module imports torch, transformers and lm_eval.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from harness.contract.backends import Answer
from harness.model.load import LoadedVariant
from harness.model.tokenizer import load_tokenizer
from harness_evaluation.progress import Bar


class LmEvalLM(HFLM):  # type: ignore[misc]
    """lm-eval's own model, as its command line builds it with `softmax_dtype=float32`, over a loaded variant."""

    def __init__(self, loaded: LoadedVariant, batch_size: int, bar: Bar) -> None:
        self.bar = bar
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

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        rendered: str = super().apply_chat_template(chat_history, add_generation_prompt)
        self.questions[rendered] = next(
            (turn["content"] for turn in reversed(chat_history) if turn["role"] == "user"), ""
        )
        return rendered

    def get_model_info(self) -> dict[str, Any]:
        """Return nothing: the record names model and adapter by hash, and HFLM would ask the hub."""
        return {}

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        self.bar.expect(len(requests))
        scores: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, *args, **kwargs)
        return scores

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, *args, **kwargs)
        self.bar.advance(len(inps))
        return logits
