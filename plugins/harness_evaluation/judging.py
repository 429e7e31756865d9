"""Asking a judge: side by side, within a budget, with a reminder where a verdict is missing, and never twice.

Every answer of the judge is in a journal before it is used; a measurement that ended for its budget, or was killed,
goes on with what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.client.asking import BudgetUsedUp, Client, Limits, Spent
from harness.contract import Answer
from harness.errors import HarnessError
from harness.measure.answers import KEY_LENGTH, Journal
from harness.nouns import Remote

T = TypeVar("T")


@dataclass
class Judge:
    """A model behind an endpoint that reads questions and answers them greedily.

    `tries` is the number of times it is asked for one verdict, the first included.
    """

    remote: Remote
    api_key: str | None
    limits: Limits
    journal: Journal
    max_tokens: int = 512
    tries: int = 3
    spent: Spent = field(default_factory=Spent)
    advance: Callable[[int], None] = lambda n: None

    def ask(self, questions: Sequence[str], read: Callable[[str], T | None], reminder: str) -> list[T | None]:
        """Return what `read` finds in the judge's answer to each question; None where it never does.

        Raises:
            HarnessError: where the budget ends before; what was answered until then is kept.
            EndpointError: where the endpoint cannot be used.
        """
        verdicts: list[T | None] = [None] * len(questions)
        done = 0

        async def one(client: Client, index: int) -> None:
            nonlocal done
            verdicts[index] = await self._verdict(client, questions[index], read, reminder)
            done += 1
            self.advance(1)

        async def everything() -> None:
            async with (
                Client(self.remote.url, self.api_key, self.limits, self.spent) as client, asyncio.TaskGroup() as group,
            ):  # fmt: skip
                for index in range(len(questions)):
                    group.create_task(one(client, index))

        try:
            asyncio.run(everything())
        except BaseExceptionGroup as failed:
            first = failed.exceptions[0]
            if isinstance(first, BudgetUsedUp):
                raise HarnessError(
                    f"{self.remote}: {first} after {done} of {len(questions)} verdicts, which are kept. "
                    f"Set a larger budget_tokens, and measure again: only the others are asked"
                ) from None
            raise first from None
        finally:
            self.journal.close()
        return verdicts

    async def _verdict(self, client: Client, question: str, read: Callable[[str], T | None], reminder: str) -> T | None:
        messages = [{"role": "user", "content": question}]
        for _ in range(self.tries):
            body = {"model": self.remote.model, "messages": messages, "temperature": 0, "max_tokens": self.max_tokens}
            key = _key(self.remote, body)
            if (answer := self.journal.get(key)) is None:
                answer = Answer(await client.post("/chat/completions", body, _text), "stop")
                self.journal.put(key, answer)
            if (verdict := read(answer.text)) is not None:
                return verdict
            # The same question would get the same answer, so that the next try says what is missing.
            messages = [
                messages[0],
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": reminder},
            ]
        return None


def _text(answer: Any) -> str:
    """Return the words of a judge's answer; the thoughts that an endpoint keeps apart are no part of it."""
    return answer["choices"][0]["message"]["content"] or ""


def _key(remote: Remote, body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps([str(remote), body], sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]
