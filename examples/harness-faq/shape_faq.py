"""A shape in one file: entries of a help centre, with a title, a body and an author.

harness --plugin examples/harness-faq/shape_faq.py data preview --dataset faq entries.jsonl
"""

from __future__ import annotations

from collections.abc import Callable

import harness

# Theirs after ours: a title is the prompt, a body the completion; an author is metadata, and not an unread field.
FIELDS = (("prompt=title|question", "completion=body|answer", "-author"),)


@harness.hookimpl
def register_shapes(register: Callable[[harness.Shape], None]) -> None:
    register(harness.Shape("faq", "entries of a help centre", "prompt_completion", FIELDS))
