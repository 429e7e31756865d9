"""The contract: what plugins declare, the hooks they declare it through, and the events that they receive.

It imports nouns, options and errors only. A declaration is cheap and reads nothing; the declared functions import their
libraries when they are called.
"""

from harness.contract.datasets import Dataset
from harness.contract.diagnoses import Diagnosis
from harness.contract.engines import Endpoint, Engine
from harness.contract.evaluations import Evaluation
from harness.contract.filters import Filter
from harness.contract.methods import Method
from harness.contract.objectives import Objective
from harness.contract.templates import Template
from harness.contract.trackers import Tracker

__all__ = [
    "Dataset",
    "Diagnosis",
    "Endpoint",
    "Engine",
    "Evaluation",
    "Filter",
    "Method",
    "Objective",
    "Template",
    "Tracker",
]
