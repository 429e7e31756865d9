"""Fixed prompts to work through: what a file asks, how far a person is, and the answers that are shown again."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import DataError, HarnessError
from harness.nouns import Ballot
from harness_serve.answering import NOTHING_TO_JUDGE

if TYPE_CHECKING:
    from harness.contract import Dataset
    from harness.plugins import Registry

MOST_PROMPTS = 100_000


class Prompt(NamedTuple):
    """One question of a set, with the system prompt that it wants (empty: the person's own)."""

    id: str
    text: str
    category: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts with an id that is the hash of what they ask, and the share of rounds that show earlier answers again."""

    prompts: tuple[Prompt, ...]
    repeats: float = 0.0

    @property
    def id(self) -> str:
        rows = [[prompt.text, prompt.category, prompt.system] for prompt in self.prompts]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

    def order(self, person: str) -> list[Prompt]:
        """Return the prompts in the order in which a person is asked, another for each person."""
        return random.Random(f"{self.id} {person}").sample(self.prompts, len(self.prompts))

    def left(self, person: str, ballots: Sequence[Ballot]) -> list[Prompt]:
        """Return the prompts that a person has yet to judge, those that were skipped behind the others.

        A prompt is done with a verdict, and with answers that leave nothing to judge.

        Args:
            ballots: those of this person on this set.
        """
        done = {ballot.prompt_id for ballot in ballots if _is_judged(ballot) or ballot.note in NOTHING_TO_JUDGE}
        tries = Counter(ballot.prompt_id for ballot in ballots)
        left = [prompt for prompt in self.order(person) if prompt.id not in done]
        return sorted(left, key=lambda prompt: tries[prompt.id])

    def to_repeat(self, ballots: Sequence[Ballot], lot: random.Random) -> Ballot | None:
        """Return the judged ballot whose answers are shown again in this round, or None for a new prompt.

        Each is shown again once at most, and the latest one is not.
        """
        judged = [ballot for ballot in ballots if _is_judged(ballot)]
        again = {ballot.repeat_of for ballot in judged}
        candidates = [ballot for ballot in judged[:-1] if ballot.id not in again and ballot.repeat_of is None]
        return lot.choice(candidates) if candidates and lot.random() < self.repeats else None


def _is_judged(ballot: Ballot) -> bool:
    return ballot.verdict is not None and ballot.state != "void"


def read_prompts(path: Path, datasets: Registry[Dataset], repeats: float = 0.0) -> PromptSet:
    """Read a set of prompts.

    A JSON list, or JSONL, of texts or of objects with `prompt` and, if wanted, `id`, `category` and `system`; or any
    file of data, whose first questions are taken.

    Raises:
        HarnessError: naming the row that is no prompt, or asks what an earlier one asks.
    """
    from harness.data.convert.prompts import prompts_of

    try:
        rows = _rows(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:  # packed data
        rows = None
    except OSError as error:
        raise HarnessError(f"--prompts {path}: cannot be read: {error.strerror}") from None
    if rows is None or not all(isinstance(row, str) or (isinstance(row, dict) and "prompt" in row) for row in rows):
        try:
            rows = list(itertools.islice(prompts_of(str(path), datasets), MOST_PROMPTS))
        except DataError as error:
            expected = "expected a JSON list or JSONL of texts or of objects with `prompt`, or a file of data"
            raise HarnessError(f"--prompts: {expected}. {error}") from None
    prompts = [_prompt(path, number, row) for number, row in enumerate(rows, 1)]
    if not prompts:
        raise HarnessError(f"--prompts {path}: it has no prompts")
    seen: dict[str, int] = {}
    for number, prompt in enumerate(prompts, 1):
        if (first := seen.setdefault(prompt.id, number)) != number:
            raise HarnessError(f"--prompts {path}: prompt {number} repeats prompt {first} ({prompt.text[:60]!r})")
    return PromptSet(tuple(prompts), repeats)


def _rows(text: str) -> list[Any] | None:
    """Return the rows of JSON or JSONL, or None where it is neither."""
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except ValueError:
        pass
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        return None


def _prompt(path: Path, number: int, row: str | Mapping[str, Any]) -> Prompt:
    values = {"prompt": row} if isinstance(row, str) else dict(row)
    known = ("id", "prompt", "category", "system")
    if unknown := [key for key in values if key not in known]:
        raise HarnessError(f"--prompts {path}: prompt {number} has {unknown[0]!r}, expected only {', '.join(known)}")
    texts = {key: value if isinstance(value, str) else str(value) for key, value in values.items() if value is not None}
    text = texts.get("prompt", "").strip()
    if not text:
        raise HarnessError(f"--prompts {path}: prompt {number} asks nothing")
    system = texts.get("system", "")
    id = texts.get("id") or hashlib.sha256(json.dumps([text, system]).encode()).hexdigest()[:12]
    return Prompt(id, text, texts.get("category", ""), system)
