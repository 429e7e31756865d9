"""Tokenizers of a model folder, a hub id or a run, and tokens that they are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import ModelError, first_line
from harness.extras import require
from harness.recipe import HUB_ID


def load_tokenizer(path: str, revision: str | None = None, *, trust_remote_code: bool = False) -> Any:
    """Return the fast tokenizer of a model folder or hub id. Raises ModelError where there is none."""
    transformers = require("transformers", "tuning")
    require_place(path)
    folder = Path(path)
    if folder.is_dir() and not any(name.is_file() for name in folder.glob("*token*")):
        raise ModelError(f"{path}: no tokenizer in this folder: it has no tokenizer.json")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise ModelError(f"{path}: no tokenizer could be loaded: {first_line(error)}{hub_hint(path)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{path}: its tokenizer is a slow one; the harness needs a fast tokenizer (tokenizer.json)")
    return tokenizer


def require_place(path: str) -> None:
    """Raise ModelError for a path that is neither a folder nor what a hub id looks like."""
    folder = Path(path)
    if not folder.is_dir() and (folder.exists() or not HUB_ID.fullmatch(path)):
        raise ModelError(f"{path}: {'not a model folder but a file' if folder.exists() else 'no such folder'}")


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Give the tokenizer control tokens: never split, and left out of an answer's text."""
    from tokenizers import AddedToken

    added = [AddedToken(token, special=True, normalized=False) for token in tokens]
    tokenizer.add_special_tokens({"extra_special_tokens": added}, replace_extra_special_tokens=False)


def hub_hint(path: str) -> str:
    """Return the end of an error message about a path that is not a local folder."""
    return (
        ""
        if Path(path).is_dir()
        else ". It is not a local folder, so it was looked up on the model hub; `harness doctor` says whether that is "
        "reachable"
    )
