"""Votes: what people said about two answers, kept so that a vote acknowledged is a vote kept.

SQLite in WAL mode with synchronous=FULL on one machine: the commit returns when the disk has it. The same code takes a
PostgreSQL URL. A vote holds the whole comparison, so that it can be tuned on later without asking anything else.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import harness
from harness.extras import require

Verdict = Literal["left", "right", "tie", "both_bad"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: who answered, the turns before the answer as OpenAI messages, and the answer."""

    variant: str
    recipe_sha256: str | None
    messages: Sequence[dict[str, Any]]
    answer: str


@dataclass(frozen=True, slots=True)
class Vote:
    """A verdict on two answers to the same prompt. `sampling` is what both were asked with."""

    left: Side
    right: Side
    verdict: Verdict
    system_prompt: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    id: int | None = None
    created_at: datetime.datetime | None = None


class Votes:
    """The votes in a database: a SQLite file, or a SQLAlchemy URL such as postgresql+psycopg://user@host/name."""

    def __init__(self, database: str) -> None:
        """Open the database, making file and table where there are none. Raises HarnessError where it cannot be used."""
        sqlalchemy = require("sqlalchemy", "serving")
        if database.strip() in ("", ":memory:") or database.rstrip("/") in ("sqlite:", "sqlite:///:memory:"):
            raise harness.HarnessError(f"votes in {database!r} would be gone when the server stops: name a file")
        self.url = database if "://" in database else f"sqlite:///{database}"
        try:
            self._engine = sqlalchemy.create_engine(self.url)
        except (sqlalchemy.exc.ArgumentError, ModuleNotFoundError, ValueError) as error:
            raise harness.HarnessError(
                f"the votes database cannot be used: {error}. Give a SQLite file or a SQLAlchemy URL whose driver is installed, "
                f"such as postgresql+psycopg://user@host/name (pip install 'psycopg[binary]')"
            ) from None
        if self._engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(self._engine, "connect", _make_durable)
        self._table = _table(sqlalchemy)
        with self._explained():
            self._table.metadata.create_all(self._engine)

    def add(self, *votes: Vote) -> list[int]:
        """Keep the votes of one verdict, all or none; returns their ids once they are on disk.

        Raises:
            HarnessError: where they could not be kept.
        """
        for vote in votes:
            if vote.verdict not in VERDICTS:
                raise ValueError(f"verdict {vote.verdict!r} is none of {', '.join(VERDICTS)}")
        with self._explained(), self._engine.begin() as connection:
            inserted = [connection.execute(self._table.insert().values(**self._values(vote))) for vote in votes]
            return [int(result.inserted_primary_key[0]) for result in inserted]

    def _values(self, vote: Vote) -> dict[str, Any]:
        values: dict[str, Any] = {
            "created_at": vote.created_at or datetime.datetime.now(datetime.UTC),
            "verdict": vote.verdict,
            "system_prompt": vote.system_prompt,
            "sampling": vote.sampling,
        }
        for name, side in (("left", vote.left), ("right", vote.right)):
            values |= {
                f"{name}_variant": side.variant,
                f"{name}_recipe_sha256": side.recipe_sha256,
                f"{name}_messages": list(side.messages),
                f"{name}_answer": side.answer,
            }
        return values

    def __iter__(self) -> Iterator[Vote]:
        """Every vote, oldest first."""
        with self._explained(), self._engine.connect() as connection:
            rows = connection.execute(self._table.select().order_by(self._table.c.id)).mappings().all()
        for row in rows:
            left, right = (
                Side(
                    row[f"{side}_variant"], row[f"{side}_recipe_sha256"], row[f"{side}_messages"], row[f"{side}_answer"]
                )
                for side in ("left", "right")
            )
            # SQLite keeps no time zone; what was written is UTC.
            created_at = row["created_at"].replace(tzinfo=datetime.UTC)
            yield Vote(left, right, row["verdict"], row["system_prompt"], row["sampling"], row["id"], created_at)

    def __len__(self) -> int:
        sqlalchemy = require("sqlalchemy", "serving")
        with self._explained(), self._engine.connect() as connection:
            return int(
                connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(self._table)).scalar_one()
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        sqlalchemy = require("sqlalchemy", "serving")
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, UnicodeError) as error:
            shown = self._engine.url.render_as_string(hide_password=True)
            reason = getattr(error, "orig", None) or error
            raise harness.HarnessError(f"the votes database {shown} cannot be used: {reason}") from error


def _make_durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()


def _table(sqlalchemy: Any) -> Any:
    column, text, json = sqlalchemy.Column, sqlalchemy.Text, sqlalchemy.JSON
    sides = [
        column(f"{side}_{name}", kind, nullable=name == "recipe_sha256")
        for side in ("left", "right")
        for name, kind in (("variant", text), ("recipe_sha256", text), ("messages", json), ("answer", text))
    ]
    return sqlalchemy.Table(
        "votes",
        sqlalchemy.MetaData(),
        column("id", sqlalchemy.Integer, primary_key=True),
        column("created_at", sqlalchemy.DateTime(timezone=True), nullable=False),
        *sides,
        column("system_prompt", text, nullable=False),
        column("sampling", json, nullable=False),
        column("verdict", text, sqlalchemy.CheckConstraint(f"verdict IN {VERDICTS}"), nullable=False),
    )
