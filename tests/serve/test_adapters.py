"""Adapters added to an engine that runs: checked before anyone can ask them, under names that are used once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness_serve import control, plan
from harness_serve.door import doors, opened, socket_path
from harness_serve.engine import ENGINE, VllmOptions
from harness_serve.supervisor import Supervisor

import harness.testing
from harness import HarnessError
from harness.plugins import Plugins
from harness.variants import resolve_variant

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.vllm


@pytest.fixture
def supervisor(endpoint: Any, runs_folder: Path) -> Iterator[Supervisor]:
    """A supervisor of the session's engine; what a test adds is taken away again."""
    variants = tuple(resolve_variant(name, runs_folder, Plugins()) for name in endpoint.models[1:])
    with Supervisor(ENGINE, VllmOptions(), variants, Plugins(), runs_folder) as supervisor:
        supervisor.endpoint, supervisor.variants = endpoint, variants
        yield supervisor
        for adapter in supervisor.listed()["adapters"]:
            if adapter["added"]:
                supervisor.remove(adapter["name"])


@pytest.fixture
def spoilt(runs_folder: Path, tmp_path: Path) -> Any:
    """Return a maker of a copy of alpha's adapter with its tensors as `change` returns them."""
    from safetensors.torch import load_file, save_file

    def make(change: Any, **config: Any) -> Path:
        folder = tmp_path / "spoilt"
        shutil.copytree(runs_folder / "alpha/adapter", folder)
        save_file(change(load_file(folder / "adapter_model.safetensors")), folder / "adapter_model.safetensors")
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return folder

    return make


def _other_weights(tensors: Any) -> Any:
    return {key: 2 * value for key, value in tensors.items()}


def test_an_added_run_answers_as_tuned_under_the_hash_of_its_weights(
    supervisor: Supervisor, client: Any, endpoint: Any
) -> None:
    asked = {"messages": [{"role": "user", "content": "Who keeps the key?"}], "max_tokens": 24}
    waited: list[str] = []
    done = supervisor.add("beta", waited.append)
    name = done["name"]
    assert name.startswith("beta-") and len(name) == len("beta-") + 8
    assert any("parity" in text for text in waited) and any("probes" in text for text in waited)
    assert [agreement["variant"] for agreement in done["agreements"]] == ["base", name]
    assert name in supervisor.endpoint.models and name in {model.id for model in client.models.list()}
    added, named = (client.chat.completions.create(model=m, **asked).choices[0].message.content for m in (name, "beta"))
    assert added == named
    assert supervisor.add("beta") == {"name": name, "added": False, "agreements": [], "compared": []}
    supervisor.remove(name)
    with pytest.raises(openai.NotFoundError, match=name):
        client.chat.completions.create(model=name, **asked)
    again = supervisor.add("beta")["name"]
    assert again == f"{name}-2"  # the engine may still have the first one's prefixes in its cache
    assert set(endpoint.models) < {model.id for model in client.models.list()}


@pytest.mark.parametrize(("name", "why"), [("unapplied", "the adapter is not applied"), ("swapped", "not answer as")])
def test_an_adapter_that_fails_a_check_was_never_shown(
    supervisor: Supervisor, client: Any, endpoint: Any, name: str, why: str
) -> None:
    with pytest.raises(HarnessError, match=why):
        supervisor.add(name)
    assert {model.id for model in client.models.list()} == set(endpoint.models) == set(supervisor.endpoint.models)
    assert supervisor.listed()["adapters"][-1]["added"] is False


