"""Durable ballot storage in SQLite or PostgreSQL: each operation is one transaction, on disk when it returns."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.nouns import FINISHES, Ballot, Side, Verdict
from harness.votes import migration
from harness.votes.database import engine_of, file_of, transaction
from harness.votes.schema import (
    MAX_SIDES,
    MIN_SIDES,
    VERSION,
    ballots,
    insert_ballot,
    now,
    sides,
    sqlalchemy,
    storable,
    versions,
)

INTEGERS = range(-(2**63), 2**63)  # that a database keeps


class ClosedBallotError(HarnessError):
    """A ballot that accepts no more votes: its variants were revealed, or it is void."""


class Ballots:
    """The ballots in a database: a SQLite file, or a SQLAlchemy URL such as postgresql://user@host/name."""

    def __init__(self, database: str, *, reads: bool = False) -> None:
        """Open the database, creating or migrating its tables. Raises HarnessError if it cannot be used.

        Args:
            reads: write nothing, so that a read-only file will do; only tables of an earlier version are migrated.
        """
        if reads:
            self._engine = engine_of(database, reads=True)
            with transaction(self._engine, reads=True) as connection:
                if migration.version_of(connection) == VERSION:
                    return
            self.close()
        self._engine = engine_of(database)
        with transaction(self._engine) as connection:
            migration.bring_up_to_date(connection)

    def close(self) -> None:
        """Close the connections that nobody uses. With the last one SQLite writes all into the one file."""
        self._engine.dispose()

    def open(
        self,
        sides: Sequence[Side],
        *,
        seed: int,
        system_prompt: str = "",
        sampling: Mapping[str, Any],
        **about: Any,
    ) -> int:
        """Store a comparison that is about to be shown; return its id.

        Args:
            sides: two to four different variants, in the order in which `seed` drew them.
            about: other fields of a Ballot: annotator, blind, turn, prompt_set, prompt_id, category, consent, replaces,
                repeat_of.

        Raises:
            ValueError: for fewer or more sides, a variant on two of them, or a seed of more than 64 bits.
            HarnessError: if it cannot be stored; likewise for every other operation.
        """
        if not MIN_SIDES <= len(sides) <= MAX_SIDES:
            raise ValueError(f"a ballot has {MIN_SIDES} to {MAX_SIDES} sides, found {len(sides)}")
        variants = [side.variant for side in sides]
        if twice := [name for name in variants if variants.count(name) > 1]:
            raise ValueError(f"the sides of a ballot are different variants, found {twice[0]!r} on {len(twice)}")
        if not isinstance(seed, int) or seed not in INTEGERS:
            raise ValueError(f"the seed of a ballot is an integer of 64 bits, found {seed!r}")
        with transaction(self._engine) as connection:
            return insert_ballot(connection, sides, seed=seed, system_prompt=system_prompt, sampling=sampling, **about)

    def record(
        self,
        ballot: int,
        position: int,
        answer: str,
        finish: str,
        tokens: int | None = None,
        *,
        first_token_s: float | None = None,
        seconds: float | None = None,
        reveals: str = "",
    ) -> None:
        """Store the complete answer of one side; recorded again before the vote, it takes the earlier one's place.

        Raises:
            ValueError: for a position where the ballot has no side, a `finish` that is not one of FINISHES (an answer
                that failed or was stopped makes a ballot void), or a number of tokens that is none.
            ClosedBallotError: if the ballot was voted on.
        """
        if finish not in FINISHES:
            raise ValueError(f"an answer that can be judged ends by {' or '.join(FINISHES)}, found {finish!r}")
        if tokens is not None and (not isinstance(tokens, int) or tokens not in range(2**31)):
            raise ValueError(f"the number of tokens of an answer is from 0 to {2**31 - 1}, found {tokens!r}")
        here = (sides.c.ballot == ballot) & (sides.c.position == position)
        with transaction(self._engine) as connection:
            self._require_state(connection, ballot, "open")
            values = {"answer": storable(answer), "finish": finish, "tokens": tokens}
            values |= {"first_token_s": first_token_s, "seconds": seconds, "reveals": storable(reveals)}
            known = position in range(MAX_SIDES)
            if not known or connection.execute(sides.update().where(here).values(**values)).rowcount != 1:
                raise ValueError(f"ballot {ballot} has no side at position {position}")

    def vote(
        self,
        ballot: int,
        verdict: Verdict,
        *,
        reveal: bool = False,
        reasons: Sequence[str] = (),
        latency_s: float | None = None,
    ) -> None:
        """Store the verdict on a ballot, replacing an earlier one.

        Args:
            reveal: close the ballot in the same transaction, so that no later verdict takes this one's place.
            reasons, latency_s: as the fields of a Ballot.

        Raises:
            ValueError: for a verdict that does not name a side of the ballot.
            ClosedBallotError: if the variants were revealed, or if the ballot is void.
            HarnessError: if a side has no answer yet, or an empty one.
        """
        with transaction(self._engine) as connection:
            self._require_state(connection, ballot, "open", "voted")
            its_sides = connection.execute(
                sqlalchemy.select(sides.c.finish, sides.c.answer)
                .where(sides.c.ballot == ballot)
                .order_by(sides.c.position)
            ).all()
            finishes = [finish for finish, _ in its_sides]
            if not _is_verdict(verdict, len(finishes)):
                raise ValueError(
                    f"{verdict} is not a verdict on {len(finishes)} sides: expected `best` with a position from 0 to "
                    f"{len(finishes) - 1}, or `tie` or `bad` without one"
                )
            if waiting := [str(position) for position, finish in enumerate(finishes) if finish is None]:
                raise HarnessError(
                    f"ballot {ballot} cannot be voted on yet: no answer is recorded at position {', '.join(waiting)}"
                )
            if any(not answer for _, answer in its_sides):
                raise HarnessError(f"ballot {ballot} cannot be voted on: an answer is empty")
            state = "revealed" if reveal else "voted"
            values: dict[str, Any] = {"state": state, "verdict": verdict.kind, "best": verdict.best}
            values |= {"voted_at": now(), "reasons": storable(list(reasons)), "latency_s": latency_s}
            connection.execute(ballots.update().where(ballots.c.id == ballot).values(**values))

    def reveal(self, ballot: int) -> None:
        """Close a ballot: its variants are shown, and its verdict stays. Raises ClosedBallotError for a void one."""
        with transaction(self._engine) as connection:
            self._require_state(connection, ballot, "open", "voted", "revealed")
            connection.execute(ballots.update().where(ballots.c.id == ballot).values(state="revealed"))

    def void(self, ballot: int, note: str = "") -> None:
        """Close a ballot that cannot be judged, such as one with an answer that failed; `note` says why."""
        with transaction(self._engine) as connection:
            self._require_state(connection, ballot, "open", "void")
            connection.execute(ballots.update().where(ballots.c.id == ballot).values(state="void", note=note))

    def forget(self, annotator: str) -> int:
        """Delete every ballot of a person, with what was asked and answered; return their number."""
        with transaction(self._engine) as connection:
            theirs = sqlalchemy.select(ballots.c.id).where(ballots.c.annotator == storable(annotator))
            connection.execute(sides.delete().where(sides.c.ballot.in_(theirs)))
            return int(connection.execute(ballots.delete().where(ballots.c.annotator == storable(annotator))).rowcount)

    def __getitem__(self, ballot: int) -> Ballot:
        """Return one ballot. Raises HarnessError if it does not exist."""
        with transaction(self._engine, reads=True) as connection:
            if _is_id(ballot):
                for one in _read(connection, ballots.c.id == ballot):
                    return one
        raise _unknown(ballot)

    def __iter__(self) -> Iterator[Ballot]:
        """Return every ballot, oldest first."""
        return iter(self.matching())

    def matching(self, **values: Any) -> list[Ballot]:
        """Return the ballots whose fields have these values, as in `matching(annotator="ada")`, oldest first."""
        with transaction(self._engine, reads=True) as connection:
            return list(_read(connection, _having(values)))

    def latest(self, first: int = 0, count: int = 500, variant: str = "", **values: Any) -> list[Ballot]:
        """Return `count` judged ballots from the `first` on, the latest before, whose fields have these values.

        Args:
            variant: one that is on a side; empty for any.
        """
        with transaction(self._engine, reads=True) as connection:
            wanted = sqlalchemy.select(ballots.c.id).where(_judged(variant, values))
            ids = connection.execute(wanted.order_by(ballots.c.id.desc()).offset(first).limit(count)).scalars().all()
            return list(_read(connection, ballots.c.id.in_(ids)))[::-1]

    def count(self, variant: str = "", **values: Any) -> int:
        """Return the number of judged ballots that `latest` goes through."""
        counting = sqlalchemy.select(sqlalchemy.func.count()).select_from(ballots).where(_judged(variant, values))
        with transaction(self._engine, reads=True) as connection:
            return int(connection.execute(counting).scalar_one())

    def __len__(self) -> int:
        with transaction(self._engine, reads=True) as connection:
            return int(connection.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(ballots)).scalar_one())

    def _require_state(self, connection: Any, ballot: int, *states: str) -> None:
        """Raise ClosedBallotError unless the ballot is in one of `states`; lock it until the transaction ends."""
        its_state = sqlalchemy.select(ballots.c.state).where(ballots.c.id == ballot).with_for_update()
        state = connection.execute(its_state).scalar_one_or_none() if _is_id(ballot) else None
        if state is None:
            raise _unknown(ballot)
        if state not in states:
            closed = {"revealed": "its variants are revealed", "void": "it is void", "voted": "it was voted on"}
            raise ClosedBallotError(f"ballot {ballot} is closed: {closed.get(state, state)}")


