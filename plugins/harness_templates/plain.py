"""No format at all: the messages one after another, eos after each of the assistant's."""

from __future__ import annotations

from typing import Any

import harness
from harness_templates.sources import source
from harness_templates.stops import eos


def _jinja(tokenizer: Any, options: Any) -> str:
    return source("plain")


TEMPLATES = (harness.Template("plain", "the text as it is, ended by eos: for pretraining, not for chat", _jinja, eos),)
