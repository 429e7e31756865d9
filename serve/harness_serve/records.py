"""The records of requests in the engine's process: one JSON line each, and counters for Prometheus.

A line has the time, the key's name, route, model, status, tokens and latency; what was asked is in it only with
`log_prompts`. Standard library only.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness_serve.guard import Send

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# In an answer quotes stand behind a backslash, so that none of it is taken for these.
PROMPT_TOKENS = re.compile(rb'"(?:prompt|input)_tokens":\s*(\d+)')
ANSWER_TOKENS = re.compile(rb'"(?:completion|output)_tokens":\s*(\d+)')
NO_CHOICES = b'"choices":[]'  # of the piece that has the usage; in an answer's text the quotes would be escaped
LONGEST_LABEL = 128
LARGEST_LOG = 64 * 2**20  # bytes; a log that has them goes to NAME.1, in place of the one before


@dataclass(slots=True)
class Record:
    """One request, filled while it is answered. `first_s` and `seconds` count from when it came."""

    key: str | None
    method: str
    route: str
    model: str | None = None
    status: int | None = None  # None: the client had gone before there was one
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_s: float | None = None
    seconds: float = 0.0
    problem: str | None = None
    asked: Any = None
    began: float = field(default_factory=time.monotonic)

    def watched(self, send: Send) -> Send:
        """Return a `send` that passes everything on and notes status, tokens and the time of the first piece."""

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            elif body := message.get("body"):
                if self.first_s is None:
                    self.first_s = time.monotonic() - self.began
                if b'_tokens":' in body:
                    self.count(body)
            await send(message)

        return sending

    def count(self, body: bytes) -> None:
        """Note the tokens that a piece of the answer tells."""
        if counts := PROMPT_TOKENS.findall(body):
            self.prompt_tokens = int(counts[-1])
        if counts := ANSWER_TOKENS.findall(body):
            self.completion_tokens = int(counts[-1])

    def as_line(self) -> str:
        """Return the record as one line of JSON, without what is not known."""
        shown: dict[str, Any] = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "event": "request",
            "key": self.key,
            "method": self.method,
            "route": self.route,
            "model": self.model,
            "status": self.status,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "first_s": None if self.first_s is None else round(self.first_s, 4),
            "seconds": round(self.seconds, 4),
            "problem": self.problem,
            "asked": self.asked,
        }
        return json.dumps({name: value for name, value in shown.items() if value is not None}, ensure_ascii=False)


class Records:
    """The request log, where there is one, and the counters since the engine started."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8") if path is not None else None
        self._clock = clock
        self.in_flight: Counter[str] = Counter()  # by model, kept by the guard
        self._requests: Counter[tuple[str, str, str, str]] = Counter()
        self._tokens: Counter[tuple[str, str, str]] = Counter()
        self._seconds: dict[str, tuple[list[int], list[float]]] = {}  # by route: one a bucket, and their sum

    def end(self, record: Record) -> None:
        """Count a request and write its line."""
        record.seconds = self._clock() - record.began
        key, status = record.key or "", str(record.status or "gone")
        model = record.model or "" if status == "200" else ""  # else clients could make up any number of them
        self._requests[key, record.route, model, status] += 1
        for direction, tokens in (("prompt", record.prompt_tokens), ("completion", record.completion_tokens)):
            if tokens:
                self._tokens[key, model, direction] += tokens
        counts, sums = self._seconds.setdefault(record.route, ([0] * (len(BUCKETS_S) + 1), [0.0]))
        counts[next((n for n, most in enumerate(BUCKETS_S) if record.seconds <= most), len(BUCKETS_S))] += 1
        sums[0] += record.seconds
        if self._file is not None and self._path is not None:
            self._file.write(record.as_line() + "\n")
            self._file.flush()
            if os.fstat(self._file.fileno()).st_size >= LARGEST_LOG:
                self._file.close()
                self._path.replace(f"{self._path}.1")
                self._file = self._path.open("a", encoding="utf-8")

    def exposition(self) -> str:
        """Return the counters in Prometheus' text format."""
        requests = [(_labels(key=k, route=r, model=m, status=s), n) for (k, r, m, s), n in self._requests.items()]
        tokens = [(_labels(key=k, model=m, direction=d), n) for (k, m, d), n in self._tokens.items()]
        in_flight = [(_labels(model=model), n) for model, n in self.in_flight.items() if n]
        seconds: list[tuple[str, float]] = []
        for route, (counts, sums) in self._seconds.items():
            total = 0
            for most, count in zip([*map(str, BUCKETS_S), "+Inf"], counts, strict=True):
                total += count
                seconds.append(("_bucket" + _labels(route=route, le=most), total))
            seconds += [("_sum" + _labels(route=route), sums[0]), ("_count" + _labels(route=route), total)]
        return "".join(
            (
                *_family("harness_requests_total", "counter", "Requests by key, route, model and status.", requests),
                *_family("harness_tokens_total", "counter", "Tokens by key, model and direction.", tokens),
                *_family("harness_requests_in_flight", "gauge", "Requests that are being answered.", in_flight),
                *_family("harness_request_seconds", "histogram", "Seconds from request to last byte.", seconds),
            )
        )


def counts_nothing(asked: Mapping[str, Any]) -> bool:
    """Return True for a request to stream that does not ask for its usage."""
    options = asked.get("stream_options")
    return options is None or (isinstance(options, dict) and not options.get("include_usage"))


def without_usage(send: Send, record: Record) -> Send:
    """Return a `send` that notes the piece with the usage and leaves it out, for whom did not ask for it."""

    async def sending(message: Any) -> None:
        body = message.get("body", b"")
        if NO_CHOICES in body:
            record.count(body)
            kept = [event for event in body.split(b"\n\n") if NO_CHOICES not in event]
            message = {**message, "body": b"\n\n".join(kept)}
        await send(message)

    return sending


def _family(name: str, kind: str, help_: str, rows: Iterable[tuple[str, float]]) -> Iterable[str]:
    yield f"# HELP {name} {help_}\n# TYPE {name} {kind}\n"
    for labels, value in rows:
        yield f"{name}{labels} {value:g}\n" if isinstance(value, float) else f"{name}{labels} {value}\n"


def _labels(**labels: str) -> str:
    shown = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(shown) + "}"


def _escaped(value: str) -> str:
    return value[:LONGEST_LABEL].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
