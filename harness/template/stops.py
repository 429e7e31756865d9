"""Stop tokens, and where each of them comes from: the template, `generation_config.json`, or the tokenizer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from harness.files import read_json

TEMPLATE, GENERATION_CONFIG, TOKENIZER = "the template", "generation_config.json", "the tokenizer's eos"


def of_generation_config(tokenizer: Any) -> tuple[str, ...]:
    """Return the eos tokens of the `generation_config.json` beside the tokenizer; empty where there is none."""
    path = Path(str(tokenizer.name_or_path)) / GENERATION_CONFIG
    if not path.is_file():
        return ()
    ids = read_json(path).get("eos_token_id") or ()
    ids = [ids] if isinstance(ids, int) else ids
    return tuple(token for id in ids if isinstance(token := tokenizer.convert_ids_to_tokens(id), str))


def sources_of(stops: Sequence[str], written: Collection[str], tokenizer: Any) -> tuple[tuple[str, str], ...]:
    """Return each stop token with the first place that names it; `written` are those that the template writes."""
    configured = of_generation_config(tokenizer)

    def source(stop: str) -> str:
        if stop in written:
            return TEMPLATE
        if stop in configured:
            return GENERATION_CONFIG
        return TOKENIZER if stop == tokenizer.eos_token else TEMPLATE

    return tuple((stop, source(stop)) for stop in stops)
