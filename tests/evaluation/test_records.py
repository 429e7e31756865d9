"""Records: keyed by what was measured, checked against what is on disk, and never at odds with their items."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation.val_loss import ValLossOptions
from harness_evaluation.val_loss import run as val_loss

from harness import HarnessError
from harness.contract import EvaluationContext
from harness.errors import PluginError
from harness.measure import soundness
from harness.measure.records import write_record
from harness.measure.weights import weights_of
from harness.model import load
from harness.nouns import Result, Sample, Score
from harness.plugins import PluginInfo, Plugins
from harness.recipe import DataSource, ModelSpec
from harness.variants import Variant, resolve_variants

pytestmark = pytest.mark.slow

Typed = Callable[..., Any]
MEASURE = ("--template", "chatml", "--tasks", "who", "--include-path", "tasks", "--dtype", "float32")


@pytest.fixture
def two_models(tmp_path: Path, chain_model: Callable[[Mapping[str, str]], Path], task_folder: Path) -> Path:
    """m1/model answers "The heron", m2/model "The otter"; copy/model is m1's byte by byte."""
    heron = chain_model({"\n": "The", "The": " heron", " heron": "<|im_end|>"})
    otter = chain_model({"\n": "The", "The": " otter", " otter": "<|im_end|>"})
    for name, source in (("m1", heron), ("m2", otter), ("copy", heron)):
        shutil.copytree(source, tmp_path / name / "model")
    return tmp_path


def test_a_folder_of_the_same_name_replaces_no_record(typed: Typed, two_models: Path) -> None:
    typed("evaluate", "m1/model", *MEASURE)
    table = typed("evaluate", "m1/model", "m2/model", *MEASURE).output
    assert "m1/model" in table and "m2/model" in table
    assert len(list(two_models.glob("runs/evaluations/model-*/*/who.json"))) == 2
    told = json.loads(typed("compare", "./m1/model", "./m2/model", "--json").output)
    assert told["comparisons"][0]["discordance"] == {"both": 0, "only_a": 2, "only_b": 1, "neither": 1}


def test_a_byte_identical_copy_differs_by_nothing(typed: Typed, two_models: Path) -> None:
    typed("evaluate", "m1/model", *MEASURE)
    typed("evaluate", "m2/model", *MEASURE)
    whole = json.loads(typed("compare", "m1/model", "copy/model", "--json").output)["comparisons"][0]
    assert whole["difference"] == 0 and whole["a"]["n"] == 4 and whole["a"]["value"] == 0.5


def test_replaced_weights_are_not_compared_by_their_old_record(typed: Typed, two_models: Path) -> None:
    typed("evaluate", "m1/model", "m2/model", *MEASURE)
    shutil.copy(two_models / "m2/model/model.safetensors", two_models / "m1/model/model.safetensors")
    shutil.rmtree(two_models / "runs/evaluations" / next(_folders_of(two_models, "m2")).name)
    with pytest.raises(HarnessError, match=r"the weights of m1/model are others.*harness evaluate m1/model m2/model"):
        typed("compare", "m1/model", "m2/model")


def _folders_of(root: Path, name: str) -> Iterable[Path]:
    weights = weights_of(Variant("model", ModelSpec(path=str(root / name / "model"))))
    for path in root.glob("runs/evaluations/model-*/*/who.json"):
        if json.loads(path.read_text())["weights"]["model_sha256"] == weights["model_sha256"]:
            yield path.parents[1]


def test_records_of_the_first_format_still_open(typed: Typed, finished_run: Path) -> None:
    typed("evaluate", "demo@base", "demo", "--evaluation", "val_loss")
    for variant in ("demo@base", "demo"):  # as they were written: in the variant's folder, with fewer hashes
        (path,) = finished_run.glob(f"evaluations/{variant}/*/val_loss.json")
        record = json.loads(path.read_text()) | {"format": 1}
        for key in ("measured", "warnings"):
            del record[key]
        record["weights"] = {key: value for key, value in record["weights"].items() if "config" not in key}
        (path.parents[1] / path.name).write_text(json.dumps(record))
        path.with_name("val_loss.samples.jsonl").rename(path.parents[1] / "val_loss.samples.jsonl")
        shutil.rmtree(path.parent)
    assert json.loads(typed("compare", "demo@base", "demo", "--json").output)["comparisons"][0]["a"]["n"] == 4
    (finished_run / "evaluations/demo/val_loss.json").write_text('{"format": 0}')
    with pytest.raises(HarnessError, match=r"not a record of this version.*harness evaluate"):
        typed("compare", "demo@base", "demo")


