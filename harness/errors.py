"""Errors that a user can fix.

`HarnessError` is printed without a traceback and ends the command with status 1. Any other exception is a bug of the
harness and shows its traceback.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path


class HarnessError(Exception):
    """A user's mistake or a broken environment. The message says what was found, what was expected, what to do next."""


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
    """A chat template that does not terminate. It is not a TemplateError: the next conversation would hang as well."""


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
    """A signal ended the command. It is not an Exception: code that continues after errors must not catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by signal {number}")
        self.number = number


ENDINGS = (KeyboardInterrupt, Ended)  # these are not failures of the code that they interrupt


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message without its full stop; the whole one if a colon ends the line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines) if lines[0].endswith(":") else lines[0].removesuffix(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the known word nearest to `word`, or an empty string."""
    import difflib  # only when something went wrong: `harness --help` should not wait for it

    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {match[0]!r}?" if match else ""


def listed(names: Iterable[object], limit: int = 6) -> str:
    """Return the names in order, at most `limit` of them: `a, b, and 7 more`."""
    ordered = sorted(map(str, names))
    return ", ".join(ordered[:limit]) + (f", and {len(ordered) - limit} more" if len(ordered) > limit else "")


def command(*words: object) -> str:
    """Return a command of the harness as one types it in a shell: a path with spaces is quoted."""
    return shlex.join(["harness", *map(str, words)])


def known_names(names: Iterable[str]) -> str:
    """Return the known names as a readable list, for the end of an error message."""
    listed = sorted(names)
    return ", ".join(listed) if listed else "none"


def shown(value: object, limit: int = 60) -> str:
    """Return a value as text for an error message, cut to `limit` characters."""
    as_json = value is None or isinstance(value, bool | list | Mapping)
    text = json.dumps(value, ensure_ascii=False, default=str) if as_json else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
