"""Answers that say whose they are: a blind vote on one may be a vote on the name."""

from __future__ import annotations

import re
from collections.abc import Collection

MAKERS = (
    "Alibaba|Anthropic|Claude|Cohere|DeepSeek|ChatGPT|Gemini|Gemma|Google|GPT|Hugging ?Face|Llama|Meta AI|Microsoft|"
    "Mistral|Moonshot|OpenAI|Phi|Qwen|SmolLM|xAI"
)
SELF = r"\b(?:I am|I['’]m|[Mm]y name is|[Cc]all me)\s+(?:an?\s+|the\s+|called\s+)?"
# "I am Qwen", "my name is Ada", "I was trained by ..."; not "I am Sorry", "I'm AI" or the beginning of a sentence.
INTRODUCED = re.compile(SELF + r"(?!AI\b|Not\b|Sorry\b|I\b)(?P<name>[A-Z][\w.-]+)")
DESCENT = re.compile(
    r"\b[Ii](?:['’]m| am| was|['’]ve been| have been)\b[^.!?\n]{0,60}?"
    r"\b(?:trained|made|built|developed|created|tuned)\s+by\s+(?P<name>[A-Z][\w.-]+)"
)
MADE_BY = re.compile(rf"\b[Ii](?:['’]m| am)\b[^.!?\n]{{0,40}}?\b(?P<name>{MAKERS})")


def revealing_words(answer: str, names: Collection[str], prompt: str = "") -> str:
    """Return the words by which an answer says whose it is, empty where there are none.

    It introduces itself by a name, says who trained it, or has one of `names`, the variants' and their models'. Names
    that the question has too give nothing away; of a name that could be any word, only "I am ..." does.
    """
    for pattern in (INTRODUCED, DESCENT, MADE_BY):
        for match in pattern.finditer(answer):
            if not _is_in(match["name"], prompt):
                return match[0][:100]
    for name in names:
        pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
        is_telling = re.search(r"[\d_/-]", name) is not None
        match = re.search(pattern if is_telling else SELF + pattern, answer, re.IGNORECASE)
        if match is not None and not _is_in(name, prompt):
            return match[0][:100]
    return ""


def _is_in(name: str, prompt: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompt, re.IGNORECASE) is not None
