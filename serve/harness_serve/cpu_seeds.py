"""Seeded sampling on a CPU, which ends vLLM 0.32 where a prompt is read in pieces.

After each piece but the last, vLLM draws a token, throws it away and sets the request's generator back by its offset.
Generators of a CPU have none: `RuntimeError: CPU Generator does not use offset`, and the engine is gone with all its
requests. Here the generators of those requests are out of reach while the token is drawn: nothing is to be set back.

Imported by the engine's process, like `cpu_lora.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from vllm.v1.worker.cpu_model_runner import CPUModelRunner

draw = CPUModelRunner.sample_tokens


def sample_tokens(runner: Any, *arguments: Any, **named: Any) -> Any:
    """Draw the tokens of a batch as vLLM does, without the generators of requests whose token is thrown away."""
    generators = runner.input_batch.generators
    unfinished = np.nonzero(runner.discard_request_mask.np[: runner.input_batch.num_reqs])[0].tolist()
    held = {index: generators.pop(index) for index in unfinished if index in generators}
    try:
        return draw(runner, *arguments, **named)
    finally:
        generators.update(held)


CPUModelRunner.sample_tokens = sample_tokens
