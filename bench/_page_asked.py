"""People who ask on the page without a browser, over Gradio's protocol: the time until an answer's first words."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

import httpx

CONFIG = re.compile(r"window\.gradio_config = (\{.*?\});\s*(?:window|</script>)", re.DOTALL)
FIRST_WORDS = b"<p>word"  # of what the played endpoint says


@dataclass(frozen=True, slots=True)
class Event:
    """One of the page's events: its number, and the values of its inputs as the page has them at first."""

    number: int
    inputs: tuple[int, ...]
    values: tuple[Any, ...]

    def given(self, **values: Any) -> list[Any]:
        """Return the inputs, some with other values, by the numbers of their components (`_7=...`)."""
        return [values.get(f"_{id}", value) for id, value in zip(self.inputs, self.values, strict=True)]


class Page:
    """The page at a URL: its components by `elem_id`, and its events."""

    def __init__(self, url: str) -> None:
        match = CONFIG.search(httpx.get(url).text)
        assert match is not None
        self.url, self.config = url, json.loads(match[1])
        self.ids = {part["props"].get("elem_id"): part["id"] for part in self.config["components"]}

    def event(self, part: int | None, kind: str) -> Event:
        """Return the event of a component, or of the page itself."""
        values = {part["id"]: part["props"].get("value") for part in self.config["components"]}
        for its in self.config["dependencies"]:
            if any(name == kind and (part is None or id == part) for id, name in its["targets"]):
                return Event(its["id"], tuple(its["inputs"]), tuple(values[id] for id in its["inputs"]))
        raise LookupError(f"the page has no event {kind} of {part}")


async def first_words_s(page: Page, at_once: int, number: int) -> list[float]:
    """Return the seconds until each of so many people sees the first words in Chat; all ask at the same moment."""
    loaded, asked = page.event(None, "load"), page.event(page.ids["prompt"], "submit")
    mode = {f"_{page.ids['mode']}": "Chat"}
    limits = httpx.Limits(max_connections=2 * at_once)
    async with httpx.AsyncClient(base_url=f"{page.url}/gradio_api/queue", timeout=120, limits=limits) as client:
        people = [secrets.token_hex(5) for _ in range(at_once)]

        async def one(person: str, event: Event, until: bytes, **values: Any) -> float:
            began = time.perf_counter()
            body = {"fn_index": event.number, "session_hash": person, "data": event.given(**values, **mode)}
            (await client.post("/join", json=body)).raise_for_status()
            seen = None
            async with client.stream("GET", "/data", params={"session_hash": person}) as news:
                async for line in news.aiter_lines():
                    if seen is None and until in line.encode():
                        seen = time.perf_counter() - began
            assert seen is not None
            return seen

        await asyncio.gather(*(one(person, loaded, b"process_completed") for person in people))
        question = {f"_{page.ids['prompt']}": f"Round {number}: what is there to see by the sea?"}
        return list(await asyncio.gather(*(one(person, asked, FIRST_WORDS, **question) for person in people)))
