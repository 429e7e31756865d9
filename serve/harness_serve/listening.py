"""Ports of this machine, and applications that are served there in a thread of this process."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import harness
from harness.extras import require


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound there, alone.

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
    return holding


def require_free_port(host: str, port: int) -> None:
    """Raise HarnessError if this process cannot listen there."""
    bound(host, port).close()


@contextlib.contextmanager
def serving(app: Any, at: socket.socket, **settings: Any) -> Iterator[None]:
    """Serve an ASGI application at a bound socket while the block runs, with these settings of uvicorn.

    Raises:
        HarnessError: where the application does not start.
    """
    uvicorn = require("uvicorn", "serving")
    quiet = {"log_level": "error", "access_log": False, "server_header": False, "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(app, **quiet, **settings))
    at.listen()
    thread = threading.Thread(target=_run, args=(server, at), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                host, port, *_ = at.getsockname()
                raise harness.HarnessError(f"the server on {host}, port {port} did not start")
            time.sleep(0.01)
        yield
    finally:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # requests under way are cut now
        server.should_exit = True
        thread.join()
        at.close()


def _run(server: Any, at: socket.socket) -> None:
    with contextlib.suppress(SystemExit):  # uvicorn's way to say that the application did not start
        server.run(sockets=[at])
