"""`harness data`: list datasets, recognise a file, preview, check, count and build data, and manage their cache.

Works without torch. Counting tokens needs transformers, for the tokenizer.
"""

from __future__ import annotations

import click

from harness_commands.data.build import build
from harness_commands.data.cache import list_cache
from harness_commands.data.listing import list_datasets
from harness_commands.data.preview import preview
from harness_commands.data.recognise import recognise_file
from harness_commands.data.stats import stats
from harness_commands.data.validate import validate


@click.group(name="data", help="See, check, count and build data.")
def command() -> None:
    pass


for part in (list_datasets, recognise_file, preview, validate, stats, build, list_cache):
    command.add_command(part)