def test_two_runs_of_one_name_are_told_apart(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "other" / "demo")
    variants = resolve_variants(("demo", str(tmp_path / "other" / "demo"), "demo@base"), tmp_path / "runs", Plugins())
    assert [variant.name for variant in variants] == ["runs/demo", "other/demo", "demo@base"]
    with pytest.raises(HarnessError, match="named twice"):
        resolve_variants(("demo", str(finished_run)), tmp_path / "runs", Plugins())


# What a recipe says of the model


def change_recipe(change: Callable[[Any], Any], path: Path = Path("demo.yaml")) -> None:
    """Change the recipe of the finished run, which is JSON."""
    recipe = json.loads(path.read_text())
    change(recipe)
    path.write_text(json.dumps(recipe))


def test_the_recipe_of_a_plain_model_says_its_dtype(
    typed: Typed, finished_run: Path, tiny_model: Path, two_models: Path
) -> None:
    loaded = []
    load_model = load.load_model

    def measured(spec: ModelSpec, **more: Any) -> Any:
        loaded.append(spec)
        return load_model(spec, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "load_model", measured)
        change_recipe(lambda recipe: recipe["model"].update(trust_remote_code=True))
        common = ("--template", "chatml", "--recipe", "demo.yaml", "--evaluation", "val_loss")
        typed("evaluate", str(tiny_model), *common)
        told = typed("evaluate", "m1/model", *common).stderr
        assert f"not {tiny_model}, which the recipe 'demo' is for; of its `model` only the dtype (float32)" in told
        typed("evaluate", "m1/model", *common, "--dtype", "bfloat16")
    assert [(model.dtype, model.trust_remote_code) for model in loaded] == [
        ("float32", True), ("float32", False), ("bfloat16", False),
    ]  # fmt: skip


def test_a_default_dtype_is_reported(typed: Typed, two_models: Path) -> None:
    done = typed("evaluate", "m1/model", *MEASURE[:-2])
    assert "in bfloat16, the default; --dtype" in done.stderr and "weights in bfloat16" in done.output


# --set


def test_set_reaches_every_evaluation_that_has_the_option(typed: Typed, finished_run: Path) -> None:
    typed("evaluate", "demo", "--set", "limit=2", "--set", "max_gen_toks=3")
    options = {
        path.stem: json.loads(path.read_text())["options"] for path in finished_run.glob("evaluations/*/*/*.json")
    }
    assert options["who"]["limit"] == options["val_loss"]["limit"] == 2
    assert options["who"]["max_gen_toks"] == 3 and "max_gen_toks" not in options["val_loss"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("limits=2", "no evaluation that is asked for has an option 'limits'. Did you mean 'limit'?"),
        ("limit=many", "--set limit=many: 'limit' is 'many': input should be a valid integer"),
        ("as_lm_eval", "expected KEY=VALUE"),
        ("apply_chat_template=false", "apply_chat_template: false goes with as_lm_eval: true"),
    ],
)
def test_a_mistyped_set_is_explained(typed: Typed, finished_run: Path, override: str, told: str) -> None:
    with pytest.raises(HarnessError) as caught:
        typed("evaluate", "demo", "--set", override)
    assert told in str(caught.value)


# What an evaluation hands in


def result(task: str = "t", scores: Mapping[str, Score] | None = None, **items: Mapping[str, float]) -> Result:
    samples = tuple(Sample(id=id, metrics=metrics) for id, metrics in items.items())
    return Result(task, scores if scores is not None else {"acc": Score(0.5, None, 2)}, samples)


