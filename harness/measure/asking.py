"""Asking several Backends at once: those behind an engine side by side, those in this process one after the other."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from harness.contract.backends import Answer, Backend, Request


class Answered(NamedTuple):
    """An answer, the number of the backend that gave it, and the place of its request among the backend's."""

    backend: int
    place: int
    answer: Answer


def ask_all(asked: Sequence[tuple[Backend, Sequence[Request]]]) -> Iterator[Answered]:
    """Yield the answers of all backends as they finish. Raises what a backend raises; the others are not waited for.

    An engine sees the requests of all its variants together, each sent in the order given.
    """
    here = [number for number, (backend, _) in enumerate(asked) if "weights" in backend.capabilities]
    elsewhere = [number for number in range(len(asked)) if number not in here]
    lanes = [[number] for number in elsewhere] + ([here] if here else [])
    if len(lanes) < 2:
        for number in here or elsewhere:
            backend, requests = asked[number]
            yield from (Answered(number, *answered) for answered in backend.ask(requests))
        return
    finished: queue.Queue[Answered | BaseException | None] = queue.Queue()
    stopped = threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(asked, lane, finished, stopped), name="asking", daemon=True)
        for lane in lanes
    ]
    for thread in threads:
        thread.start()
    going = len(threads)
    try:
        while going:
            item = finished.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                going -= 1
            else:
                yield item
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _ask(
    asked: Sequence[tuple[Backend, Sequence[Request]]],
    lane: Sequence[int],
    finished: queue.Queue[Any],
    stopped: threading.Event,
) -> None:
    """Put the answers of some backends into the queue, and at the end None, or the error that ended it."""
    try:
        for number in lane:
            backend, requests = asked[number]
            answers: Any = backend.ask(requests)
            with contextlib.closing(answers):
                for answered in answers:
                    finished.put(Answered(number, *answered))
                    if stopped.is_set():
                        return
        finished.put(None)
    except BaseException as error:
        finished.put(error)
