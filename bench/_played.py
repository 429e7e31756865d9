"""An endpoint that answers everybody at the same pace, however many ask: a word after 50 ms, and one each 50 ms then.

python bench/_played.py PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvicorn

PACE_S, WORDS = 0.05, 20
HEADERS = [(b"content-type", b"text/event-stream")]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await _say(send, {"role": "assistant", "content": ""})
    for _ in range(WORDS):
        await asyncio.sleep(PACE_S)
        await _say(send, {"content": "word "})
    await _say(send, {}, "stop")
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _say(send: Any, delta: dict[str, str], finish: str | None = None) -> None:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    await send({"type": "http.response.body", "body": f"data: {json.dumps(chunk)}\n\n".encode(), "more_body": True})


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", lifespan="off")
