"""`harness runs merge`: base and adapter as one model folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from harness.cli.context import Context
from harness.cli.runs import find_run
from harness.errors import HarnessError, command
from harness.extras import require
from harness.hashing import sha256_of_files
from harness.run.facts import probe_ids


@click.command(name="merge")
@click.argument("name", metavar="RUN")
@click.option("--to", "target", type=click.Path(path_type=Path), metavar="DIR", help="[default: merged/ in the run]")
@click.pass_obj
def merge(context: Context, name: str, target: Path | None) -> None:
    """Merge the adapter of RUN into its base, as a model folder that needs no adapter.

    It is computed in float32 and rounded once to the model's own type. What merging and rounding change in
    log-probabilities is measured on the run's probes, shown, and written to merged.json in the folder and the run's
    manifest.

    \b
    harness runs merge demo
    harness serve runs/demo/merged
    """
    from harness.variants import tuned_of

    require("torch", "tuning")
    run = find_run(context, name)
    variant = tuned_of(run)
    if variant.adapter is None:
        raise HarnessError(f"{run.name}: there is nothing to merge: {run.model_folder} is a whole model")
    folder = target or run.merged_folder
    if folder.exists():
        raise HarnessError(f"{folder} is there already; remove it, or name another folder with --to")
    from harness.model import merge as library

    with run.locked(), context.console.status(f"Merging in float32 and saving in {variant.model.dtype}"):
        changed = library.merge(variant, probe_ids(run), folder)
        run.update(merged=asdict(changed) | {"adapter_sha256": sha256_of_files(variant.adapter, "*.safetensors")})
    context.console.print(
        f"merged {run.name} into {folder}, in {changed.dtype}\n"
        f"log-probabilities of {changed.tokens:,} tokens changed by {changed.merging:.2g} nats on average through "
        f"merging (in float32), and by {changed.rounding:.2g} through rounding to {changed.dtype} (at most "
        f"{changed.largest:.2g})\n\n  {command('serve', folder)}",
        markup=False,
        soft_wrap=True,
    )