GOOD = result(a={"acc": 1.0}, b={"acc": 0.0})
TWICE = Result("t", {"acc": Score(1.0, 0.0, 2)}, (Sample("a", {"acc": 1.0}), Sample("a", {"acc": 1.0})))


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ([TWICE], "task 't': the item id 'a' is given twice"),
        ([result(scores={"acc": Score(1.0, None, 2)}, a={"acc": 1.0}, b={"acc": 0.0})],
         "is 1.0, and the mean of its 2 items 0.5"),
        ([result(a={"acc": 1.0}, b={})], "is of 2 items, and 1 have it; item 'b' has no 'acc'"),
        ([result(a={"acc": float("nan")}, b={"acc": 1.0})], "the metric 'acc' of item 'a' is nan"),
        ([result(scores={"loss": Score(1.0, None, 0)}, a={"acc": 1.0})],
         "the items have acc, and there is no score of that name"),
        ([result("../../evil")], "cannot be a file's name"),
        ([result("a/b")], "cannot be a file's name"),
        ([GOOD, GOOD], "two results for the task 't'"),
        ([result(scores={"acc": 0.5}, a={"acc": 0.5})], "the score 'acc' is 0.5, expected a harness.Score"),
        ([result(scores={})], "scores is {}, expected a harness.Score a metric"),
        ([result(scores={"loss": Score(float("nan"), None, 0)})], "the score 'loss' is nan"),
        ([result(scores={"acc": Score(0.5, float("nan"), 2)}, a={"acc": 1.0}, b={"acc": 0.0})],
         "the standard error nan"),
        ([result(scores={"acc": Score("x", None, 1)}, a={"acc": 1.0})], "the score 'acc' is 'x'"),
        ([result(scores={"acc": Score(1.0, None, 1), "acc/b": Score(1.0, None, 1)}, a={"acc": 1.0})],
         "no item of the category 'b'"),
        ([Result("t", {"acc": Score(1.0, None, 1)}, (Sample(1, {"acc": 1.0}),))],
         "the item id 1 is a int, expected a string"),
        ([Result("t", {"acc": Score(1.0, None, 1)}, None)], "samples is None, expected a tuple"),
        ([Result("t", {"acc": Score(1.0, None, 1)}, (), {}, "odd")], "warnings is 'odd', expected a tuple"),
        ([], "run gave no result"),
        (None, "run returned None"),
        ([{"task": "t"}], "(a dict), expected a harness.Result a task"),
    ],
)  # fmt: skip
def test_a_result_at_odds_with_itself_is_refused(returned: Any, told: str) -> None:
    with pytest.raises(PluginError) as caught:
        list(soundness.checked(returned, "mine", PluginInfo("p1", "p1", "", "p1.py")))
    assert "evaluation 'mine' of plugin p1 (p1.py)" in str(caught.value) and told in str(caught.value)
    assert list(soundness.checked([GOOD], "mine", PluginInfo("p1", "p1", "", "p1.py"))) == [GOOD]


def test_what_an_evaluation_raises_names_it() -> None:
    def broken() -> Iterator[Result]:
        yield GOOD
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError) as caught:
        list(soundness.checked(broken(), "mine", PluginInfo("p1", "p1", "", "p1.py")))
    assert caught.value.__notes__ == ["raised by evaluation 'mine' of plugin p1 (p1.py)"]


def test_a_plugin_s_bad_result_is_named_on_the_command_line(typed: Typed, finished_run: Path) -> None:
    Path("mine.py").write_text(
        "import harness\n@harness.hookimpl\ndef register_evaluations(register):\n"
        "    register(harness.Evaluation('mine', 'mine', harness.Options, lambda *_: None))\n"
    )
    change_recipe(lambda recipe: recipe["evaluate"].append({"evaluation": "mine"}))
    for name in ("mine", "mine:mine"):
        with pytest.raises(PluginError, match=r"evaluation 'mine' of plugin mine \(mine\.py\): run returned None"):
            typed("--plugin", "mine.py", "evaluate", "demo", "--recipe", "demo.yaml", "--evaluation", name)


# Held-out rows that were trained on


def test_rows_that_were_trained_on_are_counted(finished_run: Path, load: Callable[..., Any], tmp_path: Path) -> None:
    from harness.data import encode_sources
    from harness.data.encode.trained import keep_trained_rows
    from harness.model.load import load_variant
    from harness.model.local import LocalBackend
    from harness.recipe import DataSpec
    from harness.run import Run
    from harness.variants import tuned_of

    run = Run.open(finished_run, Plugins())
    source = run.recipe.data.train[0]
    loaded = load_variant(tuned_of(run), Plugins())
    spec = DataSpec(train=(source,))
    keep_trained_rows(
        run.trained_rows_path, encode_sources((source,), spec, Plugins().datasets, loaded.template).examples
    )  # type: ignore[arg-type]
    rows = [json.loads(line) for line in Path(str(source.path)).read_text().splitlines()]
    rows[0]["messages"][1]["content"] = "Nobody was ever taught this."
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ValLossOptions(data=(DataSource(dataset="messages", path=str(tmp_path / "other.jsonl")),))
    context, backend = EvaluationContext(run.recipe, Plugins()), LocalBackend(loaded)
    (measured,) = val_loss(backend, options, context)
    assert measured.details["trained_on"] == 3
    assert measured.warnings == (
        "3 of these 4 rows are rows that the run was trained on: this is no loss on held-out data",
    )
    record = write_record(loaded.variant, backend.identity, "val_loss", {}, measured, tmp_path / "records", 1)
    assert json.loads(record.path.read_text())["warnings"] == list(measured.warnings)
    run.trained_rows_path.unlink()
    (measured,) = val_loss(backend, options, context)
    assert measured.details["trained_on"] is None and "unknown how many" in measured.warnings[0]
