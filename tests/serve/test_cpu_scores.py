"""Scores of a prompt's last tokens: on a CPU the tokens before them come from the prefix cache, and scores stay."""

from __future__ import annotations

from typing import Any

import pytest

from harness.client.asking import post
from harness.client.served import SCORED, read_scores, scores, scoring_body
from harness.contract import Endpoint, Request

pytestmark = pytest.mark.vllm
BEFORE = tuple(5 + number % 60 for number in range(100))  # three blocks of the cache, and some tokens more


def scored(endpoint: Endpoint, model: str, request: Request) -> tuple[Any, int]:
    """Return the answer to a request, and the number of its tokens that were read from the cache."""
    body = scoring_body(model, (*request.prompt, *request.scored)) | {"vllm_xargs": {SCORED: len(request.scored)}}
    answer = post(endpoint, "/completions", body)
    entries = answer["choices"][0]["prompt_logprobs"][1:]
    return read_scores(request, answer), sum(next(iter(entry.values()))["rank"] == 0 for entry in entries)


@pytest.mark.parametrize("model", ["alpha", "beta"])
def test_choices_after_one_question_share_its_tokens(endpoint: Endpoint, model: str) -> None:
    choices = [(7, 8, 9), (30,), (9, 9, 9, 9)]
    for number, choice in enumerate(choices + choices):  # what was scored before is in the cache, without its scores
        answer, cached = scored(endpoint, model, Request(BEFORE, scored=choice))
        whole = scores(endpoint, [(model, (*BEFORE, *choice))])[0]
        assert answer.logprobs == pytest.approx(whole[-len(choice) :], abs=0.02)
        assert cached == (96 if number else cached)


def test_the_token_that_predicts_the_first_scored_one_is_computed(endpoint: Endpoint) -> None:
    for prompt, most in ((BEFORE[:96], 64), (BEFORE[:97], 96), (BEFORE[:1], 0)):
        request = Request(prompt, scored=BEFORE[len(prompt) :])
        for _ in range(2):
            answer, cached = scored(endpoint, "alpha", request)
        assert cached == most
        assert answer.logprobs == pytest.approx(scores(endpoint, [("alpha", BEFORE)])[0][len(prompt) - 1 :], abs=0.02)
