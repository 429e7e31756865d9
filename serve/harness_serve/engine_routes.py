"""The routes that only the engine's starter asks: adapters in and out, which modules they change, and the end.

They stand in the guard, in vLLM's process, so that vLLM's own such routes need not be switched on. Standard library
only: vLLM's objects are taken from the application's state.
"""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from harness_serve.guard import Receive, Scope, Send, error_json, read_body, respond
from harness_serve.records import Records

PREFIX = "/harness/engine/"
ROUTES = frozenset(("POST", PREFIX + name) for name in ("load", "publish", "unload", "active", "drain"))
LONGEST = 2**16
UNLOAD_S = 30.0  # how long an adapter's last answers are waited for


class EngineRoutes:
    """Adapters by name. A `staged` one is loaded, and not yet for everyone."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.staged: set[str] = set()
        self.draining = False

    def names(self, scope: Scope) -> list[str] | None:
        """Return the names that vLLM answers to; None where this is not vLLM."""
        models = getattr(scope["app"].state, "openai_serving_models", None) if "app" in scope else None
        return None if models is None else [*(base.name for base in models.base_model_paths), *models.lora_requests]

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one of ROUTES: the JSON of what it returns, or an error."""
        asked = json.loads(await read_body(receive, LONGEST) or b"{}")
        name = scope["path"].removeprefix(PREFIX)
        try:
            answer = await getattr(self, f"_{name}")(scope["app"].state if "app" in scope else None, **asked)
            status, body = 200, json.dumps(answer).encode()
        except ValueError as error:
            status, body = 409, error_json(409, str(error))
        await respond(send, status, body, (b"content-type", b"application/json"))

    async def _load(self, state: Any, name: str, path: str) -> dict[str, Any]:
        """Load an adapter that answers only to the engine's starter; returns the modules that it changes."""
        models = state.openai_serving_models
        request = SimpleNamespace(lora_name=name, lora_path=path, load_inplace=False, is_3d_lora_weight=False)
        self.staged.add(name)
        answer = await models.load_lora_adapter(request)
        if not isinstance(answer, str):
            self.staged.discard(name)
            raise ValueError(answer.error.message)
        return await self._active(state)

    async def _publish(self, state: Any, name: str) -> None:
        self.staged.discard(name)

    async def _unload(self, state: Any, name: str) -> bool:
        """Let nobody ask an adapter any more, and free its slot when its answers have ended; False where they go on."""
        models = state.openai_serving_models
        request = models.lora_requests.get(name)
        if request is None:
            raise ValueError(f"the engine has no adapter {name!r}")
        await models.unload_lora_adapter(SimpleNamespace(lora_name=name))
        self.staged.discard(name)
        waited = 0.0
        while self.records.in_flight[name] and waited < UNLOAD_S:
            await asyncio.sleep(0.1)
            waited += 0.1
        if self.records.in_flight[name]:  # vLLM would load it again from its folder for their next token
            return False
        await state.engine_client.remove_lora(request.lora_int_id)
        return True

    async def _active(self, state: Any) -> dict[str, Any]:
        """Return, for each replica, the modules that each adapter changes, by the adapter's name."""
        names = {request.lora_int_id: name for name, request in state.openai_serving_models.lora_requests.items()}
        if not names:
            return {"replicas": []}
        core = state.engine_client.engine_core
        replies = await core.call_utility_all_async("collective_rpc", "harness_active_modules", None, (), {})
        return {"replicas": [_by_name(workers, names) for workers in replies]}

    async def _drain(self, state: Any) -> int:
        """Take no more requests; returns how many are still answered."""
        self.draining = True
        return self.records.in_flight.total()


def _by_name(workers: list[dict[int, list[str]]], names: dict[int, str]) -> dict[str, list[str]]:
    """Return the modules of one replica, of which each worker has its part, by the adapter's name."""
    modules: dict[str, set[str]] = {name: set() for name in names.values()}
    for worker in workers:
        for number, its in worker.items():
            if int(number) in names:
                modules[names[int(number)]].update(its)
    return {name: sorted(its) for name, its in modules.items()}


async def relayed(socket: str | None, method: str, body: bytes | None, send: Send) -> None:
    """Pass a request about adapters on to the command that started the engine, and its lines back as they come."""
    if socket is None or body is None:
        await respond(send, 404, error_json(404, "this server's adapters cannot be changed"))
        return
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        reason = f"the command that started this engine does not answer ({error.strerror})"
        await respond(send, 503, error_json(503, reason), (b"content-type", b"application/json"))
        return
    try:
        asked = {"do": "list"} if method == "GET" else json.loads(body)
        writer.write(json.dumps(asked).encode() + b"\n")
        await writer.drain()
        kind = (b"content-type", b"application/jsonl")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        while line := await reader.readline():
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        writer.close()
