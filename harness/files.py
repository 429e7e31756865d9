"""Writing files so that a crash at any moment leaves the old content or the new one, never a torn file."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import HarnessError

if sys.platform != "win32":  # where the command says that it does not run
    import fcntl


def cache_folder() -> Path:
    """Return the cache folder (prepared data, hashes): `HARNESS_CACHE`, or ~/.cache/harness."""
    return Path(os.environ.get("HARNESS_CACHE") or Path.home() / ".cache" / "harness")


class DiskFullError(HarnessError):
    """The disk is full (or a quota is reached); existing files are unchanged."""


@contextmanager
def explain_full_disk(target: Path) -> Iterator[None]:
    """Turn "no space left" while writing `target` into an error that says what is safe and what to do."""
    try:
        yield
    except Exception as error:
        # The native writers of safetensors and torch raise their own errors, with only the text of the OSError.
        text = str(error).lower()
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or "no space left" in text or "disk quota" in text:
            raise DiskFullError(
                f"{target}: the disk is full. What was there before is untouched; "
                f"free some space and run the same command again."
            ) from error
        raise


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write to, which becomes `target` if the block succeeds.

    A file replaces a file atomically. A folder is written once: `target` must not exist yet. Temporaries of `target`
    that a killed process left are removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(target):
        _remove_leftovers(target)
        temporary, lock = _locked_temporary(target)
        written = temporary / target.name
        try:
            yield written
            move_into_place(written, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


def _locked_temporary(target: Path) -> tuple[Path, int]:
    """Make a temporary folder beside `target` and lock it, so that others know it from a killed process's."""
    while True:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
            lock = os.open(temporary, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if temporary.exists():
                return temporary, lock
            os.close(lock)


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary folders of `target` that no living process holds."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}")  # as `mkdtemp` names them
    with os.scandir(target.parent) as entries:
        left = [entry.path for entry in entries if ours.fullmatch(entry.name)]
    for folder in left:
        with suppress(OSError):  # a living process has it, or it has just gone
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def move_into_place(written: Path, target: Path) -> None:
    """Flush a file or folder to disk, then rename it to `target` on the same disk."""
    _sync(written)
    written.replace(target)
    _sync_folder(target.parent)


def write_text(target: Path, text: str, *, private: bool = False) -> None:
    """Write `text` to `target`, atomically; a `private` file can be read by its owner alone.

    Raises HarnessError for text with a path in it that is not UTF-8, which Python has as half of a surrogate pair.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        word = re.split(r'["\n]', text[: error.start])[-1] + re.split(r'["\n]', text[error.start :])[0]
        raise HarnessError(
            f"{target}: it would hold {word!r}, which is not UTF-8 text: rename the file or folder, or give another"
        ) from None
    with replacing(target) as temporary:
        if private:
            temporary.touch(mode=0o600)
        temporary.write_bytes(content)


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold a lock on a file that is read, changed and replaced, against other processes that do the same."""
    lock = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON to `target`, atomically."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def write_output(target: Path, text: str) -> None:
    """Write a file that a person asked for, atomically. Raises HarnessError, naming it, where that cannot be."""
    with explain_unwritable(target):
        write_text(target, text)


@contextmanager
def explain_unwritable(target: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes `target`, into an error that names it."""
    try:
        yield
    except OSError as error:
        raise HarnessError(f"{target}: cannot be written: {error.strerror or error}") from None


def read_text(path: Path) -> str:
    """Return the text of a file. Raises HarnessError, naming it, where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`. Raises HarnessError, naming the file, if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path}: not valid JSON: {error}") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read: {error.strerror}") from None


def read_only_uri(database: Path) -> str:
    """Return the URI by which SQLite reads a database without changing a byte of it.

    What was last written may still be in a log beside the file, as after a server was killed, or while one runs. Where
    there is none, the file is opened as `immutable`, which needs no files of SQLite's own in a folder that may not be
    written to, but would not see a log.

    Raises:
        HarnessError: where there is a log that SQLite could not read.
    """
    log, index, journal = (database.with_name(database.name + suffix) for suffix in ("-wal", "-shm", "-journal"))
    if not any(path.exists() for path in (log, journal)):
        return database.absolute().as_uri() + "?mode=ro&immutable=1"
    if not index.exists() and not os.access(database.absolute().parent, os.W_OK):
        raise HarnessError(
            f"{database}: what was written last is in {log.name} beside it, which SQLite reads only in a folder that "
            f"you can write to: copy both files to one"
        )
    return database.absolute().as_uri() + "?mode=ro"


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line to a JSONL file in a single write."""
    with explain_full_disk(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _sync(path: Path) -> None:
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    if path.is_dir():
        _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
