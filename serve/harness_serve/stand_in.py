"""The answer at the engine's port while it does not listen there: 503, and when to come again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from harness_serve.guard import Guard, Names, Receive, Scope, Send
from harness_serve.listening import bound, serving

RETRY_S = 5


class StandIn(Guard):
    """Answers every request with 503, as OpenAI's API writes errors."""

    async def admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        again = (b"retry-after", str(RETRY_S).encode())
        await self.refuse(scope, send, 503, "the engine is being started: try again in a little while", again)


@contextmanager
def stand_in(names: Names, port: int) -> Iterator[None]:
    """Hold the port and answer there; vLLM can bind it meanwhile, and takes over when it listens and this block ends.

    Raises:
        HarnessError: where this process cannot listen there.
    """
    holding = bound(names.host, port)
    holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # from now on others that ask for it may bind it too
    with serving(StandIn(_nothing, names), holding, lifespan="off"):
        yield


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing: the guard in front answers everything."""
