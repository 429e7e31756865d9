"""What can be named as a variant, and the way out where one cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import HarnessError, RecipeError
from harness.model.load import load_variant
from harness.nouns import Remote
from harness.plugins import Plugins
from harness.recipe import load_recipe
from harness.variants import require_here, resolve_variant, resolve_variants

PLUGINS = Plugins()
URL = "openai:https://host.example/v1"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The folder of an adapter made elsewhere, on a base in a folder beside it."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text("{}")
    return _write(tmp_path / "mine", str(tmp_path / "base"))


def _write(folder: Path, base: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def test_an_adapter_made_elsewhere_stands_on_the_base_it_names(adapter: Path, tmp_path: Path) -> None:
    variant = resolve_variant(str(adapter), tmp_path, PLUGINS, "chatml")
    assert (variant.name, variant.adapter, variant.template) == ("mine", adapter, "chatml")
    assert variant.model.path == str(tmp_path / "base") and not variant.is_tuned
    _write(adapter, "../base")
    assert resolve_variant(str(adapter), tmp_path, PLUGINS).model.path == str(tmp_path / "base")
    _write(adapter, "Qwen/Qwen2.5-0.5B")
    assert resolve_variant(str(adapter), tmp_path, PLUGINS).model.path == "Qwen/Qwen2.5-0.5B"


def test_two_adapters_of_one_base_are_told_apart(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = _write(tmp_path / "other/mine", str(tmp_path / "base"))
    names = [one.name for one in resolve_variants((str(adapter), str(other)), tmp_path, PLUGINS)]
    assert names == [f"{tmp_path.name}/mine", "other/mine"]


@pytest.mark.parametrize("base", [None, "", "/nowhere/at/all", 7])
def test_an_adapter_without_its_base_is_refused(tmp_path: Path, base: object) -> None:
    with pytest.raises(HarnessError, match=r"adapter_config.json: `base_model_name_or_path` is "):
        resolve_variant(str(_write(tmp_path / "mine", base)), tmp_path, PLUGINS)


def test_the_adapter_of_a_run_is_named_by_its_run(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(HarnessError, match=rf"the adapter of a run.*name {tmp_path}"):
        resolve_variant(str(adapter), tmp_path / "runs", PLUGINS)


def test_a_remote_model_is_named_by_its_url(tmp_path: Path) -> None:
    variant = resolve_variant(f"{URL}/#acme/large", tmp_path, PLUGINS)
    assert variant.remote == Remote("https://host.example/v1", "acme/large")
    assert variant.name == "large" and variant.model.path == f"{URL}#acme/large"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (URL, "the model is missing after the URL; expected openai:https://host/v1#model"),
        ("openai:host.example#m", "is no URL of an endpoint; expected openai:https://host/v1#model"),
        ("openai:https://me:secret@host.example/v1#m", "a key does not go into the URL: set OPENAI_API_KEY"),
    ],
)
def test_a_mistyped_remote_is_explained_and_no_key_is_shown(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(HarnessError) as refused:
        resolve_variant(name, tmp_path, PLUGINS)
    assert message in str(refused.value) and "secret" not in str(refused.value)


def test_a_remote_has_its_own_template(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="a remote endpoint has a template of its own"):
        resolve_variant(f"{URL}#m", tmp_path, PLUGINS, "chatml")


def test_a_remote_is_neither_served_loaded_nor_tuned(  # type: ignore[no-untyped-def]
    harness_here, tmp_path: Path, write_rows
) -> None:
    remote = resolve_variant(f"{URL}#m", tmp_path, PLUGINS)
    with pytest.raises(HarnessError, match=r"m cannot be served: it is a remote model.*harness evaluate 'openai:"):
        require_here(remote, "served")
    with pytest.raises(HarnessError, match="m cannot be loaded"):
        load_variant(remote, PLUGINS)
    done = harness_here("serve", f"{URL}#m", "--no-ui")
    assert done.code == 1 and "m cannot be served" in done.err
    rows = write_rows({"messages": []})
    (tmp_path / "r.yaml").write_text(
        f"model: {{path: '{URL}#m'}}\ndata: {{train: [{{dataset: messages, path: {rows}}}]}}\ntune: {{steps: 1}}\n"
    )
    with pytest.raises(RecipeError, match=r"r.yaml, line 1: .*is a remote model.*harness generate"):
        load_recipe(tmp_path / "r.yaml", PLUGINS)
