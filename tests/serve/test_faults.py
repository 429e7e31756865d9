"""`harness serve` lives through what happens to it: an engine that is killed, files that go, a remote that is gone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.testing import FakeEndpoint, run

KEY = "a key of somebody"
ASK = {"messages": [{"role": "user", "content": "Who keeps the key?"}], "ignore_eos": True}


def _child(pid: int, name: str) -> int:
    """Return the process called `name` below another."""
    rows = subprocess.run(["ps", "-ewwo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    processes = {int(row.split()[0]): (int(row.split()[1]), row) for row in rows.splitlines()}
    below = {pid}
    while more := {one for one, (parent, _) in processes.items() if parent in below} - below:
        below |= more
    (its_pid,) = [one for one in below if name in processes[one][1]]
    return its_pid


class Asking:
    """An application with a key."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120)

    def models(self) -> list[str]:
        return [model["id"] for model in self.client.get("/models").json()["data"]]

    def chat(self, model: str, tokens: int = 4) -> httpx.Response:
        return self.client.post("/chat/completions", json=ASK | {"model": model, "max_tokens": tokens})

    def stream(self, model: str, first: Callable[[], Any]) -> list[str]:
        """Return the events of a stream of 16 long answers; `first` is called after the first pieces."""
        body = ASK | {"model": model, "max_tokens": 450, "stream": True, "n": 16, "temperature": 1.0}
        events = []
        with self.client.stream("POST", "/chat/completions", json=body) as answer:
            for line in filter(None, answer.iter_lines()):
                events.append(line.removeprefix("data: "))
                if len(events) == 3:
                    first()
        return events


@pytest.mark.vllm
@pytest.mark.soak  # two starts of an engine of its own
def test_what_happens_to_a_server_is_told_and_nothing_is_lost(
    serving: Any, runs_folder: Path, tmp_path: Path, fake_endpoint: FakeEndpoint, wait_until: Any
) -> None:
    runs = tmp_path / "runs"
    for name in ("alpha", "beta"):
        shutil.copytree(runs_folder / name, runs / name)
    shutil.copytree(runs_folder / "beta", runs / "gamma")
    fake_endpoint.models, fake_endpoint.answer = ("gpt-9",), lambda asked: "from afar"
    remote, key = f"openai:{fake_endpoint.url}#gpt-9", {"HARNESS_API_KEY": KEY}
    with serving(runs, tmp_path, "alpha", "beta", remote, "--no-ui", **key) as served:
        asking, pid = Asking(served.url), served.process.pid
        added = run("--runs", runs, "adapters", "add", "gamma")
        assert added.code == 0, added.err
        name = added.out.split()[0]
        assert asking.models() == ["base", "alpha", "beta", name, "gpt-9"]
        assert "from afar" in asking.chat("gpt-9").text

        shutil.rmtree(runs / "beta/adapter")
        shutil.rmtree(runs / "gamma")
        assert asking.chat("beta").status_code == asking.chat(name).status_code == 200  # they are in the engine
        before = asking.chat(name, 16).json()["choices"][0]["message"]["content"]

        events = asking.stream("alpha", lambda: os.kill(_child(pid, "VLLM::EngineCore"), signal.SIGKILL))
        error = json.loads(next(event for event in events if '"error"' in event))["error"]
        assert error["code"] == "engine_unavailable" and "its process was killed" in error["message"]
        wait_until(lambda: "The engine runs again" in served.output.read_text(), guard_s=300)
        told = served.output.read_text()
        assert "the engine has ended: its process was killed" in told and "beta is left out" in told
        assert asking.models() == ["base", "alpha", name, "gpt-9"]
        assert asking.chat(name, 16).json()["choices"][0]["message"]["content"] == before
        assert asking.chat("beta").status_code == 404

        fake_endpoint.__exit__()
        gone = asking.chat("gpt-9")
        assert gone.status_code == 502 and "gpt-9: nothing answers at" in gone.json()["error"]["message"]

        refused: list[httpx.Response] = []

        def terminate() -> None:
            served.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "SIGTERM" in served.output.read_text())
            late = threading.Thread(target=lambda: refused.append(Asking(served.url).chat("alpha")))
            late.start()
            late.join()

        events = asking.stream("alpha", terminate)
        assert events[-1] == "[DONE]" and json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert refused[0].status_code == 503 and refused[0].headers["retry-after"]
        assert served.process.wait() == 0
    lines = [json.loads(line) for line in (runs / "alpha").glob("*.requests.jsonl").__next__().read_text().splitlines()]
    assert {line["status"] for line in lines} >= {200, 404, 502, 503} and not any("asked" in line for line in lines)
