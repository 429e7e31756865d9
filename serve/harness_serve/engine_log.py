"""The end of vLLM's log, as a person can read it. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

PREFIX = re.compile(
    r"^\((?:APIServer|EngineCore|Worker)[^)]*\) ?(?:(?:ERROR|INFO|WARNING|CRITICAL) [\d-]+ [\d:]+ \[[^]]*\] ?)?"
)
FOLLOWS = "EngineDeadError"  # raised by the server once the engine has gone
ALIVE = "Avg prompt throughput:"  # reported by the server while its engine works
ERROR_LINE = re.compile(r"(?:[\w.]+(?:Error|Exception)\b|[\w.]+: error: )")


def _errors_in(lines: Sequence[str]) -> list[str]:
    """Return the error messages among the lines of a log, each once, without stack frames."""
    telling: list[str] = []
    in_message = False
    for line in lines:
        if ERROR_LINE.match(line):
            in_message = True
        elif not line or line.startswith(("Traceback", "  File ", "The above exception", "During handling")):
            in_message = False
        if in_message and line not in telling:
            telling.append(line)
    return telling


def telling_lines(log_path: Path, most: int = 16) -> str:
    """Return the last error messages of the log, or its last lines where there are none, and the log's path."""
    lines = _lines(log_path)
    telling = _errors_in(lines)[-most:] or [line for line in lines if line][-most:]
    return "\n".join(f"  {line[:400]}" for line in telling) + f"\n  the whole log: {log_path}"


def why_it_ended(log_path: Path) -> str:
    """Return one line on why a running engine ended: the last error in its log that does not follow from its end.

    Of the errors before it was last seen to work, such as that of a request, it did not end.
    """
    lines = _lines(log_path)
    since = max((number for number, line in enumerate(lines) if ALIVE in line), default=-1) + 1
    errors = [line for line in _errors_in(lines[since:]) if ERROR_LINE.match(line) and FOLLOWS not in line]
    if errors:
        return errors[-1][:300]
    return "its process was killed, by somebody or for want of memory; `dmesg` tells the latter"


def _lines(log_path: Path) -> list[str]:
    try:
        text = log_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [PREFIX.sub("", line).rstrip() for line in text.splitlines()]
