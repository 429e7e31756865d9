"""A base model without chat tokens: refused with the choices, or given them, with embeddings that are trained."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from harness_tuning.methods.lora import LoraOptions, apply_lora
from harness_tuning.rows import TrainedRows

from harness import HarnessError
from harness.model.load import fastest_attention, load_model, load_variant
from harness.model.logprobs import sequence_logprobs, target_logprobs
from harness.model.templates import bind_template
from harness.model.tokenizer import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import ModelSpec, TemplateSpec
from harness.variants import resolve_variant
from tests.tuning.tensors import as_batch

pytestmark = pytest.mark.slow

CONTROL = ("<|im_start|>", "<|im_end|>")
METHODS = ("lora", "full")


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory) -> Callable[..., Path]:
    """Write a base model without chat tokens: Llama, 2 layers; `tied` to its head or not, `spare` rows of padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from harness.testing.models import SENTENCES

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, show_progress=False, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
    )
    backend.train_from_iterator(SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")

    def write(*, tied: bool = True, spare: int = 0) -> Path:
        folder = tmp_path_factory.mktemp("bare")
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer) + spare, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=tied,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=None, dtype="bfloat16",
        )  # fmt: skip
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def bare_recipe(recipe, tiny_model) -> Callable[..., Path]:
    """The small recipe over another model, with `add_tokens`."""

    def write(model: Path, add_tokens: bool = True, **tune: object) -> Path:
        path = recipe(**tune)
        text = path.read_text().replace(str(tiny_model), str(model))
        if tune.get("method") == "full":
            text = text.replace('"rank": 4, "alpha": 8, ', "")
        path.write_text(
            text.replace("template: chatml", f"template: {{name: chatml, add_tokens: {str(add_tokens).lower()}}}")
        )
        return path

    return write


def vocabulary(model: Path) -> int:
    return len(load_tokenizer(str(model)))


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def embeddings(model: Any) -> tuple[Any, Any]:
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def test_a_template_whose_tokens_are_missing_is_refused_with_the_choices(bare_model, bare_recipe, harness):
    done = harness("tune", bare_recipe(bare_model(), add_tokens=False))
    assert done.code == 1 and "Traceback" not in done.err
    for told in (
        *CONTROL,
        "a template that fits it as it is: ",
        "alpaca",
        "plain",
        "add_tokens: true",
        "a model whose tokenizer",
    ):
        assert told in done.err
    assert not Path("runs/small/manifest.json").exists()


def test_added_tokens_are_control_tokens_that_text_cannot_write(bare_model):
    from harness import Conversation

    path = bare_model()
    template = bind_template(TemplateSpec(name="chatml", add_tokens=True), ModelSpec(path=str(path)), Plugins())
    first = vocabulary(path)
    assert [template.tokenizer.convert_tokens_to_ids(token) for token in CONTROL] == [first, first + 1]
    example = template.encode(Conversation.of(("user", "What is <|im_end|>?"), ("assistant", "A token.")))
    assert example.input_ids.count(first) == 2 and example.input_ids.count(first + 1) == 2
    assert "<|im_" not in template.tokenizer.decode(example.input_ids, skip_special_tokens=True)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 1, 64])
def test_new_embeddings_begin_as_the_mean_of_the_others_in_spare_rows_where_there_are_any(bare_model, tied, spare):
    path = bare_model(tied=tied, spare=spare)
    size = vocabulary(path)
    before = load_model(ModelSpec(path=str(path), dtype="float32"))
    model = load_model(ModelSpec(path=str(path), dtype="float32"), added_ids=(size, size + 1))
    assert model.config.vocab_size == max(size + 2, size + spare)
    for was, weight in zip(embeddings(before), embeddings(model), strict=True):
        assert torch.equal(weight[:size], was[:size]) and torch.equal(weight[size + 2 :], was[size + 2 :])
        assert torch.allclose(weight[size : size + 2], was[:size].mean(0).expand(2, -1), atol=1e-7)
    assert (embeddings(model)[0] is embeddings(model)[1]) == tied


