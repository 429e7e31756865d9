"""The entries of the cache of encoded data: their place, size and last use, and their removal.

`encoded/KEY/` is an entry, `locks/` has the locks of all (a fixed number of files, so that none is ever removed while
somebody waits for it), `files/` the hashes of source files. An entry is opened and removed under its lock only; what a
process has opened it keeps, since the files are mapped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.files import cache_folder, read_json

UNUSED_DAYS = 30.0  # after so long an entry is removed when another one is made
ACCOUNT = "account.json"  # is written last; its time is that of the last use
_DAY_S = 86400

__all__ = ["ACCOUNT", "UNUSED_DAYS", "Entry", "cache_folder", "entries", "lock_of", "remove", "size_of", "total"]


def lock_of(root: Path, key: str) -> Any:
    """Return the lock (filelock's) of an entry. Of 4096 other entries, about one has the same."""
    import filelock

    return filelock.FileLock(root / "locks" / f"{key[:3]}.lock")


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe's encoded data, or what a process that was killed left of them (`is_whole` is false)."""

    folder: Path
    size_bytes: int
    used: float  # seconds since 1970
    is_whole: bool

    @classmethod
    def of(cls, folder: Path) -> Entry:
        """Raise OSError where it goes while it is looked at."""
        files = [path.stat() for path in folder.rglob("*") if path.is_file()]
        is_whole = not folder.name.startswith(".") and (folder / ACCOUNT).is_file()
        used = (folder / ACCOUNT if is_whole else folder).stat().st_mtime
        return cls(folder, sum(file.st_size for file in files), used, is_whole)

    @property
    def key(self) -> str:
        return self.folder.name.strip(".").partition(".")[0]  # of `.KEY.xyz`, where it is being written, too

    def made_from(self) -> list[str]:
        """Return `DATASET PATH` of each training source; empty for what is not whole, or damaged."""
        try:
            reports = read_json(self.folder / ACCOUNT)["train"]["reports"]
            return [f"{report['source']} {report['path']}" for report in reports]
        except (HarnessError, KeyError, TypeError):
            return []


def entries(root: Path) -> list[Entry]:
    """Return everything under `root`, the last used first."""
    return sorted(_entries(root / "encoded"), key=lambda entry: (-entry.used, entry.key))


def remove(root: Path, unused_days: float | None = None, above_bytes: int | None = None) -> list[Entry]:
    """Remove what was not used for so many days, and what was used longest ago while the rest is larger than that.

    An entry that a process makes or opens right now stays. Returns what was removed.

    Raises:
        HarnessError: where an entry cannot be removed.
    """
    import filelock

    oldest = time.time() - unused_days * _DAY_S if unused_days is not None else 0.0
    left, removed = 0, []
    for entry in entries(root):
        left += entry.size_bytes
        if entry.used > oldest and (above_bytes is None or left <= above_bytes):
            continue
        try:
            with lock_of(root, entry.key).acquire(timeout=0):
                shutil.rmtree(entry.folder)
        except filelock.Timeout:
            continue
        except FileNotFoundError:  # another process was quicker
            continue
        except OSError as error:
            raise HarnessError(f"{entry.folder}: cannot be removed: {error.strerror or error}") from None
        left -= entry.size_bytes
        removed.append(entry)
    for memo in (root / "files").glob("*.json"):  # a hash that is wanted again is made again
        with suppress(OSError):
            if memo.stat().st_mtime < oldest:
                memo.unlink()
    return removed


def total(listed: list[Entry]) -> str:
    """Return the number and total size of entries: `3 entries, 1.2 GB`."""
    return (
        f"{len(listed)} {'entry' if len(listed) == 1 else 'entries'}, {size_of(sum(one.size_bytes for one in listed))}"
    )


def size_of(size_bytes: float) -> str:
    """Return a size in the units that a person would write it in."""
    for unit in ("bytes", "KiB", "MiB"):
        if size_bytes < 1024:
            return f"{size_bytes:,.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:,.1f} GiB"


def _entries(folder: Path) -> Iterator[Entry]:
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if path.is_dir():
                yield Entry.of(path)
        except OSError:  # it has just gone
            continue
