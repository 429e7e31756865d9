"""The kit for testing plugins: a tiny model, tokenizer and run, an endpoint that the test scripts, and the command.

Importing it loads no torch; the tiny things do, when they are first asked for.
"""

from typing import TYPE_CHECKING

from harness.lazy import lazy_names
from harness.testing.command import Done, plugins, run
from harness.testing.endpoint import FakeEndpoint, Reply, Request

if TYPE_CHECKING:
    from harness.testing.backends import FakeBackend
    from harness.testing.checking import Report, check
    from harness.testing.engines import fake_engine
    from harness.testing.models import chain_model, tiny_model, tiny_tokenizer
    from harness.testing.runs import tiny_run

__all__ = [
    "Done",
    "FakeBackend",
    "FakeEndpoint",
    "Reply",
    "Report",
    "Request",
    "chain_model",
    "check",
    "fake_engine",
    "plugins",
    "run",
    "tiny_model",
    "tiny_run",
    "tiny_tokenizer",
]

__getattr__ = lazy_names(
    __name__,
    {
        "harness.testing.backends": "FakeBackend",
        "harness.testing.checking": "Report check",
        "harness.testing.engines": "fake_engine",
        "harness.testing.models": "chain_model tiny_model tiny_tokenizer",
        "harness.testing.runs": "tiny_run",
    },
)
