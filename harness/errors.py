"""Errors that a user can mend.

`HarnessError` is printed without a traceback and ends the command with status 1; anything else is
our own mistake and shows its traceback.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path


class HarnessError(Exception):
    """A user's mistake or a broken environment: says what was found, what was expected, what to do next."""


class RecipeError(HarnessError):
    """A recipe that cannot be read or does not validate."""


class DataError(HarnessError):
    """A row, file or conversation that cannot be used. Names the file and the row (1-based line for JSONL)."""

    def __init__(self, message: str, *, path: Path | str | None = None, row: int | None = None) -> None:
        self.reason, self.path, self.row = message, None if path is None else str(path), row
        where = "" if path is None else f"{path}: " if row is None else f"{path}, row {row}: "
        super().__init__(where + message)


class TemplateError(HarnessError):
    """A chat template that cannot render or encode a conversation faithfully."""


class EndlessTemplateError(HarnessError):
    """A chat template that does not come to an end. No TemplateError: the next conversation would take as long."""


class ModelError(HarnessError):
    """A model folder, hub id or adapter that cannot be loaded."""


class RunError(HarnessError):
    """A run directory that is missing, incomplete or in use."""


class PluginError(HarnessError):
    """A plugin that cannot be loaded or registers something it may not."""


class UnknownNameError(PluginError, KeyError):
    """A name that no plugin registers; a KeyError too, so that `registry.get(name)` works as for any mapping."""

    __str__ = Exception.__str__


class MissingExtraError(HarnessError):
    """A command whose optional dependencies are not installed."""


class Ended(BaseException):
    """A signal ended the command. No Exception: nothing that goes on after errors may go on after it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.number = number


ENDINGS = (KeyboardInterrupt, Ended)  # what is nobody's mistake, whatever code it interrupts


def first_line(error: BaseException) -> str:
    """What a library's message begins with: its first line, or all of them where the first only announces a list."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines) if lines[0].endswith(":") else lines[0]


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known word nearest to `word`, or an empty string."""
    import difflib  # only when something went wrong: `harness --help` should not wait for it

    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else ""


def listed(names: Iterable[object], most: int = 6) -> str:
    """Names in order, the first of them where there are many: `a, b, and 7 more`."""
    ordered = sorted(map(str, names))
    return ", ".join(ordered[:most]) + (f", and {len(ordered) - most} more" if len(ordered) > most else "")


def known_names(names: Iterable[str]) -> str:
    """The known names as a readable list, for the end of an error message."""
    listed = sorted(names)
    return ", ".join(listed) if listed else "none"


def shown(value: object, limit: int = 60) -> str:
    """A value as an error message shows it, cut where it is long."""
    as_json = value is None or isinstance(value, bool | list | Mapping)
    text = json.dumps(value, ensure_ascii=False, default=str) if as_json else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
