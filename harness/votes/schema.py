"""The tables of a votes database, the insertion of a ballot, and the view with one row a ballot."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.extras import require
from harness.nouns import Side, Verdict

sqlalchemy = require("sqlalchemy", "serving")

MIN_SIDES, MAX_SIDES = 2, 4  # of a ballot
VERSION = 4  # 1 was a table `votes` with a row for each pair of sides; 2 and 3 had fewer columns
UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
Column, Text, Integer, JSON = sqlalchemy.Column, sqlalchemy.Text, sqlalchemy.Integer, sqlalchemy.JSON

metadata = sqlalchemy.MetaData()
# SQLite needs Integer for a key that increments itself; other databases use 64 bits.
Key = sqlalchemy.BigInteger().with_variant(Integer, "sqlite")

versions = sqlalchemy.Table("schema_version", metadata, Column("version", Integer, primary_key=True))

ballots = sqlalchemy.Table(
    "ballots",
    metadata,
    Column("id", Key, primary_key=True),
    Column("created_at", sqlalchemy.DateTime(timezone=True), nullable=False),
    Column("seed", sqlalchemy.BigInteger, nullable=False),
    Column("annotator", Text, nullable=False),
    Column("system_prompt", Text, nullable=False),
    Column("sampling", JSON, nullable=False),
    Column("state", Text, sqlalchemy.CheckConstraint("state IN ('open', 'voted', 'revealed', 'void')"), nullable=False),
    Column("verdict", Text, sqlalchemy.CheckConstraint("verdict IN ('best', 'tie', 'bad')")),
    Column("best", Integer),
    Column("voted_at", sqlalchemy.DateTime(timezone=True)),
    Column("blind", sqlalchemy.Boolean, nullable=False, server_default=sqlalchemy.false()),
    Column("turn", Integer, nullable=False, server_default="0"),
    Column("prompt_set", Text, nullable=False, server_default=""),
    Column("prompt_id", Text, nullable=False, server_default=""),
    Column("reasons", JSON),
    Column("latency_s", sqlalchemy.Float),
    Column("category", Text, nullable=False, server_default=""),
    Column("consent", Text, nullable=False, server_default=""),
    Column("replaces", Key),
    Column("repeat_of", Key),
    Column("note", Text, nullable=False, server_default=""),
    sqlalchemy.CheckConstraint(
        "(verdict = 'best') = (best IS NOT NULL) OR verdict IS NULL", name="best_goes_with_best"
    ),
)

sides = sqlalchemy.Table(
    "sides",
    metadata,
    Column("ballot", Key, sqlalchemy.ForeignKey("ballots.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("variant", Text, nullable=False),
    Column("recipe_sha256", Text),
    Column("messages", JSON, nullable=False),
    Column("answer", Text, nullable=False),
    Column("finish", Text),
    Column("tokens", Integer),
    Column("identity", JSON),
    Column("first_token_s", sqlalchemy.Float),
    Column("seconds", sqlalchemy.Float),
    Column("reveals", Text, nullable=False, server_default=""),
)
ADDED = {  # by the version that has them: its columns that the one before lacks
    3: {
        ballots.name: ("blind", "turn", "prompt_set", "prompt_id", "reasons", "latency_s"),
        sides.name: ("identity", "first_token_s", "seconds"),
    },
    4: {
        ballots.name: ("category", "consent", "replaces", "repeat_of", "note"),
        sides.name: ("reveals",),
    },
}

# `dataset: votes` reads this view of a SQLite file: a row for each ballot, its sides as JSON in their order.
VIEW = """
CREATE VIEW judged_ballots AS
SELECT id, created_at, system_prompt, sampling, state, verdict, best, blind, annotator, (
    SELECT json_group_array(json_object(
        'variant', variant, 'recipe_sha256', recipe_sha256, 'messages', json(messages), 'answer', answer,
        'finish', finish, 'tokens', tokens
    )) FROM (SELECT * FROM sides WHERE ballot = ballots.id ORDER BY position)
) AS sides
FROM ballots WHERE verdict IS NOT NULL AND state <> 'void' AND repeat_of IS NULL ORDER BY id
"""


def insert_ballot(
    connection: Any,
    its_sides: Sequence[Side],
    *,
    seed: int,
    system_prompt: str,
    sampling: Mapping[str, Any],
    annotator: str = "",
    blind: bool = False,
    turn: int = 0,
    prompt_set: str = "",
    prompt_id: str = "",
    category: str = "",
    consent: str = "",
    replaces: int | None = None,
    repeat_of: int | None = None,
    created_at: datetime.datetime | None = None,
    verdict: Verdict | None = None,
) -> int:
    """Insert a ballot and its sides, and return its id; with a verdict, it is revealed."""
    values = {
        "created_at": created_at or now(),
        "seed": seed,
        "annotator": storable(annotator),
        "system_prompt": storable(system_prompt),
        "sampling": storable(sampling),
        "state": "revealed" if verdict else "open",
        "verdict": verdict and verdict.kind,
        "best": verdict and verdict.best,
        "voted_at": created_at if verdict else None,
        "blind": blind,
        "turn": turn,
        "prompt_set": storable(prompt_set),
        "prompt_id": storable(prompt_id),
        "category": storable(category),
        "consent": consent,
        "replaces": replaces,
        "repeat_of": repeat_of,
        "reasons": [],
    }
    id = int(connection.execute(ballots.insert().values(**values)).inserted_primary_key[0])
    rows = [
        {
            "ballot": id,
            "position": position,
            "variant": storable(side.variant),
            "recipe_sha256": side.recipe_sha256,
            "messages": storable(side.messages),
            "answer": storable(side.answer),
            "finish": side.finish,
            "tokens": side.tokens,
            "identity": storable(side.identity),
        }
        for position, side in enumerate(its_sides)
    ]
    connection.execute(sides.insert(), rows)
    return id


def storable(value: Any) -> Any:
    """Return plain data with U+FFFD for the characters that no database keeps.

    NUL: PostgreSQL takes none, and SQLite's functions end at one. Half a surrogate pair: UTF-8 has no bytes for it.
    """
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {storable(key): storable(inner) for key, inner in value.items()}
    return [storable(inner) for inner in value] if isinstance(value, list | tuple) else value


def now() -> datetime.datetime:
    """Return the current time in UTC."""
    return datetime.datetime.now(datetime.UTC)
