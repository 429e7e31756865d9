"""Rewriting of comparisons: two answers and a verdict, or several with ranks or scores.

The verdict is read as its publication defines it. A tie, or a row without a verdict, is left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import harness
from harness.data import LeftOut, shown, take
from harness.nouns import Row
from harness_datasets.hh import transcript
from harness_datasets.shapes.chats import entries
from harness_datasets.turns import list_of

TIE = LeftOut("a tie")
_WINNERS = {"model_a": 0, "model_b": 1, "tie": None, "tie (bothbad)": None, "both_bad": None}
_TIES = ("tie", "equal", "both", "neither", "none", "draw", "same", *(name for name in _WINNERS if "tie" in name))
_VERDICT_WORDS = re.compile(r"^(model|response|answer|output|completion|assistant|option)[ _]?")
_EXTRA_ID = re.compile(r"\n<extra_id_1>(Assistant|User)\n")


def _ordered(row: Row, sides: tuple[Any, Any], better: int | None) -> Row | LeftOut:
    """Return the prompt with the better of two answers as `chosen`; a tie where there is none."""
    if better is None:
        return TIE
    return {**row, "chosen": sides[better], "rejected": sides[1 - better]}


def _index(row: Row, name: str) -> int:
    """Return 0 or 1 from a field that names one of two answers."""
    value = _whole(row, name)
    if value not in (0, 1):
        raise harness.DataError(f"the field {name!r} should be 0 or 1, found {shown(value)}")
    return value


def _whole(row: Row, name: str) -> int:
    """Return a whole number, which a CSV has as text."""
    value = row.get(name)
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d{1,18}", value.strip()):
        return int(value)
    return take(row, name, int)


def _rest(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def by_ranking(row: Row) -> Row:
    """Rewrite a `ranking` to ranks: that of each answer, or the answers' numbers from best to worst, where both agree.

    Raises:
        DataError: where they do not.
    """
    if row.get("ranking") is None:
        return row
    ranking = list_of(row, "ranking")
    if all(type(value) is int for value in ranking) and sorted(ranking) in (
        list(range(len(ranking))),
        list(range(1, len(ranking) + 1)),
    ):
        first = min(ranking, default=0)
        if any(ranking[value - first] != place for place, value in enumerate(ranking, first)):
            raise harness.DataError(
                f"the ranking {shown(ranking)} may be the rank of each answer, or the answers' numbers from best to "
                f"worst, which is another order. If these are ranks, and {first} is the best: "
                f"`dataset: ranked_answers` with `columns: {{ranks: ranking}}`"
            )
    return _rest(row, "ranking") | {"ranks": ranking}


def arena(row: Row) -> Row | LeftOut:
    """Rewrite two conversations and the winner, `model_a`, `model_b` or a tie."""
    winner = take(row, "winner", str)
    if winner not in _WINNERS:
        raise harness.DataError(f"the winner is {shown(winner)}: expected {', '.join(_WINNERS)}")
    sides = tuple(
        [{k: m.get(k) for k in ("role", "content")} for _, m in entries(row, f"conversation_{s}")] for s in "ab"
    )
    return _ordered({}, (sides[0], sides[1]), _WINNERS[winner])


def arena_texts(row: Row) -> Row | LeftOut:
    """Rewrite the rows whose prompts and answers are lists of turns, with a column for each verdict."""
    verdicts = [_whole(row, f"winner_{name}") for name in ("model_a", "model_b", "tie")]
    if sorted(verdicts) != [0, 0, 1]:
        raise harness.DataError(f"one of the three verdicts should be 1, found {verdicts}")
    asked = list_of(row, "prompt")
    sides = []
    for name in ("response_a", "response_b"):
        pairs = zip(asked, list_of(row, name), strict=True)
        sides.append(
            [m for q, a in pairs for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a or ""})]
        )
    return _ordered({}, (sides[0], sides[1]), None if verdicts[2] else verdicts.index(1))


def by_verdict(row: Row) -> Row | LeftOut:
    """Rewrite two answers, `a` and `b` (or 1 and 2, or 0 and 1), of which the verdict names the better, or a tie.

    The verdict is the end of a column's name, with a word before it or without: `B`, `response_b`, `model_b`.
    """
    names = [name for name in ("a", "b", "0", "1", "2") if name in row]
    verdict = row["verdict"]
    word = str(verdict).strip().lower() if isinstance(verdict, str | int) and not isinstance(verdict, bool) else ""
    if word in _TIES:
        return TIE
    better = next((at for at, name in enumerate(names) if _VERDICT_WORDS.sub("", word) == name), None)
    if better is None:
        raise harness.DataError(f"the verdict is {shown(verdict)}: expected {names[0]}, {names[1]} or tie")
    return _ordered(_rest(row, *names, "verdict"), (row[names[0]], row[names[1]]), better)


def by_index(row: Row) -> Row | LeftOut:
    """Rewrite two answers, `first` and `second`, of which `better` names one by 0 or 1."""
    return _ordered(_rest(row, "first", "second", "better"), (row["first"], row["second"]), _index(row, "better"))


def by_first_is_better(row: Row) -> Row | LeftOut:
    """Rewrite two answers, of which the first is better where `better` is 1 (Stanford Human Preferences)."""
    at = 1 - _index(row, "better")
    return _ordered(_rest(row, "first", "second", "better"), (row["first"], row["second"]), at)


def by_strength(row: Row) -> Row | LeftOut:
    """Rewrite two answers and a strength: below 0 the first is better, above 0 the second (HelpSteer 2 and 3)."""
    strength = _whole(row, "strength")
    rest = {**_rest(row, "first", "second", "strength"), "margin": abs(strength)}
    rest["prompt"] = _prompt(row["prompt"])
    return _ordered(rest, (row["first"], row["second"]), None if strength == 0 else int(strength > 0))


def _prompt(prompt: Any) -> Any:
    """Return HelpSteer 2's prompt of several turns as messages; any other as it is."""
    if not isinstance(prompt, str) or "<extra_id_1>" not in prompt:
        return prompt
    first, *rest = _EXTRA_ID.split(prompt)
    roles = ["user", *("assistant" if name == "Assistant" else "user" for name in rest[::2])]
    return [{"role": role, "content": text} for role, text in zip(roles, [first, *rest[1::2]], strict=True)]


