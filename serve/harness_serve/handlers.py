"""Responses to a person's clicks: each returns or yields the page as it is then."""

from __future__ import annotations

import asyncio
import html
import inspect
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.extras import require
from harness.nouns import Verdict
from harness_serve.answering import Sampling, Shared
from harness_serve.browsing import Filter, ballots_html
from harness_serve.drawing import draw
from harness_serve.layout import ARENA, CHAT, LEADERBOARD, MOST_COLUMNS, VOTES, Components, modes_of, of_any
from harness_serve.login import PERSON
from harness_serve.session import Session
from harness_serve.standings import standings_html
from harness_serve.study import Study

if TYPE_CHECKING:
    from harness_serve.catalogue import Catalogue
    from harness_serve.lot import Lot


class Handlers:
    """The handlers of one page, whose sessions share the endpoint and the ballots."""

    def __init__(self, shared: Shared, catalogue: Catalogue, lot: Lot, study: Study = Study()) -> None:  # noqa: B008
        self.shared = shared
        self.catalogue = catalogue
        self.lot = lot
        self.prompts, self.left_out = study.prompts, study.left_out
        self.gr = require("gradio", "serving")

    async def ask(
        self, state: Session, mode: str, prompt: str, system: str, *settings: Any
    ) -> AsyncIterator[list[Any]]:
        """Ask the prompt, in place of the last one where that is being edited."""
        prompt, sampling = prompt.strip(), self._sampling(*settings)
        if not prompt or state.streaming or sampling is None:
            yield [*await self._drawn(state, mode), self.gr.skip()]
            return
        if not state.variants:
            self.gr.Warning("Pick at least one variant first.")
            yield [*await self._drawn(state, mode), self.gr.skip()]
            return
        if (gone := self._gone(state)) and not state.blind:
            self.gr.Warning(_no_longer(gone))
            yield [*await self._drawn(state, mode), self.gr.skip()]
            return
        about: dict[str, Any] = {}
        if state.editing is not None:
            about = await self._withdraw(state, "the question was edited")
        else:
            await state.close(self.shared, "not judged before the next question")
            # Judged: the names are known, and the next round has another pair.
            if state.blind and (gone or not state.is_hidden):
                await self._begin(state, [], ARENA)
        async for drawing in self._answered(state, mode, prompt, system.strip(), sampling, about):
            yield [*drawing, ""]

    async def ask_again(self, state: Session, mode: str, system: str, *settings: Any) -> AsyncIterator[list[Any]]:
        """Ask the last prompt again."""
        sampling = self._sampling(*settings)
        if gone := self._gone(state):
            self.gr.Warning(_no_longer(gone))
        if state.last is None or state.streaming or sampling is None or gone:
            yield await self._drawn(state, mode)
            return
        prompt = state.last.prompt
        about = await self._withdraw(state, "asked again before a verdict")
        async for drawing in self._answered(state, mode, prompt, system.strip(), sampling, about):
            yield drawing

    async def edit(self, state: Session, mode: str) -> list[Any]:
        """Take the last prompt back into the box; what is sent next takes its place. A second time: let it be."""
        if state.last is None or state.streaming:
            return [*await self._drawn(state, mode), self.gr.skip()]
        state.editing = None if state.editing is not None else len(state.turns) - 1
        return [*await self._drawn(state, mode), state.last.prompt if state.editing is not None else ""]

    async def follow(self, state: Session, mode: str, system: str, *settings: Any) -> AsyncIterator[list[Any]]:
        """Show the next prompt of the set to a pair drawn by lot, or earlier answers again."""
        sampling = self._sampling(*settings)
        if self.prompts is None or state.streaming or sampling is None:
            yield await self._drawn(state, mode)
            return
        await state.close(self.shared, "skipped")
        theirs = await self._ballots_of(state)
        again = self.prompts.to_repeat(theirs, random.Random())
        left = self.prompts.left(state.person, theirs)
        if again is not None:
            async with aclosing(state.repeat(self.shared, again)) as news:
                async for _ in news:
                    yield await self._drawn(state, mode)
            return
        await self._begin(state, [], ARENA)
        if not left:
            yield await self._drawn(state, mode)
            return
        prompt = left[0]
        about = {"prompt_set": self.prompts.id, "prompt_id": prompt.id, "category": prompt.category}
        chosen = prompt.system or system.strip()
        async for drawing in self._answered(state, mode, prompt.text, chosen, sampling, about):
            yield drawing

    async def stop(self, state: Session) -> None:
        state.stop()

    async def begin_anew(self, state: Session, one: str, names: list[str], mode: str) -> list[Any]:
        """Begin a conversation of the mode that is chosen."""
        await state.close(self.shared, "left before a verdict")
        await self._begin(state, [one] if mode == CHAT else names, mode)
        standings = await asyncio.to_thread(self._standings) if mode == LEADERBOARD else ""
        return await self._drawn(state, mode, standings)

    async def skip(self, state: Session, one: str, names: list[str], mode: str) -> list[Any]:
        """Leave the round without a verdict."""
        await state.close(self.shared, "skipped")
        return await self.begin_anew(state, one, names, mode)

    def judge(self, verdict: Verdict) -> Callable[[Session, str], AsyncIterator[list[Any]]]:
        """Return the handler of one verdict's button."""

        async def judge(state: Session, mode: str) -> AsyncIterator[list[Any]]:
            async with aclosing(state.judge(self.shared, verdict)) as news:
                async for _ in news:  # first without the buttons; then with the one that was chosen
                    yield await self._drawn(state, mode)

        return judge

    async def give_reasons(self, state: Session, reasons: list[str]) -> None:
        """Keep what was ticked beside the verdict."""
        async with aclosing(state.judge(self.shared, None, reasons)) as news:
            async for _ in news:
                pass

    async def reveal(self, state: Session, mode: str) -> list[Any]:
        """Close the ballot and show the names."""
        await state.close(self.shared, "left before a verdict")
        return await self._drawn(state, mode)

    async def greet(self, state: Session, one: str, names: list[str], mode: str, request: Any) -> list[Any]:
        """Begin for whoever loaded the page, by the name that the guard in front gives."""
        state.person = unquote(request.headers.get(PERSON.decode(), ""))
        return await self.begin_anew(state, one, names, mode)

    async def mark(self, state: Session, mode: str, marks: bool) -> list[Any]:
        """Mark the words in which answers differ, or no longer."""
        state.marks = marks
        return await self._drawn(state, mode)

    async def refresh(self, state: Session, mode: str, one: str, picked: list[str]) -> list[Any]:
        """Offer the variants that are served now, and say which have come and gone since the page last did.

        A change of what is picked begins a new conversation.
        """
        gr, known, notice = self.gr, self.shared.known(), self.catalogue.notice
        models = known.models
        if gone := [name for name in state.seen if name not in models]:
            gr.Warning(f"Not served any more: {', '.join(gone)}.")
        if come := [name for name in models if name not in state.seen and state.seen]:
            gr.Info(f"Now served as well: {', '.join(come)}.")
        left = [name for name in picked if name in models]
        if not left or len(state.seen) < 2 > len(left):  # until now there was nothing to compare
            left = known.first_picks
        state.seen = models
        first = one if one in models else known.first_picks[-1]
        return [
            gr.HTML(value=f'<p role="status">{html.escape(notice)}</p>' if notice else "", visible=bool(notice)),
            gr.Radio(choices=modes_of(models), **({} if mode in modes_of(models) else {"value": CHAT})),
            gr.Dropdown(choices=models, **({} if first == one else {"value": first})),
            gr.Dropdown(choices=models, **({} if left == picked else {"value": left})),
            gr.Textbox(visible=not state.person),  # who gave a name sees no one else's votes
            gr.Dropdown(choices=of_any(models)),
        ]

    def _gone(self, state: Session) -> list[str]:
        """Return the variants of a conversation that are not served any more."""
        return [name for name in state.variants if name not in self.models]

    async def browse(self, state: Session, mode: str, *filters: str | None, turned: int = 0) -> list[Any]:
        """Show the kept ballots that fit the filters: the first page of them, or the one before or after."""
        if mode != VOTES:
            return ["", self.gr.skip(), self.gr.skip()]
        wanted = Filter(*((given or "").strip() for given in filters))
        number = max(0, state.page + turned) if turned else 0
        arguments = (self.shared.ballots, wanted, state.person, number)
        page = await asyncio.to_thread(ballots_html, *arguments)
        state.page = page.number
        return [page.html, self.gr.Button(visible=page.number > 0), self.gr.Button(visible=not page.is_last)]

    async def _answered(
        self, state: Session, mode: str, prompt: str, system: str, sampling: Sampling, about: dict[str, Any]
    ) -> AsyncIterator[list[Any]]:
        async with aclosing(state.ask(self.shared, prompt, system, sampling, **about)) as news:
            async for _ in news:
                yield await self._drawn(state, mode)

    async def _withdraw(self, state: Session, why: str) -> dict[str, Any]:
        """Take the last turn away and close its ballot; return what the next ballot keeps of it."""
        turn = state.last
        assert turn is not None
        await state.close(self.shared, why)
        state.turns.pop()
        state.editing = None
        kept = {name: value for name, value in turn.about.items() if name != "repeat_of"}
        return kept | ({} if turn.ballot is None else {"replaces": turn.ballot})

    async def _begin(self, state: Session, names: Sequence[str], mode: str) -> None:
        """Begin a conversation: of a pair by lot in the arena, else of the variants that were picked."""
        if mode == ARENA:
            drawn = [name for name in self.models if name not in self.left_out]
            weights = await asyncio.to_thread(self.lot.weights, drawn)
            state.begin_anew(drawn, blind=True, weights=weights)
        else:
            state.begin_anew([name for name in self.models if name in names])

    @property
    def models(self) -> tuple[str, ...]:
        """The variants that can be asked now."""
        return self.shared.known().models

    async def _ballots_of(self, state: Session) -> list[Any]:
        """Return this person's ballots on the set of prompts."""
        assert self.prompts is not None
        number, ballots = self.prompts.id, self.shared.ballots
        return await asyncio.to_thread(ballots.matching, annotator=state.person, prompt_set=number)

    async def _drawn(self, state: Session, mode: str, standings: str = "") -> list[Any]:
        """Return the page, drawn in a thread: the text of answers can take a while to read."""
        if self.prompts is not None and mode == ARENA and not state.streaming:
            left = len(self.prompts.left(state.person, await self._ballots_of(state)))
            state.done = len(self.prompts.prompts) - left
        return await asyncio.to_thread(draw, state, mode, standings, self.prompts)

    def _standings(self) -> str:
        from harness.measure.leaderboard import leaderboard

        return standings_html(leaderboard(self.shared.ballots))

    def _sampling(self, temperature: float, top_p: float, max_tokens: float, seed: str, tools: str) -> Sampling | None:
        """Return the settings of a turn from the pane, or None, with a warning, where seed or tools cannot be read."""
        try:
            number = int(seed) if seed.strip() else None
        except ValueError:
            self.gr.Warning(f"The seed is a whole number, not {seed.strip()!r}.")
            return None
        try:
            offered = json.loads(tools) if tools.strip() else []
        except ValueError as error:
            self.gr.Warning(f"The tools are no JSON: {error}.")
            return None
        if not isinstance(offered, list) or not all(isinstance(tool, dict) for tool in offered):
            self.gr.Warning("The tools are a JSON list of OpenAI's descriptions of functions.")
            return None
        return Sampling(temperature, top_p, int(max_tokens), number, tuple(offered))


