"""Requests to an OpenAI-compatible endpoint, with limits of concurrency and rate, retries, and a budget of tokens.

The requests are sent by the official client. Its own retries are off: ours honour Retry-After, are counted, and respect
the rate and the budget.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from harness.errors import HarnessError, known_names, nearest
from harness.extras import require
from harness_generation.prompts import Api

BACKOFF_S, LONGEST_WAIT_S = 0.5, 60.0
CHARACTERS_A_TOKEN = 3  # a cautious estimate, for the budget and for endpoints that do not report their usage
_AGAIN = (408, 409, 425, 429)  # and every 5xx


class BudgetUsedUp(HarnessError):
    """The next request might cost more tokens than the budget has left."""


class EndpointError(HarnessError):
    """The endpoint cannot be used: unreachable, wrong key, unknown model, or failing again and again."""


class Answer(NamedTuple):
    """An answer and its cost. `cut` means that it ended at the token limit."""

    text: str
    cut: bool
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Spent:
    """The number of requests and tokens so far, over all sessions of one output."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of requests to the endpoint. `budget_tokens` counts prompts and answers of all sessions."""

    concurrency: int = 4
    requests_per_minute: float | None = None
    budget_tokens: int | None = None
    max_retries: int = 6
    timeout_s: float = 120.0


