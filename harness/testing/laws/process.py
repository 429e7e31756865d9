"""The state of a process that a plugin's import should leave as it was: everybody else in the process relies on it."""

from __future__ import annotations

import json
import locale
import logging
import os
import random
import signal
import socket
import sys
import warnings
from typing import Any

SEED = "the seed of `random`"
# What nobody may change; the rest may be meant: a folder more on `sys.path`, a variable that a library reads.
OTHERS = (
    "the working folder",
    "signal handlers",
    SEED,
    "torch's default dtype",
    "torch's seed",
    "torch's determinism",
    "the locale",
    "the default timeout of sockets",
    "the standard streams",
)


def state() -> dict[str, Any]:
    """Return what can be compared with the state after an import."""
    torch = sys.modules.get("torch")
    return {
        "the working folder": os.getcwd(),  # noqa: PTH109
        "signal handlers": {number.name: repr(signal.getsignal(number)) for number in signal.valid_signals()
                            if isinstance(number, signal.Signals)},
        SEED: hash(random.getstate()),
        "torch's default dtype": torch and str(torch.get_default_dtype()),
        "torch's seed": torch and torch.initial_seed(),
        "torch's determinism": torch and torch.are_deterministic_algorithms_enabled(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "the standard streams": [id(sys.stdout), id(sys.stderr)],
        "filters of all warnings": [str(one) for one in warnings.filters if one[1] is None and one[3] is None],
        "environment variables": dict(os.environ),
        "`sys.path`": list(sys.path),
        "the level of all logs": logging.getLogger().level,
    }  # fmt: skip


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of what was changed, with its value where that is short."""
    changed = []
    for name, value in after.items():
        if value != before[name]:
            is_short = isinstance(value, str | int | float) and name != SEED
            changed.append(f"{name} ({value})" if is_short else name)
    return changed


def report(before: dict[str, Any]) -> None:
    """Print what has changed since, as JSON."""
    print(json.dumps(changes(before, state())))
