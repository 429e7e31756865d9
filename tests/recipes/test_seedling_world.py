"""Seedling's little world keeps its promises: same seed same bytes; the evaluation asks what tuning never saw."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SEEDLING = Path(__file__).parents[2] / "recipes" / "seedling"
COMMITTED = SEEDLING / "data"
INSTRUCTION_SETS = ("train.alpaca.jsonl", "train.messages.jsonl", "validation.messages.jsonl", "test.jsonl")
TOOL_SETS = ("train.tools.jsonl", "validation.tools.jsonl")
sys.path.insert(0, str(SEEDLING))

from facts import Villager, make_world  # noqa: E402
from instructions import (  # noqa: E402
    COMPARE,
    FOLLOW_UPS,
    FORMATS,
    LIST,
    PROPERTY,
    REVERSE,
    REWRITE,
    YES_NO,
)
from prose import FACTS, value  # noqa: E402

WORLD = make_world()
WORDINGS = [
    *PROPERTY.values(), *REVERSE.values(), YES_NO, LIST, COMPARE, FOLLOW_UPS,
    *(wordings for _, wordings in (*REWRITE.values(), *FORMATS.values())),
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world written with the documented command, with a shorter corpus."""
    out = tmp_path_factory.mktemp("world")
    subprocess.run([sys.executable, SEEDLING / "world.py", "--out", out, "--documents", "4000"], check=True)
    return out


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def words(path: Path) -> set[str]:
    return set(re.findall(r"[a-z]+", path.read_text(encoding="utf-8").lower()))


def telltales(villagers: tuple[Villager, ...]) -> set[str]:
    """The words that give a villager away: nobody else's animal, name or treasure."""
    return {word.lower() for v in villagers for word in (v.animal, v.name, v.treasure)}


@pytest.mark.parametrize("file", [*INSTRUCTION_SETS, *TOOL_SETS, "instruct.yaml", "test.prose.jsonl"])
def test_the_committed_instruction_sets_are_what_the_generator_writes(written: Path, file: str) -> None:
    assert (COMMITTED / file).read_bytes() == (written / file).read_bytes()


def test_the_same_seed_writes_the_same_corpus(written: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, SEEDLING / "world.py", "--out", tmp_path, "--documents", "4000"], check=True)
    assert (tmp_path / "corpus.jsonl").read_bytes() == (written / "corpus.jsonl").read_bytes()


def test_another_seed_makes_another_world() -> None:
    assert make_world(1) != WORLD


@pytest.mark.parametrize("file", ["train.alpaca.jsonl", "train.messages.jsonl", "train.tools.jsonl"])
def test_no_villager_of_the_evaluation_is_ever_named_in_training(file: str) -> None:
    assert not words(COMMITTED / file) & telltales(WORLD.test + WORLD.validation)


def test_validation_and_evaluation_ask_about_different_villagers() -> None:
    assert not words(COMMITTED / "validation.messages.jsonl") & telltales(WORLD.test + WORLD.tuning)
    assert not words(COMMITTED / "test.jsonl") & telltales(WORLD.validation + WORLD.tuning)
    assert not words(COMMITTED / "instruct.yaml") & telltales(WORLD.validation + WORLD.tuning)


def test_every_villager_of_the_evaluation_is_asked_about() -> None:
    assert {v.animal for v in WORLD.test} <= words(COMMITTED / "test.jsonl")


@pytest.mark.parametrize("wordings", WORDINGS)
def test_no_wording_is_in_two_of_the_sets(wordings: dict[str, list[str]]) -> None:
    everything = [wording for split in wordings.values() for wording in split]
    assert len(everything) == len(set(everything))


def test_no_wording_of_the_evaluation_is_a_wording_of_training_in_disguise() -> None:
    """With the villager and the values blanked out, no question of the test is left among those of training."""

    def skeleton(text: str) -> str:
        known = {w for v in WORLD.villagers for f in FACTS for w in value(v, f).lower().split()} | telltales(
            WORLD.villagers
        )
        nouns = {fact.noun for fact in FACTS}
        return " ".join("_" if w in known | nouns else w for w in re.findall(r"[a-z]+", text.lower()))

    asked_in_training = {skeleton(str(row["instruction"])) for row in rows(COMMITTED / "train.alpaca.jsonl")}
    for row in rows(COMMITTED / "train.messages.jsonl"):
        for message in row["messages"]:  # type: ignore[attr-defined]
            if message["role"] == "user":
                asked_in_training.add(skeleton(message["content"]))
    asked_in_test = {skeleton(str(row["question"]).split(":")[0]) for row in rows(COMMITTED / "test.jsonl")}
    assert not asked_in_test & asked_in_training


def test_the_evaluation_is_balanced() -> None:
    questions = rows(COMMITTED / "test.jsonl")
    assert set(Counter(row["category"] for row in questions).values()) == {50}
    assert len({row["id"] for row in questions}) == len({row["question"] for row in questions}) == len(questions)
    verdicts = Counter(str(row["answer"]).rsplit(" ", 1)[-1] for row in questions if row["category"] == "yes_no")
    assert verdicts == {"yes.": 25, "no.": 25}
    answers = Counter(row["answer"] for row in questions)
    assert answers.most_common(1)[0][1] <= 6, "a constant answer should get nowhere"


def test_every_value_is_as_common_as_every_other() -> None:
    for fact in FACTS:
        counts = Counter(value(v, fact) for v in WORLD.villagers)
        assert len(set(counts.values())) == 1, f"{fact.key}: {counts}"


def test_the_corpus_tells_every_fact_many_times_and_in_many_wordings(written: Path) -> None:
    sentences = Counter(
        sentence
        for row in rows(written / "corpus.jsonl")
        for sentence in re.split(r"(?<=[.?!])\s+", str(row["text"]).lower())
    )
    for villager in WORLD.villagers:
        about = {s: n for s, n in sentences.items() if f"the {villager.animal}" in s}
        for fact in FACTS:
            told = [s for s in about if re.search(rf"\b{value(villager, fact).lower()}\b", s)]
            assert len(told) >= 8, f"{villager.animal}, {fact.key}: told in {len(told)} ways only"


def test_the_corpus_is_prose_and_not_instructions(written: Path) -> None:
    corpus = (written / "corpus.jsonl").read_text(encoding="utf-8")
    for token in ("<|", "|>", "### ", "Instruction:", "Assistant", "Question:", "Answer:"):
        assert token not in corpus
    # A question is followed by another, or by nothing: nobody in the corpus is answered.
    for row in rows(written / "corpus.jsonl"):
        text = str(row["text"])
        for after in re.findall(r"\?\s+([^?]*)", text):
            assert not re.match(r"(Yes|No)\b", after), text


def test_the_model_is_a_small_qwen2_in_bf16() -> None:
    config = json.loads((SEEDLING / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2"
    assert config["dtype"] == "bfloat16"
    assert config["head_dim"] == 64, "the serving engine's attention on a CPU takes no narrower heads"
    assert (SEEDLING / "model" / "model.safetensors").stat().st_size <= 12_000_000


def test_the_model_is_a_base_model_that_knows_chat_tokens_but_has_no_chat_template() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(SEEDLING / "model")
    assert tokenizer.chat_template is None
    assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.pad_token == "<|pad|>"
    for token in ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1


def test_the_instruction_sets_are_small_enough_to_live_in_the_repository() -> None:
    assert sum((COMMITTED / file).stat().st_size for file in INSTRUCTION_SETS) < 1_500_000
    assert sum((COMMITTED / file).stat().st_size for file in TOOL_SETS) < 1_500_000
