"""Answers that outlive the process: nothing is asked twice, nothing old is met, and a torn line costs one answer."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.contract import Answer, Evaluation, EvaluationContext, EvaluationItem, Request, Sampling
from harness.contract.backends import Identity
from harness.measure.answers import Journal, KeptBackend, journal_of, source_of
from harness.measure.asking import ask_all
from harness.measure.endings import noise_of, warnings_of
from harness.measure.runner import results
from harness.nouns import Message, Sample
from harness.options import Options

IDENTITY = Identity({"model_sha256": "a", "adapter_sha256": "b"}, {"sha256": "t"}, "engine", "1", "float32")


class Parrot:
    """A Backend that answers with the question and its own count of askings; it is killed before answer `killed_at`."""

    name, template, longest, longest_scored = "parrot", None, None, None
    capabilities: frozenset[Any] = frozenset()

    def __init__(self, identity: Identity = IDENTITY) -> None:
        self.identity, self.asked, self.killed_at = identity, [], -1

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        order = list(range(len(requests)))
        random.Random(len(self.asked)).shuffle(order)
        for index in order:
            if len(self.asked) == self.killed_at:
                raise KeyboardInterrupt
            self.asked.append(requests[index])
            yield index, Answer(f"{requests[index].prompt} {len(self.asked)}", "stop", (1, 2), None, (3,), seconds=0.5)

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        raise AssertionError


def asked(count: int, **sampling: Any) -> list[Request]:
    return [Request(f"question {number}", sampling=Sampling(**sampling)) for number in range(count)]


def test_a_measurement_killed_at_any_moment_asks_nothing_twice(tmp_path: Path) -> None:
    moments = random.Random(5)
    for trial in range(20):
        path, parrot = tmp_path / f"{trial}.jsonl", Parrot()
        while True:
            parrot.killed_at = len(parrot.asked) + moments.randrange(1, 12)
            journal = Journal(path)
            try:
                answers = dict(KeptBackend(parrot, journal).ask(asked(30)))
                break
            except KeyboardInterrupt:
                journal._file.close()  # as a killed process leaves it
                if moments.random() < 0.5:
                    with path.open("ab") as file:  # a power cut in the middle of a line
                        file.write(b'{"key": "0123456789abcdef0123456789abcdef", "text": "to')
        assert len(parrot.asked) == 30 == len(answers)
        assert {request.prompt for request in parrot.asked} == {request.prompt for request in asked(30)}
        assert dict(KeptBackend(parrot, Journal(path)).ask(asked(30))) == answers and len(parrot.asked) == 30


def test_a_damaged_line_costs_its_own_answer_only(tmp_path: Path) -> None:
    path, parrot = tmp_path / "answers.jsonl", Parrot()
    journal = Journal(path)
    list(KeptBackend(parrot, journal).ask(asked(4)))
    journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        lines[0] + lines[1].replace(b"stop", b"st\xffp").replace(b'"text": ', b'"text" ') + lines[2] + lines[3]
    )
    assert len(dict(KeptBackend(parrot, Journal(path)).ask(asked(4)))) == 4
    assert len(parrot.asked) == 5


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": {"model_sha256": "a", "adapter_sha256": "c"}},
        {"weights": {"model_sha256": "x", "adapter_sha256": "b"}},
        {"template": {"sha256": "u"}},
        {"engine_version": "2"},
        {"dtype": "bfloat16"},
    ],
)
def test_another_model_never_meets_an_old_answer(changed: dict[str, Any]) -> None:
    journal = Journal(None)
    list(KeptBackend(Parrot(), journal).ask(asked(3)))
    other = Parrot(replace(IDENTITY, **changed))
    list(KeptBackend(other, journal).ask(asked(3)))
    assert len(other.asked) == 3 and source_of(other.identity) != source_of(IDENTITY)


def test_another_sampling_or_seed_is_another_question() -> None:
    journal, parrot = Journal(None), Parrot()
    for sampling in ({}, {"seed": 1}, {"seed": 2}, {"temperature": 0.5}, {"stop": ("x",)}, {"max_tokens": 7}, {}):
        list(KeptBackend(parrot, journal).ask(asked(1, **sampling)))
    assert len(parrot.asked) == 6


def test_a_question_asked_twice_has_two_answers() -> None:
    journal, parrot = Journal(None), Parrot()
    twice = dict(KeptBackend(parrot, journal).ask(asked(1) * 2))
    assert twice[0] != twice[1]
    kept = KeptBackend(parrot, journal)
    assert dict(kept.ask(asked(1))) == {0: twice[0]} and dict(kept.second().ask(asked(1))) == {0: twice[1]}
    assert len(parrot.asked) == 2


def test_again_asks_anew_and_then_keeps_that(tmp_path: Path) -> None:
    journal, parrot = Journal(None), Parrot()
    (first,) = KeptBackend(parrot, journal).ask(asked(1))
    anew = KeptBackend(parrot, journal, again=True)
    (second,) = anew.ask(asked(1))
    assert first != second and list(anew.ask(asked(1))) == [second] == list(KeptBackend(parrot, journal).ask(asked(1)))


def test_answers_of_a_model_without_a_hash_are_not_kept() -> None:
    remote = replace(IDENTITY, weights={"model": "openai:http://host/v1#m", "revision": None})
    assert journal_of(remote).path is None and journal_of(remote, remote=True).path is not None
    assert journal_of(IDENTITY).path is not None


def test_backends_are_asked_side_by_side_and_an_error_ends_all() -> None:
    parrots = [Parrot(), Parrot(), Parrot()]
    answered = list(ask_all([(parrot, asked(5)) for parrot in parrots]))
    assert sorted((done.backend, done.place) for done in answered) == [(b, p) for b in range(3) for p in range(5)]
    parrots[1].killed_at = 7
    with pytest.raises(KeyboardInterrupt):
        list(ask_all([(parrot, asked(5)) for parrot in parrots]))


def test_a_new_scorer_asks_nothing_and_items_asked_twice_show_the_noise() -> None:
    def items(options: Any, context: Any) -> Iterator[EvaluationItem]:
        for number in range(40):
            yield EvaluationItem(f"item {number}", (Request((Message("user", f"{number}?"),)),))

    def judged(name: str, score: Any) -> Evaluation:
        return Evaluation(name, "", Options, items=items, score=score)

    parrot = Parrot()
    kept = KeptBackend(parrot, Journal(None))
    context = EvaluationContext(None, None, repeat_share=0.05)
    odd = judged("odd", lambda item, answers: {"odd": float(int(answers[0].text.split()[-1]) % 2)})
    (result,) = results(odd, kept, None, context)
    twice = [sample for sample in result.samples if sample.again]
    assert len(twice) == 2 and len(parrot.asked) == 42
    assert noise_of(result.samples).startswith("the engine's own noise: ")
    (other,) = results(judged("long", lambda item, answers: {"length": 1.0}), kept, None, context)
    assert len(parrot.asked) == 42
    assert [sample.response for sample in other.samples] == [sample.response for sample in result.samples]
    assert all(sample.seconds == 0.5 for sample in result.samples)


def test_cut_answers_and_endless_thoughts_are_told_apart() -> None:
    whole = Sample("a", {"m": 1.0}, response="Yes.", finish="stop")
    cut = Sample("b", {"m": 0.0}, response="Yes and", finish="length")
    lost = Sample("c", {"m": 0.0}, response="", reasoning="Let me think", finish="length")
    assert warnings_of([whole]) == ()
    thoughts, ends = warnings_of([whole, cut, lost])
    assert thoughts.startswith("1 of 3 answers are thoughts that never ended, and were scored as empty")
    assert ends.startswith("1 of 3 answers were cut off at the most tokens allowed (finish: length)")
    assert noise_of([whole]) == ""
    steady, unsteady = replace(whole, again={"m": 1.0}), replace(cut, again={"m": 1.0})
    assert noise_of([steady]) == "the engine's own noise: none in 1 item asked twice"
    assert "1 of 2 items asked twice scored otherwise (m by up to 1)" in noise_of([steady, unsteady])
