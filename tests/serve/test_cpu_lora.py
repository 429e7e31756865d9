"""The harness's LoRA on a CPU gives what vLLM's own does, and the base nothing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.vllm
RANK, INPUTS, OUTPUTS, SLOTS = 4, 24, 40, 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("order", [(0,), (1, 0), (-1, 0), (0, -1, 1, -1, 0), (-1, 1, 1, 2)])
def test_a_batch_gets_what_vllm_gives_it(order: tuple[int, ...], dtype: str) -> None:
    """Slot 2 is the last: vLLM's own code reads it for the base, so that it is empty where the two are compared."""
    from harness_serve import cpu_lora
    from vllm.lora.ops import torch_ops

    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    lengths = torch.arange(1, len(order) + 1)
    tokens = int(lengths.sum())
    lora_a, lora_b = torch.randn(SLOTS, 1, RANK, INPUTS).to(kind), torch.randn(SLOTS, 1, OUTPUTS, RANK).to(kind)
    if -1 in order and 2 not in order:
        lora_b[2] = 0
    inputs, before = torch.randn(tokens, INPUTS).to(kind), torch.randn(tokens, OUTPUTS + 8).to(kind)
    metadata = (torch.zeros(len(order)), lengths, torch.tensor(order), len(order), int(lengths.max()), tokens)
    found = []
    for ops in (
        (cpu_lora.shrink, cpu_lora.expand_slice, cpu_lora.expand),
        (torch_ops.sgmv_shrink, torch_ops.sgmv_expand_slice, torch_ops.sgmv_expand),
    ):
        shrink, expand_slice, expand = ops
        reduced, sliced, whole = torch.zeros(tokens, RANK), before.clone(), before[:, :OUTPUTS].clone()
        shrink(inputs, lora_a, reduced, *metadata, 0.5)
        expand_slice(reduced, lora_b, sliced, *metadata, 8, OUTPUTS, True)
        expand(reduced, lora_b, whole, *metadata, True)
        found.append((sliced, whole))
    is_base = torch.tensor(order).repeat_interleave(lengths) == -1
    for ours, theirs, untouched in zip(*found, (before, before[:, :OUTPUTS]), strict=True):
        torch.testing.assert_close(
            ours[~is_base],
            theirs[~is_base],
            rtol=1e-2 if dtype == "bfloat16" else 1e-5,
            atol=0.05 if dtype == "bfloat16" else 1e-5,
        )
        assert torch.equal(ours[is_base], untouched[is_base])
