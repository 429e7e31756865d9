"""The guard in the engine's process: which routes of vLLM answer, to whose key, how often, and of what size.

vLLM's server has some hundred routes. Besides those that answer prompts it has ones that pause it, replace its weights
or load adapters, and a new version adds more. Those that applications ask are listed here, and no other answers. vLLM
loads the guard with `--middleware harness_serve.engine_guard.EngineGuard`. What only the engine's starter may do is in
`engine_routes.py`, models of other endpoints are asked by `remotes.py`, and each request is noted by `records.py`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_serve.engine_log import why_it_ended
from harness_serve.engine_routes import ROUTES, EngineRoutes, relayed
from harness_serve.guard import (
    App,
    Guard,
    Names,
    Receive,
    Scope,
    Send,
    adding,
    error_json,
    header,
    read_body,
    respond,
)
from harness_serve.keys import Allowance, Key, KeyFile
from harness_serve.records import Record, Records, counts_nothing, without_usage
from harness_serve.remotes import Remotes

NAMES_VARIABLE = "HARNESS_SERVE_NAMES"  # how the engine's process hears of its names,
OWNER_KEY_VARIABLE = "HARNESS_SERVE_OWNER_KEY"  # of the key of whoever started it,
KEYS_VARIABLE = "HARNESS_SERVE_KEYS"  # of the file with everybody else's,
LONGEST_VARIABLE = "HARNESS_SERVE_LONGEST"  # of the size of the largest request, in bytes,
SETTINGS_VARIABLE = "HARNESS_SERVE_SETTINGS"  # and of the rest: a JSON object with the fields of Settings
LONGEST = 16 * 2**20
RETRY_S = 10  # after which a request may succeed that came while the engine was ending

OPEN_PATHS = ("/health", "/ping")
READ = frozenset((*OPEN_PATHS, "/v1/models", "/version", "/load", "/metrics"))
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SENT = frozenset(
    (
        *(CHAT, COMPLETIONS, "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        *("/tokenize", "/detokenize", "/ping"),
    )
)
ONE_MODEL = "/v1/models/"
ADAPTERS = "/harness/adapters"  # relayed to the command that started the engine
RESPONSE = re.compile(r"/v1/responses/[A-Za-z0-9_-]+(?P<cancel>/cancel)?")


@dataclass(frozen=True, slots=True)
class Settings:
    """The guard's settings besides names and keys. `control_key` opens `engine_routes`."""

    control_key: str | None = None
    control_socket: str | None = None
    request_log: str | None = None
    log_prompts: bool = False
    engine_log: str | None = None
    remotes: Mapping[str, Mapping[str, str]] | None = None
    reads_calls: bool = True  # vLLM has a parser of tool calls
    greedy: bool = True  # answers are, of requests that set no temperature
    allow_origins: Sequence[str] = ()  # whose pages may ask


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks: the engine's starter (`controls`), the owner's key, a named key, or anybody where there is none."""

    name: str | None = None
    key: Key | None = None
    controls: bool = False

    def may(self, what: str) -> bool:
        return self.controls or (self.key is not None and what in self.key.may)


class EngineGuard(Guard):
    """The guard in vLLM's process. Names, keys and sizes come from the environment."""

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        host, *allowed = json.loads(os.environ[NAMES_VARIABLE])
        super().__init__(app, Names(host, tuple(allowed)))
        self.owner_key = os.environ.get(OWNER_KEY_VARIABLE)
        self.keys = KeyFile(Path(named)) if (named := os.environ.get(KEYS_VARIABLE)) else None
        self.longest = int(os.environ.get(LONGEST_VARIABLE, LONGEST))
        self.settings = Settings(**json.loads(os.environ.get(SETTINGS_VARIABLE, "{}")))
        self.clock = clock
        self.allowances: defaultdict[str, Allowance] = defaultdict(Allowance)
        log = self.settings.request_log
        self.records = Records(Path(log) if log is not None else None, clock)
        self.routes = EngineRoutes(self.records)
        self.remotes = Remotes.of(self.settings.remotes or {})

    def foreign(self, scope: Scope) -> str | None:
        return None if self._named_origin(scope) is not None else super().foreign(scope)

    def _named_origin(self, scope: Scope) -> bytes | None:
        """Return the origin of the page that makes a request, if it is one of those that may ask."""
        origins = header(scope, b"origin")
        is_named = len(origins) == 1 and origins[0].decode("latin-1").lower() in self.settings.allow_origins
        return origins[0] if is_named else None

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (origin := self._named_origin(scope)) is not None:
            send = adding(send, ((b"access-control-allow-origin", origin), (b"vary", b"origin")))
            if scope["method"] == "OPTIONS":  # a browser asks before it sends the key
                asked = header(scope, b"access-control-request-headers")[:1]
                allowed = [(b"access-control-allow-headers", value) for value in asked]
                await respond(send, 204, b"", (b"access-control-allow-methods", b"GET, POST"), *allowed)
                return
        path = scope["path"]
        if scope["type"] == "http" and path in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        caller = self._caller(scope)
        if caller is not None and caller.controls:
            await self._admitted(caller, method, scope, receive, send, Record(None, method, path))
            return
        known = _answers(method, path) or path == ADAPTERS
        record = Record(caller.name if caller else None, method, path if known else "other")
        record.began = self.clock()
        try:
            watched = record.watched(send)
            if caller is None:
                bearer = (b"www-authenticate", b"Bearer")
                await self.refuse(scope, watched, 401, "the API key is missing, wrong or revoked", bearer)
            else:
                await self._admitted(caller, method, scope, receive, watched, record)
        finally:
            self.records.end(record)

    def _caller(self, scope: Scope) -> Caller | None:
        """Return who asks; None for a key that opens nothing."""
        given, control = _token(scope), self.settings.control_key
        if control is not None and secrets.compare_digest(given, control.encode()):
            return Caller(controls=True)
        if self.owner_key is None and self.keys is None:
            return Caller()
        if self.owner_key is not None and secrets.compare_digest(given, self.owner_key.encode()):
            return Caller("owner")
        key = self.keys.of(given.decode("latin-1")) if self.keys is not None else None
        return None if key is None else Caller(key.name, key)

    async def _admitted(
        self, caller: Caller, method: str, scope: Scope, receive: Receive, send: Send, record: Record
    ) -> None:
        path = scope["path"]
        if caller.controls and (method, path) in ROUTES:
            await self.routes.answer(scope, receive, send)
        elif path == ADAPTERS:
            if not caller.may("adapters"):
                reason = "this key may not change adapters: `harness keys make NAME --may adapters` makes one that may"
                await self.refuse(scope, send, 403, reason)
            else:
                await relayed(self.settings.control_socket, method, await read_body(receive, self.longest), send)
        elif method == "GET" and path.startswith(ONE_MODEL):
            await self._one_model(caller, scope, receive, send)
        elif not _answers(method, path):
            await self.refuse(scope, send, 404, f"this server has no {method} {path[:100]}")
        elif path == "/v1/models":
            models = await self._models(caller, scope, receive)
            await _send_json(send, {"object": "list", "data": models})
        elif path == "/metrics":
            await self._metrics(caller, scope, receive, send)
        elif method == "GET":
            await self.app(scope, receive, send)
        else:
            await self._allowed(caller, scope, receive, send, record)

    async def _allowed(self, caller: Caller, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        """Pass a request on that asks for an answer, if its key may ask now."""
        if self.routes.draining and not caller.controls:
            again = (b"retry-after", str(RETRY_S).encode())
            await self.refuse(scope, send, 503, "this server is being stopped and takes no more requests", again)
            return
        if (key := caller.key) is None:
            await self._answer(caller, scope, receive, send, record)
            return
        allowance = self.allowances[key.name]
        if (refusal := allowance.refusal(key, self.clock())) is not None:
            record.problem, wait_s = refusal
            await self.refuse(scope, send, 429, record.problem, (b"retry-after", str(wait_s).encode()))
            return
        allowance.times.append(self.clock())
        allowance.in_flight += 1
        try:
            await self._answer(caller, scope, receive, send, record)
        finally:
            allowance.in_flight -= 1

    async def _answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        """Pass a request on that is neither too long nor for nobody. vLLM sees nothing of it before it is whole."""
        body = await _body(scope, receive, self.longest)
        if body is None:
            reason = f"the request is larger than {self.longest / 2**20:g} MiB (--set max_request_mib=N allows more)"
            await self.refuse(scope, send, 413, reason)
            return
        asked = _read(body)
        model = record.model = asked.get("model") if isinstance(asked.get("model"), str) else None
        if self.settings.log_prompts:
            record.asked = asked
        if (refusal := self._refusal(caller, scope, asked, model)) is not None:
            await self.refuse(scope, send, *refusal)
            return
        in_flight = self.records.in_flight
        in_flight[model or ""] += 1
        try:
            if model in self.remotes:
                await self.remotes.answer(scope["path"], asked, receive, send, record)
                return
            if scope["path"] in (CHAT, COMPLETIONS) and asked.get("stream") is True and counts_nothing(asked):
                asked["stream_options"] = {**(asked.get("stream_options") or {}), "include_usage": True}
                body, send = json.dumps(asked).encode(), without_usage(send, record)
            await self.app(scope, _replayed(body, receive), self._explained(scope, send, record))
        finally:
            in_flight[model or ""] -= 1

    def _refusal(
        self, caller: Caller, scope: Scope, asked: Mapping[str, Any], model: str | None
    ) -> tuple[int, str] | None:
        """Return status and reason where vLLM would answer for another model, or with advice nobody can take."""
        names = self.routes.names(scope)
        if names is not None:
            names = [
                *(name for name in names if caller.controls or name not in self.routes.staged),
                *self.remotes.names,
            ]
        if model is not None and names is not None and model not in names:
            return 404, f"the model {model[:100]!r} does not exist; there are: {', '.join(names)}"
        if model == "":
            return 404, "the model '' does not exist: /v1/models lists those that do"
        n, temperature = asked.get("n"), asked.get("temperature")
        is_greedy = self.settings.greedy if temperature is None else temperature == 0
        is_greedy = is_greedy and not asked.get("use_beam_search") and model not in self.remotes
        if is_greedy and isinstance(n, int) and n > 1:
            return 400, (
                f"n is {n}, and without a temperature above 0 all answers would be the same, as this server answers "
                f"greedily by default"
            )
        calls = asked.get("tools") and asked.get("tool_choice", "auto") == "auto" and model not in self.remotes
        if calls and not self.settings.reads_calls and scope["path"] == CHAT:
            return 400, (
                "this server reads no tool calls, as its chat template writes none. Where it is started, `--set "
                'tool_parser=NAME` names a parser; with "tool_choice": "none" the model only sees the tools'
            )
        return None

    def _explained(self, scope: Scope, send: Send, record: Record) -> Send:
        """Return a `send` that says why, where the engine has died under a request: 503, and in a stream the error."""
        is_replaced = False

        async def sending(message: Any) -> None:
            nonlocal is_replaced
            status, body = message.get("status", 200), message.get("body", b"")
            if is_replaced or not (status >= 500 or b'"error"' in body) or not _has_died(scope):
                if not is_replaced:
                    await send(message)
                return
            why = why_it_ended(Path(self.settings.engine_log)) if self.settings.engine_log else "it did not say why"
            record.problem = reason = f"the engine has ended: {why}. It is started again: try later"
            if message["type"] == "http.response.start":
                is_replaced = True
                await self.refuse(scope, send, 503, reason, (b"retry-after", str(RETRY_S).encode()))
            else:
                event = b"data: " + error_json(503, reason) + b"\n\n"
                await send({**message, "body": event + (b"data: [DONE]\n\n" if b"[DONE]" in body else b"")})

        return sending

    async def _metrics(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with vLLM's metrics and the guard's own behind them."""
        if caller.key is not None and not caller.may("metrics"):
            reason = "this key may not read the metrics: `harness keys make NAME --may metrics` makes one that may"
            await self.refuse(scope, send, 403, reason)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        _, body = await _collected(self.app, {**scope, "headers": headers}, receive)
        text = body.rstrip(b"\n") + b"\n" + self.records.exposition().encode()
        await respond(send, 200, text, (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"))

    async def _models(self, caller: Caller, scope: Scope, receive: Receive) -> list[dict[str, Any]]:
        """Return vLLM's list of its models, without what is not published yet, and the remote ones."""
        scope = {**scope, "path": "/v1/models", "raw_path": b"/v1/models"}
        status, body = await _collected(self.app, scope, receive)
        models = json.loads(body)["data"] if status == 200 else []
        if not caller.controls:
            models = [model for model in models if model["id"] not in self.routes.staged]
        return [*models, *self.remotes.cards()]

    async def _one_model(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as OpenAI's API does for one model, out of the list of all."""
        wanted = scope["path"].removeprefix(ONE_MODEL)
        models = await self._models(caller, scope, receive)
        model = next((model for model in models if model["id"] == wanted), None)
        if model is None:
            names = ", ".join(str(model["id"]) for model in models)
            await self.refuse(scope, send, 404, f"the model {wanted[:100]!r} does not exist; there are: {names}")
            return
        await _send_json(send, model)


def _answers(method: str, path: str) -> bool:
    """Return True for a route that applications ask."""
    if (response := RESPONSE.fullmatch(path)) is not None:
        return method == ("POST" if response["cancel"] else "GET")
    return path in {"GET": READ, "POST": SENT}.get(method, ())


def _token(scope: Scope) -> bytes:
    """Return the one key that was sent, after `Bearer` or, as Anthropic's clients do, in `x-api-key`; else nothing."""
    given, other = header(scope, b"authorization"), header(scope, b"x-api-key")
    if len(given) + len(other) != 1:
        return b""
    scheme, _, token = given[0].partition(b" ") if given else (b"bearer", b"", other[0])
    return token.strip() if scheme.lower() == b"bearer" else b""


def _read(body: bytes) -> dict[str, Any]:
    """Return a request as JSON; empty where it is none, which vLLM says itself."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def _has_died(scope: Scope) -> bool:
    """Return True where vLLM's server still runs, and its engine does not."""
    client = getattr(scope["app"].state, "engine_client", None) if "app" in scope else None
    return client is not None and bool(client.errored)


async def _collected(app: App, scope: Scope, receive: Receive) -> tuple[int, bytes]:
    """Return the status and the body of what an application answers."""
    parts: list[bytes] = []
    status = 500

    async def keep(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    await app(scope, receive, keep)
    return status, b"".join(parts)


async def _send_json(send: Send, value: Any) -> None:
    await respond(send, 200, json.dumps(value).encode(), (b"content-type", b"application/json"))


async def _body(scope: Scope, receive: Receive, longest: int) -> bytes | None:
    """Return the body of a request; None where it is larger than `longest` bytes."""
    announced = header(scope, b"content-length")
    if announced and announced[0].isdigit() and int(announced[0]) > longest:
        return None  # before anything is read
    return await read_body(receive, longest)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that was read, then what comes after it: that the client has gone."""
    is_given = False

    async def receiving() -> Any:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return receiving