def require_usable(database: str) -> None:
    """Raise HarnessError if ballots could not be kept in a database. Creates no file, and changes nothing."""
    engine = engine_of(database)
    path = file_of(engine)
    if path is not None and not path.exists():
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise HarnessError(
                f"the votes database {path} cannot be created: {path.parent} is not a folder that you can write to"
            )
        return
    with transaction(engine) as connection:
        migration.bring_up_to_date(connection)
        connection.execute(versions.update().values(version=versions.c.version))  # a read-only one refuses it
        connection.rollback()
    engine.dispose()


def is_there(database: str) -> bool:
    """Return True for a URL, and for a path that is there: opening another would create it."""
    return "://" in database or Path(database).exists()


def _having(values: Mapping[str, Any]) -> Any:
    """Return the condition that a ballot's fields have these values."""
    return sqlalchemy.and_(sqlalchemy.true(), *(ballots.c[name] == storable(value) for name, value in values.items()))


def _judged(variant: str, values: Mapping[str, Any]) -> Any:
    """Return the condition that a ballot has a verdict, these values, and the variant on a side."""
    conditions = [_having(values), ballots.c.verdict.is_not(None)]
    if variant:
        with_it = sqlalchemy.select(sides.c.ballot).where(sides.c.variant == storable(variant))
        conditions.append(ballots.c.id.in_(with_it))
    return sqlalchemy.and_(*conditions)


