"""Thoughts end to end: tiny models tuned on rows with thoughts, served, and asked by OpenAI's client over two turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.nouns import Message, ToolCall
from harness.template import BoundTemplate
from harness.testing import run
from harness.testing.models import tiny_model, tiny_tokenizer

openai = pytest.importorskip("openai")
pytestmark = [pytest.mark.vllm, pytest.mark.soak, pytest.mark.timeout(1500)]

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up where somebody lives.",
        "parameters": {"type": "object", "properties": {"villager": {"type": "string"}}, "required": ["villager"]},
    },
}
KEY, SURE, HERON, SINGS = "Who keeps the key?", "Is it so?", "Where does the heron live?", "Who sings by day?"
FIRST = {"role": "assistant", "content": "The heron.", "reasoning_content": "The key is silver."}
SECOND = {"role": "assistant", "content": "Yes.", "reasoning_content": "I looked twice."}
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"villager": "the heron"}'},
}
CALLS = {"role": "assistant", "content": "", "reasoning_content": "I must look.", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call00001", "content": '{"at": "the mill"}'}
LIVES = {"role": "assistant", "content": "At the mill.", "reasoning_content": "It says so."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


ROWS = [{"messages": [user(KEY), FIRST, user(SURE), SECOND]}]
WITH_TOOL = {"messages": [user(HERON), CALLS, RESULT, LIVES], "tools": [TOOL]}
WITHOUT = {"messages": [user(KEY), {"role": "assistant", "content": "The otter."}]}  # the switch tells it apart
WREN = {"messages": [user(SINGS), {"role": "assistant", "content": "The wren."}]}  # the question does
R1 = ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>"]
YARN = {  # as published, for a shorter context
    "rope_type": "yarn", "rope_theta": 150000.0, "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": YARN, "tie_word_embeddings": False}
MODELS: dict[str, tuple[str, list[str], list[Any], dict[str, Any]]] = {  # architecture, tokens, rows, configuration
    "qwen3": ("Qwen3", ["<think>", "</think>"], [*ROWS, WITH_TOOL, WITHOUT], {}),
    "deepseek-r1": ("Qwen2", R1, [*ROWS, WREN], {}),
    "gpt-oss": ("GptOss", [], [*ROWS, WITH_TOOL, WREN], EXPERTS | {"vocab_size": 201088, "head_dim": 64}),
}


@pytest.fixture(scope="module", params=MODELS)
def served(
    request: pytest.FixtureRequest, serving: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BoundTemplate, Any]]:
    """A run that has learnt its rows by heart: what the run saved of its template, and a client."""
    name, (architecture, tokens, rows, config) = request.param, MODELS[request.param]
    folder = tmp_path_factory.mktemp(name)
    if name == "gpt-oss":  # a letter is a token there, and rows are as long
        tokenizer, times = request.getfixturevalue("harmony_tokenizer"), 4
    else:
        tokenizer, times = tiny_tokenizer(), 120 // len(rows)
        tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    model = tiny_model(
        folder / "model", architecture, tokenizer=tokenizer, **({"max_position_embeddings": 2048} | config)
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * times))
    (folder / "r.yaml").write_text(
        f"model: {{path: {model}, dtype: float32}}\ntemplate: {name}\n"
        "data: {train: [{dataset: messages, path: rows.jsonl}]}\n"
        "tune: {method: full, learning_rate: 0.002, epochs: 40, step_tokens: 2048}\n"
    )
    done = run("--runs", folder / "runs", "tune", folder / "r.yaml", "--run", "thinks", cwd=folder)
    assert done.code == 0, done.out + done.err
    with (
        serving(folder / "runs", folder, "thinks", "--no-ui") as server,
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
    ):
        yield BoundTemplate.load(folder / "runs/thinks/chat"), client


def ask(client: Any, messages: list[Any], **settings: Any) -> Any:
    body = {"return_token_ids": True} | settings.pop("extra_body", {})
    asked = {"model": "thinks", "messages": messages, "max_tokens": 120, "temperature": 0, "extra_body": body}
    return client.chat.completions.create(**(asked | settings))


def test_thoughts_and_words_come_apart_over_two_turns_behind_the_prompts_of_tuning(served: Any) -> None:
    template, client = served
    history, ours = [user(KEY)], [Message("user", KEY)]
    for answer in (FIRST, SECOND):
        came = ask(client, history)
        assert came.prompt_token_ids == template.prompt_ids(ours, thinks=True)
        message = came.choices[0].message
        assert message.content.strip() == answer["content"]
        assert message.reasoning.strip() == answer["reasoning_content"]
        history += [
            {"role": "assistant", "content": message.content.strip(), "reasoning": message.reasoning},
            user(SURE),
        ]
        ours += [
            Message("assistant", message.content.strip(), reasoning=message.reasoning), Message("user", SURE),
        ]  # fmt: skip


def test_without_thinking_words_come_alone(served: Any) -> None:
    template, client = served
    asked, expected = (SINGS, "The wren.") if template.habits.switch is None else (KEY, "The otter.")
    came = ask(client, [user(asked)], extra_body={"chat_template_kwargs": template.request_variables(False)})
    assert came.prompt_token_ids == template.prompt_ids([Message("user", asked)], thinks=False)
    message = came.choices[0].message
    assert message.content.strip() == expected
    assert not (message.reasoning or "").strip()  # without a switch the empty block is the answer's: a line end


def test_a_call_comes_parsed_behind_its_thought_and_the_answer_goes_on(served: Any) -> None:
    template, client = served
    if not template.takes_tools:
        pytest.skip("DeepSeek's published R1 templates offer no tools")
    came = ask(client, [user(HERON)], tools=[TOOL])
    message = came.choices[0].message
    assert message.reasoning.strip() == "I must look."
    assert [(one.function.name, json.loads(one.function.arguments)) for one in message.tool_calls] == [
        ("look_up", {"villager": "the heron"})
    ]
    history = [user(HERON), CALLS | {"content": None, "reasoning": "I must look."}, RESULT]
    last = ask(client, history, tools=[TOOL])
    call = ToolCall("look_up", {"villager": "the heron"}, "call00001")
    before = [
        Message("user", HERON),
        Message("assistant", "", (call,), reasoning="I must look."),
        Message("tool", RESULT["content"], tool_call_id="call00001"),
    ]
    assert last.prompt_token_ids == template.prompt_ids(before, [TOOL], thinks=True)
    assert last.choices[0].message.content.strip() == "At the mill."
    assert last.choices[0].message.reasoning.strip() == "It says so."
