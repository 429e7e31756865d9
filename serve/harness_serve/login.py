"""The guard in front of the page: a login by key or name, and nothing of Gradio but what the page needs.

Gradio's server has some eighty routes: it takes uploads, serves files, proxies, describes its interface. Those that the
page asks for are listed here, and no other answers, so that a new one of a new Gradio is closed. The login is ours too:
without it not even Gradio's own scripts are served.
"""

from __future__ import annotations

import asyncio
import html
import re
import secrets
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote

from harness_serve.guard import App, Guard, Names, Receive, Scope, Send, adding, header, read_body, respond
from harness_serve.keys import KeyFile

PAUSE_S = 1.0  # what a wrong key costs, one after another
MOST_WAITING = 16  # logins that wait for their turn; more are told to come again
LONGEST_LOGIN = 4096  # bytes
MOST_SESSIONS = 10_000  # the oldest ends where there are more
LONGEST_NAME = 64
PERSON = b"x-harness-person"  # the header with the person's name, quoted, for what is behind the guard

# What the page in a browser asks for: paths, and folders that are only read.
READ = ("/", "/favicon.ico", "/theme.css", "/votes.jsonl", "/served", "/gradio_api/app_id", "/gradio_api/queue/data")
READ_BELOW = ("/assets/", "/static/")
SENT = ("/gradio_api/queue/join", "/gradio_api/cancel")

COMMON = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
# Gradio's page has scripts and styles in line and compiles its templates. Nothing comes from elsewhere or goes there.
PAGE_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    *COMMON,
)
OWN_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"same-origin"),  # with `no-referrer` browsers send a form from the origin `null`
    (b"cache-control", b"no-store"),
    *COMMON,
)
FRAME = (Path(__file__).parent / "door.html").read_text(encoding="utf-8")


class Login(NamedTuple):
    """A browser's login: the key that opened it, and the name that the person gave."""

    key: str
    name: str


class Admission(NamedTuple):
    """The conditions, beside a key, on which people get the page: a name, and that they agree to the text `consent`."""

    by_name: bool = False
    consent: str = ""


