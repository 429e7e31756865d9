"""First-party data sets: how a row of each common format becomes a Conversation."""

from collections.abc import Callable

import harness


@harness.hookimpl
def register_datasets(register: Callable[[harness.Dataset], None]) -> None:
    from harness_datasets import alpaca, messages, text

    for module in (alpaca, messages, text):
        register(module.DATASET)
