"""The working folder and the handlers of signals, which the command relies on while it runs plugins' code."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def undisturbed() -> Iterator[list[str]]:
    """Put the working folder and the handlers of Ctrl-C and SIGTERM back after the block; yield what it changed."""
    changed: list[str] = []
    folder = _folder()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield changed
    finally:
        if folder is not None and _folder() != folder:
            os.chdir(folder)
            changed.append("the working folder")
        if threading.current_thread() is threading.main_thread():  # others may not set them
            for number, handler in handlers.items():
                if signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
                    changed.append(f"the handler of {number.name}")


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:  # it was removed
        return None
