"""The way to a `harness serve` that runs: a socket that only its user can open, and a file that says where it is.

One line of JSON asks; lines of JSON answer: `waiting` any number of times, then `done` or `error`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import write_json

FOLDER = ".serving"  # in the runs folder
LONGEST_LINE = 2**16
Answer = Callable[[Mapping[str, Any], Callable[[str], None]], Any]


@dataclass(frozen=True, slots=True)
class Door:
    """One server that runs: its process, its endpoint's URL, and its socket."""

    pid: int
    url: str
    socket: str

    @property
    def is_open(self) -> bool:
        """True while its server listens."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self.socket)
            return True
        return False


@contextlib.contextmanager
def socket_path() -> Iterator[Path]:
    """Make a folder that only this user can enter, and yield the path of a socket in it."""
    with tempfile.TemporaryDirectory(prefix="harness-serve-") as folder:  # 0700; the runs folder's path may be too long
        yield Path(folder) / "socket"


@contextlib.contextmanager
def opened(path: Path, runs_folder: Path, url: str, port: int, answer: Answer) -> Iterator[None]:
    """Answer at the socket while the block runs, and keep a file in the runs folder that says so."""
    server = _Server(path, answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    note = runs_folder / FOLDER / f"{port}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    write_json(note, asdict(Door(os.getpid(), url, str(path))))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)
        server.shutdown()
        server.server_close()


def doors(runs_folder: Path) -> list[Door]:
    """Return the servers of a runs folder that run; notes that a killed one left are removed."""
    running = []
    for note in sorted((runs_folder / FOLDER).glob("*.json")):
        try:
            door = Door(**json.loads(note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        if door.is_open:
            running.append(door)
        else:
            note.unlink(missing_ok=True)
    return running


def asked(door: Door, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines that a server answers. Raises HarnessError where it does not."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(door.socket)
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as lines:
                yield from map(json.loads, lines)
    except OSError as error:
        raise HarnessError(f"the server at {door.url} does not answer: {error}") from None


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(path), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            question = json.loads(self.rfile.readline(LONGEST_LINE))
            self._say("done", self.server.answer(question, lambda waiting_for: self._say("waiting", waiting_for)))
        except HarnessError as error:
            self._say("error", str(error))
        except KeyError as error:
            self._say("error", f"the question to the server lacks {error}")
        except (ValueError, TypeError) as error:
            self._say("error", f"not a question to a server: {error!r}")

    def _say(self, kind: str, value: Any) -> None:
        with contextlib.suppress(OSError):  # whoever asked has gone; what was begun is ended
            self.wfile.write(json.dumps({kind: value}).encode() + b"\n")
            self.wfile.flush()
