"""The page: one prompt, two to four variants answering side by side or a blind pair, and a verdict that is kept.

Drawn with Gradio; looks by `page.css`, conversations by `rendering.py`. No part of the page is fetched from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.client.asking import Limits, client_of
from harness.errors import HarnessError
from harness.extras import require
from harness.hashing import sha256_of_files
from harness.nouns import Verdict
from harness_serve.guard import Names, url_host
from harness_serve.layout import ARENA, LEADERBOARD, MOST_COLUMNS, Components, lay_out
from harness_serve.login import PERSON, PageGuard
from harness_serve.rendering import column_html, confirmation_html
from harness_serve.session import Sampling, Session, Shared
from harness_serve.standings import STYLE, standings_html

if TYPE_CHECKING:
    from harness.contract import Endpoint
    from harness.variants import Variant
    from harness.votes.store import Ballots
    from harness_serve.keys import KeyFile

FOLDER = Path(__file__).parent
EXAMPLES = (
    "What can you help me with?",
    "Explain photosynthesis to a ten-year-old.",
    "Write a haiku about autumn rain.",
    "Give me three names for a bakery.",
)
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def quieten() -> None:
    """Keep Gradio from reporting its use and from looking for newer versions. Takes effect before it is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["DO_NOT_TRACK"] = "1"


@contextmanager
def serve_page(
    endpoint: Endpoint,
    variants: Sequence[Variant],
    ballots: Ballots,
    examples: Sequence[str] | None = None,
    *,
    names: Names | None = None,
    port: int = 7860,
    keys: KeyFile | None = None,
) -> Iterator[str]:
    """Serve the page on `names.host` in threads of this process; yields its URL.

    Where the endpoint has a key, the page asks for it, or for one of the named `keys`: whoever reaches the page asks
    with the server's key. The name of a key is kept with what its holder judges.
    """
    quieten()
    uvicorn = require("uvicorn", "serving")
    names = names or Names()
    app = page_app(build_page(endpoint, variants, ballots, examples or EXAMPLES))
    guard = PageGuard(app, names, endpoint.api_key, port, keys)
    quiet = {"log_level": "error", "access_log": False, "server_header": False}
    server = uvicorn.Server(
        uvicorn.Config(guard, host=names.host, port=port, ws="none", timeout_graceful_shutdown=1, **quiet)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise HarnessError(f"the page's server did not start on {names.host}, port {port}")
            time.sleep(0.01)
        yield f"http://{url_host(names.host)}:{port}"
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # open pages hold streams that are cut now
        server.should_exit = True
        thread.join()


def page_app(page: Any) -> Any:
    """Return the page as an ASGI application, without a guard."""
    gr, fastapi = require("gradio", "serving"), require("fastapi", "serving")
    return gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="/",
        theme=_theme(),
        css=STYLE,
        css_paths=[FOLDER / "page.css"],
        head=f"<script>{(FOLDER / 'page.js').read_text(encoding='utf-8')}</script>",
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        run_history=False,
        enable_monitoring=False,
    )


def build_page(endpoint: Endpoint, variants: Sequence[Variant], ballots: Ballots, examples: Sequence[str]) -> Any:
    """Return the page as Gradio Blocks. Its handlers run on one event loop, as `Session` wants it."""
    gr = require("gradio", "serving")
    client = client_of(endpoint, Limits(timeout_s=600))
    client.open()
    recipes = {
        variant.name: variant.run.manifest.get("recipe_sha256")
        for variant in variants
        if variant.run and variant.is_tuned
    }
    tuned = [name for name in endpoint.models if name in recipes]
    others = [name for name in endpoint.models if name not in recipes]
    with gr.Blocks(title="Compare variants", analytics_enabled=False, fill_width=True) as page:
        components = lay_out(endpoint.models, (others[:1] + tuned + others[1:])[:2], examples, variants)
        shared = Shared(client, ballots, recipes, {variant.name: _identity(variant) for variant in variants})
        _connect(page, components, _Handlers(shared, endpoint.models), examples)
    return page


def _identity(variant: Variant) -> dict[str, str]:
    """Return what a ballot keeps of a variant: model, and hashes of adapter and template as far as there are any."""
    hashes = {"model": variant.model.path}
    if variant.adapter is not None:
        hashes["adapter_sha256"] = sha256_of_files(variant.adapter, "*.safetensors")
    if variant.chat_folder is not None:
        hashes["template_sha256"] = sha256_of_files(variant.chat_folder, "chat_template.jinja")
    return hashes


def _draw(state: Session, standings: str = "") -> list[Any]:
    """Return every component as `state` has it, in the order of `Components.drawn`.

    Args:
        standings: HTML of the leaderboard, which is shown instead of the columns.
    """
    gr = require("gradio", "serving")
    count, last = len(state.variants), state.turns[-1] if state.turns else None
    judging = last is not None and last.is_open and not state.streaming
    labels = ["← A is better", "B is better →"] if state.blind else ["← Left is better", "Right is better →"]
    if count != 2:
        labels = [f"{name} is best" for name in state.variants]
    return [
        state,
        gr.HTML(value=f"<p>{_advice(state, standings)}</p>"),
        gr.Row(visible=not standings),
        gr.HTML(value=standings, visible=bool(standings)),
        gr.Column(visible=not standings),
        *[gr.HTML(value=column_html(state, column), visible=True) for column in range(count)],
        *[gr.HTML(value="", visible=False)] * (MOST_COLUMNS - count),
        gr.Row(visible=last is None),
        gr.Row(visible=judging),
        *[gr.Button(value=labels[i] if i < count else "", visible=i < count) for i in range(MOST_COLUMNS)],
        gr.Button(visible=True),
        gr.Button(value="Both bad" if count == 2 else "All bad"),
        gr.Button(visible=state.blind),
        gr.HTML(value=confirmation_html(state), visible=bool(last and (last.verdict or last.problem or last.note))),
        gr.Button(visible=last is not None and not state.streaming and not state.blind),
        gr.Button(visible=state.streaming),
        gr.Button(visible=not state.streaming),
        gr.Dropdown(interactive=not state.streaming, visible=not state.blind and not standings),
        gr.Button(value="Next round" if state.blind else "New conversation", visible=not standings),
    ]


