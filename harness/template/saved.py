"""The files of a saved template: tokenizer, chat template, stop tokens and generation defaults.

A run keeps them in its `chat/` folder, and evaluation and serving load them without any plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import TemplateError
from harness.files import explain_full_disk, read_json, replacing, write_json
from harness.template.habits import Habits

SAVED = "template.json"  # the fields of a template that no file of the tokenizer holds
PLACES = ("takes_system", "takes_tools", "takes_turns")


def read(folder: Path) -> dict[str, Any]:
    """Return the fields of the `BoundTemplate` in a folder.

    Raises:
        HarnessError: if the folder was not written by `write`, or is damaged.
    """
    from harness.model.tokenizer import load_tokenizer

    for name in (SAVED, "tokenizer.json", "chat_template.jinja"):
        if not (folder / name).is_file():
            raise TemplateError(f"{folder}: there is no saved chat template here: {name} is missing")
    saved = read_json(path := folder / SAVED)
    try:
        stop_ids, stop_tokens = tuple(saved["stop_ids"]), list(saved["stop_tokens"])
        fields = {key: saved[key] for key in (*PLACES, "tool_parser")} | {"name": str(saved["name"])}
        # Runs of before templates knew thoughts have neither.
        fields["habits"] = Habits.from_dict(saved["habits"]) if "habits" in saved else Habits()
        fields["thinking"] = saved.get("thinking", "auto")
    except (KeyError, TypeError) as error:
        lacks = f"it lacks {error}" if isinstance(error, KeyError) else "it is not a JSON object of that form"
        raise TemplateError(
            f"{path}: this is not the file that a run saves with its template: {lacks}. The run has to be tuned again"
        ) from None
    tokenizer = load_tokenizer(str(folder))
    if not stop_ids or [tokenizer.convert_tokens_to_ids(token) for token in stop_tokens] != list(stop_ids):
        raise TemplateError(f"{path}: the stop tokens {stop_tokens} are not the ids {list(stop_ids)} of its tokenizer")
    return fields | {"tokenizer": tokenizer, "stop_ids": stop_ids}


def write(folder: Path, fields: Mapping[str, Any], pad_id: int) -> None:
    """Write the fields of a `BoundTemplate`, and the generation defaults that go with them."""
    tokenizer, stop_ids = fields["tokenizer"], list(fields["stop_ids"])
    with explain_full_disk(folder), replacing(folder) as temporary:
        tokenizer.save_pretrained(temporary)
        write_json(
            temporary / SAVED,
            {
                "name": fields["name"],
                "stop_ids": stop_ids,
                "stop_tokens": [tokenizer.convert_ids_to_tokens(stop) for stop in stop_ids],
                **{key: fields[key] for key in (*PLACES, "tool_parser", "thinking")},
                "habits": fields["habits"].as_dict(),
            },
        )
        # Greedy unless a request asks for something else. vLLM ends an answer at the stop tokens.
        write_json(
            temporary / "generation_config.json",
            {"eos_token_id": stop_ids, "pad_token_id": pad_id, "do_sample": False, "temperature": 0.0},
        )