def without_secrets(url: str) -> str:
    """Return the URL without user, password, query and fragment, any of which may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))


@dataclass
class Asker:
    """One model behind one endpoint. Use it as an async context manager, so that its connections are closed.

    `warn(message)` is called before each pause with the reason of the failure.
    """

    url: str
    model: str
    api: Api
    api_key: str | None
    limits: Limits
    spent: Spent
    warn: Callable[[str], None] = lambda message: None
    _gave_up: EndpointError | None = None
    _reserved: int = 0
    _next_start: float = 0.0
    _length_name: str = "max_tokens"
    _jitter: random.Random = field(default_factory=random.Random)

    async def __aenter__(self) -> Asker:
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).netloc:
            raise EndpointError(f"--endpoint {self.url!r} is no URL; it looks like http://127.0.0.1:8000/v1")
        self._openai = require("openai", "generation")
        self._client = self._openai.AsyncOpenAI(
            base_url=self.url, api_key=self.api_key or "none", max_retries=0, timeout=self.limits.timeout_s
        )
        self._free = asyncio.Semaphore(self.limits.concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def check(self) -> None:
        """Ask the endpoint for its models.

        Raises:
            EndpointError: if nothing answers, if the key is wrong, or if the endpoint does not have the model.
        """
        openai = self._openai
        try:
            listed = [
                model.id for model in (await self._client.models.list(timeout=min(20, self.limits.timeout_s))).data
            ]
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"nothing answers at {self._where} ({_cause(error)}). Start it (`harness serve RUN` has an endpoint), "
                f"or correct --endpoint; it usually ends with /v1"
            ) from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._refused_key() from None
            return  # not every endpoint lists its models, and a busy one may do so later
        except (openai.APIError, ValueError, TypeError, AttributeError):
            return
        if listed and self.model not in listed:
            raise EndpointError(
                f"{self._where} has no model {self.model!r}.{nearest(self.model, listed)} "
                f"It has: {known_names(listed[:20])}"
            )

    async def ask(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Answer:
        """Return the answer to a prompt; retry errors that may be temporary.

        Raises:
            BudgetUsedUp: before the request, if its prompt and longest answer might exceed the budget.
            EndpointError: if the request is refused, or fails more often than `max_retries`.
        """
        async with self._free:
            if self._gave_up:
                raise self._gave_up  # another request failed for good while this one waited: do not try it as well
            worst = len(prompt) // CHARACTERS_A_TOKEN + int(settings["max_tokens"])
            budget = self.limits.budget_tokens
            if budget is not None and self.spent.tokens + self._reserved + worst > budget:
                raise BudgetUsedUp(f"the budget of {budget:,} tokens is used up ({self.spent.tokens:,} spent)")
            self._reserved += worst
            try:
                answer = await self._with_retries(prompt, seed, settings)
            except EndpointError as error:
                self._gave_up = error
                raise
            finally:
                self._reserved -= worst
            self.spent.prompt_tokens += answer.prompt_tokens
            self.spent.completion_tokens += answer.completion_tokens
            return answer

    async def _with_retries(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Answer:
        openai = self._openai
        for tried in range(self.limits.max_retries + 1):
            await self._wait_for_turn()
            self.spent.requests += 1
            try:
                return await self._once(prompt, seed, settings)
            except openai.APIStatusError as error:
                self._stop_if_final(error)
                reason, asked_wait = f"{error.status_code}: {_message_of(error)}", _retry_after(error.response.headers)
            except (openai.APITimeoutError, TimeoutError):
                reason, asked_wait = f"no answer within {self.limits.timeout_s:g} s", None
            except openai.APIConnectionError as error:
                reason, asked_wait = f"the connection failed: {_cause(error)}", None
            except (openai.APIError, ValueError, TypeError, AttributeError, IndexError) as error:
                reason, asked_wait = f"an answer that is not OpenAI's format: {error}"[:200], None
            if tried < self.limits.max_retries:
                self.spent.retries += 1
                pause = self._pause(tried, asked_wait)
                self.warn(f"{self._where}: {reason}; asked again in {pause:.1f} s")
                await asyncio.sleep(pause)
        raise EndpointError(
            f"{self._where} went on failing, {self.limits.max_retries + 1} times in a row; the last was {reason}"
        )

    def _pause(self, tried: int, asked: float | None) -> float:
        """Return the seconds until the next try: as the endpoint asked, else doubling; up to half more at random."""
        wait = BACKOFF_S * 2**tried if asked is None else asked
        return min(wait, LONGEST_WAIT_S if asked is None else 600.0) * (1 + self._jitter.random() / 2)

    async def _wait_for_turn(self) -> None:
        """Space requests and retries evenly, so that each minute has at most its number of them."""
        if self.limits.requests_per_minute:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 60 / self.limits.requests_per_minute
            await asyncio.sleep(start - now)

    async def _once(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> Answer:
        sent = dict(settings)
        sent[self._length_name] = sent.pop("max_tokens")
        if self.api == "chat":
            messages = [{"role": "user", "content": prompt}]
            done = await self._client.chat.completions.create(model=self.model, messages=messages, seed=seed, **sent)
            text = done.choices[0].message.content or ""
        else:
            done = await self._client.completions.create(model=self.model, prompt=prompt, seed=seed, **sent)
            text = done.choices[0].text or ""
        used = done.usage
        return Answer(
            text,
            done.choices[0].finish_reason == "length",
            used.prompt_tokens if used else -(-len(prompt) // CHARACTERS_A_TOKEN),
            used.completion_tokens if used else -(-len(text) // CHARACTERS_A_TOKEN),
        )

    def _stop_if_final(self, error: Any) -> None:
        """Raise EndpointError for a status that a retry does not help against."""
        status, message = error.status_code, _message_of(error)
        if status in (401, 403):
            raise self._refused_key() from None
        if status == 429 and "insufficient_quota" in message:
            raise EndpointError(f"{self._where} says that the account has no quota left: {message}") from None
        if status == 400 and "max_completion_tokens" in message and self._length_name == "max_tokens":
            self._length_name = "max_completion_tokens"  # newer models of OpenAI know only this name
            return
        if status in _AGAIN or status >= 500:
            return
        hint = ""
        if status == 404 and "model" not in message.lower() and not self._where.endswith("/v1"):
            hint = "; does --endpoint lack a /v1 at its end?"
        elif status == 404:
            hint = f"; is {self.model!r} the name of a model there, and does --api {self.api} fit it?"
        elif "context" in message.lower() or "max_tokens" in message or "length" in message.lower():
            hint = "; ask for less: a smaller --max-tokens, or fewer --examples"
        raise EndpointError(f"{self._where} refused the request ({status}): {message}{hint}") from None

    def _refused_key(self) -> EndpointError:
        refused = "the key that was given" if self.api_key else "a request without a key"
        return EndpointError(f"{self._where} refused {refused}: set HARNESS_API_KEY, or give --api-key")

    @property
    def _where(self) -> str:
        return without_secrets(self.url)


def _message_of(error: Any) -> str:
    """Return the endpoint's message on one line of at most 300 characters."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body.get("error") or body
    code = f" [{error.code}]" if getattr(error, "code", None) else ""
    return " ".join(str(body or error).split())[:300] + code


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:200] or type(cause).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in `Retry-After` (a number, or a date) or `retry-after-ms`."""
    import email.utils

    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