def _advice(state: Session, standings: str) -> str:
    if standings:
        return "What people judged without knowing the names."
    if not state.blind:
        return "One prompt, side by side."
    return "Two variants by lot: judge, and see their names." if state.is_hidden else "Ask on for another pair."


class _Handlers:
    """Responses to a person's clicks: the values of `_draw`, with that of the prompt after them in `ask`."""

    def __init__(self, shared: Shared, models: Sequence[str]) -> None:
        self.shared = shared
        self.models = models
        self.gr = require("gradio", "serving")

    async def ask(self, state: Session, prompt: str, system: str, *sampling: float) -> AsyncIterator[list[Any]]:
        prompt = prompt.strip()
        if not prompt or state.streaming:
            yield [*_draw(state), self.gr.skip()]
            return
        if state.blind and not state.is_hidden:  # judged: the names are known, and the next round has another pair
            state.begin_anew(self.models, blind=True)
        if not state.variants:
            self.gr.Warning("Pick at least one variant first.")
            yield [*_draw(state), self.gr.skip()]
            return
        async with aclosing(state.ask(self.shared, prompt, system.strip(), _sampling(*sampling))) as news:
            async for _ in news:
                yield [*_draw(state), ""]

    async def ask_again(self, state: Session, system: str, *sampling: float) -> AsyncIterator[list[Any]]:
        if not state.turns or state.streaming:
            yield _draw(state)
            return
        turn = state.turns.pop()
        async with aclosing(state.ask(self.shared, turn.prompt, system.strip(), _sampling(*sampling))) as news:
            async for _ in news:
                yield _draw(state)

    async def stop(self, state: Session) -> None:
        state.stop()

    async def begin_anew(self, state: Session, names: list[str], mode: str) -> list[Any]:
        if mode == ARENA:
            state.begin_anew(self.models, blind=True)
        else:
            state.begin_anew([name for name in self.models if name in names])
        if mode == LEADERBOARD:
            return _draw(state, await asyncio.to_thread(self._standings))
        return _draw(state)

    def _standings(self) -> str:
        from harness.measure.leaderboard import leaderboard

        return standings_html(leaderboard(self.shared.ballots))

    async def skip(self, state: Session, names: list[str], mode: str) -> list[Any]:
        await state.skip(self.shared)
        return await self.begin_anew(state, names, mode)

    def judge(self, verdict: Verdict) -> Callable[[Session], AsyncIterator[list[Any]]]:
        """Return the handler of one verdict's button."""

        async def judge(state: Session) -> AsyncIterator[list[Any]]:
            async with aclosing(state.judge(self.shared, verdict)) as news:
                async for _ in news:  # first without the buttons; they come back where it could not be kept
                    yield _draw(state)

        return judge


def _connect(page: Any, components: Components, handlers: _Handlers, examples: Sequence[str]) -> None:
    """Attach the handlers to the components' events."""
    gr = require("gradio", "serving")
    session, prompt, settings, drawn = components.session, components.prompt, components.settings, components.drawn
    begun = [session, components.picked, components.mode]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    at_once = quiet | {"concurrency_limit": None}
    asks = [
        trigger(handlers.ask, [session, prompt, *settings], [*drawn, prompt], **at_once)
        for trigger in (prompt.submit, components.send.click)
    ]
    for chip, example in zip(components.chips, examples, strict=False):
        asks.append(chip.click(handlers.ask, [session, gr.State(example), *settings], [*drawn, prompt], **at_once))
    asks.append(components.again.click(handlers.ask_again, [session, *settings], drawn, **at_once))
    components.stop.click(handlers.stop, session, None, **at_once)
    # Cancelled: so that the browser draws nothing any more that an old stream still sends.
    for trigger in (components.picked.change, components.clear.click, components.mode.change):
        trigger(handlers.begin_anew, begun, drawn, cancels=asks, **quiet)
    components.skip.click(handlers.skip, begun, drawn, **quiet)
    verdicts = [Verdict("best", position) for position in range(MOST_COLUMNS)] + [Verdict("tie"), Verdict("bad")]
    for button, verdict in zip([*components.best, components.tie, components.bad], verdicts, strict=True):
        button.click(handlers.judge(verdict), session, drawn, **at_once)
    page.load(_greeting(handlers), begun, drawn, **quiet)


def _greeting(handlers: _Handlers) -> Callable[..., Any]:
    """Return the handler of a page that was loaded: it hears who loaded it, by the guard in front."""

    async def greet(state: Session, names: list[str], mode: str, request: Any) -> list[Any]:
        state.person = request.headers.get(PERSON.decode(), "")
        return await handlers.begin_anew(state, names, mode)

    greet.__annotations__["request"] = handlers.gr.Request  # by which Gradio knows what to pass
    return greet


def _sampling(temperature: float, top_p: float, max_tokens: float) -> Sampling:
    """Return the settings of a turn from the sliders, which give every number as a float."""
    return Sampling(temperature, top_p, int(max_tokens))


def _theme() -> Any:
    gr = require("gradio", "serving")
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", font=list(FONT), font_mono=list(MONO), radius_size="lg"
    )
