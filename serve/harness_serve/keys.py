"""Named keys: who may ask, how often and how much at once; kept in one file, hashed, and read again when it changes.

A key has 256 random bits, so that one plain SHA-256 of it cannot be turned back; its text is shown when it is made.
Standard library only, as the guard that reads the file in the engine's process.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import re
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError, known_names, nearest
from harness.files import explain_unwritable, locked, read_json, write_text

PREFIX = "hk-"
FORMAT = 1
WINDOW_S = 60.0
MAY = ("adapters", "metrics")  # add and remove adapters while serving; read the metrics
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its text. The limits are None where there is none; `revoked` is the time in ISO format.

    `may` is what the key opens besides questions, of MAY.
    """

    name: str
    sha256: str
    created: str
    requests_per_minute: int | None = None
    concurrency: int | None = None
    revoked: str | None = None
    may: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """The limits for people."""
        parts = []
        if self.requests_per_minute is not None:
            parts.append(f"{self.requests_per_minute} requests a minute")
        if self.concurrency is not None:
            parts.append(f"{self.concurrency} at once")
        return ", ".join(parts) or "none"


class KeyFile:
    """The keys in a file, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._active: dict[str, Key] = {}

    def read(self) -> tuple[Key, ...]:
        """Return all keys, in the order in which they were made. Raises HarnessError for a file of another kind."""
        if not self.path.exists():
            return ()
        entries = read_json(self.path)
        if not isinstance(entries, dict) or entries.get("format") != FORMAT:
            raise HarnessError(f"{self.path}: not a file of keys of this version (format {FORMAT})")
        try:
            return tuple(Key(**(key | {"may": tuple(key.get("may", ()))})) for key in entries["keys"])
        except (AttributeError, KeyError, TypeError):
            raise HarnessError(f"{self.path}: not a file of keys: an entry of it is damaged") from None

    def active(self) -> tuple[Key, ...]:
        """Return the keys that are not revoked."""
        return tuple(key for key in self.read() if key.revoked is None)

    def make(
        self,
        name: str,
        requests_per_minute: int | None = None,
        concurrency: int | None = None,
        may: tuple[str, ...] = (),
    ) -> str:
        """Add a key and return its text, which nothing can show again.

        Raises:
            HarnessError: where the name is taken (by a revoked key too: records name it), or no name.
        """
        if not NAME.fullmatch(name):
            raise HarnessError(f"{name!r} is no name of a key: letters, digits and . _ @ - are, up to 64 of them")
        with explain_unwritable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                keys = self.read()
                if taken := next((key for key in keys if key.name == name), None):
                    state = ", which is revoked" if taken.revoked else ""
                    raise HarnessError(
                        f"{self.path} has a key {name!r} already{state}: choose another name, as votes and "
                        f"logs name keys"
                    )
                text = PREFIX + secrets.token_urlsafe(32)
                self._write((*keys, Key(name, _hash(text), _now(), requests_per_minute, concurrency, may=may)))
        return text

    def revoke(self, name: str) -> Key:
        """Let a key open nothing any more; servers that run see it at the next request.

        Raises:
            HarnessError: where there is no such key, or it is revoked already.
        """
        if not self.path.exists():
            raise HarnessError(f"{self.path}: there is no such file of keys; `harness keys make NAME` begins one")
        with explain_unwritable(self.path), locked(self.path):
            keys = self.read()
            names = [key.name for key in keys if key.revoked is None]
            if name not in names:
                was = "is revoked already" if any(key.name == name for key in keys) else "is not there"
                has = f" It has: {known_names(names)}" if names else " It has no keys that open anything"
                raise HarnessError(f"{self.path}: the key {name!r} {was}.{nearest(name, names)}{has}")
            changed = [dataclasses.replace(key, revoked=_now()) if key.name == name else key for key in keys]
            self._write(changed)
        return next(key for key in changed if key.name == name)

    def of(self, text: str) -> Key | None:
        """Return the key with this text, if it opens anything now.

        The file is read again when it was replaced. One that is gone, or is no file of keys any more, opens nothing.
        """
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._active = {key.sha256: key for key in self.active()}
                self._seen = seen
        except (OSError, HarnessError):
            self._active, self._seen = {}, None
        return self._active.get(_hash(text))

    def _write(self, keys: Iterable[Key]) -> None:
        entries = {"format": FORMAT, "keys": [dataclasses.asdict(key) for key in keys]}
        write_text(self.path, json.dumps(entries, indent=2) + "\n", private=True)


@dataclass(slots=True)
class Allowance:
    """The requests of one key: those of the last minute, and those in flight."""

    times: deque[float] = field(default_factory=deque)
    in_flight: int = 0

    def refusal(self, key: Key, now: float) -> tuple[str, int] | None:
        """Return why the key may not ask now, with the seconds after which it may; None where it may."""
        while self.times and self.times[0] <= now - WINDOW_S:
            self.times.popleft()
        if key.concurrency is not None and self.in_flight >= key.concurrency:
            return f"the key {key.name!r} has {self.in_flight} requests in flight, and may have {key.concurrency}", 1
        if key.requests_per_minute is not None and len(self.times) >= key.requests_per_minute:
            wait = max(1, math.ceil(self.times[0] + WINDOW_S - now))
            allowed = f"and may send {key.requests_per_minute}: try again in {wait} s"
            return f"the key {key.name!r} sent {len(self.times)} requests in the last minute, {allowed}", wait
        return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
