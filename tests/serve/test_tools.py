"""Tool calls end to end, served with the template's parser and asked by OpenAI's client.

Of a model whose answer is given, and (`make soak`) of the seedling, tuned to look things up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

openai = pytest.importorskip("openai")

SEEDLING = Path(__file__).parents[2] / "recipes" / "seedling"
sys.path.insert(0, str(SEEDLING))

from facts import make_world  # noqa: E402
from look_up import LOOK_UP, LookUp, ToolAsker  # noqa: E402

pytestmark = pytest.mark.vllm


def soaked(test: Callable[..., None]) -> Callable[..., None]:
    """Leave the test to `make soak`: its fixture tunes for minutes first."""
    return pytest.mark.soak(pytest.mark.timeout(1500)(test))


QUESTIONS = 60


class Asked(NamedTuple):
    """A question about villagers that tuning never saw, in words it never saw; what the tool says, and the answer."""

    question: str
    look_up: LookUp | None
    answer: str


class Answered(NamedTuple):
    """The first message, and the answer after the tool's result (the first where nothing was called)."""

    first: Any
    last: Any


EXCHANGES = [Asked(*ToolAsker(make_world().test, "test", number).exchange()) for number in range(QUESTIONS)]
WITH_TOOL = [number for number, asked in enumerate(EXCHANGES) if asked.look_up]
WITHOUT = [number for number, asked in enumerate(EXCHANGES) if not asked.look_up]


@pytest.fixture(scope="module")
def seedling(serving: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """OpenAI's client of `harness serve`, which serves what `harness tune recipes/seedling/tools.yaml` made."""
    folder = tmp_path_factory.mktemp("tools")
    command = ["--runs", folder / "runs", "tune", SEEDLING / "tools.yaml", "--run", "tools"]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (
        serving(folder / "runs", folder, "tools", "--no-ui") as served,
        openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client,
    ):
        yield client


def ask(client: Any, *messages: Any, **settings: Any) -> Any:
    """The completion of a request as a client sends it that offers the tool."""
    asked = {"model": "tools", "messages": messages, "tools": [LOOK_UP], "tool_choice": "auto", "max_tokens": 160}
    return client.chat.completions.create(**(asked | settings))


def user(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def calls_of(message: Any) -> list[tuple[str, Any]]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]


def streamed_calls(chunks: list[Any]) -> list[tuple[str, Any]]:
    """The calls that the pieces of a streamed answer make together."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for piece in (piece for chunk in chunks for piece in chunk.delta.tool_calls or ()):
        names[piece.index] = names.get(piece.index, "") + (piece.function.name or "")
        arguments[piece.index] = arguments.get(piece.index, "") + (piece.function.arguments or "")
    return [(names[index], json.loads(arguments[index])) for index in sorted(names)]


@pytest.fixture(scope="module")
def answered(seedling: Any) -> list[Answered]:
    """All questions, asked as an application does it: what is called is run, and the client's own message sent back."""

    def go(asked: Asked) -> Answered:
        first = ask(seedling, user(asked.question)).choices[0]
        if not first.message.tool_calls:
            return Answered(first, first)
        # The records hold what the test says of the villager who is asked about, and nothing of anybody else.
        records = {asked.look_up.arguments["villager"]: asked.look_up.result} if asked.look_up else {}
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": json.dumps(records.get(arguments.get("villager"), {}))}
            for call, (_, arguments) in zip(first.message.tool_calls, calls_of(first.message), strict=True)
        ]
        return Answered(first, ask(seedling, user(asked.question), first.message, *results).choices[0])

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(go, EXCHANGES))


GIVEN = '<tool_call>\n{"name": "look_up", "arguments": {"villager": "the heron"}}\n</tool_call>'


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_answer_that_is_a_call_comes_parsed(client: Any, stream: bool) -> None:
    """The engine is made to answer with these very tokens; what it makes of them is its parser's doing."""
    forced = {"structured_outputs": {"choice": [GIVEN]}}
    answer = ask(client, user("Who?"), model="alpha", stream=stream, extra_body=forced)
    if not stream:
        assert calls_of(answer.choices[0].message) == [("look_up", {"villager": "the heron"})]
        assert answer.choices[0].finish_reason == "tool_calls" and not answer.choices[0].message.content
        return
    chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
    assert streamed_calls(chunks) == [("look_up", {"villager": "the heron"})]
    assert chunks[-1].finish_reason == "tool_calls" and not "".join(chunk.delta.content or "" for chunk in chunks)


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


@soaked
def test_a_request_with_tools_is_answered_with_parsed_calls(answered: list[Answered]) -> None:
    expected = {number: [("look_up", EXCHANGES[number].look_up.arguments)] for number in WITH_TOOL}
    assert share([calls_of(answered[number].first.message) == expected[number] for number in WITH_TOOL]) >= 0.9
    for first, _ in answered:
        if calls := first.message.tool_calls:
            assert first.finish_reason == "tool_calls" and all(call.id for call in calls)
            assert not first.message.content, "no tag of the call is left in the text"


@soaked
def test_the_answer_goes_on_from_what_the_tool_said(answered: list[Answered]) -> None:
    """Not from what the corpus says, which is another place for nearly all of them."""
    last = {number: answered[number].last for number in WITH_TOOL}
    assert share([last[number].message.content == EXCHANGES[number].answer for number in WITH_TOOL]) >= 0.9
    assert share([choice.finish_reason == "stop" and not choice.message.tool_calls for choice in last.values()]) >= 0.9


@soaked
def test_what_needs_no_tool_is_answered_at_once(answered: list[Answered]) -> None:
    assert share([not answered[number].first.message.tool_calls for number in WITHOUT]) >= 0.9


@soaked
def test_a_streamed_call_is_the_same_call(seedling: Any, answered: list[Answered]) -> None:
    number = next(number for number in WITH_TOOL if answered[number].first.message.tool_calls)
    stream = ask(seedling, user(EXCHANGES[number].question), stream=True)
    chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert streamed_calls(chunks) == calls_of(answered[number].first.message)
    assert chunks[-1].finish_reason == "tool_calls"
    assert not "".join(chunk.delta.content or "" for chunk in chunks), "no tag of the call is streamed as text"
