"""lm-eval's model over a Backend: any task is asked of whatever answers, in process or from an engine.

Differences of `BackendLM` from lm-eval's own `HFLM`, and their reasons:
- the template renders, so that a question is asked as in tuning and serving (HFLM drops a refused system prompt);
- nothing is added by the tokenizer: the rendered text already holds a BOS where the template wants one;
- of a prompt and a choice, the tokens after the prompt's are scored. HFLM scores white space at the prompt's end too;
- log-likelihoods are float32 whatever the model's dtype;
- a turn ends at the template's stop tokens by id. HFLM looks for stop strings in text that was decoded without its
  special tokens, and so never sees a stop string that is one;
- thoughts are cut from an answer by the template's marks, and a task's stop texts end its words, not its thoughts;
- a prompt that does not fit is an error. HFLM cuts its beginning off and logs a line.

Importing this module imports lm_eval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs

from harness.contract.backends import Answer, Backend, Request, Sampling
from harness.errors import HarnessError
from harness.nouns import Message
from harness_evaluation.task_results import key_of

DEFAULT_MAX_GEN_TOKS = 256  # as in lm-eval
WITHOUT_EFFECT = {"num_beams": 1, "repetition_penalty": 1.0, "length_penalty": 1.0, "num_return_sequences": 1}


class BackendLM(TemplateLM):  # type: ignore[misc]
    """A Backend as lm-eval asks it. What was asked and answered is kept by the text of the request, for the records.

    `answers` has them by the arguments of lm-eval's request, the first asking of each.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.asked_of, self.template = backend, backend.template
        self.tokenizer = backend.template.tokenizer
        self.questions: dict[str, str] = {}  # rendered prompt -> the last user turn in it
        self.answers: dict[tuple[str, ...], Answer] = {}
        self._ids: dict[str, list[int]] = {}

    # The template

    @property
    def tokenizer_name(self) -> str:
        """The name of the template, with which lm-eval would find requests in a cache of its own."""
        return str(self.template.name)

    @property
    def eot_token_id(self) -> int:
        """The id that stands before a text without a prompt: the tokenizer's BOS, else its EOS, as in lm-eval."""
        tokenizer = self.tokenizer
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, self.template.stop_ids[0])
        return next(int(id) for id in ids if id is not None)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the rendered prompt. Without a generation prompt, the last message is the beginning of the answer."""
        messages = [Message(turn["role"], turn["content"]) for turn in chat_history]  # type: ignore[arg-type]
        prefix = "" if add_generation_prompt else messages.pop().content
        rendered: str = self.template.render(messages, generation_prompt=True) + prefix
        self.questions[rendered] = next((m.content for m in reversed(messages) if m.role == "user"), "")
        return rendered

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the ids of a text that already contains its control tokens: none is added."""
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=False)
        return ids

    # Likelihoods

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation after its context, and True where greedy decoding gives it."""
        answers = self._ask(requests, self.scoring)
        return [(math.fsum(answer.logprobs or ()), all(answer.is_greedy or ())) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-likelihood of each whole text, in windows as long as the model takes, as lm-eval does."""
        windows = [self.windows(request) for request in requests]
        answers = iter(self._answered([window for its in windows for window in its]))
        return [math.fsum(math.fsum(next(answers).logprobs or ()) for _ in its) for its in windows]

    def scoring(self, request: Any) -> Request:
        """Return the request by which a continuation is scored after its context."""
        context, continuation = request.args
        if context == "":
            ids = self.tok_encode(continuation)
            before = [self.prefix_token_id]
            before, ids = (before, ids) if ids[:1] != before else (ids[:1], ids[1:])
        else:
            before, ids = self._encode_pair(context, continuation)
        if not ids:
            raise HarnessError(f"nothing to score: an answer is empty. The prompt: {context[-200:]!r}")
        return Request(tuple(before), scored=tuple(ids))

    def windows(self, request: Any) -> list[Request]:
        """Return the requests by which a whole text is scored, each token of it once."""
        ids = self._encoded(request.args[0])
        longest = self.asked_of.longest_scored or len(ids) + 1
        windows = utils.get_rolling_token_windows(ids, self.prefix_token_id, longest - 1, 1)
        pairs = (utils.make_disjoint_window(window) for window in windows)
        return [Request(tuple(before), scored=tuple(scored)) for before, scored in pairs]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt, equal to those of serving, and of the whole continuation that is scored.

        Both are tokenized as one text, as in training. Where that would join the prompt's last characters and the first
        of the continuation in one token, the continuation is tokenized after a control token instead.
        """
        prompt = self._encoded(context)
        whole = self.tok_encode(context + continuation)
        if whole[: len(prompt)] == prompt:
            return prompt, whole[len(prompt) :]
        stop = self.template.stop_tokens[0]
        alone = self.tok_encode(stop + continuation)[1:]
        if self.tokenizer.decode(prompt + alone) != self.tokenizer.decode(whole):
            raise HarnessError(
                f"the prompt that ends with {context[-20:]!r} and the answer {continuation!r:.60} decode to other text "
                f"when tokenized apart than as one text: the scored tokens would not be the answer's. Use a template "
                f"whose prompt ends with a control token or a line break, or as_lm_eval"
            )
        return prompt, alone

    def _encoded(self, text: str) -> list[int]:
        """Return the ids of a text that several requests begin with."""
        if text not in self._ids:
            self._ids[text] = self.tok_encode(text)
        return self._ids[text]

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("requests are scored by the backend")

    # Answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Return the words of each answer: without thoughts, and without the stop that ended it."""
        return [answer.text for answer in self._ask(requests, self.generating)]

    def generating(self, request: Any) -> Request:
        """Return the request by which an answer is generated with a task's settings."""
        text, given = request.args
        settings = normalize_gen_kwargs(given, DEFAULT_MAX_GEN_TOKS)
        samples, temperature = settings.pop("do_sample"), float(settings.pop("temperature", 0.0))
        sampling = Sampling(
            settings.pop("max_gen_toks"),
            temperature if samples else 0.0,
            float(settings.pop("top_p", 1.0)) if samples else 1.0,
            stop=tuple(settings.pop("until")),
            top_k=int(settings.pop("top_k", 0)) if samples else 0,
        )
        unused = {"top_p", "top_k"} if not samples else set()
        for name, value in settings.items():
            if name not in unused and value != WITHOUT_EFFECT.get(name):
                raise HarnessError(
                    f"generation_kwargs: {name}: {value!r} is no setting of an answer here. There are: until, "
                    f"max_gen_toks, do_sample, temperature, top_p and top_k; as_lm_eval passes all on to transformers"
                )
        return Request(tuple(self._encoded(text)), sampling=sampling)

    def _ask(self, requests: Sequence[Any], read: Callable[[Any], Request]) -> list[Answer]:
        answers = self._answered([read(request) for request in requests])
        for request, answer in zip(requests, answers, strict=True):
            self.answers.setdefault(key_of(request.args), answer)
        return answers

    def _answered(self, requests: Sequence[Request]) -> list[Answer]:
        answers = dict(self.asked_of.ask(requests))
        return [answers[index] for index in range(len(requests))]

    def requests_of(self, instances: Sequence[Any]) -> list[Request]:
        """Return the requests that lm-eval's instances lead to."""
        read: Mapping[str, Callable[[Any], list[Request]]] = {
            "loglikelihood": lambda one: [self.scoring(one)],
            "loglikelihood_rolling": self.windows,
            "generate_until": lambda one: [self.generating(one)],
        }
        return [request for one in instances for request in read[one.request_type](one)]