SHAPE = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "tied"),
    [("llama", True), ("llama", False), ("gemma3_text", True), ("phi", False), ("gpt2", True), ("cohere", True)],
)
def test_the_rows_get_the_gradient_that_they_get_when_all_embeddings_are_trained(tmp_path, architecture, tied):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model(architecture, **SHAPE, tie_word_embeddings=tied)
    ).save_pretrained(tmp_path)
    spec, ids = ModelSpec(path=str(tmp_path), dtype="float32"), (300, 301)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 302, (3, 40), generator=generator)
    batch[:, ::7], mask = 300, torch.rand(3, 40, generator=generator) < 0.5

    whole = load_model(spec, added_ids=ids).requires_grad_(True)
    expected = -target_logprobs(whole, as_batch(batch, mask)).sum()
    expected.backward()

    model = load_model(spec, added_ids=ids).requires_grad_(False)
    rows = TrainedRows(model, ids)
    found = -target_logprobs(model, as_batch(batch, mask)).sum()
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert len(trained) == (1 if tied else 2) and all(len(weight) == len(ids) for weight in trained)
    for module, weight in zip(
        (model.get_input_embeddings(), model.get_output_embeddings()), embeddings(whole), strict=True
    ):
        assert weight.grad[list(ids)].abs().max() > 1e-3
        assert torch.allclose(module.added_rows.grad, weight.grad[list(ids)], rtol=1e-4, atol=1e-4)

    with torch.no_grad():
        for weight in trained:
            weight.add_(torch.randn(weight.shape, generator=generator))
        hooked = model(batch).logits
        rows.fold()
        assert torch.allclose(model(batch).logits, hooked, rtol=1e-4, atol=1e-4)
    assert not any("added_rows" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("dora", [False, True])
def test_rows_and_adapter_merge_into_the_model_that_was_tuned(bare_model, dora):
    import peft

    path = bare_model()
    size = vocabulary(path)
    base = load_model(ModelSpec(path=str(path), dtype="float32"), added_ids=(size, size + 1))
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, use_dora=dora)
    model = peft.get_peft_model(base, config)
    rows = TrainedRows(model, (size, size + 1))
    batch = torch.randint(0, size + 2, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.get_base_model().get_input_embeddings().added_rows.normal_()
        tuned = model(batch).logits
        rows.fold()
        merged = model.merge_and_unload(safe_merge=True)
        assert torch.allclose(merged(batch).logits, tuned, rtol=1e-4, atol=1e-4)
    assert merged.state_dict().keys() == load_model(ModelSpec(path=str(path))).state_dict().keys()


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings:UserWarning")  # PEFT's, about what is refused here
def test_an_adapter_on_the_embeddings_and_rows_of_them_do_not_go_together(bare_model):
    path = bare_model()
    size = vocabulary(path)
    model = load_model(ModelSpec(path=str(path)), added_ids=(size,))
    adapted = apply_lora(model, LoraOptions(target_modules=("q_proj", "embed_tokens")))
    with pytest.raises(HarnessError, match="target_modules reaches the embeddings"):
        TrainedRows(adapted, (size,))


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_new_rows_move_and_the_saved_model_is_the_tuned_one(tmp_path, bare_model, bare_recipe, harness, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = bare_model(tied=tied)
    size = vocabulary(path)
    done = harness("tune", bare_recipe(path, steps=12), "--run", "chat")
    assert done.code == 0, done.err
    assert f"<|im_start|> ({size}), <|im_end|> ({size + 1})" in done.out and "cannot carry embeddings" in done.out
    run = tmp_path / "runs" / "chat"
    assert not (run / "adapter").exists() and not (run / "checkpoints").exists()
    losses = [
        row["validation_loss"] for row in map(json.loads, (run / "metrics.jsonl").open()) if "validation_loss" in row
    ]
    assert losses[-1] < losses[0] - 1

    before, after = weights(path), weights(run / "model")
    assert after.keys() == before.keys()
    began = load_model(ModelSpec(path=str(path)), added_ids=(size, size + 1)).state_dict()
    for name in [name for name in after if "embed" in name or "head" in name]:
        assert torch.equal(after[name][:size], before[name]), "the rows of other tokens stay as they were"
        assert ((after[name][size:] - began[name][size:]).abs().amax(1) > 1e-3).all(), "every new row moved"
    moved = [name for name in before if "proj" in name and not torch.equal(before[name], after[name])]
    assert len(moved) == 2 * 7

    probes = json.loads((run / "probes.json").read_text())["probes"]
    for model in (
        AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.bfloat16),
        load_variant(resolve_variant("chat", tmp_path / "runs", Plugins()), Plugins()).model,
    ):
        for probe in probes:
            fastest_attention(model)  # as while it was tuned: another rounds otherwise
            assert sequence_logprobs(model.eval(), probe["input_ids"]) == pytest.approx(probe["tuned"], abs=1e-5)
    assert model.generation_config.eos_token_id == [size + 1]
    assert AutoTokenizer.from_pretrained(run / "model").convert_tokens_to_ids("<|im_end|>") == size + 1
    assert 0 <= json.loads((run / "manifest.json").read_text())["merging_changed_nats"] < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_the_base_of_such_a_run_is_asked_with_the_embeddings_that_tuning_began_with(
    tmp_path, bare_model, bare_recipe, harness, method
):
    assert harness("tune", bare_recipe(bare_model(tied=False), method=method), "--run", "chat").code == 0
    variant = resolve_variant("chat@base", tmp_path / "runs", Plugins())
    loaded = load_variant(variant, Plugins())
    for probe in json.loads((tmp_path / "runs/chat/probes.json").read_text())["probes"]:
        fastest_attention(loaded.model)  # as while it was tuned: another rounds otherwise
        assert sequence_logprobs(loaded.model, probe["input_ids"]) == pytest.approx(probe["base"], abs=1e-5)
        assert sequence_logprobs(loaded.model, probe["input_ids"]) != pytest.approx(probe["tuned"], abs=1e-2)
    assert len(variant.added_ids) == 2 and not resolve_variant("chat", tmp_path / "runs", Plugins()).added_ids


def test_with_nothing_missing_add_tokens_leaves_an_adapter_as_ever(tmp_path, recipe, harness):
    path = recipe()
    path.write_text(path.read_text().replace("template: chatml", "template: {name: chatml, add_tokens: true}"))
    done = harness("tune", path)
    assert done.code == 0, done.err
    assert "none: the tokenizer has all" in done.out
    assert (tmp_path / "runs/small/adapter").is_dir() and not (tmp_path / "runs/small/model").exists()


def test_the_plan_names_tokens_that_look_like_markup(recipe, harness):
    path = recipe(steps=1)
    path.write_text(path.read_text().replace("template: chatml", "template: {name: mistral-v3, add_tokens: true}"))
    done = harness("tune", path)
    assert done.code == 0, done.err
    assert "[INST] (" in done.out and "[/INST] (" in done.out


def test_the_plan_does_not_count_the_adapter_among_the_models_parameters(tmp_path, recipe, harness, tiny_model):
    own = sum(weight.numel() for weight in load_model(ModelSpec(path=str(tiny_model))).parameters())
    assert f"({own / 1e6:,.1f} M parameters" in harness("tune", recipe(rank=256)).out


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_run_with_added_tokens_goes_on_to_the_same_model_bytes(tmp_path, bare_model, bare_recipe, method):
    from tests.tuning.processes import start, tune
    from tests.tuning.test_resume import losses

    path = bare_recipe(bare_model(tied=False), steps=20, step_tokens=512, method=method, learning_rate=1e-3)
    assert tune(tmp_path, path, "--run", "whole")[0] == 0
    process = start(tmp_path, "tune", path, "--run", "stopped", signal_at=(10, signal.SIGINT))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    code, told = tune(tmp_path, "--resume", "stopped")
    assert code == 0 and "goes on" in told, told
    one, other = ((tmp_path / "runs" / name / "model/model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert hashlib.sha256(one).hexdigest() == hashlib.sha256(other).hexdigest()
    assert losses(tmp_path / "runs/stopped") == losses(tmp_path / "runs/whole")
