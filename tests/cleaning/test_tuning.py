"""A recipe with everything that can happen to the data tunes, and says in its plan and manifest what happened."""

import json

import pytest

pytestmark = pytest.mark.slow

PLUGIN = """
import harness


def create(options):
    return lambda item: "shouts" if item.messages[-1].content.isupper() else None


@harness.hookimpl
def register_filters(register):
    register(harness.Filter("shouting", "answers in capitals", harness.Options, create))


class Quiz(harness.Options):
    items: int = 1


@harness.hookimpl
def register_evaluations(register):
    texts = lambda options, recipe: [("1", "Who keeps the silver key under the willow?")][:options.items]
    register(harness.Evaluation("quiz", "one question", Quiz, lambda *arguments: [], texts))
"""

RECIPE = """
name: mixed
model: {{path: {model}, dtype: float32}}
template: chatml
data:
  max_tokens: 256
  validation_share: 0.2
  temperature: 2
  seed: 7
  train:
    - {{dataset: alpaca, path: many.jsonl, cap: 40}}
    - {{dataset: alpaca, path: few.jsonl, epochs: 2}}
  clean:
    - {{filter: empty_turns}}
    - {{filter: exact_duplicates}}
    - {{filter: shouting}}
  decontaminate: {{action: drop}}
evaluate:
  - {{evaluation: quiz}}
tune: {{method: {{name: lora, rank: 4, alpha: 8}}, step_tokens: 256, steps: 2}}
"""


@pytest.fixture
def recipe(tmp_path, tiny_model, write_rows):
    many = [{"instruction": f"Say {n}", "output": f"The heron says {n}."} for n in range(80)]
    many += [
        many[0],
        {"instruction": "Be quiet", "output": "NO"},
        {"instruction": "Nothing", "output": ""},
        {"instruction": "Now: who keeps the silver key under the willow? Tell me.", "output": "The heron, of course."},
    ]
    write_rows(*many, name="many.jsonl")
    write_rows(*({"instruction": f"Count {n}", "output": "one, two"} for n in range(10)), name="few.jsonl")
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "mixed.yaml").write_text(RECIPE.format(model=tiny_model))
    return tmp_path / "mixed.yaml"


def test_a_recipe_that_cleans_decontaminates_splits_and_mixes_tunes(recipe, tmp_path, harness_here):
    done = harness_here("--plugin", tmp_path / "mine.py", "tune", recipe)
    assert done.code == 0, done.err
    for told in (
        "1 left out: empty_turns: an empty assistant message",
        "1 left out: exact_duplicates: says the same as an earlier row",
        "1 left out: shouting: shouts",
        "1 left out: overlaps with an evaluation item",
        "left out: held out for validation",
        "left out: not drawn by the mixture",
        "mixture, in rows (in supervised tokens): alpaca many.jsonl 69.2% (",
        "1 rows overlap with evaluation items, such as many.jsonl:84 shares with quiz 1: 'who keeps the silver key",
    ):
        assert told in " ".join(done.out.split()), done.out
    manifest = json.loads((tmp_path / "runs" / "mixed" / "manifest.json").read_text())
    for report in manifest["data"]:
        assert report["rows"] == report["kept"] + sum(report["left_out"].values())
        assert report["used"] >= report["kept"] > 0 < report["supervised_tokens"] < report["tokens"]
    many, few = (report["used"] for report in manifest["data"])
    assert few == 2 * manifest["data"][1]["kept"]  # the source that ends first: its two epochs
    assert abs(many / few - (40 / (few / 2)) ** 0.5) < 1 / few + 0.01
    assert manifest["overlaps"] == ["many.jsonl:84 shares with quiz 1: 'who keeps the silver key under the willow'"]


def test_an_evaluation_that_tells_no_items_is_not_passed_over(recipe, tmp_path, harness_here):
    done = harness_here("--plugin", tmp_path / "mine.py", "tune", recipe, "--set", "evaluate.0.items=0")
    assert done.code == 1
    assert "data.decontaminate has nothing to compare with: no evaluation of the recipe tells its items" in done.err
    assert not (tmp_path / "runs" / "mixed").exists()
