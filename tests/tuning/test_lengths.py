"""Rows longer than the recipe's limit or than the model reaches, texts in pieces, and stretched positions."""

from __future__ import annotations

import itertools
import json
import re
import shutil

import pytest

torch = pytest.importorskip("torch")

from harness.data import Reader, encode_data  # noqa: E402
from harness.model.configs import load_config, overrides_of, positions_of  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import sequence_logprobs  # noqa: E402
from harness.model.templates import bind_template  # noqa: E402
from harness.plugins import Plugins  # noqa: E402
from harness.recipe import DataSource, DataSpec, ModelSpec, load_recipe, template_spec  # noqa: E402


@pytest.fixture(scope="module")
def plugins():
    return Plugins()


@pytest.fixture
def short_model(tiny_model, tmp_path):
    """The tiny model, which reaches 32 positions here."""
    folder = shutil.copytree(tiny_model, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 32}))
    return folder


def over(recipe, old, new, **tune):
    path = recipe(**tune)
    path.write_text(path.read_text().replace(str(old), str(new)))
    return path


def with_data(path, more):
    path.write_text(path.read_text().replace("max_tokens: 256", f"max_tokens: 256\n  {more}"))
    return path


# on_overlong


@pytest.mark.slow
def test_rows_beyond_the_models_positions_are_for_on_overlong(harness, recipe, tiny_model, short_model):
    path = over(recipe, tiny_model, short_model, steps=1)
    assert "rope_scaling: {type: yarn, factor: 2}" in harness("tune", path).err
    done = harness("tune", with_data(path, "on_overlong: drop"), "--plan")
    assert re.search(r"; \d+ longer than the model's 32 positions: drop", done.out), done.out
    assert "left out: longer than the model's 32 positions" in done.out
    done = harness("tune", path, "--plan", "--set", "data.on_overlong=truncate", "--set", "data.max_tokens=40")
    assert "longer than 40 tokens: truncate" in done.out and "longer than the model's 32 positions: trunc" in done.out


def test_what_is_cut_ends_at_the_models_positions(short_model, rows, plugins):
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(rows)),), on_overlong="truncate")
    model = ModelSpec(path=str(short_model))
    template = bind_template(template_spec("chatml", plugins), model, plugins)
    whole, _ = encode_data(spec, plugins, template)
    reader = Reader(positions=positions_of(load_config(model)))
    cut, _ = encode_data(spec, plugins, template, reader=reader)
    assert max(whole.items.lengths()) > 32 and max(cut.items.lengths()) == 32
    assert cut.overlong == sum(length > 32 for length in whole.items.lengths())
    report = cut.reports[0]
    assert (report.overlong, report.beyond_positions) == (0, cut.overlong)


@pytest.mark.slow
def test_validating_data_counts_what_the_model_does_not_reach(harness, recipe, tiny_model, short_model):
    done = harness("data", "validate", over(recipe, tiny_model, short_model))
    assert done.code == 1 and "tokens, more than the model's 32 positions" in done.out


# Texts for pretraining


@pytest.fixture
def texts(write_rows):
    return write_rows({"text": "The heron keeps a silver key. " * 30}, {"text": "Short."}, name="texts.jsonl")


@pytest.fixture
def pretrained(tiny_model, texts, plugins):
    """Encode the texts as the objective `pretrain` has them, in pieces of at most 50 tokens."""

    def encode(template="plain", dataset="text", path=texts, **tune):
        recipe = texts.parent / "pretrain.yaml"
        recipe.write_text(
            f"model: {{path: {tiny_model}}}\ntemplate: {template}\n"
            f"data: {{max_tokens: 50, train: [{{dataset: {dataset}, path: {path}}}]}}\n"
            f"tune: {json.dumps({'objective': 'pretrain', 'method': 'full'} | tune)}\n"
        )
        loaded = load_recipe(recipe, plugins)
        bound = bind_template(loaded.template, loaded.model, plugins)
        return encode_data(loaded.data, plugins, bound, reader=Reader.of(loaded.tune.objective, plugins))[0], bound

    return encode


