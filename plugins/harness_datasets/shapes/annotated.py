"""Rewriting of exports from annotation tools: records of Argilla, tasks of Label Studio, whole or flat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import harness
from harness.data import LeftOut, OtherKindError, shown, take, within
from harness.nouns import Row
from harness_datasets.shapes.chats import entries
from harness_datasets.turns import decoded

NOT_SUBMITTED = LeftOut("an answer that was not submitted")
_ASKED = ("prompt", "instruction", "question", "input", "query")  # an annotator's field with what is answered
_GOOD_OR_BAD = ("good", "bad", "yes", "no", "true", "false", "up", "down", "thumbs_up", "thumbs_down", "👍", "👎")

ANSWER = ("value", "value.value", "value.rank", "status", "-user_id", "-id", "-inserted_at", "-updated_at")  # Argilla's
ANNOTATION = (  # Label Studio's
    "was_cancelled",
    *within("result", ("type", "value.text", "value.choices", "value.selected")),
    *(f"-result.{name}" for name in ("id", "from_name", "to_name", "origin", "score", "meta", "readonly", "hidden")),
    *(
        f"-{name}"
        for name in (
            *("id", "completed_by", "ground_truth", "created_at", "updated_at", "draft_created_at", "lead_time"),
            *("prediction", "result_count", "unique_id", "import_id", "last_action", "bulk_created", "task", "project"),
            *("updated_by", "parent_prediction", "parent_annotation", "last_created_by"),
        )
    ),
)


# Argilla


def argilla_text(row: Row) -> Iterator[Row | LeftOut] | LeftOut:
    """Yield a conversation for each submitted answer to the one question of a record."""
    prompt = _asked(take(row, "fields", dict))
    answers = _submitted(row)
    if wrong := [answer for answer in answers if not isinstance(answer, str | LeftOut)]:
        raise harness.DataError(f"the answers should be texts, found {shown(wrong)}")
    if not any(isinstance(answer, str) for answer in answers):
        return LeftOut("no submitted answer")
    return (
        answer if isinstance(answer, LeftOut) else {"prompt": prompt, "completion": answer, "id": row.get("id")}
        for answer in answers
    )


def argilla_ranking(row: Row) -> Iterator[Row | LeftOut] | LeftOut:
    """Yield a ranking for each submitted answer to a question that ranks the record's fields."""
    fields = dict(take(row, "fields", dict))
    rankings = _submitted(row)
    if all(isinstance(ranking, LeftOut) for ranking in rankings):
        return LeftOut("no submitted answer")
    ranked: list[Row | LeftOut] = []
    for ranking in rankings:
        if isinstance(ranking, LeftOut):
            ranked.append(ranking)
            continue
        if not isinstance(ranking, list) or not all(isinstance(one, Mapping) and "rank" in one for one in ranking):
            raise harness.DataError(f"the answers should be rankings, lists of value and rank; found {shown(ranking)}")
        if others := [key for one in ranking for key in one if key not in ("value", "rank") and one[key]]:
            raise harness.DataError(f"the key {others[0]!r} of a ranking would be lost: {shown(ranking)}")
        named = {one["value"]: one["rank"] for one in ranking}
        completions = [{"text": take(fields, name, str), "rank": rank} for name, rank in named.items()]
        rest = {name: text for name, text in fields.items() if name not in named}
        ranked.append({"prompt": _asked(rest), "completions": completions})
    return iter(ranked)


def _submitted(row: Row) -> list[Any]:
    """Return the answers to the one question of a record; a LeftOut for one that was not submitted."""
    questions = {name: answers for name, answers in take(row, "responses", dict).items() if answers}
    if len(questions) > 1:
        raise harness.DataError(f"the record answers several questions, {', '.join(questions)}: export one of them")
    answers = next(iter(questions.values()), [])
    return [answer["value"] if take(answer, "status", str) == "submitted" else NOT_SUBMITTED for answer in answers]


_ARGILLA_NOTES = ("metadata", "status", "_server_id", "inserted_at", "updated_at", "vectors", "external_id")
_OF_RESPONSE = (".responses", ".responses.users", ".responses.status")
_OF_SUGGESTION = (
    "-suggestion",
    "-suggestion-metadata",
    ".suggestion",
    ".suggestion.score",
    ".suggestion.agent",
    ".suggestion.type",
)


