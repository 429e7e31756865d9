"""A model computes with the attention that it was defined with: sdpa where it is the same function, else its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402

from harness.errors import ModelError  # noqa: E402
from harness.model.configs import positions_of  # noqa: E402
from harness.model.forward import check_causal, check_output_head  # noqa: E402
from harness.model.load import attention_of, load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402
from tests.tuning.tensors import as_batch  # noqa: E402

SHAPE = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 256, "pad_token_id": 0, "num_local_experts": 4,
    "num_experts_per_tok": 2, "num_heads": 4, "expand": 2, "n_groups": 2, "sliding_window": 8,
}  # fmt: skip
CAPPED = "eager (the model soft-caps its attention, which sdpa drops)"
NONE = "eager (the model has no sdpa)"
CHOSEN = {
    "llama": "sdpa", "mistral": "sdpa", "gemma2": CAPPED, "gpt_oss": NONE, "bloom": NONE, "mamba": NONE, "mamba2": NONE,
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Callable[..., Path]:
    """Write a small float32 model of an architecture with random weights; keyword arguments are its configuration's."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def write(architecture: str, without: str = "", **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **{k: v for k, v in (SHAPE | changes).items() if k != without})
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder

    return write


def load(folder: Path) -> Any:
    return load_model(ModelSpec(path=str(folder), dtype="float32"), for_tuning=True)


def ids(rows: int = 1, length: int = 24, seed: int = 0) -> Any:
    return torch.randint(3, 600, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("architecture", CHOSEN)
def test_the_adapter_gets_the_gradient_of_the_models_own_attention_from_padded_rows(small, architecture):
    from transformers import AutoModelForCausalLM

    folder = small(architecture)
    model = load(folder)
    assert str(attention_of(model)) == CHOSEN[architecture]
    check_output_head(model, ids())
    check_causal(model, ids())
    own = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")

    gradients = []
    for each in (model, own):
        torch.manual_seed(1)
        each = apply_lora(each, LoraOptions(rank=4))
        for name, weight in each.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        gradients.append(each)
    batch, mask = ids(2), torch.ones(2, 24, dtype=torch.bool)
    batch[1, 15:], mask[1, 15:] = 0, False  # padded on the right
    (-target_logprobs(gradients[0], as_batch(batch, mask)).sum()).backward()
    for row, length in ((0, 24), (1, 15)):  # the reference: one row at a time, no padding, the model's own logits
        logits = gradients[1](input_ids=batch[row : row + 1, :length], use_cache=False).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, batch[row, 1:length], reduction="sum").backward()
    found, expected = (
        torch.cat([w.grad.flatten() for w in each.parameters() if w.grad is not None]) for each in gradients
    )
    assert found.norm() > 0
    assert (found - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("cap", [2.0, 50.0, 300.0])
def test_a_cap_is_noticed_even_where_the_scores_of_a_small_model_do_not_reach_it(small, cap):
    assert str(attention_of(load(small("gemma2", attn_logit_softcapping=cap)))) == CAPPED


def test_without_its_cap_the_same_architecture_computes_with_sdpa(small):
    model = load(small("gemma2", attn_logit_softcapping=None))
    assert str(attention_of(model)) == model.config._attn_implementation == "sdpa"


def test_the_trial_leaves_transformers_own_function_in_place(small):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    load(small("gemma2"))
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_a_model_that_looks_to_the_right_is_refused(small):
    with pytest.raises(ModelError, match=r"no causal language model: .* depends on the tokens after it"):
        check_causal(load(small("bert")), ids())


@pytest.mark.slow
def test_plan_and_manifest_say_which_attention_and_why_and_evaluation_uses_it(
    tmp_path, small, tiny_model, recipe, harness
):
    from transformers import AutoTokenizer

    from harness.model.load import load_variant
    from harness.plugins import Plugins
    from harness.variants import resolve_variant

    folder = small("gemma2")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    path = recipe(steps=2)
    path.write_text(path.read_text().replace(str(tiny_model), str(folder)))
    done = harness("tune", path)
    assert done.code == 0, done.err
    assert f"attention   {CAPPED}" in done.out
    said = json.loads((tmp_path / "runs/small/manifest.json").read_text())["attention"]
    assert said == {"name": "eager", "reason": "the model soft-caps its attention, which sdpa drops"}
    loaded = load_variant(resolve_variant("small", tmp_path / "runs", Plugins()), Plugins())
    assert str(attention_of(loaded.model)) == CAPPED


@pytest.mark.parametrize("architecture", ["mamba", "bloom"])
def test_a_model_without_positions_has_no_limit(small, architecture):
    assert positions_of(load(small(architecture, without="max_position_embeddings")).config) is None


def test_positions_by_another_name_are_positions():
    from transformers import GPT2Config

    assert positions_of(GPT2Config(n_positions=48)) == 48


def test_a_stretched_rotary_embedding_reaches_further(small):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 10000.0}
    assert positions_of(load(small("llama")).config) == 256
    assert positions_of(load(small("llama", rope_parameters=yarn)).config) == 1024
