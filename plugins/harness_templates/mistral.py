"""Mistral's instruct formats, as the library mistral_common writes them: `mistral-v1`, `-v3`, `-v7` and `-v13`.

A format goes with a vocabulary: v1 has no control tokens but bos and eos. SentencePiece vocabularies and Tekken are
both served: what differs is the space that SentencePiece puts before every text it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness
from harness_templates.sources import prefix_space, source
from harness_templates.stops import eos

V3 = (
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
V7 = (*V3, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]")


V13 = (*V3, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", "[THINK]", "[/THINK]")


def mistral_v1(tokenizer: Any, options: Any) -> str:
    """Return the template of v1 for the tokenizer."""
    return source("mistral-v1", space=prefix_space(tokenizer))


def mistral(version: int) -> Callable[[Any, Any], str]:
    """Return the template of v3, v7 or v13, for a tokenizer."""
    return lambda tokenizer, options: source("mistral", version=version, space=prefix_space(tokenizer))


TEMPLATES = (
    harness.Template(
        "mistral-v1",
        "[INST] … [/INST] as ordinary text: Mistral 7B Instruct v0.1 and v0.2, Mixtral 8x7B",
        mistral_v1,
        eos,
    ),
    harness.Template(
        "mistral-v3",
        "[INST] … [/INST] as control tokens, with tools: Mistral 7B Instruct v0.3, Mixtral 8x22B, Mistral NeMo",
        mistral(3),
        eos,
        control_tokens=V3,
        takes_tools=True,
        tool_parser="mistral",
    ),
    harness.Template(
        "mistral-v7",
        "mistral-v3 with [SYSTEM_PROMPT]: Mistral Large 2411, Mistral Small 3",
        mistral(7),
        eos,
        control_tokens=V7,
        takes_tools=True,
        tool_parser="mistral",
    ),
    harness.Template(
        "mistral-v13",
        "[INST] … [/INST][THINK] … [/THINK] …, with tools: Magistral, Ministral 3",
        mistral(13),
        eos,
        control_tokens=V13,
        takes_tools=True,
        tool_parser="mistral",
    ),
)
