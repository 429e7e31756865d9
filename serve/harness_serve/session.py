"""One person's comparison: the picked variants, the turns, the answers as they stream in, and a ballot for each turn.

Imports nothing of Gradio. A session is used on one event loop only, so what happens between two `await`s happens at
once; what is done to the last turn's ballot is done one after another.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.nouns import Ballot, Side, Verdict
from harness.votes.store import ClosedBallotError
from harness_serve.answering import Answer, Sampling, Shared, Turn, answered, fail, kept, open_ballot, settle

REDRAW_S = 0.06  # how often a page that streams is drawn again, and
REDRAW_OF_EACH_S = 0.04  # times the turns that stream: Gradio needs a good third of it on the one event loop of all
UNCHANGED_S = 1.0  # after which it is drawn again though nothing of it is new
UNHURRIED_CHARACTERS = 8_000  # of an answer, above which it is drawn less often
BLIND_S = 1.8  # in which two blind answers are written out, side by side
PairWeights = Mapping[frozenset[str], float]


@dataclass(slots=True)
class Session:
    """The conversation so far. Every variant sees its own answers only.

    `variants` are in the order of the columns, which `seed` drew for the whole conversation. `person` is the name
    that ballots keep, empty where nobody gave one. In a `blind` conversation two variants are drawn by lot, and nothing
    tells them apart before the ballot is closed: no names, no figures, no thoughts; both answers are awaited, and then
    written out together, so that neither speed nor finish says whose they are.
    """

    variants: list[str] = field(default_factory=list)
    seed: int = 0
    person: str = ""
    blind: bool = False
    turns: list[Turn] = field(default_factory=list)
    asked: list[asyncio.Task[None]] = field(default_factory=list)  # one for each answer that streams
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # of the last turn's ballot
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # of clicks that are answered one after another
    editing: int | None = None  # the number of the turn that the next prompt takes the place of
    done: int = 0  # prompts of the set that are judged
    seen: tuple[str, ...] = ()  # the variants that the page offers this person
    marks: bool = False  # differences between answers are marked
    page: int = 0  # of the kept votes, the newest first

    @property
    def streaming(self) -> bool:
        return bool(self.asked)

    @property
    def last(self) -> Turn | None:
        """The last turn, or None before there is one."""
        return self.turns[-1] if self.turns else None

    def stop(self) -> None:
        """Hang up on whoever still answers; what has come stays."""
        for task in self.asked:
            task.cancel()  # closes the connection, so that the engine stops as well
        self.asked = []

    @property
    def is_hidden(self) -> bool:
        """True while the variants' names are not shown: in a blind conversation without a verdict that is final."""
        return self.blind and not any(turn.closed and turn.verdict for turn in self.turns)

    @property
    def names(self) -> list[str]:
        """The names of the columns as the person may see them now."""
        return ["A", "B"] if self.is_hidden else self.variants

    def begin_anew(
        self,
        variants: Sequence[str],
        seed: int | None = None,
        *,
        blind: bool = False,
        weights: PairWeights | None = None,
    ) -> None:
        """Stop what streams, forget the conversation, and draw the order of the columns by `seed` (None: a new one).

        Args:
            blind: draw two of the variants, too.
            weights: the chances of each pair, in any unit; None makes all alike.
        """
        self.stop()
        self.editing = None
        self.seed = secrets.randbits(63) if seed is None else seed
        self.blind = blind and len(variants) > 1
        count, lot = 2 if self.blind else len(variants), random.Random(self.seed)
        if self.blind and weights:
            pairs = sorted(map(sorted, weights))
            variants = lot.choices(pairs, [weights[frozenset(pair)] for pair in pairs])[0]
        self.variants, self.turns = lot.sample(variants, count), []

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
        self, shared: Shared, prompt: str, system_prompt: str, sampling: Sampling, **about: Any
    ) -> AsyncGenerator[None, None]:
        """Ask every variant at once; yields whenever there is something new to draw, and ends when all answers are in.

        With two variants or more a ballot is opened. It is void where an answer failed, was stopped or was not kept.

        Args:
            about: where the prompt is from, as `Turn.about`.
        """
        turn = Turn(prompt, system_prompt, sampling, [Answer() for _ in self.variants], about=about)
        self.turns.append(turn)
        # The messages are made now: the session may have begun anew before a task first runs.
        known, number = shared.known(), len(self.turns) - 1
        sides = [
            Side(name, known.recipes.get(name), self.messages(column, number), identity=known.identities.get(name, {}))
            for column, name in enumerate(self.variants)
        ]
        async for _ in self._shown(shared, turn, sides, [None] * len(sides)):
            yield

    async def repeat(self, shared: Shared, ballot: Ballot) -> AsyncGenerator[None, None]:
        """Show the answers of a blind ballot again, on sides drawn anew, as a ballot of its own; yields as `ask`."""
        self.begin_anew([side.variant for side in ballot.sides], blind=True)
        stored = {side.variant: side for side in ballot.sides}
        sides = [stored[name] for name in self.variants]
        known = {name: ballot.sampling.get(name, getattr(Sampling(), name)) for name in Sampling.__dataclass_fields__}
        about = {name: getattr(ballot, name) for name in ("prompt_set", "prompt_id", "category")}
        prompt = str(ballot.sides[0].messages[-1].get("content", ""))
        answers = [Answer() for _ in sides]
        turn = Turn(prompt, ballot.system_prompt, Sampling(**known), answers, about=about | {"repeat_of": ballot.id})
        self.turns.append(turn)
        async for _ in self._shown(shared, turn, sides, sides):
            yield

    async def _shown(
        self, shared: Shared, turn: Turn, sides: Sequence[Side], stored: Sequence[Side | None]
    ) -> AsyncGenerator[None, None]:
        """Open the turn's ballot, fill its answers and settle it."""
        turn.share = 0.0 if self.is_hidden else 1.0
        about = {"seed": self.seed, "annotator": self.person, "consent": shared.consent, "blind": self.is_hidden}
        opened = asyncio.create_task(open_ballot(shared.ballots, sides, turn, about | {"turn": len(self.turns) - 1}))
        asked = [
            asyncio.create_task(answered(shared, side, turn, position, opened, stored[position]))
            for position, side in enumerate(sides)
        ]
        self.asked = asked
        shared.streaming.add(id(turn))
        try:
            seen: object = None
            drawn_at = time.monotonic()
            while not all(task.done() for task in asked):
                pause = REDRAW_S
                if (now := self._visible(turn)) != seen or time.monotonic() - drawn_at > UNCHANGED_S:
                    seen, drawn_at, pause = now, time.monotonic(), pause_s(shared, turn)
                    yield
                await asyncio.wait(asked, timeout=pause)
            ready = time.monotonic()
            while turn.share < 1 and turn.is_ready:
                await asyncio.sleep(pause_s(shared, turn))
                turn.share = min(1.0, (time.monotonic() - ready) / BLIND_S)
                yield
        finally:
            shared.streaming.discard(id(turn))
            turn.share = 1.0
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            for answer in turn.answers:
                answer.finish = answer.finish or "stopped"
            await settle(shared.ballots, turn, await opened)
            turn.ended = time.monotonic()
            if self.asked is asked:  # otherwise it was stopped, and something else may be streaming
                self.asked = []
        yield

    def _visible(self, turn: Turn) -> list[tuple[Any, ...]]:
        """Return what a drawing of a turn's answers depends on while they are awaited."""
        if self.is_hidden:
            return [(answer.error,) for answer in turn.answers]
        return [(len(answer.text), len(answer.reasoning), answer.finish) for answer in turn.answers]

    async def judge(
        self, shared: Shared, verdict: Verdict | None, reasons: Sequence[str] | None = None
    ) -> AsyncGenerator[None, None]:
        """Vote on the last turn; yields whenever there is something new to draw.

        Until the ballot is closed a later verdict takes the place of an earlier one.

        Args:
            verdict: None keeps the one that there is.
            reasons: what the person ticked beside it; None keeps them.
        """
        turn = self.last
        if turn is None or turn.ballot is None or self.streaming or (verdict is None and turn.verdict is None):
            yield
            return
        number, latency_s = turn.ballot, turn.latency_s or time.monotonic() - turn.ended
        turn.is_voting = True
        yield
        async with self.lock:
            verdict = verdict or turn.verdict
            assert verdict is not None
            about = {"reasons": turn.reasons if reasons is None else list(reasons), "latency_s": latency_s}
            try:
                await asyncio.to_thread(shared.ballots.vote, number, verdict, **about)
                turn.verdict, turn.problem, turn.latency_s = verdict, "", latency_s
                turn.reasons = about["reasons"]
            except ClosedBallotError:
                ballot = await kept(turn, "verdict", lambda: shared.ballots[number])
                turn.verdict, turn.closed = ballot.verdict if ballot else turn.verdict, True
            except Exception as error:
                fail(turn, "verdict", error)
        turn.is_voting, turn.tries = False, turn.tries + 1
        yield

    async def close(self, shared: Shared, why: str) -> None:
        """Close the last turn's ballot: its verdict is final, and the names are shown; without one it is void.

        Args:
            why: the note on a void ballot.
        """
        turn = self.last
        if turn is None or turn.ballot is None:
            return
        async with self.lock:
            if turn.closed:
                return
            turn.closed, number = True, turn.ballot
            close = shared.ballots.reveal if turn.verdict else lambda number: shared.ballots.void(number, why)
            await kept(turn, "verdict" if turn.verdict else "comparison", lambda: close(number))


def pause_s(shared: Shared, turn: Turn) -> float:
    """Return the time until the next drawing: longer with many turns at once, and with long answers."""
    longest = max(len(answer.text) for answer in turn.answers)
    hurry = REDRAW_S * max(1.0, longest / UNHURRIED_CHARACTERS)
    return max(hurry, REDRAW_OF_EACH_S * len(shared.streaming))
