"""A terminal's limits: its characters, its colours, and its width, where there is one."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO

SIGNS = "harness.signs"  # the name of the way to write what an encoding lacks
ASCII = str.maketrans({"→": "->", "…": "...", "–": "-", "—": "-", "×": "x", "✓": "ok", "✗": "no", "«": "<", "»": ">",
                       "│": "|", "·": "-", "“": '"', "”": '"', "’": "'"})  # fmt: skip


def is_read_by_a_program() -> bool:
    """Return whether the output is no terminal, and nobody said how wide it is with the variable COLUMNS."""
    return not sys.stdout.isatty() and "COLUMNS" not in os.environ


def without_colour() -> bool:
    """Return whether the person asked for no colours: https://no-color.org."""
    return bool(os.environ.get("NO_COLOR"))


def accept_any_text() -> None:
    """Let both outputs take every character: what a terminal's encoding lacks is written as plain signs, or as `?`."""
    codecs.register_error(SIGNS, _signs)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not _is_unicode(stream):
            reconfigure(errors=SIGNS)


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")


def _signs(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(ASCII)
    return "".join(char if char.isascii() else "?" for char in text), error.end
