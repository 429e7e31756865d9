"""The answer at the engine's port while it does not listen there: 503, and when to come again."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import harness
from harness.extras import require
from harness_serve.guard import Guard, Names, Receive, Scope, Send

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
    uvicorn = require("uvicorn", "serving")
    listening = bound(names.host, port)
    listening.listen()
    quiet = {"log_level": "error", "access_log": False, "server_header": False, "lifespan": "off"}
    server = uvicorn.Server(uvicorn.Config(StandIn(_nothing, names), timeout_graceful_shutdown=1, **quiet))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        server.should_exit = True
        thread.join()
        listening.close()


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound there, alone: only afterwards others may bind the port too, if they ask for it.

    Raises:
        HarnessError: where the port is taken or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holding = socket.socket(family, socket.SOCK_STREAM)
    holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holding.bind((host, port))
    except OSError as error:
        holding.close()
        if error.errno == errno.EADDRINUSE:
            why = (
                f"port {port} on {host} is in use: stop what listens there "
                f"(`ss -ltnp 'sport = :{port}'` says what it is)"
            )
        else:
            why = f"cannot listen on {host}, port {port}: {error.strerror}"
        raise harness.HarnessError(why) from None
    holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return holding


def require_free_port(host: str, port: int) -> None:
    """Raise HarnessError if this process cannot listen there."""
    bound(host, port).close()


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing: the guard in front answers everything."""
