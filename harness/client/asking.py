"""The client of an OpenAI-compatible endpoint, with limits of concurrency and rate, retries, and a budget of tokens.

The requests are sent by the official client. Its own retries are off: ours honour Retry-After, are counted, and respect
the rate and the budget. `Client` is asynchronous; the functions below it are for callers that do not await.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from harness.client.deltas import Delta, calls_of, thoughts_of
from harness.contract import Endpoint
from harness.errors import HarnessError, known_names, nearest
from harness.extras import require

BACKOFF_S, LONGEST_WAIT_S = 0.5, 60.0
CHARACTERS_PER_TOKEN = 3  # a cautious estimate, for the budget and for endpoints that do not report their usage
LIST_TIMEOUT_S = 20.0
_TEMPORARY = (408, 409, 425, 429)  # and every 5xx
T = TypeVar("T")


class BudgetUsedUp(HarnessError):
    """The next request might cost more tokens than the budget has left."""


class EndpointError(HarnessError):
    """The endpoint cannot be used: unreachable, wrong key, unknown model, or failing again and again.

    `status` and `reply` are what it answered, where it answered at all.
    """

    def __init__(self, message: str, status: int | None = None, reply: str = "") -> None:
        super().__init__(message)
        self.status, self.reply = status, reply


class UnreachableError(EndpointError):
    """Nothing answers at the endpoint's URL."""


