"""Connections to a votes database: a SQLite file in WAL mode whose commits wait for the disk, or another by its URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import read_only_uri
from harness.votes.schema import sqlalchemy

BUSY_TIMEOUT_MS = 10_000  # how long one writer waits for another
READS = "harness_reads"  # the option of a connection that writes nothing


def engine_of(database: str, *, reads: bool = False) -> Any:
    """Return the SQLAlchemy engine of a database, one that only `reads` or not; does not connect yet."""
    if database.strip() in ("", ":memory:") or database.rstrip("/") in ("sqlite:", "sqlite:///:memory:"):
        raise HarnessError(f"votes in {database!r} would be gone when the server stops: name a file")
    url = _with_driver(database) if "://" in database else f"sqlite:///{database}"
    try:
        engine = sqlalchemy.create_engine(url, pool_pre_ping=True)  # a server that came back is found again
    except (sqlalchemy.exc.ArgumentError, ModuleNotFoundError, ValueError) as error:
        raise HarnessError(
            f"the votes database cannot be used: {error}. Give a SQLite file or a SQLAlchemy URL whose driver is "
            f"installed, such as postgresql://user@host/name (pip install 'instruct-harness[postgres]')"
        ) from None
    if engine.dialect.name == "sqlite":
        if reads and file_of(engine) is not None:
            sqlalchemy.event.listen(engine, "do_connect", _open_read_only)
        else:
            sqlalchemy.event.listen(engine, "connect", _make_durable)
        sqlalchemy.event.listen(engine, "begin", _begin_immediately)
        sqlalchemy.event.listen(engine, "begin", _Place(engine.url.database).check)
    return engine


@contextmanager
def transaction(engine: Any, *, reads: bool = False) -> Iterator[Any]:
    """Yield a connection in a transaction. One that only `reads` keeps no writer waiting, however long it takes."""
    try:
        with engine.connect().execution_options(**{READS: reads}) as connection, connection.begin():
            yield connection
    except (sqlalchemy.exc.SQLAlchemyError, UnicodeError) as error:
        where = engine.url.render_as_string(hide_password=True)
        reason = getattr(error, "orig", None) or error
        path = file_of(engine)
        why = _unwritable(path) if path is not None and (path.is_dir() or not reads) else ""
        raise HarnessError(f"the votes database {where} cannot be used: {reason}{why}") from error


def file_of(engine: Any) -> Path | None:
    """Return the file of a SQLite database; None for a URI of SQLite's own, and for another database."""
    if engine.dialect.name != "sqlite" or engine.url.database.startswith("file:"):
        return None
    return Path(engine.url.database)


def _unwritable(path: Path) -> str:
    """Return why SQLite cannot write to a file, for the end of a message; empty where it can."""
    if path.is_dir():
        return " (it is a folder)"
    if path.exists() and not os.access(path, os.W_OK):
        why = "you may not write to this file"
    elif not os.access(path.absolute().parent, os.W_OK):
        why = f"you may not write to {path.absolute().parent}, where SQLite keeps its log beside the file"
    else:
        return ""
    return f" ({why}; `harness votes list`, `leaderboard` and `export` only read it)"


class _Place:
    """The place of a SQLite file: what is written to one that was moved away meanwhile is found by nobody."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file: tuple[int, int] | None = None

    def check(self, _: Any) -> None:
        """Raise HarnessError if the path has another file than at the first transaction, or none."""
        try:
            status = Path(self.path).stat()
        except OSError:
            status = None
        here = None if status is None else (status.st_dev, status.st_ino)
        if self.file is None:
            self.file = here
        elif here != self.file:
            raise HarnessError(
                f"the votes database {self.path} was moved away or replaced while it was in use: put it back, or start "
                f"the server again"
            )


def _with_driver(url: str) -> str:
    """Return a PostgreSQL URL that names no driver, in either spelling, with psycopg as its driver."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgres", "postgresql") else url


def _open_read_only(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
    arguments[0], options["uri"] = read_only_uri(Path(arguments[0])), True


def _make_durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_immediately` says, not at the first change
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediately(connection: Any) -> None:
    """Take the write lock at once: otherwise two transactions that read and then write would make one another fail."""
    reads = connection.get_execution_options().get(READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