def argilla_flat_text(row: Row) -> Iterator[Row | LeftOut] | LeftOut:
    """Rewrite a flat record with a question that is answered in writing."""
    return argilla_text(_unflattened(row))


def argilla_flat_ranking(row: Row) -> Iterator[Row | LeftOut] | LeftOut:
    """Rewrite a flat record with a question that ranks the record's fields."""
    return argilla_ranking(_unflattened(row))


def _unflattened(row: Row) -> Row:
    """Return a flat record, `answer.responses` beside the fields, as the record itself."""
    responses: dict[str, list[Any]] = {}
    for name in (name for name in row if name.endswith(_OF_RESPONSE[0])):
        values, question = row[name] or [], name.removesuffix(_OF_RESPONSE[0])
        states = take(row, f"{name}.status", list)
        if len(states) != len(values):
            raise harness.DataError(f"{name} has {len(values)} answers and {len(states)} states")
        responses[question] = [{"value": v, "status": s} for v, s in zip(values, states, strict=True)]
    for name, value in row.items():  # as earlier versions write them
        if isinstance(value, list) and value and all(isinstance(one, Mapping) and "value" in one for one in value):
            if others := [
                key for one in value for key in one if key not in ("value", "status", "user_id") and one[key]
            ]:
                raise harness.DataError(f"the key {others[0]!r} of an answer would be lost: {shown(value)}")
            responses[name] = value
    if orphans := [
        name for name in row if name.endswith(".responses.status") and name.removesuffix(".status") not in row
    ]:
        raise harness.DataError(f"there is {orphans[0]!r} without the answers that it is about")
    if not responses:
        raise OtherKindError("no column is named `QUESTION.responses`, and none has a list of values with a status")
    ours = (*_ARGILLA_NOTES, "id")
    fields = {
        name: value
        for name, value in row.items()
        if name not in ours and responses.get(name) is not value and not name.endswith(_OF_RESPONSE + _OF_SUGGESTION)
    }
    return {"fields": fields, "responses": responses, "id": row.get("id")}


def _asked(fields: Mapping[str, Any]) -> Any:
    """Return the one field of a record that is answered."""
    filled = {name: value for name, value in fields.items() if value}
    if len(filled) != 1:
        raise harness.DataError(
            f"one field should be what is answered, found {', '.join(filled) or 'none'}: the others would be lost"
        )
    return next(iter(filled.values()))


# Label Studio


def label_studio_answers(row: Row) -> Iterator[Row] | LeftOut:
    """Yield a conversation for each text that an annotator wrote about the one field of a task."""
    prompt, values = _asked(take(row, "data", dict)), _annotated(row, "textarea")
    answers = ["\n".join(value["text"]) if isinstance(value["text"], list) else value["text"] for value in values]
    return ({"prompt": prompt, "completion": answer} for answer in answers) if answers else LeftOut("not annotated")


def label_studio_feedback(row: Row) -> Iterator[Row] | LeftOut:
    """Yield a completion with its label for each annotation of a prompt and an answer as good or bad."""
    data = take(row, "data", dict)
    prompt = next((name for name in _ASKED if data.get(name)), None)
    if prompt is None or len(rest := [name for name in data if name != prompt and data[name]]) != 1:
        raise harness.DataError(f"a task should have a prompt and one answer, found {', '.join(data)}")
    labels = [choice for value in _annotated(row, "choices") for choice in value["choices"]]
    if wrong := [label for label in labels if str(label).lower() not in _GOOD_OR_BAD]:
        raise harness.DataError(f"the choice {wrong[0]!r} does not say whether the answer is good or bad")
    rows = ({"prompt": data[prompt], "completion": data[rest[0]], "label": label} for label in labels)
    return rows if labels else LeftOut("not annotated")


def label_studio_labels(row: Row) -> Iterator[Row] | LeftOut:
    """Yield the one field of a task with each label that was chosen for it."""
    text = _asked(take(row, "data", dict))
    labels = [choice for value in _annotated(row, "choices") for choice in value["choices"]]
    return ({"text": text, "label": label} for label in labels) if labels else LeftOut("not annotated")