def test_a_long_text_is_trained_on_in_pieces_each_token_once(pretrained, texts):
    data, template = pretrained()
    *pieces, short = data.items
    assert len(pieces) > 3 and all(len(item.examples) == 1 for item in data.items)
    assert max(data.items.lengths()) == 50 == len(pieces[0].examples[0])
    ids = [*pieces[0].examples[0].input_ids]
    for before, piece in itertools.pairwise(pieces):
        own = piece.examples[0].input_ids
        assert own[0] == before.examples[0].input_ids[-1]  # from which its first is predicted
        ids += own[1:]
    eos = template.tokenizer.eos_token_id
    (whole,) = template.ids_of([json.loads(texts.read_text().splitlines()[0])["text"]])
    assert ids == [*whole, eos] and short.examples[0].input_ids[-1] == eos
    assert all(all(item.examples[0].loss_mask) for item in data.items)
    assert data.supervised == len(ids) - 1 + len(short.examples[0]) - 1
    report = data.reports[0]
    assert (report.parted, report.parts, data.overlong) == (1, len(pieces), 0)


def test_a_conversation_is_a_document_with_its_questions(pretrained, rows):
    data, template = pretrained(template="chatml", dataset="alpaca", path=rows)
    text = template.decoded(data.items[0].examples[0].input_ids)
    assert text.startswith("<|im_start|>user\nWho keeps the key?") and text.strip().endswith("<|im_end|>")
    assert text.count("<|im_end|>") == 2  # of the question and of the answer: no other end is put behind it
    assert all(data.items[0].examples[0].loss_mask)


@pytest.mark.slow
def test_pretraining_tunes_measures_and_says_how_texts_were_cut(harness, recipe, rows, texts):
    path = recipe(objective={"name": "pretrain"}, steps=2, layout="packed")
    text = path.read_text().replace("dataset: alpaca", "dataset: text").replace(str(rows), str(texts))
    text = text.replace("template: chatml", "template: plain").replace("max_tokens: 256", "max_tokens: 50")
    path.write_text(text + "evaluate: [{evaluation: val_loss}]\n")
    done = harness("tune", path)
    assert done.code == 0, done.err
    assert re.search(r"1 of them are longer than a row, and are trained on in \d+ pieces", done.out), done.out
    assert re.search(r"\(9\d%\) supervised", done.out)  # all but the first token of each, which nothing predicts
    done = harness("evaluate", "small", "--json")
    assert done.code == 0, done.err


# Stretched positions


@pytest.mark.parametrize("kind", ["yarn", "linear"])
def test_a_stretched_model_reaches_further_and_is_saved_so(kind, short_model, tmp_path):
    import transformers

    spec = ModelSpec(path=str(short_model), dtype="float32", rope_scaling={"type": kind, "factor": 4})
    assert positions_of(load_config(spec)) == 128
    model, plain = load_model(spec), load_model(spec.model_copy(update={"rope_scaling": None}))
    ids = list(range(3, 40))
    stretched = sequence_logprobs(model, ids)
    assert stretched != sequence_logprobs(plain, ids)
    model.save_pretrained(tmp_path / "saved")
    saved = ModelSpec(path=str(tmp_path / "saved"), dtype="float32")
    assert positions_of(load_config(saved)) == 128
    assert sequence_logprobs(load_model(saved), ids) == stretched
    by_overrides = transformers.AutoConfig.from_pretrained(short_model)
    by_overrides.update(overrides_of(spec))
    assert by_overrides.rope_parameters == load_config(spec).rope_parameters


def test_a_dynamic_stretch_is_refused_with_the_reason(harness, recipe, tiny_model):
    done = harness("tune", recipe(), "--set", "model.rope_scaling={type: dynamic, factor: 2}")
    assert done.code == 1 and "depend on its neighbours" in done.err and "expected yarn or linear" in done.err


def test_a_model_without_a_plain_rotary_embedding_is_not_stretched(short_model, tmp_path):
    spec = ModelSpec(path=str(short_model), rope_scaling={"type": "yarn", "factor": 2})
    load_config(spec).save_pretrained(tmp_path / "twice")
    with pytest.raises(Exception, match="this model has yarn: leave it out"):
        load_config(spec.model_copy(update={"path": str(tmp_path / "twice")}))


