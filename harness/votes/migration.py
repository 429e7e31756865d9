"""Creation of the tables of a votes database, and migration of every vote from version 1."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.nouns import Side, Verdict
from harness.votes.schema import ADDED, MAX_SIDES, VERSION, VIEW, insert_ballot, metadata, sqlalchemy, versions

LOCK = 0x6861726E657373  # "harness": servers that start on a new PostgreSQL database wait here for each other
APART_S = 5.0  # the rows of one verdict were written one after the other


def version_of(connection: Any) -> int | None:
    """Return the version of the tables, from 2 on; None where there are none yet, or those of version 1.

    Raises:
        HarnessError: for a version that this harness does not know.
    """
    if versions.name not in sqlalchemy.inspect(connection).get_table_names():
        return None
    version = connection.execute(sqlalchemy.select(sqlalchemy.func.max(versions.c.version))).scalar_one()
    if version not in range(2, VERSION + 1):
        raise HarnessError(
            f"the votes database has the version {version}, and this harness knows {VERSION}: "
            f"use the harness that wrote it, or a newer one"
        )
    return int(version)


def bring_up_to_date(connection: Any) -> None:
    """Create the tables of this version, and move the votes of version 1 into them.

    Raises:
        HarnessError: for a database of another version, or with tables that the harness did not make.
    """
    if connection.dialect.name == "postgresql":  # SQLite's transaction has the only write lock already
        connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(LOCK)))
    if (version := version_of(connection)) is not None:
        if version < VERSION:
            _add_columns(connection, version)
        return
    names = set(sqlalchemy.inspect(connection).get_table_names())
    old = _votes_of_version_1(connection) if "votes" in names else []
    if strange := names & set(metadata.tables):
        raise HarnessError(f"the votes database has a table {sorted(strange)[0]!r} that the harness did not make")
    metadata.create_all(connection)
    _create_view(connection)
    connection.execute(versions.insert().values(version=VERSION))
    for group in _verdicts(old):
        _insert(connection, group)
    if "votes" in names:
        connection.exec_driver_sql("ALTER TABLE votes RENAME TO votes_of_version_1")


def _create_view(connection: Any) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("DROP VIEW IF EXISTS judged_ballots")
        connection.exec_driver_sql(VIEW)


def _add_columns(connection: Any, version: int) -> None:
    """Bring a version from 2 on up to date. What it did not keep is unknown; ballots of version 2 showed the names."""
    added = [of_table for since, tables in ADDED.items() if since > version for of_table in tables.items()]
    for table, columns in added:
        for name in columns:
            column = sqlalchemy.schema.CreateColumn(metadata.tables[table].c[name]).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
    _create_view(connection)
    connection.execute(versions.insert().values(version=VERSION))


def _votes_of_version_1(connection: Any) -> list[dict[str, Any]]:
    needed = {f"{side}_{name}" for side in ("left", "right") for name in ("variant", "messages", "answer")}
    columns = {column["name"] for column in sqlalchemy.inspect(connection).get_columns("votes")}
    if missing := sorted({*needed, "id", "created_at", "verdict", "system_prompt", "sampling"} - columns):
        raise HarnessError(
            f"the votes database has a table `votes` that is not the harness's: it lacks {', '.join(missing)}"
        )
    rows = connection.exec_driver_sql("SELECT * FROM votes ORDER BY id").mappings()
    return [{key: _decoded(key, value) for key, value in row.items()} for row in rows]


def _decoded(key: str, value: Any) -> Any:
    if (key.endswith("_messages") or key == "sampling") and isinstance(value, str):
        return json.loads(value)
    if key == "created_at" and isinstance(value, str):
        return datetime.datetime.fromisoformat(value)
    return value


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Group the rows of one verdict: version 1 wrote one for each pair of sides that the verdict decided.

    Rows of several people's verdicts may be mixed. Rows that are not exactly one verdict are yielded one by one.
    """
    groups: list[list[Mapping[str, Any]]] = []
    recent: list[list[Mapping[str, Any]]] = []
    for row in rows:
        recent = [group for group in recent if _seconds_apart(row, group[-1]) <= APART_S]
        group = next((group for group in reversed(recent) if _belongs(row, group)), None)
        if group is None:
            groups.append([row])
            recent.append(groups[-1])
        else:
            group.append(row)
    for group in groups:
        if _is_complete(group):
            yield group
        else:
            yield from ([row] for row in group)


def _seconds_apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return abs(float((one["created_at"] - other["created_at"]).total_seconds()))


def _belongs(row: Mapping[str, Any], group: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if `row` can belong to the verdict of `group`: the same question, another pair, one winner."""
    if _question(row) != _question(group[0]) or _decision(row) != _decision(group[0]):
        return False
    return _pair(row) not in map(_pair, group) and _is_consistent([*group, row])


def _question(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what all sides of a verdict share; earlier turns have each side's own answers."""
    return row["system_prompt"], row["sampling"], row["left_messages"][-1:], row["right_messages"][-1:]


def _decision(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the kind of verdict, and the variant that is the best."""
    kind = str(row["verdict"])
    return (kind, None) if kind in ("tie", "both_bad") else ("best", str(row[f"{kind}_variant"]))


def _pair(row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((row["left_variant"], row["right_variant"]))


def _is_consistent(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if each variant gives one answer to one conversation in all the rows."""
    seen: dict[str, Side] = {}
    return all(seen.setdefault(side.variant, side) == side for row in rows for side in _both(row))


def _is_complete(group: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the rows are every pair that one verdict decides: all, or the best with each other side."""
    count = len(frozenset[str]().union(*map(_pair, group)))
    _, best = _decision(group[0])
    return count <= MAX_SIDES and len(group) == (count * (count - 1) // 2 if best is None else count - 1)


def _both(row: Mapping[str, Any]) -> tuple[Side, Side]:
    left, right = (
        Side(row[f"{side}_variant"], row.get(f"{side}_recipe_sha256"), row[f"{side}_messages"], row[f"{side}_answer"])
        for side in ("left", "right")
    )
    return left, right


def _insert(connection: Any, group: Sequence[Mapping[str, Any]]) -> None:
    pairs = [_both(row) for row in group]
    # Each row has its sides in the order of their columns: all that stand on the left, and then the last.
    its_sides = {side.variant: side for column in zip(*pairs, strict=True) for side in column}
    first = group[0]
    kind, best = _decision(first)
    if best is None:
        verdict = Verdict("tie" if kind == "tie" else "bad")
    else:
        verdict = Verdict("best", list(its_sides).index(best))
    created_at = first["created_at"]
    insert_ballot(
        connection,
        list(its_sides.values()),
        seed=0,
        system_prompt=first["system_prompt"],
        sampling=first["sampling"],
        created_at=created_at if created_at.tzinfo else created_at.replace(tzinfo=datetime.UTC),
        verdict=verdict,
    )
