"""One word for one thing: the nouns of docs/index.md have no synonyms, in code, in messages and in docs."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("harness", "plugins", "serve", "docs", "examples", "recipes")
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".jinja", ".html", ".js", ".css"}

# What is not written -> what is, and why where that is not plain.
SYNONYMS = {
    r"dialog(ue)?s?": "conversation",
    r"chat ?logs?": "conversation",
    r"utterances?": "message",
    r"(?<!supervised )fine[- ]?tun(e[ds]?|ing)": "tune, tuning",  # SFT is the field's name of an objective
    r"prompt templates?": "template",
    r"chat formats?": "template",
    r"loss[ _]functions?": "objective",
    r"preference pairs?": "preference",
    r"label[ _]masks?": "loss mask",
    r"experiments?": "run",
    r"training runs?": "run",
    r"run ids?": "run (a run is named by its folder)",
    r"config(uration)? files?": "recipe",
    r"checkpoint adapters?": "adapter",
    r"lora weights": "adapter",
    r"contestants?": "variant",
    r"candidate models?": "variant",
    r"model under test": "variant",
    r"benchmarks? suites?": "evaluation",
    r"judg(e?)ments?": "vote",
    r"up-?votes?|down-?votes?": "vote",
    r"match-?ups?|duels?|battles?": "ballot",
    r"add-?ons?|extensions? points?": "plugin, hook",
    r"data[ -]sets?": "dataset",
    r"learnt": "trained on; supervised tokens",
}
# Where a word is somebody else's name for something, the line is written here in full.
ALLOWED: set[str] = {  # names of fields in other people's files
    'log.append(("user", turns.text_of(turn, "user utterance", number)))',
    '*("log.user utterance", "log.system response", "-log.turn id", "-log.dialog history", "id?"),',
    '*("-original dialog id", "-dialog index", "-original dialog info"),',
    '("context=dialogue", "question", "choices=choice", "answer", "-id", "-dialogue_id"),',
    '_TURNS = "conversation|conversations|turns|dialogue|dialog"',
    'SAID_KEYS = ("text", "content", "value", "utterance", "message")',
    '"samsum": (Form("summarisation", ("document=dialogue", "summary", "-id")),),',
    '"dialogsum": (Form("summarisation", ("document=dialogue", "summary", "topic", "-id")),),',
}


def files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *inside]


# Tables that are written from the code name the columns of other people's files.
TABLE = re.compile(r"<!-- (\w+): begin -->.*?<!-- \1: end -->", re.DOTALL)


def prose_of(path: Path) -> str:
    """Return the text of a file, with empty lines for those of its tables."""
    return TABLE.sub(lambda table: "\n" * table[0].count("\n"), path.read_text(encoding="utf-8"))


TEXTS = {str(path.relative_to(ROOT)): prose_of(path) for path in files()}


def word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){pattern}(?![\w-])", re.IGNORECASE)


def offences(pattern: str) -> Iterator[str]:
    """Yield the place of each use of a synonym."""
    for path, text in TEXTS.items():
        for found in word(pattern).finditer(text):
            number = text.count("\n", 0, found.start()) + 1
            if text.splitlines()[number - 1].strip() not in ALLOWED:
                yield f"{path}:{number}: {found[0]!r}"


@pytest.mark.parametrize(("pattern", "noun"), SYNONYMS.items(), ids=SYNONYMS.values())
def test_noun_has_no_synonyms(pattern, noun):
    assert list(offences(pattern)) == [], f"write {noun!r}"


@pytest.mark.parametrize(
    "example", ["a dialogue", "chat logs", "an utterance", "fine-tuning", "a data set", "a data-set", "learnt tokens"]
)
def test_a_synonym_is_found(example):
    assert any(word(pattern).search(example) for pattern in SYNONYMS)
