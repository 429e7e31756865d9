"""One person's comparison: the picked variants, the turns, the answers as they stream in, and a ballot for each turn.

Imports nothing of Gradio. A session is used on one event loop only, so what happens between two `await`s happens at
once; ballots are kept in threads, since each operation waits for the disk.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from harness.client.asking import Client, EndpointError
from harness.errors import HarnessError
from harness.nouns import FINISHES, Side, Verdict
from harness.votes.store import Ballots, ClosedBallotError

T = TypeVar("T")
REDRAW_S = 0.06  # how often a page that streams is drawn again
BLIND_STEPS = 30  # in which two blind answers are written out, side by side


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings that every variant of a turn is asked with."""

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
    reasoning: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens by the time from asking to the last one, or None where there are too few to tell.

        Not from the first token on: an engine may send several at once, and a short answer then seems to take no time.
        """
        if self.first_token_s is None or self.tokens < 2 or self.total_s <= 0:
            return None
        return self.tokens / self.total_s


@dataclass(frozen=True, slots=True)
class Shared:
    """The parts that all sessions of a page share: the endpoint's client, the ballots, and what each variant is.

    `recipes` are the hashes of the recipes they were tuned by, `identities` those of adapter and template.
    """

    client: Client
    ballots: Ballots
    recipes: Mapping[str, str | None] = field(default_factory=dict)
    identities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Turn:
    """A prompt, the settings it was asked with, and one answer for each variant.

    `ballot` is there once every answer is recorded in it: then a person can judge. `verdict` is the one that is kept.
    `share` is the part of each answer that is shown, and `ended` the time when all of it was. `note` says why there is
    nothing to judge.
    """

    prompt: str
    system_prompt: str
    sampling: Sampling
    answers: list[Answer]
    ballot: int | None = None
    is_voting: bool = False  # a verdict is on its way to the database
    verdict: Verdict | None = None
    problem: str = ""  # what could not be kept
    note: str = ""
    share: float = 1.0
    ended: float = 0.0

    @property
    def is_ready(self) -> bool:
        """Return True if every answer ended by itself."""
        return all(answer.finish in FINISHES for answer in self.answers)

    @property
    def is_open(self) -> bool:
        """Return True if the page offers to judge it."""
        return self.ballot is not None and self.verdict is None and not self.is_voting


@dataclass(slots=True)
class Session:
    """The conversation so far. Every variant sees its own answers only.

    `variants` are in the order of the columns, which `seed` drew for the whole conversation. `person` is the name
    that ballots keep, empty where nobody gave one. In a `blind` conversation two variants are drawn by lot, and nothing
    tells them apart before the verdict: no names, no figures, no thoughts; both answers are awaited, and then written
    out together, so that neither speed nor finish says whose they are.
    """

    variants: list[str] = field(default_factory=list)
    seed: int = 0
    person: str = ""
    blind: bool = False
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

    @property
    def is_hidden(self) -> bool:
        """True while the variants' names are not shown: in a blind conversation that is not judged yet."""
        return self.blind and not any(turn.verdict for turn in self.turns)

    @property
    def names(self) -> list[str]:
        """The names of the columns as the person may see them now."""
        return ["A", "B"] if self.is_hidden else self.variants

    def begin_anew(self, variants: Sequence[str], seed: int | None = None, *, blind: bool = False) -> None:
        """Stop what streams, forget the conversation, and draw the order of the columns by `seed` (None: a new one).

        Args:
            blind: draw two of the variants, too.
        """
        self.stop()
        self.seed = secrets.randbits(63) if seed is None else seed
        self.blind = blind and len(variants) > 1
        count = 2 if self.blind else len(variants)
        self.variants, self.turns = random.Random(self.seed).sample(variants, count), []

    def messages(self, column: int, number: int) -> list[dict[str, str]]:
        """Return the messages that the variant in `column` is sent to answer turn `number`."""
        system = self.turns[number].system_prompt
        messages = [{"role": "system", "content": system}] if system else []
        for turn in self.turns[:number]:
            if turn.answers[column].error:  # it was never answered, and asking it again would fail again
                continue
            messages += [
                {"role": "user", "content": turn.prompt},
                {"role": "assistant", "content": turn.answers[column].text}
                | ({"reasoning": thoughts} if (thoughts := turn.answers[column].reasoning) else {}),
            ]
        return [*messages, {"role": "user", "content": self.turns[number].prompt}]

    async def ask(
        self, shared: Shared, prompt: str, system_prompt: str, sampling: Sampling
    ) -> AsyncGenerator[None, None]:
        """Ask every variant at once; yields whenever there is something new to draw, and ends when all answers are in.

        With two variants or more a ballot is opened. It is void where an answer failed, was stopped or was not kept.
        """
        answers = [Answer() for _ in self.variants]
        turn = Turn(prompt, system_prompt, sampling, answers, share=0.0 if self.is_hidden else 1.0)
        self.turns.append(turn)
        # The messages are made now: the session may have begun anew before a task first runs.
        sides = [
            Side(name, shared.recipes.get(name), self.messages(column, len(self.turns) - 1),
                 identity=shared.identities.get(name, {}))
            for column, name in enumerate(self.variants)
        ]  # fmt: skip
        about = {"seed": self.seed, "annotator": self.person, "blind": self.is_hidden, "turn": len(self.turns) - 1}
        opened = asyncio.create_task(_open(shared.ballots, sides, turn, about))
        asked = [
            asyncio.create_task(_answer(shared, side, turn, position, opened)) for position, side in enumerate(sides)
        ]
        self.asked = asked
        try:
            while not all(task.done() for task in asked):
                yield
                await asyncio.wait(asked, timeout=REDRAW_S)
            for step in range(BLIND_STEPS if turn.share < 1 and turn.is_ready else 0):
                turn.share = (step + 1) / BLIND_STEPS
                yield
                await asyncio.sleep(REDRAW_S)
        finally:
            turn.share = 1.0
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            for answer in turn.answers:
                answer.finish = answer.finish or "stopped"
            await _settle(shared.ballots, turn, await opened)
            turn.ended = time.monotonic()
            if self.asked is asked:  # otherwise it was stopped, and something else may be streaming
                self.asked = []
        yield

    async def judge(self, shared: Shared, verdict: Verdict) -> AsyncGenerator[None, None]:
        """Vote on the last turn and close its ballot; yields whenever there is something new to draw.

        Of several verdicts the database keeps the first, and the turn has that one then.
        """
        turn = self.turns[-1] if self.turns else None
        if turn is None or turn.ballot is None or self.streaming:
            return
        number = turn.ballot
        turn.is_voting = True
        yield
        try:
            latency_s = time.monotonic() - turn.ended
            await asyncio.to_thread(shared.ballots.vote, number, verdict, reveal=True, latency_s=latency_s)
            turn.verdict = verdict
        except ClosedBallotError:
            ballot = await _kept(turn, "verdict", lambda: shared.ballots[number])
            turn.verdict = ballot.verdict if ballot else turn.verdict
        except Exception as error:
            _fail(turn, "verdict", error)
        turn.is_voting = False
        yield

    async def skip(self, shared: Shared) -> None:
        """Leave the last turn without a verdict: its ballot is void."""
        turn = self.turns[-1] if self.turns else None
        if turn is not None and turn.is_open and (number := turn.ballot) is not None:
            turn.ballot = None
            await _kept(turn, "comparison", lambda: shared.ballots.void(number))


