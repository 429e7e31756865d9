"""Every causal architecture of transformers that can be made small: the attention that is chosen is the model's own."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness.model.attention import why_not_sdpa  # noqa: E402
from tests.conftest import ROOT  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "architectures.json"
SHAPE = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 128, "pad_token_id": 0, "num_experts": 4,
    "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
OTHERWISE = (  # None: as the architecture has it. Latent attention has as many key heads as query heads.
    {}, {"head_dim": None}, {"num_key_value_heads": None}, {"num_key_value_heads": None, "head_dim": None},
    {"num_key_value_heads": 2}, {"num_key_value_heads": 2, "head_dim": None},
)  # fmt: skip
MOST_WEIGHTS = 20_000_000


def small(architecture: str) -> Any:
    """A model of the architecture with random weights; None where none of the shapes fits it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    for other in OTHERWISE:
        with contextlib.suppress(Exception):  # each architecture has demands of its own on its configuration
            config = AutoConfig.for_model(architecture, **{k: v for k, v in (SHAPE | other).items() if v is not None})
            with torch.device("meta"):
                size = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
            if size > MOST_WEIGHTS:
                continue
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float().eval()
            found = model.config._attn_implementation
            for attention in dict.fromkeys((found, "eager" if model._can_set_attn_implementation() else found)):
                model.set_attn_implementation(attention)
                with torch.no_grad():
                    for length in (6, 24, 33):
                        model(input_ids=torch.arange(3, 3 + length)[None], use_cache=False)
            model.set_attn_implementation(found)
            return model
    return None


def measured(model: Any) -> dict[str, Any]:
    """The choice, its relative difference in logits from eager attention, and that of padded from unpadded rows."""
    found, reason = model.config._attn_implementation, why_not_sdpa(model)
    if reason:
        model.set_attn_implementation("eager")
    ids = torch.randint(3, 250, (1, 24), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([ids, torch.zeros(1, 9, dtype=torch.long)], 1)
    with torch.no_grad():
        chosen = model(input_ids=ids, use_cache=False).logits
        right = model(input_ids=padded, use_cache=False).logits[:, :24]
        if found == "sdpa" and model._can_set_attn_implementation():
            model.set_attn_implementation("eager")
        own = model(input_ids=ids, use_cache=False).logits
    return {
        "attention": "eager" if reason else found,
        "reason": reason,
        "differs_from_eager": float((chosen - own).norm() / own.norm()),
        "differs_when_padded": float((chosen - right).norm() / chosen.norm()),
    }


SOME = (
    "llama", "qwen3", "gpt2", "gemma2", "gpt_oss", "mamba", "falcon_h1", "jamba", "qwen2_moe", "deepseek_v3",
    "granitemoe", "qwen3_next", "phimoe", "llama4_text",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SOME)
def test_an_adapter_gets_a_gradient_everywhere_is_read_back_and_merges_into_the_same_logits(tmp_path, architecture):
    import peft
    from harness_tuning.methods.lora import LoraOptions, apply_lora, save_lora

    model = small(architecture)
    if why_not_sdpa(model):
        model.set_attn_implementation("eager")
    attention = model.config._attn_implementation
    ids = torch.randint(3, 250, (1, 24), generator=torch.Generator().manual_seed(0))

    def logits(each: Any) -> Any:
        return each(input_ids=ids, use_cache=False).logits

    with torch.no_grad():
        base = logits(model)
    model.save_pretrained(tmp_path / "base")
    adapted = apply_lora(model, LoraOptions(rank=4)).eval()
    torch.testing.assert_close(logits(adapted), base, rtol=1e-5, atol=1e-6)
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    tuned = logits(adapted)
    tuned.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).sum().backward()
    assert [n for n, w in adapted.named_parameters() if w.requires_grad and (w.grad is None or not w.grad.any())] == []
    save_lora(adapted, tmp_path / "adapter")
    again = type(model).from_pretrained(tmp_path / "base", dtype=torch.float32, attn_implementation=attention)
    again = peft.PeftModel.from_pretrained(again, str(tmp_path / "adapter"), autocast_adapter_dtype=False).eval()
    with torch.no_grad():
        scale = float(tuned.abs().max())
        assert float((logits(again) - tuned).abs().max()) < 1e-5 * scale
        assert float((logits(adapted.merge_and_unload(safe_merge=True)) - tuned).abs().max()) < 1e-5 * scale
        assert float((tuned - base).abs().max()) > 0.01


@pytest.mark.soak
def test_every_architecture_computes_with_its_own_attention():
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    results, failed = {}, {}
    for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        if (model := small(name)) is not None:
            try:
                results[name] = measured(model)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
    write(RESULTS, {"transformers": transformers.__version__, "architectures": results, "failed": failed})
    assert failed == {}
    assert len(results) > 100
    assert {name for name, result in results.items() if result["differs_from_eager"] > 1e-5} == set()
    assert "soft-caps" in results["gemma2"]["reason"]


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
