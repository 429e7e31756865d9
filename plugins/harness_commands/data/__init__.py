"""`harness data`: list datasets, recognise a file, preview, check, count and build data, and manage their cache.

Works without torch. Counting tokens needs transformers, for the tokenizer.
"""

from harness.cli.lazy import LazyGroup, Place

command = LazyGroup(
    "data",
    help="See, check, count and build data.",
    places={
        "build": Place("harness_commands.data.build:build"),
        "cache": Place("harness_commands.data.cache:list_cache"),
        "list": Place("harness_commands.data.listing:list_datasets"),
        "preview": Place("harness_commands.data.preview:preview"),
        "recognise": Place("harness_commands.data.recognise:recognise_file"),
        "stats": Place("harness_commands.data.stats:stats"),
        "validate": Place("harness_commands.data.validate:validate"),
    },
)
