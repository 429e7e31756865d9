"""Encoded data that are kept in Arrow files, addressed by the content of everything they were made from.

What plugins come to read while they make them is kept beside them, and compared before they are used (see `code`).

Under `HARNESS_CACHE` (~/.cache/harness): `encoded/KEY/` has the examples and the account of one recipe's data, and
`files/` the hash of each source file with the size and time it had then. Whatever changes gives another key. What was
not used for long is removed when something is added; `entries` has the rest of what can be done with them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.cache.code import Code, UnknownCodeError, installed, is_unchanged
from harness.data.cache.entries import ACCOUNT, UNUSED_DAYS, cache_folder, lock_of, remove, total
from harness.data.convert.sources import where_of
from harness.data.encode.encoder import EncodedData, encode_data
from harness.data.encode.reader import CONVERSATIONS, Reader
from harness.data.encode.storage import Items
from harness.data.read.storage import HUB, files_of, is_remote, local_path
from harness.data.reports import DataReport, Overlap, SourceReport
from harness.errors import HarnessError, first_line
from harness.files import DiskFullError, replacing, write_json
from harness.hashing import sha256_of_file
from harness.nouns import Conversation, Message, ToolCall
from harness.plugins.reading import reading
from harness.template import fingerprint

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import DataSpec
    from harness.template import BoundTemplate

TrainAndValidation = tuple[EncodedData, EncodedData | None]

_CHUNK = 1 << 20
_PARTS = ("train", "validation")


class _Changed(Exception):
    """The sources changed while they were read; what was made of them is used, but not kept."""

    def __init__(self, data: TrainAndValidation) -> None:
        self.data = data


def cached_data(
    spec: DataSpec,
    plugins: Plugins,
    template: BoundTemplate,
    evaluation: Iterable[tuple[str, str]] = (),
    say: Callable[[str], None] = lambda what: None,
    *,
    reader: Reader = CONVERSATIONS,
) -> TrainAndValidation:
    """Return the result of `encode_data` from the cache; if it is not there, encode it once and keep it.

    Of two processes that want the same, one waits for the other. Without pyarrow, and for what is read from the
    network, nothing is kept; nor where the code of a plugin, or what it reads, cannot be known. `say` is told, for
    people, what keeps the cache from being used, and what is being waited for.

    Raises:
        DataError: see `encode_data`.
    """
    items = list(evaluation) if spec.decontaminate else []
    encode = partial(encode_data, spec, plugins, template, items, reader=reader)
    root = cache_folder()
    try:
        import filelock
        import pyarrow.ipc  # type: ignore[import-untyped]  # noqa: F401 - is it there?

        for part in ("encoded", "files", "locks"):
            (root / part).mkdir(parents=True, exist_ok=True)
        code = Code.of(spec, plugins, reader)
        if (key := _key(spec, plugins, template, items, code, root, reader)) is None:
            return encode()
        lock = lock_of(root, key)
        try:
            lock.acquire(timeout=0.05)
        except filelock.Timeout:
            say("another process prepares the same data; waiting for it")
            lock.acquire()
    except ImportError:
        return encode()
    except UnknownCodeError as error:
        say(f"prepared data are not kept: {error}")
        return encode()
    except OSError as error:
        say(f"{root}: prepared data are not kept: {error.strerror or error}. HARNESS_CACHE names another folder")
        return encode()
    try:
        folder = root / "encoded" / key
        if folder.exists():
            try:
                if _is_current(folder, root):
                    return _read(folder)
            except Exception as error:  # Arrow has errors of its own for what cannot be in a file that is whole
                say(f"{folder}: the prepared data are damaged ({first_line(error)}); they are made again")
            shutil.rmtree(folder, ignore_errors=True)
        try:
            with replacing(folder) as temporary:
                temporary.mkdir()
                began_ns = time.time_ns()
                with reading() as read_besides:
                    encoded = encode(folder=temporary)
                try:
                    if _key(spec, plugins, template, items, code, root, reader) != key:
                        raise _Changed(encoded)
                    read = code.read(read_besides, partial(sha256_of_file, root=root), began_ns)
                except UnknownCodeError as error:
                    say(f"prepared data are not kept: {error}")
                    raise _Changed(encoded) from None
                _write_account(encoded, read, temporary)
        except _Changed as changed:
            return changed.data
        except DiskFullError:
            say(
                f"{root}: prepared data are not kept: the disk is full. `harness data cache` shows what is there and "
                "removes it; HARNESS_CACHE names another folder"
            )
            return encode()
        _remove_old(root, say)
        return encoded
    finally:
        lock.release()


def kept_validation(
    spec: DataSpec, plugins: Plugins, template: BoundTemplate, *, reader: Reader = CONVERSATIONS
) -> EncodedData | None:
    """Return the validation data that `cached_data` has kept of the same recipe; None where it has not.

    What the training data were compared with (`data.decontaminate`) does not matter for them.
    """
    root = cache_folder()
    try:
        if not (root / "files").is_dir():
            return None
        if (key := _key(spec, plugins, template, [], Code.of(spec, plugins, reader), root, reader)) is None:
            return None
        for folder in sorted((root / "encoded").glob(f"{key.partition('-')[0]}-*")):
            with lock_of(root, folder.name):
                if _is_current(folder, root):
                    return _read_part(folder, "validation")
    except (ImportError, HarnessError, OSError, ValueError, KeyError, TypeError):
        return None  # sources that are gone, or an entry that is damaged: who needs it makes it, and tells
    return None


def _remove_old(root: Path, say: Callable[[str], None]) -> None:
    try:
        removed = remove(root, UNUSED_DAYS)
    except HarnessError as error:
        say(str(error))
        return
    if removed:
        say(f"{root}: removed {total(removed)} of prepared data that were not used for {UNUSED_DAYS:.0f} days")


# The address


def _key(
    spec: DataSpec,
    plugins: Plugins,
    template: BoundTemplate,
    evaluation: list[tuple[str, str]],
    code: Code,
    root: Path,
    reader: Reader,
) -> str | None:
    """Return a hash of everything that decides what is made, in two parts; None where that cannot be known.

    The second is of what only the training data are compared with.
    """
    files: list[tuple[str, str]] = []
    for source in (*spec.train, *spec.validation):
        where = where_of(source, plugins.datasets[source.dataset])
        if where.startswith(HUB) or is_remote(where):
            return None
        names = [where] if where.startswith("file://") else files_of(where, source.revision)
        if not all(local_path(name).is_file() for name in names):  # a device has no end to hash; reading it says so
            return None
        files += ((name, _hash_of_source(local_path(name), root)) for name in names)
    options = spec.model_dump(mode="json", exclude={"decontaminate", "processes"})
    named = sorted({text for text in _texts(options) if _is_file(text)})
    made_from = {
        "files": files,
        "options": options,
        "reads": [reader.reads, reader.longest(spec), reader.spec and reader.spec.model_dump(mode="json")],
        "named": [(name, _hash_of_source(Path(name), root)) for name in named],
        "template": [
            fingerprint(template), template.name, template.thinking, template.stop_ids, template.takes_system,
            template.takes_tools, template.tokenizer.special_tokens_map,
        ],
        "code": code.digest(partial(sha256_of_file, root=root)),
        "versions": [sys.version_info[:2], installed()],
    }  # fmt: skip
    compared = spec.decontaminate and [spec.decontaminate.model_dump(mode="json"), evaluation]
    return f"{_hash(made_from)}-{_hash(compared)[:16]}"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a NUL: no name of a file
        return False


def _hash_of_source(path: Path, root: Path) -> str:
    """Return the hash of a file; of a SQLite file with what its write-ahead log adds."""
    log = path.with_name(f"{path.name}-wal")
    return sha256_of_file(path, root) + (sha256_of_file(log, root) if log.is_file() else "")


def _is_current(folder: Path, root: Path) -> bool:
    """Return True while what the plugins read besides, as they made the entry, is the same.

    Raises whatever a damaged one gives rise to.
    """
    return is_unchanged(_account_of(folder)["read"], partial(sha256_of_file, root=root))


# What is kept beside the examples


def _write_account(encoded: TrainAndValidation, read: dict[str, Any], folder: Path) -> None:
    report = encoded[0].report
    kept: dict[str, Any] = {"read": read} | {
        part: _as_dict(data, folder / f"{part}.arrow") for part, data in zip(_PARTS, encoded, strict=True) if data
    }
    if report:
        kept["report"] = {
            "held_out": list(map(_fields, report.held_out)),
            "overlapping": report.overlapping,
            "overlaps": list(map(asdict, report.overlaps)),
        }
    write_json(folder / ACCOUNT, kept)


def _as_dict(data: EncodedData, file: Path) -> dict[str, Any]:
    return {
        "reports": list(map(_fields, data.reports)),
        "tokens": data.tokens,
        "supervised": data.supervised,
        "sha256": data.sha256,
        "sample": list(map(asdict, data.sample)),
        "bytes": file.stat().st_size,
        "crc32": _crc32(file),
    }


def _read(folder: Path) -> TrainAndValidation:
    train = _read_part(folder, "train")
    assert train is not None
    kept = _account_of(folder)["report"]
    held_out = tuple(map(_report, kept["held_out"]))
    report = DataReport(train.reports, held_out, kept["overlapping"], [Overlap(**one) for one in kept["overlaps"]])
    return replace(train, report=report), _read_part(folder, "validation")


def _account_of(folder: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((folder / ACCOUNT).read_text(encoding="utf-8"))
    return kept


def _read_part(folder: Path, part: str) -> EncodedData | None:
    """Return the train or validation part of an entry, which counts as used now.

    Raises whatever a damaged one gives rise to.
    """
    kept, file = _account_of(folder).get(part), folder / f"{part}.arrow"
    if kept is None:
        return None
    with suppress(OSError):  # a cache that may be read only
        os.utime(folder / ACCOUNT)
    if file.stat().st_size != kept["bytes"] or _crc32(file) != kept["crc32"]:
        raise ValueError(f"{file.name} is not as it was written")
    return EncodedData(
        items=Items.open(file),
        reports=tuple(map(_report, kept["reports"])),
        tokens=kept["tokens"],
        supervised=kept["supervised"],
        sha256=kept["sha256"],
        sample=list(map(_conversation, kept["sample"])),
        from_cache=True,
    )


def _fields(report: SourceReport) -> dict[str, Any]:
    return {field.name: getattr(report, field.name) for field in fields(report)}  # `asdict` cannot copy a Counter


def _report(kept: dict[str, Any]) -> SourceReport:
    return SourceReport(**kept | {name: Counter(kept[name]) for name in ("left_out", "escaped", "lengths")})


def _conversation(kept: dict[str, Any]) -> Conversation:
    messages = tuple(
        Message(**message | {"tool_calls": tuple(ToolCall(**call) for call in message["tool_calls"])})
        for message in kept["messages"]
    )
    return Conversation(messages, tuple(kept["tools"]), kept["id"], kept["source"], kept["weight"])


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
