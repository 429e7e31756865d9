"""Rows and templates that were once learnt wrongly or refused: each gives what is right for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.data import convert_row, load_source
from harness.model.tokenizer import load_tokenizer
from harness.nouns import Conversation, Message, without_thoughts
from harness.plugins import Plugins
from harness.recipe import source_model
from harness.template import BREAK, BoundTemplate, bind
from harness.template.encode import Reasoning

THINK = [151667, 151668]  # <think> and </think> in Qwen 3's vocabulary
FOUR = "<think>\nTwo and two make four.\n</think>\n\nFour.<|im_end|>"
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
Bound = Callable[..., BoundTemplate]


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    """The folder of cases; it lies beside that of the real data."""
    found = real_data.parent / "cases" / "templates"
    if not found.is_dir():
        pytest.skip("there are no cases beside HARNESS_REAL_DATA")
    return found


@pytest.fixture(scope="module")
def cases(folder: Path) -> dict[str, dict[str, Any]]:
    rows = map(json.loads, (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def qwen3(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bound:
    """`qwen3("model", **options)`: a template on Qwen 3's vocabulary; `source` instead of its published template."""
    there, here = real_data / "tok-qwen2", tmp_path_factory.mktemp("qwen3")
    for name in ("vocab.json", "merges.txt", "qwen3_30b.tokenizer_config.json"):
        shutil.copy(there / name, here / name.removeprefix("qwen3_30b."))

    def bound(name: str, source: str | None = None, **options: Any) -> BoundTemplate:
        template, tokenizer = Plugins().templates[name], load_tokenizer(str(here))
        if source is not None:
            tokenizer.chat_template = source
        return bind(template, tokenizer, template.options(**options) if template.options else None)

    return bound


def conversation(row: dict[str, Any]) -> Conversation:
    (item,) = convert_row(Plugins().datasets["messages"], row, None)
    return item


def learnt(template: BoundTemplate, talk: Conversation, reasoning: Reasoning = "learn") -> list[tuple[str, str]]:
    """The prompt and what is learnt of each example, as text."""
    pairs = []
    for one in template.encode_batch([talk], reasoning=reasoning):
        begin, count = list(one.loss_mask).index(True), sum(one.loss_mask)
        assert all(one.loss_mask[begin : begin + count])
        pairs.append((template.decoded(one.input_ids[:begin]), template.decoded(one.input_ids[begin : begin + count])))
    return pairs


def thoughts_are_refused_or_left_out_where_thinking_is_off(case: Any, qwen3: Bound, real_data: Path) -> None:
    talk = conversation(case["row"])
    for template in (
        qwen3("model", variables=case["template"]["variables"]),
        qwen3("model", thinking="off"),
        qwen3("qwen3", thinking="off"),
    ):
        with pytest.raises(harness.TemplateError, match=r"message 2 has thoughts, .*told not to think"):
            template.encode(talk)
        ((prompt, answer),) = learnt(template, talk, "drop")
        assert prompt.endswith("<think>\n\n</think>\n\n") and answer == "Four.<|im_end|>"


def thoughts_are_learnt_as_the_template_writes_them(case: Any, qwen3: Bound, real_data: Path) -> None:
    for template in (qwen3("model"), qwen3("qwen3")):
        ((prompt, answer),) = learnt(template, conversation(case["row"]))
        assert prompt.endswith("<|im_start|>assistant\n") and answer == FOUR
        (example,) = template.encode_batch([conversation(case["row"])])
        assert [id for id in example.input_ids if id in THINK] == THINK


def history_is_the_same_in_tuning_and_in_serving(case: Any, qwen3: Bound, real_data: Path) -> None:
    talk = conversation(case["row"])
    template = qwen3("chatml")
    with pytest.raises(harness.TemplateError, match=r"does not support thoughts.*drop"):
        template.encode(talk)
    example = template.encode_batch([talk], reasoning="drop")[0]
    sent = [message.as_dict() for message in talk.messages[:3]]
    for names in ((), ("reasoning",), ("reasoning", "reasoning_content")):
        asked = [
            {key: value for key, value in one.items() if key != "reasoning"}
            | (dict.fromkeys(names, one["reasoning"]) if "reasoning" in one else {})
            for one in sent
        ]
        (ids,) = template.ids_of([template.renderer(asked, None, True)])
        assert example.input_ids[: len(ids)] == ids


def a_thought_before_a_call_stands_as_published(case: Any, qwen3: Bound, real_data: Path) -> None:
    talk = conversation(case["row"])
    with pytest.raises(
        harness.TemplateError, match=r"does not support thoughts, and message 2 has some.*such as qwen3"
    ):
        qwen3("chatml").encode(talk)
    for name in ("model", "qwen3"):
        ((_, answer),) = learnt(qwen3(name), talk)
        assert answer == case["published_learnt"].removesuffix("<tool_call>") + CALL


def the_first_tokens_are_the_publishers(case: Any, qwen3: Bound, real_data: Path) -> None:
    tokenizer = load_tokenizer(str(real_data / "tok-tinyllama"))
    template = bind(Plugins().templates[case["template"]], tokenizer)
    example = template.encode(conversation(case["row"]))
    tokens = tokenizer.convert_ids_to_tokens(example.input_ids)
    assert tokens[: len(case["right_tokens"])] == case["right_tokens"]


