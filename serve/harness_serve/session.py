"""One person's comparison: the picked variants, what was said, and the answers as they stream in. Knows no Gradio.

A session is used on one event loop only, so what happens between two `await`s happens at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from harness.client.asking import Client, EndpointError
from harness_serve.votes import Side, Verdict, Vote

REDRAW_S = 0.06  # how often a page that streams is drawn again


@dataclass(frozen=True, slots=True)
class Sampling:
    """What every variant of a turn is asked with."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256

    def as_dict(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}


@dataclass(slots=True)
class Answer:
    """One variant's answer to one prompt, and how quickly it came."""

    text: str = ""
    tokens: int = 0
    first_token_s: float | None = None
    total_s: float = 0.0
    finish: str | None = None  # None while it streams; `stop`, `length`, `stopped` or `error` then
    error: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens by the time from asking to the last one, or None where there are too few to tell.

        Not from the first token on: an engine may send several at once, and a short answer then seems to take no time.
        """
        if self.first_token_s is None or self.tokens < 2 or self.total_s <= 0:
            return None
        return self.tokens / self.total_s


@dataclass(slots=True)
class Turn:
    """A prompt, the settings it was asked with, and one answer for each variant."""

    prompt: str
    system_prompt: str
    sampling: Sampling
    answers: list[Answer]
    is_judged: bool = False  # a verdict is kept, or being kept
    verdict: str = ""  # what the page says about it once it is kept
    failed: bool = False  # the last verdict could not be kept

    @property
    def is_ready(self) -> bool:
        """Whether every answer is in, so that a person can judge."""
        return all(answer.finish in ("stop", "length") for answer in self.answers)


@dataclass(slots=True)
class Session:
    """The conversation so far. Every variant sees its own answers only."""

    variants: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    asked: list[asyncio.Task[None]] = field(default_factory=list)  # one for each answer that streams

    @property
    def streaming(self) -> bool:
        return bool(self.asked)

    def stop(self) -> None:
        """Hang up on whoever still answers; what has come stays."""
        for task in self.asked:
            task.cancel()  # closes the connection, so that the engine stops as well
        self.asked = []

    def begin_anew(self, variants: Sequence[str]) -> None:
        """Stop what streams and forget the conversation."""
        self.stop()
        self.variants, self.turns = list(variants), []

    def messages(self, column: int, upto: int) -> list[dict[str, str]]:
        """What the variant in `column` is sent to answer turn `upto`."""
        system = self.turns[upto].system_prompt
        messages = [{"role": "system", "content": system}] if system else []
        for turn in self.turns[:upto]:
            if turn.answers[column].error:  # it was never answered, and asking it again would fail again
                continue
            messages += [
                {"role": "user", "content": turn.prompt},
                {"role": "assistant", "content": turn.answers[column].text},
            ]
        return [*messages, {"role": "user", "content": self.turns[upto].prompt}]

    async def ask(self, client: Client, prompt: str, system_prompt: str, sampling: Sampling) -> AsyncIterator[None]:
        """Ask every variant at once; yields whenever there is something new to draw, and ends when all answers are in."""
        turn = Turn(prompt, system_prompt, sampling, [Answer() for _ in self.variants])
        self.turns.append(turn)
        # The messages are made now: the session may have begun anew before a task first runs.
        sent = [(name, self.messages(column, len(self.turns) - 1)) for column, name in enumerate(self.variants)]
        asked = [
            asyncio.create_task(_stream(client, *question, turn.sampling, answer))
            for question, answer in zip(sent, turn.answers, strict=True)
        ]
        self.asked = asked
        try:
            while not all(task.done() for task in asked):
                yield
                await asyncio.wait(asked, timeout=REDRAW_S)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            for answer in turn.answers:
                answer.finish = answer.finish or "stopped"
            if self.asked is asked:  # otherwise it was stopped, and something else may be streaming
                self.asked = []
        yield

    def judge(self, verdict: str, recipes: dict[str, str | None]) -> tuple[Turn, list[Vote]] | None:
        """Claim the last turn for one verdict: the turn and its votes, or None where it is not to be judged (any more).

        Who claims keeps the votes, and takes `is_judged` back where that fails.
        """
        turn = self.turns[-1] if self.turns else None
        if turn is None or turn.is_judged or not turn.is_ready or self.streaming or len(self.variants) < 2:
            return None
        turn.is_judged = True
        return turn, self.votes(verdict, recipes)

    def votes(self, verdict: str, recipes: dict[str, str | None]) -> list[Vote]:
        """Return what a verdict on the last turn says about each pair of variants.

        Args:
            verdict: the number of the best column, `tie`, or `both_bad` (all of them).
            recipes: the recipe hash of each variant that has one.
        """
        turn, index = self.turns[-1], len(self.turns) - 1
        sides = [
            Side(name, recipes.get(name), self.messages(column, index), turn.answers[column].text)
            for column, name in enumerate(self.variants)
        ]
        pairs = [(left, right) for left in range(len(sides)) for right in range(left + 1, len(sides))]
        if verdict in ("tie", "both_bad"):
            judged: Sequence[tuple[int, int, Verdict]] = [(*pair, verdict) for pair in pairs]  # type: ignore[misc]
        else:
            best = int(verdict)
            judged = [
                (left, right, "left" if best == left else "right") for left, right in pairs if best in (left, right)
            ]
        return [
            Vote(sides[left], sides[right], said, turn.system_prompt, turn.sampling.as_dict())
            for left, right, said in judged
        ]


async def _stream(
    client: Client, model: str, messages: list[dict[str, str]], sampling: Sampling, answer: Answer
) -> None:
    """Ask one variant and fill `answer` as its tokens come."""
    began = time.monotonic()
    finish = None
    try:
        async with aclosing(client.stream({"model": model, "messages": messages, **sampling.as_dict()})) as deltas:
            async for delta in deltas:
                answer.total_s = time.monotonic() - began
                answer.tokens = delta.completion_tokens or answer.tokens
                finish = delta.finish or finish
                if delta.text:
                    if answer.first_token_s is None:
                        answer.first_token_s = answer.total_s
                    answer.text += delta.text
        answer.finish = finish or "stop"
    except EndpointError as error:
        answer.finish, answer.error = "error", error.reply or str(error)
