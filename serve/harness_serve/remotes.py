"""Models of other OpenAI-compatible endpoints, asked through the guard under names of their own.

Their keys come from the environment of the engine's process, and no client sees them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

import httpx

from harness.nouns import Remote
from harness_serve.guard import Receive, Send, error_json, respond
from harness_serve.records import Record

PATHS = ("/v1/chat/completions", "/v1/completions")
TIMEOUT = httpx.Timeout(600.0, connect=10.0)
DONE = b"data: [DONE]\n\n"  # how a stream of OpenAI's API ends
JSON = (b"content-type", b"application/json")


class Remotes:
    """The remote models by the names under which they answer here."""

    def __init__(self, remotes: Mapping[str, Remote]) -> None:
        self.remotes = dict(remotes)
        self._client = httpx.AsyncClient(timeout=TIMEOUT) if remotes else None

    @classmethod
    def of(cls, settings: Mapping[str, Mapping[str, str]]) -> Remotes:
        """Return the remotes of `as_settings`."""
        return cls({name: Remote(**fields) for name, fields in settings.items()})

    def __contains__(self, model: str | None) -> bool:
        return model in self.remotes

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.remotes)

    def cards(self) -> list[dict[str, Any]]:
        """Return their entries in the list of models."""
        return [
            {"id": name, "object": "model", "created": 0, "owned_by": remote.url}
            for name, remote in self.remotes.items()
        ]

    async def answer(self, path: str, asked: dict[str, Any], receive: Receive, send: Send, record: Record) -> None:
        """Pass a request on and the answer back as it comes; hang up there when the client here has gone."""
        name = asked["model"]
        if path not in PATHS:
            reason = f"{name} is a model of another endpoint, which is asked by {' and '.join(PATHS)} only"
            await respond(send, 404, error_json(404, reason), JSON)
            return
        work = asyncio.ensure_future(self._passed_on(name, path, asked, send, record))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _passed_on(self, name: str, path: str, asked: dict[str, Any], send: Send, record: Record) -> None:
        remote, key = self.remotes[name], os.environ.get(self.remotes[name].key_variable)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        has_started = False
        assert self._client is not None
        try:
            body = {**asked, "model": remote.model}
            url = remote.url + path.removeprefix("/v1")
            async with self._client.stream("POST", url, json=body, headers=headers) as answer:
                if answer.status_code >= 400:
                    reason = _refusal(name, remote, answer.status_code, await answer.aread())
                    record.problem = reason
                    status = answer.status_code if answer.status_code not in (401, 403) else 502
                    await respond(send, status, error_json(status, reason), JSON)
                    return
                kind = answer.headers.get("content-type", "application/json").encode("latin-1")
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
                has_started = True
                end = b""
                async for piece in answer.aiter_bytes():
                    end = (end + piece)[-len(DONE) :]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if kind.startswith(b"text/event-stream") and end != DONE:  # which HTTP/1.0 cannot tell from its end
                    raise httpx.RemoteProtocolError("it ended before [DONE]")
                await send({"type": "http.response.body", "body": b""})
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            record.problem = f"{name}: nothing answers at {remote.url} ({cause})"
            if not has_started:
                await respond(send, 502, error_json(502, record.problem), JSON)
                return
            record.problem = f"{name}: the connection to {remote.url} was lost ({cause})"
            event = b"data: " + error_json(502, record.problem) + b"\n\n" + DONE
            await send({"type": "http.response.body", "body": event})


def as_settings(remotes: Mapping[str, Remote]) -> dict[str, dict[str, str]]:
    """Return the remotes as JSON has them, for another process."""
    return {
        name: {"url": remote.url, "model": remote.model, "key_variable": remote.key_variable}
        for name, remote in remotes.items()
    }


def _refusal(name: str, remote: Remote, status: int, body: bytes) -> str:
    """Return why the remote endpoint refused, in words."""
    if status in (401, 403):
        return f"{name}: {remote.url} refused the key of this server; where it is started, set {remote.key_variable}"
    try:
        answer = json.loads(body)
        message = answer["error"]["message"] if isinstance(answer.get("error"), dict) else answer
    except (ValueError, KeyError, AttributeError):
        message = body.decode(errors="replace")
    return f"{name}: {remote.url} answered {status}: {str(message)[:500]}"


async def _gone(receive: Receive) -> None:
    """Return when the client has hung up: the one message that comes after the whole body."""
    if (await receive())["type"] != "http.disconnect":
        await asyncio.Event().wait()
