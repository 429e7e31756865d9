"""Ballots: comparisons shown to one person, and the verdicts on them."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

State = Literal["open", "voted", "revealed", "void"]


class Verdict(NamedTuple):
    """What a person says of a ballot: the side at position `best` is the best, all are as good, or all are bad."""

    kind: Literal["best", "tie", "bad"]
    best: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a ballot: who answers, the turns before the answer as OpenAI messages, and the answer.

    `finish` is how the answer ended, `stop` or `length`; None while there is none. `tokens` None: not counted.
    """

    variant: str
    recipe_sha256: str | None
    messages: Sequence[Mapping[str, Any]]
    answer: str = ""
    finish: str | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Ballot:
    """One comparison of two to four sides, in the order in which `seed` drew them.

    It is `open` until a person votes, may be voted on again until the variants are `revealed`, and is `void` where nothing
    can be said of it. `sampling` is what all sides were asked with.
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
