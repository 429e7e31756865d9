"""A backend without a model: each request is answered by a function of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.contract.backends import Answer, Capability, Identity, Request, Scorer


class FakeBackend(Scorer):
    """A Backend whose answers are known: what `answer(request)` returns, a text or an Answer.

    It renders no prompts, so that it has no template and no token ids; `requests` are those it was asked.
    """

    longest: int | None = None
    longest_scored: int | None = None
    template: Any = None

    def __init__(self, answer: Callable[[Request], str | Answer] | str, name: str = "fake") -> None:
        self.answer, self.name = answer, name
        self.requests: list[Request] = []

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({"system", "tools"})

    @property
    def identity(self) -> Identity:
        return Identity({"sha256": self.name}, {"sha256": None}, "fake")

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answer to each request, in order."""
        for index, request in enumerate(requests):
            self.requests.append(request)
            answer = self.answer(request) if callable(self.answer) else self.answer
            yield index, answer if isinstance(answer, Answer) else Answer(answer, "stop")