@dataclass(slots=True)
class Spent:
    """The requests so far and their cost; kept by the caller, so that it can outlive one client."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of requests to the endpoint. `budget_tokens` counts prompts and answers of all that `Spent` counts."""

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
class Client:
    """One endpoint. Use it as an async context manager, so that its connections are closed.

    `warn(message)` is called before each pause with the reason of the failure; `log` is the path of the server's log,
    for messages. `headers` are sent with each request.
    """

    url: str
    api_key: str | None = None
    limits: Limits = field(default_factory=Limits)
    spent: Spent = field(default_factory=Spent)
    warn: Callable[[str], None] = lambda message: None
    log: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    _gave_up: EndpointError | None = None
    _reserved: int = 0
    _next_start: float = 0.0
    _length_name: str = "max_tokens"
    _jitter: random.Random = field(default_factory=random.Random)

    async def __aenter__(self) -> Client:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    def open(self) -> None:
        """Create the connections' pool. Raises EndpointError for what is no URL."""
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).netloc:
            raise EndpointError(f"{self.url!r} is no URL of an endpoint; it looks like http://127.0.0.1:8000/v1")
        self._openai = require("openai", "generation")
        self._client = self._openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self.api_key or "none",
            max_retries=0,
            timeout=self.limits.timeout_s,
            default_headers=dict(self.headers),
        )
        self._free = asyncio.Semaphore(self.limits.concurrency)

    @property
    def where(self) -> str:
        """The endpoint as messages name it."""
        return without_secrets(self.url)

    async def models(self) -> list[dict[str, Any]] | None:
        """Return the endpoint's own list of its models; None where it does not list them, or not now.

        Raises:
            EndpointError: where nothing answers or the key is refused.
        """
        openai = self._openai
        timeout = min(LIST_TIMEOUT_S, self.limits.timeout_s)
        try:
            listed = _decoded(await self._client.get("/models", cast_to=object, options={"timeout": timeout}))
            return [{**model, "id": str(model["id"])} for model in listed["data"]]
        except openai.APIConnectionError as error:
            raise UnreachableError(f"nothing answers at {self.where} ({_cause(error)}){self._log}") from None
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise self._refused_key(error) from None
        except (openai.APIError, ValueError, TypeError, AttributeError, KeyError):
            pass
        return None

    async def check_model(self, model: str) -> None:
        """Raise EndpointError where nothing answers, the key is refused, or the endpoint lists only other models."""
        listed = [entry["id"] for entry in await self.models() or ()]
        if listed and model not in listed:
            raise EndpointError(
                f"{self.where} has no model {model!r}.{nearest(model, listed)} It has: {known_names(listed[:20])}"
            )

    async def post(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T] = lambda answer: answer) -> T:
        """Return the decoded answer to a request, as `read` reads it, trying again where that may help.

        Args:
            read: may raise ValueError, TypeError, KeyError or IndexError for an answer that is not OpenAI's format.

        Raises:
            BudgetUsedUp: before the request, if its prompt and longest answer might exceed the budget.
            EndpointError: if the request is refused, or fails more often than `max_retries`.
        """
        async with self._free:
            if self._gave_up:
                raise self._gave_up  # another request failed for good while this one waited: do not try it as well
            budget = self.limits.budget_tokens
            worst = _characters(body) // CHARACTERS_PER_TOKEN + int(body.get("max_tokens") or 0)
            if budget is not None and self.spent.tokens + self._reserved + worst > budget:
                raise BudgetUsedUp(f"the budget of {budget:,} tokens is used up ({self.spent.tokens:,} spent)")
            self._reserved += worst
            try:
                answer, result = await self._with_retries(path, body, read)
            except EndpointError as error:
                self._gave_up = error
                raise
            finally:
                self._reserved -= worst
            usage = answer.get("usage") if isinstance(answer, Mapping) else None
            self._count(usage or {}, body, answer)
            return result

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[Delta, None]:
        """Yield the pieces of a chat's answer as they come. Closing the iterator hangs up. Raises EndpointError."""
        openai = self._openai
        try:
            stream = await self._client.chat.completions.create(
                **body, stream=True, stream_options={"include_usage": True}
            )
            async with stream:
                async for chunk in stream:
                    tokens = chunk.usage.completion_tokens if chunk.usage is not None else None
                    choices = [
                        (
                            choice.delta.content or "",
                            choice.finish_reason,
                            thoughts_of(choice.delta),
                            calls_of(choice.delta),
                        )
                        for choice in chunk.choices
                    ]
                    for text, finish, thoughts, calls in choices or [("", None, "", ())]:
                        yield Delta(text, finish, tokens, thoughts, calls)
        except openai.APIStatusError as error:
            reply = _reply(error)
            raise EndpointError(f"{self.where} refused the request: {reply}", error.status_code, reply) from None
        except openai.APIError as error:
            raise EndpointError(f"{self.where} does not answer: {error}") from None

    async def _with_retries(self, path: str, body: Mapping[str, Any], read: Callable[[Any], T]) -> tuple[Any, T]:
        openai = self._openai
        for tried in range(self.limits.max_retries + 1):
            await self._wait_for_turn()
            self.spent.requests += 1
            sent = dict(body)
            if self._length_name != "max_tokens" and "max_tokens" in sent:
                sent[self._length_name] = sent.pop("max_tokens")
            try:
                answer = _decoded(await self._client.post(path, cast_to=object, body=sent))
                return answer, read(answer)
            except openai.APIStatusError as error:
                self._stop_if_final(error)
                failure, asked_wait = f"{error.status_code}: {_reply(error)}", _retry_after(error.response.headers)
            except (openai.APITimeoutError, TimeoutError):
                failure, asked_wait = f"no answer within {self.limits.timeout_s:g} s", None
            except openai.APIConnectionError as error:
                failure, asked_wait = f"the connection failed: {_cause(error)}", None
            except (openai.APIError, ValueError, TypeError, AttributeError, LookupError) as error:
                failure, asked_wait = f"an answer that is not OpenAI's format: {error!r}"[:200], None
            if tried < self.limits.max_retries:
                self.spent.retries += 1
                pause = self._pause(tried, asked_wait)
                self.warn(f"{self.where}: {failure}; asked again in {pause:.1f} s")
                await asyncio.sleep(pause)
        times = f", {self.limits.max_retries + 1} times in a row" if self.limits.max_retries else ""
        raise EndpointError(f"{self.where} went on failing{times}; the last was {failure}{self._log}")

    def _count(self, usage: Mapping[str, Any], body: Mapping[str, Any], answer: Any) -> None:
        """Add what a request cost, by the endpoint's figures or else by its length."""
        guessed = -(-_characters(body) // CHARACTERS_PER_TOKEN), -(-_characters(answer) // CHARACTERS_PER_TOKEN)
        self.spent.prompt_tokens += int(usage.get("prompt_tokens", guessed[0]))
        self.spent.completion_tokens += int(usage.get("completion_tokens") or (0 if usage else guessed[1]))

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

    def _stop_if_final(self, error: Any) -> None:
        """Raise EndpointError for a status that a retry does not help against."""
        status, reply = error.status_code, _reply(error)
        if status in (401, 403):
            raise self._refused_key(error) from None
        if status == 429 and "insufficient_quota" in reply:
            message = f"{self.where} says that the account has no quota left: {reply}"
            raise EndpointError(message, status, reply) from None
        if status == 400 and "max_completion_tokens" in reply and self._length_name == "max_tokens":
            self._length_name = "max_completion_tokens"  # newer models of OpenAI know only this name
            return
        if status in _TEMPORARY or status >= 500:
            return
        raise EndpointError(f"{self.where} refused the request ({status}): {reply}{self._log}", status, reply) from None

    def _refused_key(self, error: Any) -> EndpointError:
        sent = "the key that was given" if self.api_key else "a request without a key"
        return EndpointError(f"{self.where} refused {sent}{self._log}", error.status_code, _reply(error))

    @property
    def _log(self) -> str:
        return f"\nThe log: {self.log}" if self.log else ""


SYNC_LIMITS = Limits(concurrency=8, max_retries=0, timeout_s=300.0)


def client_of(endpoint: Endpoint, limits: Limits = SYNC_LIMITS) -> Client:
    """Return the client of a served endpoint; what its server logs is named in errors."""
    log = endpoint.settings.get("log")
    return Client(
        endpoint.url, endpoint.api_key, limits, log=None if log is None else str(log), headers=endpoint.headers
    )


def post_all(
    endpoint: Endpoint, path: str, bodies: Sequence[Mapping[str, Any]], limits: Limits = SYNC_LIMITS
) -> list[Any]:
    """Return the endpoint's answers to several requests, asked side by side. Raises EndpointError."""

    async def ask() -> list[Any]:
        async with client_of(endpoint, limits) as client:
            async with asyncio.TaskGroup() as group:
                tasks: list[asyncio.Task[Any]] = [group.create_task(client.post(path, body)) for body in bodies]
            return [task.result() for task in tasks]

    try:
        return asyncio.run(ask())
    except BaseExceptionGroup as failed:  # one failed, the others were cancelled
        raise failed.exceptions[0] from None


def post(endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> Any:
    """Return the endpoint's answer to one request. Raises EndpointError."""
    return post_all(endpoint, path, [body])[0]


def models_of(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return the endpoint's own list of its models; empty where it lists none. Raises EndpointError."""

    async def ask() -> list[dict[str, Any]] | None:
        async with client_of(endpoint) as client:
            return await client.models()

    return asyncio.run(ask()) or []


def check_model(endpoint: Endpoint, model: str) -> None:
    """Raise EndpointError where nothing answers, the key is refused, or the endpoint lists only other models."""

    async def ask() -> None:
        async with client_of(endpoint) as client:
            await client.check_model(model)

    asyncio.run(ask())


def _decoded(answer: Any) -> Any:
    """Return the JSON of an answer; the client leaves one that was not declared as JSON as text."""
    return json.loads(answer) if isinstance(answer, str) else answer


def _characters(texts: Any) -> int:
    """Return the length of a request's prompt or of an answer's text, in characters; ids count as three each."""
    if not isinstance(texts, Mapping):
        return 0
    if "choices" in texts:
        choice = texts["choices"][0]
        return len(choice.get("text") or (choice.get("message") or {}).get("content") or "")
    prompt = texts.get("prompt")
    if isinstance(prompt, str):
        return len(prompt)
    if prompt is not None:
        return CHARACTERS_PER_TOKEN * len(prompt)
    return sum(len(message.get("content") or "") for message in texts.get("messages", ()))


def _reply(error: Any) -> str:
    """Return what the endpoint answered, on one line and no longer than is read."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body.get("error") or body
    code = f" [{error.code}]" if getattr(error, "code", None) else ""
    return " ".join(str(body or error).split())[:300] + code


def _cause(error: BaseException) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:200] or type(cause).__name__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` (a number, or a date) or `retry-after-ms` asks for."""
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