class PageGuard(Guard):
    """The page's guard. With a `key`, a browser gets the page after it has sent it, or one of the named `keys`.

    What is behind the guard hears the name of the key, or the name that the person gave where the `admission` asks for
    one, in a header, `PERSON`, which nobody else can send. A session ends
    with the server, or when its key is revoked. Cookies are shared by all servers of a host, whatever their port: with
    the `port` in its name, two pages do not log each other out.
    """

    def __init__(
        self,
        app: App,
        names: Names,
        key: str | None,
        port: int,
        keys: KeyFile | None = None,
        admission: Admission = Admission(),  # noqa: B008
    ) -> None:
        super().__init__(app, names)
        self.admission = admission
        self.key = key
        self.keys = keys
        self.cookie = f"harness-{port}".encode()
        self.sessions: dict[bytes, Login] = {}  # by cookie
        self.turn = asyncio.Lock()
        self.waiting = 0

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        person = self._person(scope)
        if scope["type"] != "http":
            await self.refuse(scope, send, 403, "the page has no WebSocket")
        elif person is None:
            if scope["method"] == "POST" and path == "/login":
                await self._log_in(scope, receive, send)
            else:
                await self._ask_at_the_door(scope, send, 401)
        elif path == "/login":  # asked for again, or told by a bookmark
            await respond(adding(send, OWN_HEADERS), 303, b"", (b"location", b"/"))
        elif not _is_needed(scope["method"], path):
            await self.refuse(scope, send, 404, f"the page has no `{path[:100]}`")
        else:
            others = [pair for pair in scope["headers"] if pair[0].lower() != PERSON]
            behind = {**scope, "headers": [*others, (PERSON, quote(person).encode())]}
            await self.app(behind, receive, adding(send, PAGE_HEADERS))

    async def refuse(self, scope: Scope, send: Send, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        if scope["type"] == "http" and _is_for_people(scope):
            shown = re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(reason[:1].upper() + reason[1:]))
            body = f"<h1>{'There is nothing here' if status == 404 else 'Refused'}</h1><p>{shown}.</p>"
            await _respond_with_page(send, status, body, *headers)
        else:
            await super().refuse(scope, adding(send, OWN_HEADERS), status, reason, *headers)

    def _person(self, scope: Scope) -> str | None:
        """Return the name of this browser's key, or else the name that was given, "" without one; None for nobody."""
        if not (self._wants_key or any(self.admission)):
            return ""
        cookies = b";".join(header(scope, b"cookie")).split(b";")
        for name, _, value in (cookie.strip().partition(b"=") for cookie in cookies):
            if name == self.cookie and (login := self.sessions.get(value)) is not None:
                opened = self._opened_by(login.key)
                return None if opened is None else opened or login.name
        return None

    @property
    def _wants_key(self) -> bool:
        return self.key is not None or self.keys is not None

    def _opened_by(self, given: str) -> str | None:
        """Return the name of a key that opens the page now, "" for that of the server; None for any other text."""
        if not self._wants_key:
            return ""
        if self.key is not None and secrets.compare_digest(given.encode(), self.key.encode()):
            return ""
        key = self.keys.of(given) if self.keys is not None else None
        return None if key is None else key.name

    async def _ask_at_the_door(self, scope: Scope, send: Send, status: int, problem: str = "") -> None:
        if not (_is_for_people(scope) or problem):
            await self.refuse(scope, send, status, "log in on the page first")
            return
        by_name, consent = self.admission
        lead = "This page asks for your name, which is kept with what you judge."
        if self._wants_key:
            lead = "This page asks for the key that the server was started with (<code>HARNESS_API_KEY</code>)."
            if self.keys is not None:
                lead = "This page asks for your key, which whoever started the server made for you."
        fields = (
            '<input name="user" autocomplete="username" value="harness" hidden readonly>' if self._wants_key else ""
        )
        if self._wants_key:
            fields += (
                '<label for="key">Key</label><input id="key" name="key" type="password" '
                'autocomplete="current-password" required autofocus>'
            )
        if by_name:
            needed = "" if self.keys is not None else "required"
            fields += (
                f'<label for="name">Your name</label><input id="name" name="name" maxlength="{LONGEST_NAME}" '
                f'autocomplete="nickname" {needed}>'
            )
        if consent:
            fields += (
                f'<div class="consent">{html.escape(consent)}</div><label class="agreed"><input type="checkbox" '
                'name="agreed" value="yes" required> I have read this and agree</label>'
            )
        alert = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
        button = "Log in" if self._wants_key else "Begin"
        form = f'<form method="post" action="/login">{fields}{alert}<button>{button}</button></form>'
        await _respond_with_page(send, status, f"<h1>Compare</h1><p>{lead}</p>{form}")

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compare one key at a time, pausing after a wrong one: guessing at once on many connections gains nothing."""
        given = await _form_values(receive)
        if self.waiting >= MOST_WAITING:
            await self._ask_at_the_door(scope, send, 429, "Too many are trying to log in. Try again in a moment.")
            return
        self.waiting += 1
        try:
            async with self.turn:
                opened = self._opened_by(given.get("key", ""))
                if opened is None:
                    await asyncio.sleep(PAUSE_S)
        finally:
            self.waiting -= 1
        name = " ".join("".join(letter for letter in given.get("name", "") if letter.isprintable()).split())
        name = name[:LONGEST_NAME] if self.admission.by_name else ""
        problem = ""
        if opened is None:
            problem = "That is not the key."
        elif self.admission.by_name and not (opened or name):
            problem = "Please give a name."
        elif self.admission.consent and given.get("agreed") != "yes":
            problem = "The page is open to those who agree."
        if problem:
            await self._ask_at_the_door(scope, send, 401, problem)
            return
        secure = b"; Secure" if scope.get("scheme") == "https" else b""
        session = secrets.token_urlsafe(32).encode()
        while len(self.sessions) >= MOST_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        self.sessions[session] = Login(given.get("key", ""), name)
        cookie = self.cookie + b"=" + session + b"; Path=/; HttpOnly; SameSite=Lax" + secure
        await respond(adding(send, OWN_HEADERS), 303, b"", (b"location", b"/"), (b"set-cookie", cookie))


def _is_needed(method: str, path: str) -> bool:
    if method == "POST":
        return path in SENT
    return method in ("GET", "HEAD") and (path in READ or path.startswith(READ_BELOW))


def _is_for_people(scope: Scope) -> bool:
    return any(b"text/html" in value for value in header(scope, b"accept"))


async def _form_values(receive: Receive) -> dict[str, str]:
    """Read a form's fields; none where the form is too long."""
    body = await read_body(receive, LONGEST_LOGIN) or b""
    return {name: values[0] for name, values in parse_qs(body.decode("latin-1"), errors="replace").items()}


async def _respond_with_page(send: Send, status: int, body: str, *headers: tuple[bytes, bytes]) -> None:
    page = FRAME.replace("<!-- body -->", body).encode()
    kind = (b"content-type", b"text/html; charset=utf-8")
    await respond(adding(send, OWN_HEADERS), status, page, kind, *headers)
