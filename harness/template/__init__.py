"""Templates: what was tuned is what is served.

A template bound to a tokenizer (`binding`) renders conversations (`render`), keeps people's text from becoming control tokens
(`escape`), encodes with proof that the loss sees the answers (`spans`, `verify`), and is itself tried before use (`trial`).
"""

from harness.template.binding import bind, fitting, missing_tokens
from harness.template.differences import aligned, divergence
from harness.template.encode import BoundTemplate, TrainOn, as_vllm_has_them, fingerprint, source_fingerprint, trained
from harness.template.escape import BREAK, control_tokens

__all__ = [
    "BREAK",
    "BoundTemplate",
    "TrainOn",
    "aligned",
    "as_vllm_has_them",
    "bind",
    "control_tokens",
    "divergence",
    "fingerprint",
    "fitting",
    "missing_tokens",
    "source_fingerprint",
    "trained",
]