async def _open(ballots: Ballots, sides: Sequence[Side], turn: Turn, about: Mapping[str, Any]) -> int | None:
    """Open the ballot of a comparison; None where there is nothing to compare, or it could not be kept."""
    if len(sides) < 2:
        return None
    settings: dict[str, Any] = {"system_prompt": turn.system_prompt, "sampling": turn.sampling.as_dict()}
    return await _kept(turn, "comparison", lambda: ballots.open(sides, **about, **settings))


async def _answer(shared: Shared, side: Side, turn: Turn, position: int, opened: asyncio.Task[int | None]) -> None:
    """Stream one variant's answer and record it; until it is recorded, it still counts as streaming."""
    answer = turn.answers[position]
    finish = await _stream(shared.client, side, turn.sampling, answer)
    ballot = await asyncio.shield(opened)
    if ballot is not None and finish in FINISHES:
        record = (ballot, position, answer.text, finish, answer.tokens or None)
        times = {"first_token_s": answer.first_token_s, "seconds": answer.total_s}
        await _kept(turn, "comparison", lambda: shared.ballots.record(*record, **times))
    answer.finish = finish


async def _settle(ballots: Ballots, turn: Turn, ballot: int | None) -> None:
    """Offer the ballot for a verdict, or make it void: where an answer failed, and where there is nothing to judge."""
    if ballot is None:
        return
    texts = [answer.text for answer in turn.answers]
    if turn.is_ready and not all(texts):
        turn.note = "an answer is empty"
    elif turn.is_ready and len(set(texts)) == 1:
        turn.note = "the answers are the same"
    if turn.is_ready and not turn.problem and not turn.note:
        turn.ballot = ballot
    else:
        await _kept(turn, "comparison", lambda: ballots.void(ballot))


async def _kept(turn: Turn, what: str, operation: Callable[[], T]) -> T | None:
    """Return what an operation on the ballots returns; where it fails, the turn and the terminal say so."""
    try:
        return await asyncio.to_thread(operation)
    except Exception as error:
        _fail(turn, what, error)
        return None


def _fail(turn: Turn, what: str, error: Exception) -> None:
    """Mark the turn; the reason names the database, which is for the terminal and not for every visitor."""
    turn.problem = what
    reason = str(error) if isinstance(error, HarnessError) else "".join(traceback.format_exception(error))
    click.echo(f"a {what} was not kept: {reason}", err=True)


async def _stream(client: Client, side: Side, sampling: Sampling, answer: Answer) -> str:
    """Ask one variant, fill `answer` as its tokens come, and return how it ended: `stop`, `length` or `error`."""
    began = time.monotonic()
    finish = None
    try:
        body = {"model": side.variant, "messages": side.messages, **sampling.as_dict()}
        async with aclosing(client.stream(body)) as deltas:
            async for delta in deltas:
                answer.total_s = time.monotonic() - began
                answer.tokens = delta.completion_tokens or answer.tokens
                finish = delta.finish or finish
                if delta.text or delta.reasoning:
                    if answer.first_token_s is None:
                        answer.first_token_s = answer.total_s
                    answer.text += delta.text
                    answer.reasoning += delta.reasoning
    except EndpointError as error:
        answer.error = error.reply or str(error)
        return "error"
    return finish or "stop"
