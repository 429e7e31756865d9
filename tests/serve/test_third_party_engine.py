"""The seam of engines: one third-party file that `harness serve` starts, checks as far as it can, and stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PLUGIN = """
import contextlib, json, os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pydantic

import harness
from harness.contract import Endpoint


class Options(harness.Options):
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: pydantic.SecretStr | None = None
    allow_hosts: tuple[str, ...] = ()
    greeting: str = "Hello"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # the command looks whether the engine is still there: then a person presses Ctrl-C
        self.send_response(200)
        self.end_headers()
        os.kill(os.getpid(), signal.SIGINT)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def start(variants, options, report):
    report(f"{options.greeting}, asked through {variants[0].chat_folder.name}/")
    assert (variants[0].chat_folder / "chat_template.jinja").is_file()
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Endpoint(f"http://{options.host}:{options.port}/v1", tuple(v.name for v in variants))
    finally:
        server.shutdown()
        server.server_close()
        print("parrot has stopped", file=sys.stderr)


@harness.hookimpl
def register_engines(register):
    register(harness.Engine("parrot", "answers what it likes", Options, start))
"""


def test_an_engine_whose_options_lack_what_serve_sets_is_refused(
    harness_here: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "parrot.py").write_text(PLUGIN.replace("    port: int = 8000\n", ""))
    done = harness_here("--plugin", tmp_path / "parrot.py", "plugins", "list")
    assert "'parrot': its options have no port." in " ".join((done.out + done.err).split())


def test_an_engine_of_one_file_is_served_unverified(
    harness: Callable[..., Any], tiny_model: Path, tmp_path: Path, free_tcp_port: int
) -> None:
    (tmp_path / "parrot.py").write_text(PLUGIN)
    done = harness(
        "--plugin", "parrot.py", "serve", tiny_model, "--template", "chatml", "--no-ui", "--engine", "parrot",
        "--port", free_tcp_port, "--set", "greeting=Squawk",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "waiting for Squawk, asked through chat/" in done.out
    assert "parity    unverified: the engine does not tell which ids it receives" in done.out
    assert "adapters  unverified: the engine gives no log-probabilities of given ids" in done.out
    assert f"http://127.0.0.1:{free_tcp_port}/v1" in done.out and " ok" not in done.out
    assert "parrot has stopped" in done.err and "Stopped: the engine" in done.out


def test_sigterm_ends_an_engine_that_cannot_drain_with_143(
    harness: Callable[..., Any], tiny_model: Path, tmp_path: Path, free_tcp_port: int
) -> None:
    """128 and the signal's number, as answers may have been cut."""
    (tmp_path / "parrot.py").write_text(PLUGIN.replace("signal.SIGINT", "signal.SIGTERM"))
    done = harness(
        "--plugin", "parrot.py", "serve", tiny_model, "--template", "chatml", "--no-ui", "--engine", "parrot",
        "--port", free_tcp_port,
    )  # fmt: skip
    assert done.code == 143 and "Stopped: the engine and the page have ended." in done.out, done.err
    assert "parrot has stopped" in done.err and "Traceback" not in done.err


def test_a_study_begins_with_what_the_command_says(
    harness: Callable[..., Any], tiny_model: Path, tmp_path: Path, free_tcp_port_factory: Callable[[], int]
) -> None:
    """The page comes up with the study's options; a variant to leave out must be one that is served."""
    pytest.importorskip("gradio")
    (tmp_path / "parrot.py").write_text(PLUGIN)
    (tmp_path / "prompts.json").write_text('["Who keeps the key?", {"prompt": "Why?", "category": "causes"}]')
    serve = (
        "--plugin", "parrot.py", "serve", tiny_model, "--template", "chatml", "--engine", "parrot", "--port",
        free_tcp_port_factory(), "--ui-port", free_tcp_port_factory(), "--prompts", "prompts.json",
    )  # fmt: skip
    done = harness(*serve, "--pairs", "informative", "--repeats", "0.1")
    assert done.code == 0 and "page      http://127.0.0.1:" in done.out, done.err
    done = harness(*serve, "--leave-out", "best")
    assert done.code == 1 and "--leave-out best: no such variant." in done.err and "There are: " in done.err
    done = harness(*serve, "--leave-out", tiny_model.name)
    assert done.code == 1 and "the arena needs two variants" in done.err and "Traceback" not in done.err
