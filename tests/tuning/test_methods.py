"""Methods: which layers they move, what they save, and that the saved adapter is what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.methods.dora import DoraOptions, apply_dora  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora, rate_factor, save_lora  # noqa: E402
from harness_tuning.methods.qlora import QloraOptions, quantize  # noqa: E402
from harness_tuning.plan import published_rate  # noqa: E402
from harness_tuning.targets import choose, moving_and_resting  # noqa: E402

from harness.errors import HarnessError  # noqa: E402
from harness.model.load import load_adapted, load_model  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402

pytestmark = pytest.mark.slow  # it tunes

IDS = torch.arange(3, 43)[None]


def spec(folder: Path) -> ModelSpec:
    return ModelSpec(path=str(folder), dtype="float32")


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def trained(model: Any) -> Any:
    """The model with every weight that moves moved a little."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += torch.randn(weight.shape, generator=generator) * 0.05
    return model


@pytest.mark.parametrize("init", ["default", "gaussian", "orthogonal", "pissa", "olora", "mica"])
@pytest.mark.parametrize("rslora", [False, True])
def test_every_start_leaves_the_model_as_it_was_and_is_saved_for_the_base_of_the_files(
    tmp_path, tiny_model, init, rslora
):
    base = load_model(spec(tiny_model))
    before = logits(base)
    model = apply_lora(base, LoraOptions(rank=4, init=init, rslora=rslora))
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    after = logits(trained(model))
    assert (after - before).abs().max() > 0.01
    save_lora(model, tmp_path)
    torch.testing.assert_close(logits(load_adapted(spec(tiny_model), tmp_path)), after, rtol=1e-4, atol=1e-4)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == (8 if init in ("pissa", "olora") else 4)


def test_dora_starts_as_the_base_and_is_saved_as_peft_reads_it(tmp_path, tiny_model):
    before = logits(load_model(spec(tiny_model)))
    model = apply_dora(load_model(spec(tiny_model)), DoraOptions(rank=4))
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    after = logits(trained(model))
    save_lora(model, tmp_path)
    torch.testing.assert_close(logits(load_adapted(spec(tiny_model), tmp_path)), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("init", "told"), [("loftq", "use `method: qlora`"), ("eva", "passes over the data"), ("pisa", "expected one of")]
)
def test_a_start_that_cannot_be_served_is_refused_with_the_reason(harness, recipe, init, told):
    path = recipe()
    done = harness("tune", path, "--set", f"tune.method.init={init}")
    assert done.code == 1 and told in " ".join(done.err.split())


def test_b_moves_at_its_own_rate_and_a_does_not():
    options = LoraOptions(b_rate_ratio=16)
    assert rate_factor("model.layers.0.q_proj.lora_B.default.weight", options) == 16
    assert rate_factor("model.layers.0.q_proj.lora_A.default.weight", options) == 1


@pytest.mark.parametrize(
    ("wanted", "count"),
    [("all-linear", 14), (("q_proj", "v_proj"), 4), (r".*layers\.1\..*_proj", 7), (("layers.0.mlp.up_proj",), 1)],
)
def test_layers_are_chosen_by_names_ends_or_by_a_pattern(tiny_model, wanted, count):
    assert len(choose(load_model(spec(tiny_model)), wanted, True).layers) == count