def _no_longer(names: Sequence[str]) -> str:
    return f"Not served any more: {', '.join(names)}. Begin a new conversation with others."


def connect(page: Any, components: Components, handlers: Handlers, examples: Sequence[str]) -> None:
    """Attach the handlers to the components' events.

    Every click is sent, and answered as soon as the same person's clicks before it allow. By default Gradio drops a
    click while the browser is not quite through with the last one on the same button, though the page shows its end
    already; and lets people wait for each other.
    """
    gr = require("gradio", "serving")
    parts, prompt, mode, settings = components.drawn, components.prompt, components.mode, components.settings
    session, drawn = parts.session, parts.flat
    begun = [session, parts.one, parts.picked, mode]
    asked = [session, mode, prompt, *settings]
    asks = [_on(trigger, handlers.ask, asked, [*drawn, prompt]) for trigger in (prompt.submit, parts.send.click)]
    for chip, example in zip(components.chips, examples, strict=False):
        asked = [session, mode, gr.State(example), *settings]
        asks.append(_on(chip.click, handlers.ask, asked, [*drawn, prompt]))
    asks.append(_on(parts.again.click, handlers.ask_again, [session, mode, *settings], drawn))
    asks.append(_on(parts.following.click, handlers.follow, [session, mode, *settings], drawn))
    _on(parts.edit.click, handlers.edit, [session, mode], [*drawn, prompt])
    _on(parts.stop.click, handlers.stop, session, None)
    # Cancelled: so that the browser draws nothing any more that an old stream still sends.
    for trigger in (parts.picked.change, parts.one.change, parts.clear.click):
        _on(trigger, handlers.begin_anew, begun, drawn, cancels=asks)
    changed = _on(mode.change, handlers.begin_anew, begun, drawn, cancels=asks)
    _on(parts.skip.click, handlers.skip, begun, drawn)
    verdicts = [Verdict("best", position) for position in range(MOST_COLUMNS)] + [Verdict("tie"), Verdict("bad")]
    for button, verdict in zip([*parts.best, parts.tie, parts.bad], verdicts, strict=True):
        _on(button.click, handlers.judge(verdict), [session, mode], drawn)
    _on(parts.reasons.input, handlers.give_reasons, [session, parts.reasons], None)
    _on(parts.reveal.click, handlers.reveal, [session, mode], drawn)
    _on(parts.marks.input, handlers.mark, [session, mode, parts.marks], drawn)
    loaded = _attach(page.load, _knowing_who(handlers), begun, drawn)
    offered = [components.notice, mode, parts.one, parts.picked, *components.filters[:2]]
    for trigger in (loaded.then, components.refresh.click):
        _on(trigger, handlers.refresh, [session, mode, parts.one, parts.picked], offered)
    person, variant, verdict, text = components.filters
    given, listed = [session, mode, *components.filters], [components.table, *components.turning]
    for trigger in (changed.then, variant.change, verdict.change):
        _on(trigger, handlers.browse, given, listed)
    for box in (person, text):  # while a list is drawn, of what is typed meanwhile only the latest is asked for
        _on(box.input, handlers.browse, given, listed, trigger_mode="always_last")
    for button, turned in zip(components.turning, (-1, 1), strict=True):
        _on(button.click, partial(handlers.browse, turned=turned), given, listed)


