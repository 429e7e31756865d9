"""The harness as a client of the engine it started: one request, one decoded answer, errors that name the log."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

import harness
from harness.contract import Endpoint

TIMEOUT_S = 300.0


def get(endpoint: Endpoint, path: str) -> Any:
    """What the endpoint answers to a GET. Raises HarnessError where it refuses or does not answer."""
    return _ask(endpoint, path, None, "the engine")


def post(endpoint: Endpoint, path: str, body: dict[str, Any]) -> Any:
    """What the endpoint answers to a POST of `body`. Raises HarnessError where it refuses or does not answer."""
    return _ask(endpoint, path, json.dumps(body).encode(), body["model"])


def _ask(endpoint: Endpoint, path: str, body: bytes | None, asked: str) -> Any:
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    log = f"\nThe log: {endpoint.settings['log']}" if "log" in endpoint.settings else ""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(endpoint.url + path, body, headers), timeout=TIMEOUT_S
        ) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        told = error.read().decode(errors="replace")[:500]
        raise harness.HarnessError(f"{asked} refuses what the harness asks ({error.code}): {told}{log}") from None
    except (OSError, http.client.HTTPException) as error:  # no connection, a torn one, or no answer in time
        raise harness.HarnessError(f"{asked} does not answer: {error}{log}") from None