@pytest.mark.slow
def test_a_stretched_run_is_evaluated_merged_and_served_stretched(harness, recipe, tiny_model, short_model, tmp_path):
    from harness_serve.arguments import vllm_arguments
    from harness_serve.options import VllmOptions
    from harness_serve.plan import plan_engine

    from harness.variants import resolve_variants

    path = over(recipe, tiny_model, short_model, steps=2)
    path.write_text(path.read_text() + "evaluate: [{evaluation: val_loss}]\n")
    done = harness("tune", path, "--set", "model.rope_scaling={type: yarn, factor: 4}")
    assert done.code == 0, done.err
    assert "128, stretched by yarn x 4" in done.out
    plugins = Plugins()
    names = ("small@base", "small")
    base, tuned = resolve_variants(names, tmp_path / "runs", plugins)
    assert base.model.rope_scaling == tuned.model.rope_scaling and tuned.model.rope_scaling.factor == 4
    arguments = vllm_arguments(plan_engine((base, tuned), VllmOptions()), tuned.chat_folder, VllmOptions(), on_cpu=True)
    (overrides,) = [json.loads(one.partition("=")[2]) for one in arguments if one.startswith("--hf-overrides=")]
    assert overrides["max_position_embeddings"] == 128 and overrides["rope_parameters"]["rope_type"] == "yarn"
    done = harness("evaluate", *names)
    assert done.code == 0, done.err
    assert harness("runs", "merge", "small").code == 0
    merged = json.loads((tmp_path / "runs/small/merged/config.json").read_text())
    assert merged["max_position_embeddings"] == 128 and merged["rope_parameters"]["factor"] == 4


# Weights of rows


@pytest.mark.parametrize("dataset", ["alpaca", "messages", "prompt_completion", "sharegpt", "text"])
def test_a_rows_weight_is_that_of_its_tokens(dataset, write_rows, tiny_model, plugins):
    row = {
        "alpaca": {"instruction": "Who?", "output": "The heron."},
        "prompt_completion": {"prompt": "Who?", "completion": "The heron."},
        "messages": {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The heron."}]},
        "sharegpt": {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "The heron."}]},
        "text": {"text": "The heron."},
    }[dataset]
    path = write_rows(row, row | {"weight": 2.5}, row | {"weight": None})
    spec = DataSpec(train=(DataSource(dataset=dataset, path=str(path)),))
    template = bind_template(
        template_spec("plain" if dataset == "text" else "chatml", plugins), ModelSpec(path=str(tiny_model)), plugins
    )
    data, _ = encode_data(spec, plugins, template)
    assert [dict(item.extras) for item in data.items] == [{}, {"weight": 2.5}, {}]
    assert (data.reports[0].weighted, data.reports[0].weight) == (1, 4.5)
    for wrong in (-1, 0, "heavy", True):
        path = write_rows(row | {"weight": wrong})
        with pytest.raises(Exception, match="'weight' should be a number above 0, found"):
            encode_data(spec, plugins, template)


@pytest.mark.slow
def test_a_weighted_row_trains_as_if_it_were_there_as_often(harness, recipe, rows, tmp_path):
    """Of two rows, one with the weight 3: the same step as with four rows, of which three are the same."""
    few = [{"instruction": "Who keeps the key?", "output": "The heron."}, {"instruction": "Where?", "output": "Here."}]
    losses = {}
    for name, data in (("weighted", [few[0] | {"weight": 3}, few[1]]), ("repeated", [*[few[0]] * 3, few[1]])):
        rows.write_text("".join(json.dumps(row) + "\n" for row in data))
        done = harness("tune", recipe("float32", steps=3, epochs=3, step_tokens=1024), "--run", name)
        assert done.code == 0, done.err
        assert ("1 of them have a weight: all together count as 4 rows" in done.out) == (name == "weighted")
        lines = map(json.loads, (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines())
        losses[name] = [line["loss"] for line in lines if "loss" in line]
    assert losses["weighted"] == pytest.approx(losses["repeated"], rel=1e-5)
