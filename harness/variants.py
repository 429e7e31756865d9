"""Variants: what can be asked a question. A variant is named on the command line and resolved here.

demo             the run `demo` (in runs/, or a path to a run directory)
demo@base        the base model of that run, asked through the run's own template
Qwen/Qwen2.5-0.5B, ./folder    a base model; its own template, or the one given with --template
./adapter                      a PEFT adapter made elsewhere, on the base that its adapter_config.json names
openai:https://host/v1#model   a model behind an OpenAI-compatible endpoint; its key is in OPENAI_API_KEY
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.errors import HarnessError, ModelError, nearest
from harness.files import read_json
from harness.nouns import Remote
from harness.nouns.variants import KEY_VARIABLE, SCHEME
from harness.recipe import ModelSpec
from harness.run import Run

if TYPE_CHECKING:
    from harness.plugins import Plugins


ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Variant:
    """A base model, an adapter on it (a run's, or one made elsewhere), or a remote model.

    `chat_folder` holds the tokenizer, chat template and generation defaults the variant was tuned with; None means the
    model's own. For a run that saved a whole model, `model` is the run's model folder and `adapter` is None.
    `added_ids` are the tokens of the tokenizer in `chat_folder` that the model's files have no embeddings for:
    `load_model` begins them.
    `template` is what `--template` says: a name, or a recipe's section as YAML. Of a `remote` model nothing is here:
    `model.path` is its name with its endpoint, for records.
    """

    name: str
    model: ModelSpec
    adapter: Path | None = None
    chat_folder: Path | None = None
    run: Run | None = None
    template: str | None = None
    added_ids: tuple[int, ...] = ()
    remote: Remote | None = None

    @property
    def is_tuned(self) -> bool:
        """True for a run's tuned model, not for a model as it was."""
        return self.run is not None and not self.name.endswith("@base")

    @property
    def head(self) -> Path | None:
        """The file of the head that scores, of a reward model."""
        return self.run.head_path if self.run is not None and self.is_tuned and self.run.head_path.is_file() else None


def resolve_variants(
    names: tuple[str, ...], runs_folder: Path, plugins: Plugins, template: str | None = None
) -> tuple[Variant, ...]:
    """Return the named variants, in order; of two folders with one name, each is named with the folder that it is in.

    Raises HarnessError where a name is neither a run nor a model, or a variant is given twice.
    """
    variants = tuple(resolve_variant(name, runs_folder, plugins, template) for name in names)
    places = [_place(variant) for variant in variants]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise HarnessError(f"the variant {variants[index].name!r} is named twice")
    return tuple(replace(variant, name=name) for variant, name in zip(variants, _told_apart(places), strict=True))


def _place(variant: Variant) -> tuple[str, ...]:
    """Return the parts of the path (or hub id) of a variant, the last one with its `@base`."""
    where = Path(variant.adapter or variant.model.path) if variant.run is None else variant.run.folder
    return (*where.parts[:-1], variant.name)


def _told_apart(places: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the last part of each place, with as many before it as tell it from the others of that name."""
    names = []
    for place in places:
        others = [other for other in places if other != place]
        lengths = (n for n in range(1, len(place)) if all(place[-n:] != other[-n:] for other in others))
        length = next(lengths, len(place))
        names.append("/".join(part.strip("/") for part in place[-length:]))
    return names


def resolve_variant(name: str, runs_folder: Path, plugins: Plugins, template: str | None = None) -> Variant:
    """Return the variant called `name`. Raises HarnessError where there is none."""
    if name.startswith(SCHEME):
        return _remote(name, template)
    run_name, at, suffix = name.partition("@")
    if at and suffix != "base":
        raise HarnessError(f"{name!r}: the part after @ is {suffix!r}; only RUN@base is known")
    folder = _run_folder(run_name, runs_folder)
    if folder is not None:
        run = Run.open(folder, plugins)
        return base_of(run) if at else tuned_of(run)
    if at:
        raise HarnessError(f"{name!r}: there is no run {run_name!r}.{_runs_near(run_name, runs_folder)}")
    path = _expanded(name)
    if os.path.isdir(path):  # noqa: PTH112 - as below
        if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file():
            return _adapter_from_elsewhere(path.resolve(), template)
        if not (path / "config.json").is_file():
            raise HarnessError(
                f"{name}: neither a run (no manifest.json) nor a model folder (no config.json) nor an adapter "
                f"(no {ADAPTER_CONFIG}).{_runs_near(name, runs_folder)}"
            )
        return Variant(path.resolve().name, ModelSpec(path=str(path.resolve())), template=template)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return Variant(name.split("/")[1], ModelSpec(path=name), template=template)
    raise HarnessError(
        f"{name!r} is neither a run in {runs_folder}, nor a model folder, nor a hub id (owner/name), nor a remote "
        f"model ({SCHEME}URL#MODEL).{_runs_near(name, runs_folder)} `harness runs list` shows the runs."
    )


def require_here(variant: Variant, verb: str) -> None:
    """Raise HarnessError for a remote model where the weights are needed; `verb` as in "served"."""
    if variant.remote is not None:
        raise HarnessError(
            f"{variant.name} cannot be {verb}: it is a remote model, whose weights are not here. It answers already at "
            f"{variant.remote.url}; `harness evaluate '{variant.remote}' ...` measures it, and `harness generate "
            f"--endpoint {variant.remote.url} --model {variant.remote.model}` lets it write data"
        )


def require_words(variant: Variant, verb: str) -> None:
    """Raise HarnessError for a reward model where words are wanted; `verb` as in "served"."""
    if variant.head is not None:
        raise HarnessError(
            f"{variant.name} cannot be {verb}: it is a reward model, which scores answers and writes none. "
            f"`harness score {variant.name} FILE` asks it"
        )


def require_head(variant: Variant) -> None:
    """Raise HarnessError for a variant that is no reward model, where scores are wanted."""
    if variant.head is None:
        raise HarnessError(
            f"{variant.name} is no reward model: it has no head that scores. One is made by a recipe with an objective "
            f"that trains a head (`harness plugins list`)"
        )


def _remote(name: str, template: str | None) -> Variant:
    """Return the remote model that `openai:URL#MODEL` names."""
    url, _, model = name.removeprefix(SCHEME).partition("#")
    parts = urlsplit(url)
    example = f"expected {SCHEME}https://host/v1#model"
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise HarnessError(f"{name!r}: {url!r} is no URL of an endpoint; {example}")
    if not model:
        raise HarnessError(f"{name!r}: the model is missing after the URL; {example}")
    if "@" in parts.netloc:
        raise HarnessError(f"{parts.hostname}: a key does not go into the URL: set {KEY_VARIABLE}")
    if template is not None:
        raise HarnessError(
            f"{name}: --template is for models on this machine; a remote endpoint has a template of its own"
        )
    remote = Remote(url.rstrip("/"), model)
    return Variant(remote.short_name, ModelSpec(path=str(remote)), remote=remote)


def _adapter_from_elsewhere(folder: Path, template: str | None) -> Variant:
    """Return a PEFT adapter as a variant, on the base that its configuration names."""
    if (folder.parent / "manifest.json").is_file():
        raise ModelError(f"{folder}: this is the adapter of a run, which knows its template too: name {folder.parent}")
    config = read_json(folder / ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    key = f"{folder / ADAPTER_CONFIG}: `base_model_name_or_path`"
    if not isinstance(base, str) or not base:
        raise ModelError(f"{key} is {base!r}, expected the folder or hub id of the model that the adapter is for")
    local = next((path for path in (_expanded(base), folder / base) if (path / "config.json").is_file()), None)
    if local is None and (base.count("/") != 1 or base.startswith((".", "/", "~"))):
        raise ModelError(
            f"{key} is {base!r}, which is neither a model folder here nor a hub id; write where the base is"
        )
    model = ModelSpec(path=base if local is None else str(local.resolve()), revision=config.get("revision") or None)
    return Variant(folder.name, model, folder, template=template)


def tuned_of(run: Run) -> Variant:
    """Return the tuned model of a run as a variant. Raises RunError if the run has not finished."""
    run.require_finished()
    if run.adapter_folder.is_dir():
        return Variant(run.name, run.recipe.model, run.adapter_folder, run.chat_folder, run)
    model = run.recipe.model.model_copy(update={"path": str(run.model_folder), "revision": None, "rope_scaling": None})
    if not run.model_folder.is_dir():
        raise ModelError(f"{run.folder}: the run says it finished, but has neither adapter/ nor model/")
    return Variant(run.name, model, None, run.chat_folder, run)


def base_of(run: Run) -> Variant:
    """Return the base model of the run, asked through the run's own template."""
    run.require_finished()
    added_ids = tuple(run.added_tokens.values())
    return replace(tuned_of(run), name=f"{run.name}@base", model=run.recipe.model, adapter=None, added_ids=added_ids)


def _run_folder(name: str, runs_folder: Path) -> Path | None:
    for folder in (_expanded(name), runs_folder / name):
        if name and os.path.isfile(folder / "manifest.json"):  # noqa: PTH113 - Path's raises for a long name
            return folder.resolve()
    return None


def _expanded(name: str) -> Path:
    """Return a path with `~` filled in; Path.expanduser raises for an unknown user, who just has no such folder."""
    return Path(os.path.expanduser(name))  # noqa: PTH111


def _runs_near(name: str, runs_folder: Path) -> str:
    names = [folder.name for folder in runs_folder.iterdir()] if runs_folder.is_dir() else []
    return nearest(Path(name).name, names)
