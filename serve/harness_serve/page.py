"""The page: one variant to chat with, several side by side, blind pairs to judge, the leaderboard, and the kept votes.

Drawn with Gradio; looks by `page.css`, conversations by `rendering.py`. No part of the page is fetched from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from harness.client.asking import Limits, client_of
from harness.extras import require
from harness_serve.answering import Shared
from harness_serve.browsing import Filter, rows
from harness_serve.catalogue import Catalogue, Served
from harness_serve.guard import Names, url_host
from harness_serve.handlers import Handlers, connect
from harness_serve.layout import lay_out
from harness_serve.listening import bound, serving
from harness_serve.login import PERSON, Admission, PageGuard
from harness_serve.lot import Lot
from harness_serve.standings import STYLE
from harness_serve.study import Study

if TYPE_CHECKING:
    from harness.votes.store import Ballots
    from harness_serve.keys import KeyFile

FOLDER = Path(__file__).parent
EXAMPLES = (
    "What can you help me with?",
    "Explain photosynthesis to a ten-year-old.",
    "Write a haiku about autumn rain.",
    "Give me three names for a bakery.",
)
MOST_TABS = 1_000  # whose sessions are kept; then the one that was used longest ago is forgotten
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def quieten() -> None:
    """Keep Gradio from reporting its use, from looking for newer versions, and from adding up figures of every click.

    Takes effect before it is imported.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"  # by itself a table of the last 10,000, made anew
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # at every click


@contextmanager
def serve_page(
    served: Served,
    ballots: Ballots,
    examples: Sequence[str] | None = None,
    *,
    names: Names | None = None,
    port: int = 7860,
    keys: KeyFile | None = None,
    study: Study | None = None,
) -> Iterator[str]:
    """Serve the page on `names.host` in threads of this process; yields its URL.

    Where the endpoint has a key, the page asks for it, or for one of the named `keys`: whoever reaches the page asks
    with the server's key. The name of a key is kept with what its holder judges.

    Raises:
        HarnessError: where the port is taken, or the page does not start.
    """
    quieten()
    names = names or Names()
    study = study or Study()
    app = page_app(served, ballots, examples or EXAMPLES, study)
    guard = PageGuard(app, names, served.endpoint.api_key, port, keys, Admission(study.sign_in, study.consent))
    with serving(guard, bound(names.host, port), ws="none"):
        yield f"http://{url_host(names.host)}:{port}"


def page_app(served: Served, ballots: Ballots, examples: Sequence[str], study: Study | None = None) -> Any:
    """Return the page as an ASGI application, without a guard.

    Beside it are the votes as a file to download, and `/served`, by which an open page knows that variants have
    changed.
    """
    gr, fastapi = require("gradio", "serving"), require("fastapi", "serving")
    app, catalogue = fastapi.FastAPI(openapi_url=None), Catalogue(served)

    def votes(request: Any, person: str = "", variant: str = "", verdict: str = "", text: str = "") -> Any:
        viewer, wanted = unquote(request.headers.get(PERSON.decode(), "")), Filter(person, variant, verdict, text)
        return fastapi.responses.StreamingResponse(rows(wanted.of(ballots, viewer)), media_type="application/jsonl")

    votes.__annotations__["request"] = fastapi.Request  # by which FastAPI knows what to pass
    app.get("/votes.jsonl", response_model=None)(votes)
    app.get("/served")(lambda: catalogue.version)
    page = build_page(served, catalogue, ballots, examples, study or Study())
    page.state_session_capacity = MOST_TABS
    mounted = gr.mount_gradio_app(
        app,
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
    # Gradio would hold a connection of every open tab. A browser has six for a host: with seven tabs nothing loads.
    page.config["connect_heartbeat"] = False
    return mounted


def build_page(served: Served, catalogue: Catalogue, ballots: Ballots, examples: Sequence[str], study: Study) -> Any:
    """Return the page as Gradio Blocks. Its handlers run on one event loop, as `Session` wants it."""
    gr = require("gradio", "serving")
    client = client_of(served.endpoint, Limits(timeout_s=600))
    client.open()
    consent = hashlib.sha256(study.consent.encode()).hexdigest()[:12] if study.consent else ""
    lot = Lot(ballots, by_information=study.by_information)
    handlers = Handlers(Shared(client, ballots, catalogue.known, consent), catalogue, lot, study)
    with gr.Blocks(title="Compare variants", analytics_enabled=False, fill_width=True) as page:
        components = lay_out(catalogue.known(), examples, served.variants, has_set=study.prompts is not None)
        connect(page, components, handlers, examples)
    return page


def _theme() -> Any:
    gr = require("gradio", "serving")
    return gr.themes.Base(
        primary_hue="slate", neutral_hue="slate", font=list(FONT), font_mono=list(MONO), radius_size="lg"
    )