def gather_by_prompt(rows: Iterable[tuple[int, Row]], options: object) -> Iterator[tuple[int, Row]]:
    """Yield HelpSteer 2's answers to one prompt, which follow each other, as one row."""
    for prompt, group in itertools.groupby(rows, key=lambda numbered: numbered[1].get("prompt")):
        same = list(group)
        answers = [{key: value for key, value in row.items() if key != "prompt"} for _, row in same]
        yield same[0][0], {"prompt": prompt, "answers": answers}


def by_helpfulness(row: Row) -> Row | LeftOut:
    """Rewrite the answers to one prompt, ranked by their helpfulness."""
    answers = [(take(answer, "response", str), _whole(answer, "helpfulness")) for _, answer in entries(row, "answers")]
    if len({score for _, score in answers}) < 2:
        return LeftOut("no two answers of different helpfulness")
    completions = [{"text": text, "rank": -score} for text, score in answers]
    return {"prompt": _prompt(row["prompt"]), "completions": completions}


def nectar(row: Row) -> Row:
    """Rewrite a transcript and its ranked answers."""
    messages = transcript(take(row, "prompt", str).removesuffix(" ").removesuffix("\n\nAssistant:"), "prompt")
    completions = [{"text": take(one, "answer", str), "rank": one.get("rank")} for _, one in entries(row, "answers")]
    return {"prompt": [message.as_dict() for message in messages], "completions": completions}


def by_score(row: Row) -> Row | LeftOut:
    """Rewrite a question and answers with a score each, the highest the best (Stack Exchange)."""
    answers = [(take(one, "text", str), _whole(one, "pm_score")) for _, one in entries(row, "answers")]
    if len({score for _, score in answers}) < 2:
        return LeftOut("no two answers of different scores")
    return {"prompt": row["prompt"], "completions": [{"text": text, "rank": -score} for text, score in answers]}


def tldr(row: Row) -> Row | LeftOut:
    """Rewrite two summaries of a post (or an article) and the one that was chosen."""
    info = take(row, "info", dict)
    sides = [take(one, "text", str).strip() for _, one in entries(row, "summaries")]
    if len(sides) != 2:
        raise harness.DataError(f"there should be two summaries, found {len(sides)}")
    parts = {"SUBREDDIT": info.get("subreddit"), "TITLE": info.get("title"), "POST": info.get("post")}
    parts |= {"ARTICLE": info.get("article")}
    asked = [f"{name}: {f'r/{text}' if name == 'SUBREDDIT' else text}" for name, text in parts.items() if text]
    prompt = "\n\n".join([*asked, "TL;DR:"])
    return _ordered({"prompt": prompt}, (sides[0], sides[1]), _index(row, "better"))


def rejected_turns(row: Row) -> Row:
    """Rewrite a conversation whose last answer is preferred to `rejected`: a text, or messages in its place."""
    messages = [dict(message) for _, message in entries(row, "messages")]
    end = next((at for at in range(len(messages), 0, -1) if messages[at - 1].get("role") != "assistant"), 0)
    rejected = row["rejected"]
    if isinstance(rejected, list) and rejected[:end] == messages[:end]:  # a whole conversation
        rejected = rejected[end:]
    return {**_rest(row, "messages"), "messages": messages[:end], "chosen": messages[end:], "rejected": rejected}
