"""Laws of engines, started for a tiny run: a client is answered, prompts agree with training's, and it stops."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from harness.checks.parity import require_parity
from harness.client.ports import free_port
from harness.contract.engines import Endpoint
from harness.contract.kinds import Kind
from harness.errors import HarnessError, known_names
from harness.plugins.registry import Entry
from harness.run import Run
from harness.testing.laws.law import Kit, NotTried
from harness.testing.runs import tiny_run
from harness.variants import Variant, tuned_of

TIMEOUT_S = 60.0


def answers_and_stops(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require models by the variants' names, an answer to a chat, training's prompts where it tells, and an end."""
    engine, variants = entry.item, (_variant(kit),)
    options = kit.options(kind, entry).model_copy(update={"host": "127.0.0.1", "port": free_port()})
    if engine.unable is not None and (reason := engine.unable(variants, options)):
        raise NotTried(f"it cannot serve here: {reason}")
    if engine.refuses is not None and (reason := engine.refuses(variants[0])):
        raise NotTried(f"it refuses a LoRA adapter: {reason}")
    with engine.start(variants, options, lambda text: None) as endpoint:
        if not isinstance(endpoint, Endpoint):
            raise HarnessError(f"start yielded {endpoint!r:.80}, expected a harness.contract.Endpoint")
        if len(endpoint.models) != len(variants):
            raise HarnessError(f"it serves {known_names(endpoint.models)} for {len(variants)} variant")
        _require_answer(endpoint)
        require_parity(endpoint, variants)
    place = urlsplit(endpoint.url)
    with closing(socket.socket()) as client:
        client.settimeout(1)
        if client.connect_ex((place.hostname or "127.0.0.1", place.port or 80)) == 0:
            raise HarnessError(f"{endpoint.url} still answers after its context ended: stop every process it started")


LAWS = {"it answers, agrees and stops": answers_and_stops}


def _require_answer(endpoint: Endpoint) -> None:
    listed = {model.get("id") for model in _json(endpoint, "/models")["data"]}
    if missing := [name for name in endpoint.models if name not in listed]:
        raise HarnessError(
            f"{endpoint.url}/models does not list {missing[0]!r}; it lists {known_names(map(str, listed))}"
        )
    for model in endpoint.models:
        body = {"model": model, "messages": [{"role": "user", "content": "Who keeps the key?"}], "max_tokens": 4}
        answer = _json(endpoint, "/chat/completions", body)
        if not isinstance(answer["choices"][0]["message"]["content"], str):
            raise HarnessError(f"the model {model!r} gave no text: {json.dumps(answer)[:200]}")


def _json(endpoint: Endpoint, path: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(endpoint.url + path, data, headers), timeout=TIMEOUT_S
        ) as got:
            return json.load(got)
    except (urllib.error.URLError, ValueError, OSError) as error:
        raise HarnessError(f"{endpoint.url}{path}: {error}") from error


def _variant(kit: Kit) -> Variant:
    folder = kit.folder / "served"
    folder.mkdir(exist_ok=True)
    run = folder / "runs" / "demo"
    return tuned_of(Run.open(run if run.is_dir() else tiny_run(folder, plugins=kit.plugins), kit.plugins))
