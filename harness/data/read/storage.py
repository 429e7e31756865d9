"""The storage of rows, and its bytes: files, globs, folders, URLs and hub datasets; packed files are unpacked.

What the bytes mean is for `formats`. Everything streams: a file is read in pieces of CHUNK bytes.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness.data.read.documents import is_document
from harness.data.read.packed import CHUNK, PACKED, unpacked
from harness.errors import DataError, HarnessError, listed, nearest
from harness.extras import require

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv")  # what a folder is searched for
HUB = "hub://"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def files_of(where: str, revision: str | None = None) -> list[str]:
    """Return the files that `where` names, in order: what `read_rows` takes, one by one.

    `where` is a file; a glob (`data/*.jsonl`, `data/**/*.parquet`); a folder, of which all files with one of SUFFIXES
    are taken, packed or not, at any depth, hidden ones left out (if there is none, documents are); a URL that fsspec
    reads (`s3://`, `gs://`, `https://`, `file://`, `memory://`), which may be a glob or folder too, except over http;
    or a hub dataset, `hub://owner/name[/config][?split=train]`, which comes back with `revision` as part of it.

    Raises:
        DataError: where it names no file; where a hub dataset has no pinned revision, or anything else has one.
    """
    if where.startswith(HUB):
        return [_hub_address(where, revision)]
    if revision is not None:
        raise DataError(
            f"`revision` pins a hub dataset ({HUB}owner/name); {where!r} is none, so it would do nothing: leave it out"
        )
    if is_remote(where):
        return _remote_files(where)
    if not where.strip():
        raise DataError("the path is empty: name a file, a folder, a glob or a URL")
    try:
        files = _local_files(where, local_path(where))
    except OSError as error:  # a name that is too long, a folder that must not be entered
        raise DataError(f"cannot be read: {reason_of(error)}", path=where) from None
    for file in files:
        if any("\ud800" <= sign <= "\udfff" for sign in file):  # as Python has the bytes of another encoding
            raise DataError("its name is not UTF-8 text, as names of rows have to be: rename it", path=file)
    return files


def _local_files(where: str, path: Path) -> list[str]:
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [str(path)]
    if not glob.has_magic(where):
        raise DataError(f"no such file{_near(path)}", path=path)
    # `glob` takes absolute patterns, Path.glob does not
    paths = glob.glob(str(path), recursive=True)  # noqa: PTH207
    if not paths:
        raise DataError(f"no file matches this pattern{_near(path)}", path=path)
    return sorted({file for name in paths for file in (_in_folder(Path(name)) if Path(name).is_dir() else [name])})


def passed_over(where: str) -> list[str]:
    """Return the names of the files in a folder that `files_of` does not take, hidden ones aside."""
    if where.startswith(HUB) or is_remote(where) or not (folder := local_path(where)).is_dir():
        return []
    visible = list(_visible_in(folder))
    is_taken = _is_data if any(_is_data(path.name) for path in visible) else is_document
    return sorted(str(path.relative_to(folder)) for path in visible if not is_taken(path.name))


def is_remote(where: str) -> bool:
    """Return whether fsspec is to read it: it is a URL, and not one of a file on this machine."""
    return _REMOTE.match(where) is not None and not where.startswith("file://")


def local_path(where: str) -> Path:
    """Return a path on this machine, from a path or a `file://` URL."""
    if where.startswith("file://"):
        where = urllib.parse.unquote(urllib.parse.urlsplit(where).path)
    return Path(os.path.expanduser(where))  # noqa: PTH111 - Path's raises for an unknown user


def bare_suffix(path: str) -> str:
    """Return the suffix that tells the format: of `rows.jsonl.gz` it is `.jsonl`."""
    name = urllib.parse.urlsplit(path).path if is_remote(path) else path
    stem = Path(name.lower())
    return Path(stem.stem).suffix if stem.suffix in PACKED else stem.suffix


def _in_folder(folder: Path) -> list[str]:
    visible = list(_visible_in(folder))
    paths = sorted(str(path) for path in visible if _is_data(path.name))
    paths = paths or sorted(str(path) for path in visible if is_document(path.name))
    if not paths:
        raise DataError(_nothing_in([path.name for path in folder.iterdir()]), path=folder)
    return paths


def _visible_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, at any depth; nothing that is hidden."""

    def refuse(error: OSError) -> None:
        raise DataError(f"the folder cannot be read: {error.strerror}", path=error.filename)

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


def _is_data(name: str) -> bool:
    return not name.startswith(".") and bare_suffix(name) in SUFFIXES


def _nothing_in(names: list[str]) -> str:
    return (
        f"no data files in this folder. It holds: {listed(names) or 'nothing'}. Files are taken that end in "
        f"{', '.join(SUFFIXES)}, or one of these with {' or '.join(PACKED)}; name a file itself if it ends otherwise"
    )


def _near(path: Path) -> str:
    """Describe what is there instead of a file that is missing."""
    folder = path.parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        return f": there is no folder {folder}"
    try:
        names = sorted(child.name for child in folder.iterdir())
    except OSError as error:
        return f": {folder}: {error.strerror}"
    return nearest(path.name, names) and f".{nearest(path.name, names)}"


# URLs


