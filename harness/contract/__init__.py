"""The contract: what plugins declare, the hooks they declare it through, and the events that they receive.

It imports nouns, options and errors only. A declaration is cheap and reads nothing; the declared functions import their
libraries when they are called.
"""

from typing import TYPE_CHECKING

from harness.lazy import lazy_names

if TYPE_CHECKING:
    from harness.contract.backends import Answer, Backend, Request, Sampling
    from harness.contract.datasets import Dataset
    from harness.contract.diagnoses import Diagnosis
    from harness.contract.engines import Endpoint, Engine
    from harness.contract.evaluations import Evaluation, EvaluationContext, EvaluationItem, LeftOut
    from harness.contract.filters import Filter
    from harness.contract.methods import Method
    from harness.contract.objectives import Loss, Metric, Objective, Term
    from harness.contract.shapes import Shape
    from harness.contract.templates import Template
    from harness.contract.trackers import Tracker

__all__ = [
    "Answer",
    "Backend",
    "Dataset",
    "Diagnosis",
    "Endpoint",
    "Engine",
    "Evaluation",
    "EvaluationContext",
    "EvaluationItem",
    "Filter",
    "LeftOut",
    "Loss",
    "Method",
    "Metric",
    "Objective",
    "Request",
    "Sampling",
    "Shape",
    "Template",
    "Term",
    "Tracker",
]

__getattr__ = lazy_names(
    __name__,
    {
        "harness.contract.backends": "Answer Backend Request Sampling",
        "harness.contract.datasets": "Dataset",
        "harness.contract.diagnoses": "Diagnosis",
        "harness.contract.engines": "Endpoint Engine",
        "harness.contract.evaluations": "Evaluation EvaluationContext EvaluationItem LeftOut",
        "harness.contract.filters": "Filter",
        "harness.contract.methods": "Method",
        "harness.contract.objectives": "Loss Metric Objective Term",
        "harness.contract.shapes": "Shape",
        "harness.contract.templates": "Template",
        "harness.contract.trackers": "Tracker",
    },
)
