"""The evaluation `instruct`: items drawn from a world's file, their scores, and the refusal of a wrong file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.instruct import EVALUATION, InstructOptions, items, score, texts

from harness import HarnessError
from harness.client.served import HttpBackend
from harness.contract import Answer, EvaluationContext, EvaluationItem
from harness.measure.runner import results
from harness.nouns import Remote
from harness.plugins import Plugins
from harness.testing import FakeEndpoint
from harness.testing.endpoint import Request

ALONE = EvaluationContext(None, None)
SEEDLING = Path(__file__).resolve().parents[2] / "recipes/seedling/data/instruct.yaml"
CATEGORIES = {"answers", "format", "boundaries", "context", "tools", "steering"}
WORLD = """
pools: {{pet: [{{name: cat, young: [kitten]}}, {{name: dog, young: [puppy, pup]}}], n: [2, 3]}}
tools: {{call: {{parameters: {{type: object, properties: {{pet: {{type: string}}}}}}}}}}
templates: [{{id: young, category: answers, draw: {{x: pet}}, messages: [{{user: "A young {{x.name}}?"}}],
  checks: [{{says: {{any: "{{x.young}}"}}}}], {0}}}]
"""


def drawn(**options: Any) -> list[EvaluationItem]:
    return list(items(InstructOptions(**options), ALONE))  # type: ignore[arg-type]


@pytest.fixture(params=["english", "seedling"])
def world(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"world_path": SEEDLING} if request.param == "seedling" else {}


def test_a_world_has_every_category_in_many_templates(world: dict[str, Any]) -> None:
    all_items = drawn(**world)
    assert Counter(item.category for item in all_items) == dict.fromkeys(CATEGORIES, 40)
    assert len({item.group for item in all_items}) > 40
    assert len({(item.category, item.requests[0].prompt) for item in all_items}) == 240
    assert len({item.id for item in all_items}) == 240
    texts_of_all = " ".join(message.content for item in all_items for message in item.requests[0].messages or ())
    assert "{x" not in texts_of_all and "{v" not in texts_of_all


def test_a_seed_gives_the_same_items_and_another_seed_others(world: dict[str, Any]) -> None:
    prompts = [item.requests[0].prompt for item in drawn(**world)]
    assert prompts == [item.requests[0].prompt for item in drawn(**world)]
    others = {item.requests[0].prompt for item in drawn(seed=1, **world)}
    assert len(others.intersection(prompts)) < 200
    assert [item.requests[0].prompt for item in drawn(limit=7, **world)] == prompts[:7]
    assert {item.category for item in drawn(limit=6, **world)} == CATEGORIES


def test_items_of_a_category_and_their_texts(world: dict[str, Any]) -> None:
    asked = drawn(n=5, categories=("format", "context"), **world)
    assert [item.category for item in asked] == ["format", "context"] * 5
    options = InstructOptions(n=5, categories=("format", "context"), **world)
    compared = list(texts(options, ALONE))  # type: ignore[arg-type]
    assert {id for id, _ in compared} == {item.id for item in asked}
    assert any("\n" in text for _, text in compared)


def right_answer(item: EvaluationItem) -> Answer:
    """Return an answer that passes all checks of an item, written from what they ask for."""
    checks = dict(item.data["checks"])
    say = checks.get("says", {})
    text = " ".join(map(str, [*say.get("any", [])[:1], *say.get("all", [])])) or "It is so."
    if call := checks.get("calls"):
        arguments = {key: value[0] if isinstance(value, list) else value for key, value in call["arguments"].items()}
        return Answer(json.dumps({"name": call["name"], "arguments": arguments}), "stop")
    if "is_json" in checks:
        keys = checks["is_json"].get("keys", ["key"])
        return Answer(json.dumps(dict.fromkeys(keys, "x") | checks["is_json"].get("values", {})), "stop")
    if items_of := checks.get("is_list"):
        return Answer("\n".join(f"{n + 1}. thing" for n in range(items_of["n"])), "stop")
    written = {
        "equals": lambda any: any[0],
        "separates": lambda n: ", ".join(["thing"] * n),
        "has_sentences": lambda exactly=1, **_: "It is so. " * exactly,
        "has_lines": lambda exactly: "A line\n" * exactly,
        "is_upper": lambda: text.upper(),
        "is_lower": lambda: text.lower(),
        "is_quoted": lambda: f'"{text}"',
        "starts": lambda text: f"{text} {' '.join(say.get('any', []))}",
        "ends": lambda text: f"So it is. {text}",
    }
    if "exactly" in checks.get("has_words", {}):
        text = "Word"
    for name, write in written.items():
        text = write(**checks[name]) if name in checks else text  # type: ignore[operator]
    return Answer(text.strip(), "stop")


def test_every_item_can_be_passed_and_only_by_an_answer(world: dict[str, Any]) -> None:
    for item in drawn(n=150, **world):
        assert score(item, [right_answer(item)]) == {"passed": 1.0}, item
        assert score(item, [Answer("", "stop")]) == {"passed": 0.0}
        if item.category != "format":  # two questions may be two sentences
            assert score(item, [Answer("User: And now?\nWhich?", "length")]) == {"passed": 0.0}, item


def test_thoughts_are_not_scored() -> None:
    (item,) = drawn(n=1, categories=("answers",))
    assert score(item, [Answer(f"<think>Which? User: ...</think>{right_answer(item).text}", "stop")])["passed"] == 1
    assert score(item, [Answer(f"<think>{right_answer(item).text}", "length")])["passed"] == 0


def test_items_with_tools_are_left_out_where_none_are_offered(fake_endpoint: FakeEndpoint) -> None:
    def answer(request: Request) -> str:
        return "Paris" if "France" in request.prompt else "x"

    fake_endpoint.answer = answer
    backend = HttpBackend.of_remote(Remote(fake_endpoint.url, "fake"), "far")
    (result,) = results(EVALUATION, backend, InstructOptions(n=4), EvaluationContext(None, Plugins()))
    assert result.details["left_out"] == {"this variant does not offer tools": 4}
    assert result.warnings == ("4 items are left out: this variant does not offer tools",)
    assert {name for name in result.scores if "/" in name} == {f"passed/{name}" for name in CATEGORIES - {"tools"}}
    assert result.scores["passed"].n == 20 and result.scores["passed/boundaries"].value > 0
    assert all(sample.group and sample.finish == "stop" for sample in result.samples)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("tools: [cal]", r"world.yaml: template 'young': there is no tool 'cal'. Did you mean 'call'\?"),
        ("draw: {x: pets}", r"there is no pool 'pets'. Did you mean 'pet'\?"),
        ("draw: {y: pet}", r"\{x.name\}: nothing is drawn as 'x'"),
        ("draw: {x: n}", r"\{x.name\}: 2 has no 'name'"),
        ("draw: {x: pet, y: pet, z: pet}", "3 different entries are drawn from the pool 'pet', which has fewer"),
        ("checks: [say: {any: [x]}]", r"there is no check 'say'. Did you mean 'says'\?"),
        ("checks: [says: {some: [x]}]", r"the check 'says': got an unexpected keyword argument 'some'"),
        ("checks: [is_list]", "the check 'is_list': missing a required argument: 'n'"),
        ("messages: [{robot: x}]", "there is no role 'robot'"),
        ("checks: []", "world.yaml: templates.0.checks"),
        ("max_tokens: 0", "world.yaml: templates.0.max_tokens"),
        ("maxtokens: 5", "world.yaml: templates.0.maxtokens"),
        ("id: [", "world.yaml: not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(tmp_path: Path, more: str, message: str) -> None:
    key = more.partition(":")[0]
    text = WORLD.format(more)
    for line in (
        "draw: {x: pet}, ",
        'messages: [{user: "A young {x.name}?"}],',
        'checks: [{says: {any: "{x.young}"}}], ',
    ):
        if line.startswith(key):
            text = text.replace(line, "")
    (tmp_path / "world.yaml").write_text(text)
    with pytest.raises(HarnessError, match=message):
        drawn(world_path=tmp_path / "world.yaml")


def test_a_small_world_gives_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "world.yaml").write_text(WORLD.format("max_tokens: 9"))
    small = drawn(world_path=tmp_path / "world.yaml")
    assert {item.requests[0].prompt[0].content for item in small} == {"A young cat?", "A young dog?"}  # type: ignore
    assert sorted(item.target for item in small) == ["says: kitten", "says: puppy/pup"]
    assert {item.requests[0].sampling.max_tokens for item in small} == {9}


def test_names_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no world 'englsh'. Did you mean 'english'\?"):
        InstructOptions(world="englsh")
    with pytest.raises(HarnessError, match=r"no template has the category 'form'. Did you mean 'format'\?"):
        drawn(categories=("form",))
    with pytest.raises(HarnessError, match="cannot be read: No such file"):
        drawn(world_path=tmp_path / "none.yaml")
