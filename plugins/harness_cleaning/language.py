"""`language`: conversations in another language than those wanted.

py3langid says which: 140 languages, no download (its model of 4.6 MB comes in the wheel), no randomness, and needs only
numpy. Of the others, langdetect is random unless seeded and no longer maintained, and lingua, better on single words, takes
a hundred times the space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

import harness
from harness.data import messages_of
from harness.data.sources import Item
from harness.errors import known_names, nearest
from harness.extras import require

LOOKED_AT = 2000  # characters: what comes after rarely changes the verdict


class LanguageOptions(harness.Options):
    """`keep` are ISO 639 codes, as in `[en, de]`. A conversation of which it is not sure stays."""

    keep: Annotated[tuple[str, ...], Field(min_length=1)]
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.8
    min_characters: Annotated[int, Field(ge=0)] = 20


def language(options: LanguageOptions) -> Callable[[Item], str | None]:
    """Raises DataError for a code that it does not know."""
    langid = require("py3langid.langid", "cleaning")
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    known = set(identifier.labels)
    for code in options.keep:
        if code not in known:
            raise harness.DataError(
                f"the filter 'language' knows no language {code!r}.{nearest(code, known)} It knows: {known_names(known)}"
            )

    def judge(item: Item) -> str | None:
        text = "\n".join(m.content for m in messages_of(item) if m.role in ("user", "assistant"))[:LOOKED_AT]
        if len(text.strip()) < options.min_characters:
            return None
        found, confidence = identifier.classify(text)
        if found in options.keep or confidence < options.min_confidence:
            return None
        return f"is in another language: {found}"

    return judge


FILTERS = (
    harness.Filter("language", "conversations in another language than those wanted", LanguageOptions, language),
)
