"""The guard in the engine's process: which routes of vLLM answer, to whose key, how often, and of what size.

vLLM's server has some hundred routes. Besides those that answer prompts it has ones that pause it, replace its weights
or load adapters, and a new version adds more. Those that applications ask are listed here, and no other answers. vLLM
loads the guard with `--middleware harness_serve.engine_guard.EngineGuard`. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness_serve.guard import App, Guard, Names, Receive, Scope, Send, header, read_body, respond
from harness_serve.keys import Allowance, Key, KeyFile

NAMES_VARIABLE = "HARNESS_SERVE_NAMES"  # how the engine's process hears of its names,
OWNER_KEY_VARIABLE = "HARNESS_SERVE_OWNER_KEY"  # of the key of whoever started it,
KEYS_VARIABLE = "HARNESS_SERVE_KEYS"  # of the file with everybody else's,
LONGEST_VARIABLE = "HARNESS_SERVE_LONGEST"  # and of the size of the largest request, in bytes
LONGEST = 16 * 2**20

OPEN_PATHS = ("/health", "/ping")
READ = frozenset((*OPEN_PATHS, "/v1/models", "/version", "/load", "/metrics"))
SENT = frozenset(
    (
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        *("/tokenize", "/detokenize", "/ping"),
    )
)
ONE_MODEL = "/v1/models/"
EMPTY_MODEL = re.compile(rb'"model"\s*:\s*""')
RESPONSE = re.compile(r"/v1/responses/[A-Za-z0-9_-]+(?P<cancel>/cancel)?")


class EngineGuard(Guard):
    """The guard in vLLM's process. Names, keys and sizes come from the environment."""

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        host, *allowed = json.loads(os.environ[NAMES_VARIABLE])
        super().__init__(app, Names(host, tuple(allowed)))
        self.owner_key = os.environ.get(OWNER_KEY_VARIABLE)
        self.keys = KeyFile(Path(named)) if (named := os.environ.get(KEYS_VARIABLE)) else None
        self.longest = int(os.environ.get(LONGEST_VARIABLE, LONGEST))
        self.clock = clock
        self.allowances: defaultdict[str, Allowance] = defaultdict(Allowance)

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] == "http" and path in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        key = None
        if self.owner_key is not None or self.keys is not None:
            given = _token(scope)
            if not (self.owner_key is not None and secrets.compare_digest(given, self.owner_key.encode())):
                key = self.keys.of(given.decode("latin-1")) if self.keys is not None else None
                if key is None:
                    bearer = (b"www-authenticate", b"Bearer")
                    await self.refuse(scope, send, 401, "the API key is missing, wrong or revoked", bearer)
                    return
        method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        if method == "GET" and path.startswith(ONE_MODEL):
            await self._one_model(scope, receive, send)
        elif not _answers(method, path):
            await self.refuse(scope, send, 404, f"this server has no {method} {path[:100]}")
        elif method == "GET":
            await self.app(scope, receive, send)
        else:
            await self._answer(key, scope, receive, send)

    async def _answer(self, key: Key | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on that asks for an answer, if its key may ask now and it is neither too long nor for nobody.

        The whole body is read before vLLM sees any of it.
        """
        if key is not None:
            allowance = self.allowances[key.name]
            if (refusal := allowance.refusal(key, self.clock())) is not None:
                reason, wait_s = refusal
                await self.refuse(scope, send, 429, reason, (b"retry-after", str(wait_s).encode()))
                return
            allowance.times.append(self.clock())
            allowance.in_flight += 1
        try:
            body = await _body(scope, receive, self.longest)
            if body is None:
                reason = (
                    f"the request is larger than {self.longest / 2**20:g} MiB (--set max_request_mib=N allows more)"
                )
                await self.refuse(scope, send, 413, reason)
            elif _names_no_model(body):
                await self.refuse(scope, send, 404, "the model '' does not exist: /v1/models lists those that do")
            else:
                await self.app(scope, _replayed(body, receive), send)
        finally:
            if key is not None:
                allowance.in_flight -= 1

    async def _one_model(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as OpenAI's API does for one model, out of vLLM's list of all."""
        wanted = scope["path"].removeprefix(ONE_MODEL)
        parts: list[bytes] = []
        status = 500

        async def keep(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        await self.app({**scope, "path": "/v1/models", "raw_path": b"/v1/models"}, receive, keep)
        models = json.loads(b"".join(parts))["data"] if status == 200 else []
        model = next((model for model in models if model["id"] == wanted), None)
        if model is None:
            names = ", ".join(str(model["id"]) for model in models)
            await self.refuse(scope, send, 404, f"the model {wanted[:100]!r} does not exist; there are: {names}")
            return
        await respond(send, 200, json.dumps(model).encode(), (b"content-type", b"application/json"))


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


def _names_no_model(body: bytes) -> bool:
    """Return True where `model` is an empty text, which vLLM takes for the base model."""
    if EMPTY_MODEL.search(body) is None:
        return False
    try:
        asked = json.loads(body)
    except ValueError:  # vLLM says so
        return False
    return isinstance(asked, dict) and asked.get("model") == ""
