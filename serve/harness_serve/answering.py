"""One variant's answer: streamed from the endpoint, or shown again, and recorded on its ballot.

Imports nothing of Gradio. Ballots are kept in threads, since each operation waits for the disk; tokens are received in
a thread, too, where nothing keeps them waiting.
"""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from harness.client.asking import Client, EndpointError
from harness.errors import HarnessError
from harness.nouns import FINISHES, Side, Verdict
from harness.votes.store import Ballots
from harness_serve.catalogue import Known
from harness_serve.revealing import revealing_words

T = TypeVar("T")
NOTHING_TO_JUDGE = EMPTY, SAME = "an answer is empty", "the answers are the same"


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings that every variant of a turn is asked with. `tools` are OpenAI's descriptions of functions."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        settings: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        settings |= {} if self.seed is None else {"seed": self.seed}
        return settings | ({"tools": list(self.tools)} if self.tools else {})


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

    `known` returns what is known of the variants that are served now. `consent` is the hash of the text that everybody
    agreed to. `streaming` are the turns that are being answered.
    """

    client: Client
    ballots: Ballots
    known: Callable[[], Known] = Known
    consent: str = ""
    streaming: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Turn:
    """A prompt, the settings it was asked with, and one answer for each variant.

    `ballot` is there once every answer is recorded in it: then a person can judge. `verdict` is the one that is kept,
    and can be changed until the ballot is `closed`. `share` is the part of each answer that is shown, and `ended` the
    time when all of it was. `note` says why there is nothing to judge. `about` are the fields of its ballot that say
    where the prompt is from: category, prompt_set, prompt_id, replaces, repeat_of.
    """

    prompt: str
    system_prompt: str
    sampling: Sampling
    answers: list[Answer]
    ballot: int | None = None
    is_voting: bool = False  # a verdict is on its way to the database
    tries: int = 0  # verdicts that were on their way, kept or not
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)
    closed: bool = False
    problem: str = ""  # what could not be kept
    note: str = ""
    share: float = 1.0
    ended: float = 0.0
    latency_s: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Return True if every answer ended by itself."""
        return all(answer.finish in FINISHES for answer in self.answers)

    @property
    def is_open(self) -> bool:
        """Return True if the page offers to judge it, or to judge it otherwise."""
        return self.ballot is not None and not self.closed and not self.is_voting


async def open_ballot(ballots: Ballots, sides: Sequence[Side], turn: Turn, about: Mapping[str, Any]) -> int | None:
    """Open the ballot of a comparison; None where there is nothing to compare, or it could not be kept."""
    if len(sides) < 2:
        return None
    settings: dict[str, Any] = {"system_prompt": turn.system_prompt, "sampling": turn.sampling.as_dict()}
    return await kept(turn, "comparison", lambda: ballots.open(sides, **about, **turn.about, **settings))


async def answered(
    shared: Shared, side: Side, turn: Turn, position: int, opened: asyncio.Task[int | None], stored: Side | None = None
) -> None:
    """Fill one variant's answer and record it; until it is recorded, it still counts as streaming.

    Args:
        stored: the answer to show again; None asks the endpoint.
    """
    answer = turn.answers[position]
    if stored is None:
        streamed = asyncio.run_coroutine_threadsafe(_stream(shared.client, side, turn.sampling, answer), _receiving())
        finish = await asyncio.wrap_future(streamed)
    else:
        answer.text, answer.tokens, finish = stored.answer, stored.tokens or 0, stored.finish or "stop"
        answer.first_token_s, answer.total_s = stored.first_token_s, stored.seconds or 0.0
    ballot = await asyncio.shield(opened)
    if ballot is not None and finish in FINISHES:
        record = (ballot, position, answer.text, finish, answer.tokens or None)
        more: dict[str, Any] = {"first_token_s": answer.first_token_s, "seconds": answer.total_s}
        more["reveals"] = revealing_words(answer.text, shared.known().names, f"{turn.system_prompt}\n{turn.prompt}")
        await kept(turn, "comparison", lambda: shared.ballots.record(*record, **more))
    answer.finish = finish


async def settle(ballots: Ballots, turn: Turn, ballot: int | None) -> None:
    """Offer the ballot for a verdict, or make it void: where an answer failed, and where there is nothing to judge."""
    if ballot is None:
        return
    texts = [answer.text for answer in turn.answers]
    if turn.is_ready and not all(texts):
        turn.note = EMPTY
    elif turn.is_ready and len(set(texts)) == 1:
        turn.note = SAME
    if turn.is_ready and not turn.problem and not turn.note:
        turn.ballot = ballot
    else:
        why = turn.note or ("an answer was not kept" if turn.is_ready else "an answer failed or was stopped")
        await kept(turn, "comparison", lambda: ballots.void(ballot, why))


async def kept(turn: Turn, what: str, operation: Callable[[], T]) -> T | None:
    """Return what an operation on the ballots returns; where it fails, the turn and the terminal say so."""
    try:
        return await asyncio.to_thread(operation)
    except Exception as error:
        fail(turn, what, error)
        return None


def fail(turn: Turn, what: str, error: Exception) -> None:
    """Mark the turn; the reason names the database, which is for the terminal and not for every visitor."""
    turn.problem = what
    reason = str(error) if isinstance(error, HarnessError) else "".join(traceback.format_exception(error))
    click.echo(f"a {what} was not kept: {reason}", err=True)


@functools.cache
def _receiving() -> asyncio.AbstractEventLoop:
    """Return the event loop, in a thread of its own, on which answers are received and timed.

    On the page's loop tokens would wait for the drawings of everybody else, and variants look as slow as the page.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="answers", daemon=True).start()
    return loop


async def _stream(client: Client, side: Side, sampling: Sampling, answer: Answer) -> str:
    """Ask one variant, fill `answer` as its tokens come, and return how it ended: `stop`, `length` or `error`."""
    began = time.monotonic()
    finish = None
    calls: dict[int, list[str]] = {}
    try:
        body = {"model": side.variant, "messages": side.messages, **sampling.as_dict()}
        async with aclosing(client.stream(body)) as deltas:
            async for delta in deltas:
                answer.total_s = time.monotonic() - began
                answer.tokens = delta.completion_tokens or answer.tokens
                finish = delta.finish or finish
                for number, name, arguments in delta.calls:
                    call = calls.setdefault(number, ["", ""])
                    call[0], call[1] = call[0] + name, call[1] + arguments
                if delta.text or delta.reasoning or delta.calls:
                    if answer.first_token_s is None:
                        answer.first_token_s = answer.total_s
                    answer.text += delta.text
                    answer.reasoning += delta.reasoning
    except EndpointError as error:
        answer.error = error.reply or str(error)
        return "error"
    answer.text = "\n\n".join([*filter(None, [answer.text]), *(_call_text(*call) for call in calls.values())])
    return "stop" if finish in (None, "tool_calls") else finish


def _call_text(name: str, arguments: str) -> str:
    """Return a call of a tool as Markdown; arguments that are no JSON are shown as they are."""
    try:
        shown = json.dumps({"name": name, "arguments": json.loads(arguments or "{}")}, ensure_ascii=False, indent=2)
    except ValueError:
        shown = f"{name}\n{arguments}"
    return f"```json\n{shown}\n```"