def _is_id(ballot: object) -> bool:
    return isinstance(ballot, int) and ballot in INTEGERS


def _unknown(ballot: object) -> HarnessError:
    return HarnessError(f"there is no ballot {ballot!r}")


def _is_verdict(verdict: Verdict, count: int) -> bool:
    """Return True if a verdict can be one on `count` sides."""
    if verdict.kind == "best":
        return type(verdict.best) is int and verdict.best in range(count)
    return verdict.kind in ("tie", "bad") and verdict.best is None


def _read(connection: Any, condition: Any) -> Iterator[Ballot]:
    ballot_rows = connection.execute(ballots.select().where(condition).order_by(ballots.c.id)).mappings().all()
    wanted = sqlalchemy.select(ballots.c.id).where(condition)
    sides_of: dict[int, list[Side]] = {}
    rows = connection.execute(
        sides.select().where(sides.c.ballot.in_(wanted)).order_by(sides.c.ballot, sides.c.position)
    )
    for row in rows.mappings():
        values = {name: row[name] for name in Side.__dataclass_fields__}
        sides_of.setdefault(row["ballot"], []).append(Side(**values | {"identity": row["identity"] or {}}))
    for row in ballot_rows:
        verdict = None if row["verdict"] is None else Verdict(row["verdict"], row["best"])
        created_at = row["created_at"]
        if created_at.tzinfo is None:  # SQLite keeps no time zone; what was written is UTC
            created_at = created_at.replace(tzinfo=datetime.UTC)
        kept = {
            name: row[name] for name in Ballot.__dataclass_fields__ if name not in ("sides", "verdict", "created_at")
        }
        kept |= {"blind": bool(row["blind"]), "reasons": tuple(row["reasons"] or ())}
        yield Ballot(**kept, created_at=created_at, sides=tuple(sides_of[row["id"]]), verdict=verdict)
