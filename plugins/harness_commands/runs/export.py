"""`harness runs export`: a run as a folder in the hub's layout, pushed by option."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.cli.runs import find_run
from harness.errors import HarnessError, first_line
from harness.extras import require
from harness.files import read_json, replacing, write_json
from harness.run import Run
from harness.run.facts import base_name, probe_ids, recipe_of
from harness_commands.runs.card import card_of

if TYPE_CHECKING:
    from harness.variants import Variant


@click.command(name="export")
@click.argument("name", metavar="RUN")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--merged", is_flag=True, help="The model with the adapter merged into it, not the adapter.")
@click.option("--base", metavar="OWNER/NAME", help="The hub id of the base, where the recipe names a folder.")
@click.option("--push", metavar="OWNER/NAME", help="Upload it to this repository of the hub, which is made if need be.")
@click.option("--private", is_flag=True, help="With --push: a repository that others cannot see.")
@click.pass_obj
def export(
    context: Context, name: str, folder: Path, merged: bool, base: str | None, push: str | None, private: bool
) -> None:
    """Write RUN to DIR as the hub expects it: weights, tokenizer, chat template, generation defaults, model card.

    \b
    harness runs export demo demo-adapter --base Qwen/Qwen3-0.6B
    harness runs export demo demo-model --merged --push somebody/demo
    """
    from harness.recipe import HUB_ID
    from harness.variants import tuned_of

    run = find_run(context, name)
    variant = tuned_of(run)
    if folder.exists():
        raise HarnessError(f"{folder} is there already; remove it, or name another folder")
    if private and push is None:
        raise click.UsageError("--private goes with --push")
    for option, value in (("--base", base), ("--push", push)):
        if value is not None and not HUB_ID.fullmatch(value):
            raise HarnessError(f"{option} {value}: not a hub id; write OWNER/NAME")
    api = None if push is None else _api()
    with context.console.status("Writing the folder"), replacing(folder) as temporary:
        temporary.mkdir()
        is_merged = merged and variant.adapter is not None
        _weights(run, variant, temporary, is_merged, base)
        card = card_of(run, context.plugins, base, is_merged=is_merged)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    context.console.print(f"wrote {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}", markup=False)
    own_base, is_hub_id = base_name(recipe_of(run))
    if variant.adapter is not None and not merged and not is_hub_id and base is None:
        click.echo(
            f"warning: the base {own_base} is a folder of this machine; --base OWNER/NAME says where others find it",
            err=True,
        )
    if api is not None and push is not None:
        with context.console.status(f"Uploading to {push}"):
            _push(api, folder, push, private)
        context.console.print(f"pushed to {api.endpoint}/{push}", markup=False)


def _weights(run: Run, variant: Variant, folder: Path, is_merged: bool, base: str | None) -> None:
    """Write adapter or model, with the tokenizer, the chat template and the generation defaults of the run."""
    assert variant.chat_folder is not None
    if is_merged:
        assert variant.adapter is not None
        require("torch", "tuning")
        from harness.model.merge import merge, merged_from

        source = run.merged_folder
        if not merged_from(source, variant.adapter):
            source = folder / ".merged"
            merge(variant, probe_ids(run), source)
        _copy(source, folder)
        shutil.rmtree(folder / ".merged", ignore_errors=True)
        return
    _copy(variant.adapter or Path(variant.model.path), folder)
    _copy(variant.chat_folder, folder)
    if variant.adapter is not None:
        config = read_json(folder / "adapter_config.json")
        name, is_hub_id = base_name(recipe_of(run))
        config["base_model_name_or_path"] = base or name
        config["revision"] = variant.model.revision if is_hub_id and base is None else None
        write_json(folder / "adapter_config.json", config)


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and path.name != "README.md":  # PEFT's own is a form to fill in
            shutil.copyfile(path, target / path.name)


def _api() -> Any:
    """Return the hub's client. Raises HarnessError where there is no token: nobody is asked for one."""
    hub = require("huggingface_hub", "tuning")
    if hub.get_token() is None:
        raise HarnessError("--push needs a token that may write: `hf auth login`, or HF_TOKEN")
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _push(api: Any, folder: Path, repository: str, private: bool) -> None:
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Upload a tuned model")
    except Exception as error:
        raise HarnessError(
            f"--push {repository}: the hub refuses it: {first_line(error)}. The folder {folder} is whole, and can be "
            f"uploaded later: `hf upload {repository} {folder}`"
        ) from error