def _remote_files(where: str) -> list[str]:
    if where.startswith(("http://", "https://")):  # `?` begins a query there, and pages do not list what they hold
        return [where]
    with _telling(where):
        files, root = require("fsspec.core", "data").url_to_fs(where)
        if glob.has_magic(root):
            paths = [name for name in files.glob(root) if files.isfile(name)]
            problem = "no file matches this pattern"
        elif files.isdir(root):
            every = files.find(root)
            paths = [
                name for name in every
                if _is_data(name.rpartition("/")[2]) and "/." not in name.removeprefix(root)
            ]  # fmt: skip
            problem = _nothing_in([name.rpartition("/")[2] for name in every])
        else:
            paths, problem = ([root] if files.exists(root) else []), "no such file"
        if not paths:
            raise DataError(problem, path=where)
        return [where] if paths == [root] else sorted(map(files.unstrip_protocol, paths))


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Raise whatever a remote file system raises as a DataError: each has exceptions of its own."""
    try:
        yield
    except HarnessError:
        raise
    except FileNotFoundError as error:  # which fsspec also says of a host that does not answer
        why = error.__cause__ and f"cannot be read: {reason_of(error.__cause__)}"
        raise DataError(why or "no such file", path=where) from None
    except ImportError as error:
        raise DataError(
            f"cannot be read: {error}. fsspec reads such a URL with that package: pip install it", path=where
        ) from None
    except Exception as error:
        raise DataError(f"cannot be read: {reason_of(error)}", path=where) from None


def reason_of(error: BaseException) -> str:
    """Return the first line of what went wrong, for errors whose text is somebody else's."""
    if isinstance(error, OSError) and error.strerror and not error.args[2:]:
        return error.strerror
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# The hub


def _hub_address(where: str, revision: str | None) -> str:
    """Return the address with its revision in it, so that it says all there is to know about what is read."""
    owner, name, config, options = hub_parts(where)
    pinned = options.get("revision", revision)
    example = f"path: {HUB}{owner}/{name}, revision: 0123456789abcdef0123456789abcdef01234567"
    if pinned is None:
        raise DataError(
            "a hub dataset needs a pinned revision, since its owner may change it at any time. Write the 40 "
            f"hexadecimal digits of the commit (on the hub: Files, History), as in `{example}`",
            path=where,
        )
    if revision is not None and pinned != revision:
        raise DataError(f"two revisions: {pinned!r} in the path and {revision!r} beside it; keep one", path=where)
    if not _COMMIT.fullmatch(pinned):
        raise DataError(
            f"the revision {pinned!r} is no commit: a branch or tag can be moved. Write the 40 hexadecimal digits of "
            f"the commit (on the hub: Files, History), as in `{example}`",
            path=where,
        )
    query = urllib.parse.urlencode({"split": options.get("split", "train"), "revision": pinned}, safe="[]%:+")
    return f"{HUB}{owner}/{name}{'/' + config if config else ''}?{query}"


def hub_parts(where: str) -> tuple[str, str, str | None, dict[str, str]]:
    """Return (owner, name, config or None, options) of `hub://owner/name[/config][?split=...&revision=...]`."""
    form = f"write {HUB}owner/name or {HUB}owner/name/config, and ?split=train after it"
    address, _, query = where.removeprefix(HUB).partition("?")
    parts = address.strip("/").split("/")
    if len(parts) not in (2, 3) or not all(re.fullmatch(r"\w[\w.-]*", part) for part in parts):
        raise DataError(f"not a hub dataset: {form}", path=where)
    options = {}
    for option in filter(None, query.split("&")):
        key, equals, value = option.partition("=")
        if key not in ("split", "revision") or not equals or not value:
            hint = nearest(key, ("split", "revision"))
            raise DataError(f"unknown option {option!r}.{hint} Known: split=NAME, revision=COMMIT; {form}", path=where)
        options[key] = urllib.parse.unquote(value)
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None, options


# Bytes


def read_bytes(path: str) -> Iterator[bytes]:
    """Yield the bytes of a file or URL in pieces, gzip and zstd unpacked, as their first bytes tell.

    Raises:
        DataError: without a path, where the file cannot be read on; all that comes before the damage is yielded first.
    """
    return unpacked(_raw(path))


def _raw(path: str) -> Iterator[bytes]:
    with _opened(path) as file:
        while True:
            try:
                chunk = file.read(CHUNK)
            except Exception as error:  # of the disk, or of one of many remote file systems
                raise DataError(f"cannot be read: {reason_of(error)}") from None
            if not chunk:
                return
            yield chunk


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        file = _open_remote(path) if is_remote(path) else _open_local(local_path(path))
    except FileNotFoundError:
        raise DataError("no such file") from None
    except OSError as error:
        raise DataError(f"cannot be read: {reason_of(error)}") from None
    except ValueError:  # a NUL byte in its name
        raise DataError("no such file: that is not a possible name") from None
    with file:
        yield file


def _open_local(path: Path) -> BinaryIO:
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a directory's own error is clear
        raise DataError("neither a file nor a folder, but a pipe or device: write what comes from it to a file first")
    return path.open("rb")


def _open_remote(url: str) -> BinaryIO:
    try:
        with _telling(url):
            files, root = require("fsspec.core", "data").url_to_fs(url)
            opened: Any = files.open(root, "rb")
    except DataError as error:
        raise DataError(error.reason) from None
    return opened  # type: ignore[no-any-return]