def test_layers_that_move_and_layers_that_stay_are_counted(tiny_model):
    moving, resting = moving_and_resting(
        apply_lora(load_model(spec(tiny_model)), LoraOptions(target_modules=["q_proj"]))
    )
    assert moving == {"q_proj": 2}
    assert resting == dict.fromkeys(("k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 2) | {
        "embed_tokens": 1, "lm_head": 1,
    }  # fmt: skip


def moe(architecture: str) -> Any:
    from tests.tuning.test_architectures import small

    return small(architecture)


@pytest.mark.parametrize("architecture", ["qwen2_moe", "deepseek_v3", "gpt_oss"])
def test_routed_and_shared_experts_get_an_adapter_that_is_saved_and_merged(tmp_path, architecture):
    import peft

    model = moe(architecture)
    model.save_pretrained(tmp_path / "base")
    before = logits(model)
    adapted = apply_lora(model, LoraOptions(rank=4))
    moving, resting = moving_and_resting(adapted)
    assert moving["experts.gate_up_proj"] == moving["experts.down_proj"] > 0
    assert (moving["gate_proj"] > 0) == (architecture != "gpt_oss")  # the shared expert's, and dense layers'
    assert resting["router"] + resting["gate"] > 0
    torch.testing.assert_close(logits(adapted), before)
    after = logits(trained(adapted))
    save_lora(adapted, tmp_path / "adapter")
    again = type(model).from_pretrained(tmp_path / "base", dtype=torch.float32, attn_implementation="eager")
    again = peft.PeftModel.from_pretrained(again, str(tmp_path / "adapter"), autocast_adapter_dtype=False)
    torch.testing.assert_close(logits(again), after, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(adapted.merge_and_unload(safe_merge=True)), after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("targets", [{"rank": 200}, {"target_modules": ("embed_tokens", "q_proj")}])
def test_a_start_on_narrow_layers_and_on_embeddings_is_saved_for_the_base_of_the_files(
    tmp_path, tiny_model, init, targets
):
    model = trained(apply_lora(load_model(spec(tiny_model)), LoraOptions(init=init, **targets)))
    after = logits(model)
    save_lora(model, tmp_path)
    torch.testing.assert_close(logits(load_adapted(spec(tiny_model), tmp_path)), after, rtol=1e-4, atol=1e-4)


def test_target_modules_that_name_nothing_are_refused(tiny_model):
    with pytest.raises(HarnessError, match="target_modules is empty"):
        apply_lora(load_model(spec(tiny_model)), LoraOptions(target_modules=()))


@pytest.mark.parametrize("options", [{"dropout": 0.1}, {"init": "pissa"}])
def test_an_option_that_experts_cannot_have_is_refused_with_the_way_out(options):
    with pytest.raises(HarnessError, match=r"tune.method.experts: false"):
        apply_lora(moe("qwen2_moe"), LoraOptions(rank=4, **options))
    apply_lora(moe("qwen2_moe"), LoraOptions(rank=4, experts=False, **options))


def test_a_layer_whose_weight_is_read_past_it_gets_no_adapter():
    targets = choose(moe("mamba"), "all-linear", True)
    assert {name.rsplit(".", 1)[-1] for name in targets.layers} == {"in_proj", "x_proj"}


def test_of_a_multimodal_model_the_text_layers_are_adapted():
    from transformers import AutoConfig, AutoModelForCausalLM

    shared = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        "gemma3", text_config=shared | {"vocab_size": 300, "num_key_value_heads": 1, "head_dim": 16},
        vision_config=shared | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=4,
    )  # fmt: skip
    adapted = apply_lora(AutoModelForCausalLM.from_config(config), LoraOptions(rank=2))
    moved = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert moved and all(".language_model." in name for name in moved)
    _, resting = moving_and_resting(adapted)
    assert resting["model.vision_tower"] > 5


def test_a_4_bit_base_computes_and_its_adapter_goes_on_the_base_of_the_files(tmp_path, tiny_model):
    bnb = pytest.importorskip("bitsandbytes")
    base = load_model(spec(tiny_model))
    before = logits(base)
    stored = quantize(base, QloraOptions(rank=4), torch.device("cpu"))
    quantized = logits(stored)
    assert isinstance(stored.model.layers[0].mlp.up_proj, bnb.nn.Linear4bit)
    assert stored.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    assert 0 < (quantized - before).abs().mean() < 0.1
    model = apply_lora(stored, QloraOptions(rank=4))
    torch.testing.assert_close(logits(model), quantized)
    model(input_ids=IDS, use_cache=False).logits.square().sum().backward()
    assert all(weight.grad.norm() > 0 for name, weight in model.named_parameters() if "lora_B" in name)
    save_lora(model, tmp_path)
    torch.testing.assert_close(logits(load_adapted(spec(tiny_model), tmp_path)), before)  # B is 0 still


def test_the_published_rate_is_given_for_the_families_it_was_fitted_to(tiny_model):
    config = load_model(spec(tiny_model)).config
    ((_, text),) = published_rate(config, 2e-4)
    assert "Qwen" in text and f"{5e-4 * (2000 / config.hidden_size) ** 0.0775:.2g}" in text
    config.model_type = "mistral"
    assert list(published_rate(config, 2e-4)) == []
