"""instruct-harness: tune language models to follow instructions, measure, serve and compare the variants.

What is named here is the public API for plugins; everything is importable without torch.
"""

from typing import TYPE_CHECKING

import pluggy

from harness.lazy import lazy_names

if TYPE_CHECKING:
    from harness.contract import (
        Answer,
        Dataset,
        Diagnosis,
        Engine,
        Evaluation,
        EvaluationItem,
        Filter,
        LeftOut,
        Loss,
        Method,
        Metric,
        Objective,
        Request,
        Sampling,
        Shape,
        Template,
        Term,
        Tracker,
    )
    from harness.errors import DataError, HarnessError, ModelError, PluginError, RecipeError, RunError, TemplateError
    from harness.nouns import Conversation, Example, Message, Preference, Result, Role, Sample, Score, ToolCall
    from harness.options import Options

__version__ = "0.1.0"
# The plugin API: the names below, the hooks and the events. The first number changes where something is taken away, the
# second where something is added. A plugin that needs 1.1 has `harness_api = "1.1"` in its module.
API_VERSION = "1.0"

hookimpl = pluggy.HookimplMarker("harness")

__all__ = [
    "API_VERSION",
    "Answer",
    "Conversation",
    "DataError",
    "Dataset",
    "Diagnosis",
    "Engine",
    "Evaluation",
    "EvaluationItem",
    "Example",
    "Filter",
    "HarnessError",
    "LeftOut",
    "Loss",
    "Message",
    "Method",
    "Metric",
    "ModelError",
    "Objective",
    "Options",
    "PluginError",
    "Preference",
    "RecipeError",
    "Request",
    "Result",
    "Role",
    "RunError",
    "Sample",
    "Sampling",
    "Score",
    "Shape",
    "Template",
    "TemplateError",
    "Term",
    "ToolCall",
    "Tracker",
    "hookimpl",
]


__getattr__ = lazy_names(
    __name__,
    {
        "harness.contract": "Answer Dataset Diagnosis Engine Evaluation EvaluationItem Filter LeftOut Loss Method "
        "Metric Objective Request Sampling Shape Template Term Tracker",
        "harness.errors": "DataError HarnessError ModelError PluginError RecipeError RunError TemplateError",
        "harness.nouns": "Conversation Example Message Preference Result Role Sample Score ToolCall",
        "harness.options": "Options",  # with pydantic
    },
)
