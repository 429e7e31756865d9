"""Ballots: comparisons shown to one person, and the verdicts on them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

State = Literal["open", "voted", "revealed", "void"]
FINISHES = ("stop", "length")  # how an answer ends that can be judged


class Verdict(NamedTuple):
    """A person's verdict on a ballot: the side at position `best` is the best, all are equally good, or all are bad."""

    kind: Literal["best", "tie", "bad"]
    best: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a ballot: the variant, the turns before the answer as OpenAI messages, and the answer.

    `finish` is the reason why the answer ended, `stop` or `length`; None before that. `tokens` is None if not counted.
    `identity` has the hashes of what answered (weights, adapter, template), as far as they are known; `first_token_s`
    and `seconds` are the times until the answer's first token and its end. `reveals` are the words by which the answer
    says whose it is, empty in most.
    """

    variant: str
    recipe_sha256: str | None
    messages: Sequence[Mapping[str, Any]]
    answer: str = ""
    finish: str | None = None
    tokens: int | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    first_token_s: float | None = None
    seconds: float | None = None
    reveals: str = ""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One comparison of two to four sides, in the order in which `seed` drew them.

    It is `open` until a person votes, and can be voted on again until the variants are `revealed`. It is `void` if it
    cannot be judged. `sampling` has the settings with which all sides were asked. On a `blind` one the person does not
    see the variants' names before the verdict. `turn` is the number of the question in its conversation, from 0;
    `prompt_set` and `prompt_id` name a question that was not the person's own. `reasons` are what the person ticked
    beside the verdict, and `latency_s` the time from the answers' end to the verdict. `category` is that of the
    question, and `consent` the hash of the text that the person agreed to.

    `replaces` is the ballot whose question was asked again or edited. `repeat_of` is the one whose answers are shown
    again, to see how far people agree. `note` says why a void one is void.
    """

    id: int
    created_at: datetime.datetime
    sides: tuple[Side, ...]
    seed: int
    system_prompt: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    annotator: str = ""
    state: State = "open"
    verdict: Verdict | None = None
    blind: bool = False
    turn: int = 0
    prompt_set: str = ""
    prompt_id: str = ""
    reasons: Sequence[str] = ()
    latency_s: float | None = None
    category: str = ""
    consent: str = ""
    replaces: int | None = None
    repeat_of: int | None = None
    note: str = ""