def _on(trigger: Any, handler: Callable[..., Any], given: Any, drawn: Any, **more: Any) -> Any:
    """Attach a handler whose first input is the session, so that it answers in turn; return the event's dependency."""
    return _attach(trigger, _in_turn(handler), given, drawn, **more)


def _attach(
    trigger: Any, handler: Callable[..., Any], given: Any, drawn: Any, *, trigger_mode: str = "multiple", **more: Any
) -> Any:
    return trigger(
        handler, given, drawn, show_progress="hidden", api_visibility="private", concurrency_limit=None,
        trigger_mode=trigger_mode, **more,
    )  # fmt: skip


def _in_turn(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that answers one person's clicks in their order, each up to its first drawing.

    So a second click on the same button meets what the first one has begun, and begins nothing more.
    """

    async def answer(state: Session, *given: Any) -> Any:
        async with state.turn:
            return await handler(state, *given)

    async def stream(state: Session, *given: Any) -> AsyncIterator[Any]:
        async with aclosing(handler(state, *given)) as drawings:
            async with state.turn:
                first = await anext(drawings)
            yield first
            async for drawing in drawings:
                yield drawing

    return stream if inspect.isasyncgenfunction(handler) else answer


def _knowing_who(handlers: Handlers) -> Callable[..., Any]:
    """Return the handler of a page that was loaded, with the request, by which it knows who loaded it."""

    async def greet(state: Session, one: str, names: list[str], mode: str, request: Any) -> list[Any]:
        return await handlers.greet(state, one, names, mode, request)

    greet.__annotations__["request"] = handlers.gr.Request  # by which Gradio knows what to pass
    return greet