def test_an_adapter_whose_modules_the_model_does_not_have_is_refused(
    supervisor: Supervisor, spoilt: Any, client: Any, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model whose files cannot be looked at before: vLLM loads it, and the base answers for a half of it."""
    monkeypatch.setattr(plan, "require_fits", lambda *_: None)
    folder = spoilt(lambda tensors: {key.replace("layers.1.", "layers.9."): its for key, its in tensors.items()})
    with pytest.raises(HarnessError, match=r"vLLM uses 7 of the adapter's 14 modules, .* as model\.layers\.9\."):
        supervisor.add(str(folder))
    assert {model.id for model in client.models.list()} == set(endpoint.models)


def test_the_engine_uses_every_module_of_the_adapters_named_at_the_start(endpoint: Any, runs_folder: Path) -> None:
    adapters = {name: plan.read_adapter(name, runs_folder / name / "adapter") for name in ("alpha", "beta")}
    endpoint.control.require_active(adapters)
    more = {**adapters["alpha"].modules, "model.layers.2.mlp.up_proj": (1, 1)}
    with pytest.raises(HarnessError, match=r"alpha: vLLM uses 14 of the adapter's 15 modules"):
        endpoint.control.require_active({"alpha": replace(adapters["alpha"], modules=more)})


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "does not serve DoRA"),
        ({"bias": "all"}, "changes biases"),
        ({"modules_to_save": ["lm_head"]}, "holds whole modules"),
        ({"rank_pattern": {"q_proj": 16}}, "has rank 16, and the engine was started for at most 8"),
    ],
)
def test_what_the_engine_cannot_serve_is_refused_with_a_way_out(
    supervisor: Supervisor, spoilt: Any, config: dict[str, Any], why: str
) -> None:
    with pytest.raises(HarnessError, match=rf"{why}.*(runs merge.*float32.*log-probabilities|adapter_rank=16)"):
        supervisor.add(str(spoilt(_other_weights, **config)))


def test_there_is_room_for_so_many_adapters(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    room = supervisor.listed()["capacity"]
    assert room["slots"] == 6 and room["rank"] == 8
    monkeypatch.setattr(supervisor.control, "_stuck", 2)
    with pytest.raises(HarnessError, match=r"all 6 slots for adapters are in use.*remove NAME.*adapter_slots=12"):
        supervisor.add("alpha")
    monkeypatch.setattr(supervisor.control, "capacity", None)
    with pytest.raises(HarnessError, match=r"started without adapters.*adapter_slots=4"):
        supervisor.add("alpha")


def test_what_is_no_adapter_is_neither_added_nor_removed(supervisor: Supervisor, served_model: Path) -> None:
    with pytest.raises(HarnessError, match="is a whole model and no adapter"):
        supervisor.add(str(served_model))
    with pytest.raises(HarnessError, match=r"'alpah' is no adapter that is served. Did you mean 'alpha'"):
        supervisor.remove("alpah")


@contextmanager
def _door(supervisor: Supervisor, runs: Path) -> Iterator[None]:
    with socket_path() as path, opened(path, runs, supervisor.endpoint.url, 8000, supervisor.answer):
        yield


def test_adapters_are_added_listed_and_removed_by_command(supervisor: Supervisor, tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def adapters(text: str) -> harness.testing.Done:
        return harness.testing.run(f"--runs {runs} adapters {text}")

    assert "no `harness serve` runs from" in adapters("list").err
    with _door(supervisor, runs):
        done = adapters("add beta")
        assert done.code == 0 and "log-probabilities" in done.out and "waiting for the parity check" in done.err
        name = done.out.split()[0]
        again = adapters("add beta")
        assert again.code == 0 and again.out == f"{name} is served already, with these weights\n"
        assert name in adapters("list").out and "room for 1 more, of rank 8" in adapters("list").out
        assert json.loads(adapters("list --json").out)["adapters"][-1] == {"name": name, "added": True, "run": "beta"}
        port = urlsplit(supervisor.endpoint.url).port
        for endpoint in (f"http://localhost:{port}", f"http://[::1]:{port}/v1"):  # of which the socket needs no key
            assert name in adapters(f"list --endpoint {endpoint}").out
        assert "nothing answers at http://localhost:no" in adapters("list --endpoint http://localhost:no").err
        assert "is served no more" in adapters(f"remove {name}").out and name not in adapters("list").out
        refused = adapters("add nobody")
        assert refused.code != 0 and "neither a run" in refused.err and "Traceback" not in refused.err
    assert doors(runs) == [] and not list((runs / ".serving").iterdir())


def test_a_killed_servers_note_is_removed(supervisor: Supervisor, tmp_path: Path) -> None:
    with _door(supervisor, tmp_path):
        (note,) = (tmp_path / ".serving").iterdir()
        text = note.read_text()
        assert [door.url for door in doors(tmp_path)] == [supervisor.endpoint.url]
    note.write_text(text)
    assert doors(tmp_path) == [] and not note.exists()


def test_each_replica_must_use_every_module() -> None:
    adapter = plan.Adapter(Path(), 4, {"model.layers.0.mlp.up_proj": (1, 1), "model.layers.1.mlp.up_proj": (1, 1)})
    whole, half = ["language.layers.0.mlp.up_proj", "language.layers.1.mlp.up_proj"], ["x.layers.0.mlp.up_proj"]
    control.require_active("a", adapter, [{"a": whole}, {"a": whole}])
    with pytest.raises(HarnessError, match="1 of the adapter's 2 modules on replica 1"):
        control.require_active("a", adapter, [{"a": whole}, {"a": half}])
    with pytest.raises(HarnessError, match="0 of the adapter's 2 modules"):
        control.require_active("a", adapter, [{}])


@pytest.mark.soak  # two engines of its own
def test_an_added_adapter_is_loaded_and_checked_on_every_replica(
    runs_folder: Path, free_port: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each copy of the model is asked for its prompt ids, the probes and an answer, by its number."""
    seen: list[int] = []
    check = control.require_active
    monkeypatch.setattr(control, "require_active", lambda *its: (seen.append(len(its[2])), check(*its)))
    options = VllmOptions(port=free_port(), max_model_len=512, kv_cache_gib=0.3, adapter_slots=2, data_parallel_size=2)
    alpha = resolve_variant("alpha", runs_folder, Plugins())
    with Supervisor(ENGINE, options, (alpha,), Plugins(), runs_folder) as supervisor:
        supervisor.start()
        waited: list[str] = []
        name = supervisor.add("beta", waited.append)["name"]
        assert seen == [2, 2] and sum("probes" in text for text in waited) == 2
        url, replicas = supervisor.endpoint.url, supervisor.endpoint.replicas
        asked = {"messages": [{"role": "user", "content": "Who keeps the key?"}], "max_tokens": 24}
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            answers = {
                model: [
                    client.chat.completions.create(model=model, **asked, extra_headers=one).choices[0].message.content
                    for one in replicas
                ]
                for model in ("alpha", name)
            }
            assert [len(set(its)) for its in answers.values()] == [1, 1] and answers["alpha"] != answers[name]
            supervisor.remove(name)
            for one in replicas:
                with pytest.raises(openai.NotFoundError, match=name):
                    client.chat.completions.create(model=name, **asked, extra_headers=one)