def label_studio_pairs(row: Row) -> Iterator[Row] | LeftOut:
    """Yield a preference for each pairwise choice between the two answers of a task."""
    data, values = dict(take(row, "data", dict)), _annotated(row, "pairwise")
    if not values:
        return LeftOut("not annotated")
    names = [name for name in data if name not in _ASKED]
    if len(names) != 2 or len(data) != 3:
        raise harness.DataError(f"a task should have a prompt and two answers, found {', '.join(data)}")
    prompt = next(data[name] for name in data if name in _ASKED)
    sides = {"left": 0, "right": 1}
    chosen = [sides[value["selected"]] for value in values]
    return ({"prompt": prompt, "chosen": data[names[at]], "rejected": data[names[1 - at]]} for at in chosen)


_KEYS = {"textarea": "text", "choices": "choices", "pairwise": "selected"}  # of a value, by the kind of annotation


def _annotated(row: Row, kind: str) -> list[Mapping[str, Any]]:
    """Return the values of the annotations of a kind. Raises DataError where a task has annotations of another."""
    results = _results(row)
    if others := {result.get("type") for result in results} - {kind}:
        raise harness.DataError(f"the annotations are {', '.join(map(str, others))}, expected {kind}")
    values = [result["value"] for result in results]
    for value in values:
        if other := next((key for key in _KEYS.values() if key != _KEYS[kind] and value.get(key)), None):
            raise harness.DataError(f"the key {other!r} of a {kind} annotation would be lost: {shown(value)}")
    return values


def _results(row: Row) -> list[Mapping[str, Any]]:
    annotations = [one for _, one in entries(row, "annotations") if not one.get("was_cancelled")]
    return [result for one in annotations for result in one.get("result") or ()]


LABEL_STUDIO_NOTES = (
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "annotators"),
    *("predictions_score", "comments", "annotation_created_at", "annotation_updated_at", "inner_id"),
)


def minimal_answers(row: Row) -> Iterator[Row]:
    """Rewrite a minimal row of what is answered, and what was written about it."""
    (_, asked), (_, answers) = _columns_of(row, 2)
    return ({"prompt": asked, "completion": answer} for answer in _texts(answers, "text"))


def minimal_labels(row: Row) -> Iterator[Row]:
    """Rewrite a minimal row of a text, and the label or labels that were chosen for it."""
    (_, text), (_, labels) = _columns_of(row, 2)
    return ({"text": text, "label": label} for label in _texts(labels, "choices"))


def minimal_feedback(row: Row) -> Iterator[Row]:
    """Rewrite a minimal row of a prompt, an answer, and a choice that says if it is good."""
    (asked, prompt), (_, answer), (name, labels) = _columns_of(row, 3)
    if asked not in _ASKED:
        raise OtherKindError(f"the first column is {asked!r}: expected one of {', '.join(_ASKED)}")
    given = _texts(labels, "choices")
    if wrong := [label for label in given if label.lower() not in _GOOD_OR_BAD]:
        raise OtherKindError(f"the column {name!r} is {wrong[0]!r}: it does not say whether the answer is good or bad")
    return ({"prompt": prompt, "completion": answer, "label": label} for label in given)


def _columns_of(row: Row, count: int) -> list[tuple[str, Any]]:
    """Return (name, value) of the columns of a minimal row that are the task's or its annotations'."""
    filled = [(name, value) for name, value in row.items() if name not in LABEL_STUDIO_NOTES and value]
    if len(filled) != count:
        names = ", ".join(name for name, _ in filled)
        raise OtherKindError(f"there should be {count} columns besides the export's own, found {names}")
    return filled


def _texts(value: Any, key: str) -> list[str]:
    """Return the texts or choices of an annotation: one text, a list, or a list in an object."""
    if isinstance(value, str) and value.startswith(("[", "{")):  # in a CSV
        value = decoded(value, f"an annotation of {key}")
    if isinstance(value, Mapping) and value.keys() == {key}:
        value = value[key]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise harness.DataError(f"an annotation should be a text or a list of texts, found {shown(value)}")
    return texts