def what_follows_the_end_of_the_last_answer_is_not_learnt(case: Any, qwen3: Bound, real_data: Path) -> None:
    tokenizer = load_tokenizer(str(real_data / "tok-tinyllama"))
    tokenizer.add_tokens(["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"], special_tokens=True)
    tokenizer.eos_token = "<|endoftext|>"
    source = real_data / "chat-templates" / "phi3_5.jinja"
    tokenizer.chat_template = source.read_text(encoding="utf-8")
    template = bind(Plugins().templates["model"], tokenizer)
    talk = Conversation.of(("user", "Hi"), ("assistant", "Hello"), ("user", "You?"), ("assistant", "Well."))
    (example,) = template.encode_batch([talk])
    tokens = template.tokenizer.convert_ids_to_tokens(example.input_ids)
    seen = [token for token, mask in zip(tokens, example.loss_mask, strict=True) if mask]
    assert "".join(seen).replace("▁", "") == "Hello<|end|>Well.<|end|>"
    assert template.stop_tokens[0] == "<|end|>" and template.check_turns(talk) == 2


RIGHT: dict[str, Callable[[Any, Bound, Path], None] | None] = {  # None: see tests/serve/test_parsers.py
    "think-off-poison": thoughts_are_refused_or_left_out_where_thinking_is_off,
    "think-on-refused": thoughts_are_learnt_as_the_template_writes_them,
    "chatml-history-other-in-serving": history_is_the_same_in_tuning_and_in_serving,
    "think-before-call": a_thought_before_a_call_stands_as_published,
    "pythonic-parser": None,
    "no-parser": None,
    "first-token-alpaca": the_first_tokens_are_the_publishers,
    "first-token-vicuna": the_first_tokens_are_the_publishers,
    "phi3-own": what_follows_the_end_of_the_last_answer_is_not_learnt,
}


def test_every_case_has_its_check(cases: dict[str, Any]) -> None:
    assert cases.keys() == RIGHT.keys()


@pytest.mark.parametrize("id", [id for id, check in RIGHT.items() if check])
def test_a_case_gives_what_is_right(id: str, cases: dict[str, Any], qwen3: Bound, real_data: Path) -> None:
    check = RIGHT[id]
    assert check is not None
    check(cases[id], qwen3, real_data)


ASKED, SURE, YES = Message("user", "What is 2+2?"), Message("user", "Sure?"), Message("assistant", "Yes.")
PLAIN, THOUGHT = Message("assistant", "Four."), Message("assistant", "Four.", reasoning="Two and two make four.")
MINIMAL = {  # what is learnt of an answer without thoughts and of one with; none where it has no place for them
    "channel": ("final>>\nFour.<|im_end|>", None),
    "think-prefilled": (
        "\n</think>\n\nFour.<|im_end|>",
        "Two and two make four.\n</think>\n\nFour.<|im_end|>",
    ),
    "trailing-eos": ("Four.<|im_end|>", None),
    "wrapped-answer": ("Four.<file_sep><|im_end|>", None),
}


def test_every_minimal_template_is_taken(folder: Path) -> None:
    assert {path.stem for path in (folder / "jinja").iterdir()} == MINIMAL.keys()


@pytest.mark.parametrize("name", MINIMAL)
def test_a_minimal_template_teaches_what_the_model_writes(name: str, folder: Path, qwen3: Bound) -> None:
    template = qwen3("model", (folder / "jinja" / f"{name}.jinja").read_text(encoding="utf-8"))
    plain, thought = MINIMAL[name]
    ((prompt, answer),) = learnt(template, Conversation((ASKED, PLAIN)))
    assert prompt == template.render([ASKED], generation_prompt=True) and answer == plain
    assert template.check_turns(Conversation((ASKED, PLAIN, SURE, YES))) == 2
    if thought is None:
        with pytest.raises(harness.TemplateError, match="does not support thoughts"):
            template.encode(Conversation((ASKED, THOUGHT)))
    else:
        assert [text for _, text in learnt(template, Conversation((ASKED, THOUGHT)))] == [thought]


# What is learnt of each answer of the rows, and how many thoughts stand in its prompt.
ROWS = (
    [(FOUR, 0)],
    [(FOUR, 0)],
    [(FOUR, 0), ("<think>\nI checked it twice.\n</think>\n\nYes.<|im_end|>", 0)],
    [
        (f"<think>\nI need the tool.\n</think>\n\n{CALL}", 0),
        ("<think>\nIt says 4.\n</think>\n\n4 degrees.<|im_end|>", 1),
    ],
)


def rows(folder: Path, **options: Any) -> list[Any]:
    datasets = Plugins().datasets
    kind, path = source_model(datasets["messages"]), str(folder / "reasoning-rows.jsonl")
    return list(load_source(kind(dataset="messages", path=path, **options), datasets))


@pytest.mark.parametrize("name", ["model", "qwen3"])
def test_rows_with_thoughts_are_learnt_behind_the_prompts_of_serving(name: str, folder: Path, qwen3: Bound) -> None:
    template, talks = qwen3(name), rows(folder, think_tags=True)
    for talk, expected in zip(talks, ROWS, strict=True):
        pairs = learnt(template, talk)
        assert [(answer, len(re.findall(r"<think>\n\w", prompt))) for prompt, answer in pairs] == expected
        assert all(BREAK not in prompt + answer for prompt, answer in pairs)
        assert template.check_turns(talk) == len(expected)
        for (_, left), (answer, _) in zip(learnt(template, without_thoughts(talk)), expected, strict=True):
            assert left == answer.rpartition("</think>\n\n")[2]


def test_tags_in_a_text_are_text_unless_asked_for(folder: Path, qwen3: Bound) -> None:
    _, tagged, *_ = rows(folder)
    assert not tagged.messages[1].reasoning
    ((prompt, answer),) = learnt(qwen3("model"), tagged)
    assert prompt.endswith("<think>\n\n</think>\n\n") and answer.replace(BREAK, "") == FOUR and BREAK in answer
