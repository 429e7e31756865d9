"""Answers that outlive the process that asked for them: a Backend around a Backend, and the journal that it reads.

Each answer is written as it comes, so that a measurement that was killed goes on where it was, and a new scorer asks
nothing again. An answer is found by everything that decided it: the hashes of weights, adapter and template, the
engine with its version and dtype, and the ids, sampling and seed of the request. A model tuned again is another model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.contract.backends import Answer, Backend, Capability, Identity, Request, Scorer
from harness.files import cache_folder, explain_full_disk
from harness.measure.weights import identity
from harness.template.exchange import prompt_ids

SYNC_EVERY_S = 2.0  # what a power cut may take; a killed process loses nothing
KEY_LENGTH = 32
_BEFORE_KEY = len('{"key": "')
_TUPLES = ("token_ids", "logprobs", "prompt_ids", "is_greedy")


class Journal:
    """The answers of one model as JSON lines, a file of `HARNESS_CACHE/answers`, or in memory only.

    A line that a crash left torn is passed over. Two processes may write to one file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._places: dict[str, int] = {}
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()
        self._file: Any = None
        self._synced = time.monotonic()
        if path is not None and path.is_file():
            self._index(path)

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._lines

    def get(self, key: str) -> Answer | None:
        """Return the answer under a key; None where there is none, or its line is damaged."""
        line = self._lines.get(key)
        if line is None and self.path is not None and key in self._places:
            with self.path.open("rb") as file:
                file.seek(self._places[key])
                line = file.readline().decode("utf-8", errors="replace")
        return None if line is None else _read(key, line)

    def put(self, key: str, answer: Answer) -> None:
        """Add an answer; it is in the file when this returns, and on the disk soon after."""
        line = _line(key, answer)
        with self._lock:
            if self.path is None:
                self._lines[key] = line
                return
            with explain_full_disk(self.path):
                if self._file is None:
                    self._file = _appending(self.path)
                self._places[key] = self._file.seek(0, os.SEEK_END)
                self._file.write(line.encode())  # one call: lines of two processes do not mix
                if time.monotonic() - self._synced > SYNC_EVERY_S:
                    os.fsync(self._file.fileno())
                    self._synced = time.monotonic()
            self._lines.pop(key, None)

    def close(self) -> None:
        """Flush the file to disk and close it."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None

    def _index(self, path: Path) -> None:
        place = 0
        with path.open("rb") as file:
            for line in file:
                if line.startswith(b'{"key": "') and line.endswith(b"}\n"):
                    self._places[line[_BEFORE_KEY : _BEFORE_KEY + KEY_LENGTH].decode(errors="replace")] = place
                place += len(line)


class KeptBackend(Scorer):
    """A Backend that asks what is not in its journal, and writes down each answer that it gets.

    Args:
        progress: called with the number of requests that begin, and of those that are answered.
        again: False takes the answers that are kept; True asks anew, and keeps the new ones.
        first: the number of the first asking of a request in one call. Asked twice in a call, or by a view that
            `second` returns, a request is asked twice, and both answers are kept.
    """

    def __init__(
        self,
        inner: Backend,
        journal: Journal,
        progress: Callable[[int, int], None] = lambda expected, answered: None,
        *,
        again: bool = False,
        first: int = 0,
    ) -> None:
        self.inner, self.journal, self.progress = inner, journal, progress
        self.again, self.first = again, first
        self.name = inner.name
        self._fresh: set[str] = set()  # asked by this process

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.inner.capabilities

    @property
    def identity(self) -> Identity:
        return self.inner.identity

    @property
    def template(self) -> Any:
        return self.inner.template

    @property
    def longest(self) -> int | None:
        return self.inner.longest

    @property
    def longest_scored(self) -> int | None:
        return self.inner.longest_scored

    def second(self) -> KeptBackend:
        """Return a view of the backend that asks everything a second time."""
        view = KeptBackend(self.inner, self.journal, self.progress, again=self.again, first=self.first + 1)
        view._fresh = self._fresh
        return view

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers: first those that are kept, then the others as they finish."""
        self.progress(len(requests), 0)
        source, times = source_of(self.identity), Counter[str]()
        missing: list[tuple[int, str, Request]] = []
        for index, request in enumerate(requests):
            if self.template is not None:  # rendered once, for the key and for the model
                request = dataclasses.replace(request, prompt=tuple(prompt_ids(self.template, request)), tools=())
            plain = _hash([source, _content(request)])
            key = _hash([plain, self.first + times[plain]])
            times[plain] += 1
            kept = None if self.again and key not in self._fresh else self.journal.get(key)
            if kept is None:
                missing.append((index, key, _seeded(request, key)))
            else:
                self.progress(0, 1)
                yield index, kept
        if not missing:
            return
        asked: Any = self.inner.ask([request for _, _, request in missing])
        with contextlib.closing(asked) as answers:
            for number, answer in answers:
                index, key, _ = missing[number]
                self.journal.put(key, answer)
                self._fresh.add(key)
                self.progress(0, 1)
                yield index, answer


def journal_of(measured: Identity, *, remote: bool = False) -> Journal:
    """Return the journal of a model's answers: on disk where its weights are known by their hash.

    Args:
        remote: True keeps the answers of models that are known by their name alone, too.
    """
    if not remote and "model_sha256" not in measured.weights:
        return Journal(None)
    return Journal(cache_folder() / "answers" / f"{source_of(measured)}.jsonl")


def source_of(measured: Identity) -> str:
    """Return a hash of everything but the request that decides an answer."""
    more = {"batch_size": measured.more.get("batch_size")}
    parts = [
        identity(measured.weights), measured.template["sha256"], measured.engine, measured.engine_version,
        measured.dtype, measured.device, more,
    ]  # fmt: skip
    return _hash(parts)


def innermost(backend: Backend) -> Backend:
    """Return the Backend that answers, without those around it."""
    while isinstance(backend, KeptBackend):
        backend = backend.inner
    return backend


def _seeded(request: Request, key: str) -> Request:
    """Return a request that is sampled with a seed of its own: after a kill it is answered as it would have been."""
    sampling = request.sampling
    if request.scored or sampling.temperature == 0 or sampling.seed is not None:
        return request
    return dataclasses.replace(request, sampling=dataclasses.replace(sampling, seed=int(key[:7], 16)))


def _content(request: Request) -> list[Any]:
    messages = request.messages
    prompt = request.prompt if messages is None else [message.as_dict() for message in messages]
    tools = [dict(tool) for tool in request.tools]
    # An answer to scored ids does not depend on the sampling.
    sampling = None if request.scored else dataclasses.astuple(request.sampling)
    return [prompt, tools, sampling, request.logprobs, request.scored]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:KEY_LENGTH]


def _line(key: str, answer: Answer) -> str:
    fields = {name: value for name, value in dataclasses.asdict(answer).items() if value is not None}
    return json.dumps({"key": key, **fields}) + "\n"


def _read(key: str, line: str) -> Answer | None:
    try:
        entries = json.loads(line)
        if not isinstance(entries, dict) or entries.pop("key", None) != key:
            return None
        fields: dict[str, Any] = {name: tuple(v) if name in _TUPLES else v for name, v in entries.items()}
        return Answer(**fields)
    except (ValueError, TypeError):
        return None


def _appending(path: Path) -> Any:
    """Open a file to append lines to, unbuffered; a last line that was torn is ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab+", buffering=0)
    if (size := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.write(b"\n")
    return file
