"""One word for one thing: the nouns of docs/index.md have no synonyms, in code, in messages and in docs."""

import re
from pathlib import Path

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
}
# Where a word is somebody else's name for something, the line is written here in full.
ALLOWED: set[str] = {  # names of fields in other people's files
    'log.append(("user", turns.text_of(turn, "user utterance", number)))',
    '("log", "id?", "original dialog id?", "dialog index?", "original dialog info?"),',
}


def files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *inside]


def test_the_nouns_have_no_synonyms():
    wrong = []
    for pattern, noun in SYNONYMS.items():
        word = re.compile(rf"(?<![\w-]){pattern}(?![\w-])", re.IGNORECASE)
        for path in files():
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if (found := word.search(line)) and line.strip() not in ALLOWED:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {found[0]!r}; write {noun!r}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_check_finds_what_it_should():
    for pattern, example in zip(SYNONYMS, ("a dialogue", "chat logs", "an utterance", "fine-tuning"), strict=False):
        assert re.search(rf"(?<![\w-]){pattern}(?![\w-])", example)
