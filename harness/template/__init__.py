"""Templates: what was tuned is what is served.

A template bound to a tokenizer renders conversations (`rendering`), keeps people's text from becoming control tokens
(`plain_text`), encodes with proof that the loss sees the answers (`masks`), and is itself tried before use (`checks`).
"""

from harness.template.bound import BoundTemplate, TrainOn, as_vllm_has_them, fingerprint, source_fingerprint, trained
from harness.template.checks import fitting, missing_tokens
from harness.template.differences import aligned, divergence
from harness.template.plain_text import BREAK, control_tokens

__all__ = [
    "BREAK",
    "BoundTemplate",
    "TrainOn",
    "aligned",
    "as_vllm_has_them",
    "control_tokens",
    "divergence",
    "fingerprint",
    "fitting",
    "missing_tokens",
    "source_fingerprint",
    "trained",
]
