"""The code and files that plugins make data with: cached data are used only while these are unchanged.

Before anything is made, `Code.of` names the files of the plugins that have a part in it, and what their functions were
given. What these come to import and to open is known afterwards: `Code.read` names it, and `is_unchanged` looks at it
again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from harness.contract import Objective
from harness.errors import HarnessError
from harness.plugins.reading import Reads, existing_file, is_installed, loaded_modules

if TYPE_CHECKING:
    from harness.contract import Dataset, Filter
    from harness.data.encode.reader import Reader
    from harness.plugins import Plugins
    from harness.recipe import DataSpec

Hash = Callable[[Path], str]

_CORE = Path(__file__).parents[2]
_CODE = (".py", ".yaml", ".yml", ".json", ".toml", ".txt", ".so", ".pyd")
_MOST = 10_000  # files that a plugin may read, and values that its functions may hold
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


class UnknownCodeError(HarnessError):
    """Code or files that decide the data and cannot be known: what is made with them is not kept."""


@dataclass(frozen=True, slots=True)
class Code:
    """The code behind the data: its files, files that plugins read when loaded, and values in their functions."""

    files: frozenset[Path]
    values: tuple[str, ...]
    loaded: Reads
    since_ns: int  # when the plugins were loaded
    imported: frozenset[tuple[str, str | None]]  # modules that were loaded by then, each with its file

    @classmethod
    def of(cls, spec: DataSpec, plugins: Plugins, reader: Reader) -> Code:
        """Return the code behind the recipe's datasets and filters, and an objective that makes items of its own.

        Raises:
            UnknownCodeError: for a function whose code is in no file.
        """
        names = {source.dataset for source in (*spec.train, *spec.validation)}
        if any(plugins.datasets[name].resolve for name in names):  # it chooses among all
            names = set(plugins.datasets)
        parts: list[tuple[str, str, Dataset | Filter | Objective]] = [
            *(("dataset", name, plugins.datasets[name]) for name in sorted(names)),
            *(("filter", step.filter, plugins.filters[step.filter]) for step in spec.clean),
        ]
        if reader.spec is not None and reader.objective is not None:
            parts.append(("objective", reader.spec.name, reader.objective))
        files = {
            *_CORE.glob("*.py"),
            *_CORE.glob("data/**/*.py"),
            *_CORE.glob("template/*.py"),
            *_CORE.glob("nouns/*.py"),
        }
        values: list[str] = []
        loaded = Reads()
        for kind, name, part in parts:
            owner = getattr(plugins, f"{kind}s").owner(name)
            functions = [getattr(part, role, None) for role in ("convert", "gather", "resolve", "create", "encode")]
            try:
                for held in _held_by([function for function in functions if function is not None]):
                    if isinstance(held, _PLAIN):
                        values.append(repr(held))
                    elif (file := _file_of(held)) is not None:
                        files.update(_beside(file))
            except UnknownCodeError as error:
                raise UnknownCodeError(f"the {kind} {name!r}: {error}") from None
            if Path(owner.path).is_file():
                files.update(_beside(Path(owner.path)))
            files.update(_distributed(owner.distribution))
            loaded.add(plugins.read_by(owner.name))
            paths = () if isinstance(part, Objective) else part.reads
            loaded.files.update(str(file.absolute()) for path in paths for file in _below(Path(path)))
        return cls(frozenset(files), tuple(values), loaded, plugins.since_ns, plugins.imported)

    def digest(self, hash_of: Hash) -> str:
        """Return a hash of it all, as the files are now. `hash_of` is asked for that of a file.

        Raises:
            UnknownCodeError: where a file is not as it was when it was loaded.
        """
        hashes = {str(path): _hash(path, hash_of, self.since_ns) for path in sorted(self.files)}
        return _digest([hashes, _listed(self.loaded, hash_of, self.since_ns), self.values])

    def read(self, reads: Reads, hash_of: Hash, began_ns: int) -> dict[str, Any]:
        """Return further inputs read until now: the loaded modules, and the content of `reads`, each with its hash.

        `began_ns` is when `reads` was begun.

        Raises:
            UnknownCodeError: where a plugin asked the network, read too many files, or one that changed meanwhile.
        """
        if reads.hosts:
            raise UnknownCodeError(f"a plugin asks {min(reads.hosts)} for its data")
        if len(reads.files) + len(reads.folders) > _MOST:
            raise UnknownCodeError(f"a plugin reads more than {_MOST:,} files besides the rows")
        modules = {
            name: file
            for name, module in sorted(sys.modules.items())
            if name != "__main__"
            and (file := _origin(module))
            and not (is_installed(file) or file.startswith(str(_CORE)))
        }
        still = {name for name, _ in self.imported & loaded_modules()}  # not one of the same name from elsewhere
        before = Reads({file for name, file in modules.items() if name in still})
        since = Reads(reads.files | set(modules.values()) - before.files, reads.folders)
        listed = _listed(since, hash_of, began_ns)
        listed["files"] |= _listed(before, hash_of, self.since_ns)["files"]
        return {"modules": modules, **listed}


def is_unchanged(read: Mapping[str, Any], hash_of: Hash) -> bool:
    """Return True while what `Code.read` gave is as it was then, and its modules would come from the same files."""
    for name, file in read["modules"].items():
        if "." not in name and _would_load(name) not in (None, file):
            return False
    reads = Reads(set(read["files"]), set(read["folders"]))
    return _listed(reads, hash_of) == {part: read[part] for part in ("files", "folders")}


def installed() -> list[str]:
    """Return name and version of everything that is installed, as the names of its metadata tell."""
    names: set[str] = set()
    for folder in map(Path, sys.path):
        if folder.is_dir():
            names.update(path.name for path in folder.iterdir() if path.suffix in (".dist-info", ".egg-info"))
    return sorted(names)


# The functions


@dataclass(slots=True)
class _Held:
    """The parts and arguments of functions, each thing once."""

    waiting: list[Any]
    seen: dict[int, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        while self.waiting:
            part = self.waiting.pop()
            if isinstance(part, _PLAIN):
                yield part
            elif id(part) not in self.seen and len(self.seen) < _MOST:
                self.seen[id(part)] = part
                yield part
                self.waiting += _inside(part)


def _held_by(functions: list[Any]) -> Iterable[Any]:
    return _Held(functions[::-1])


def _inside(part: Any) -> list[Any]:
    """Return the parts of a function: behind decorators, `functools.partial`, closures and callable objects."""
    if isinstance(part, functools.partial):
        return [part.func, *part.args, *part.keywords.items()]
    if isinstance(part, MethodType):
        return [part.__func__, part.__self__]
    if isinstance(part, FunctionType):
        cells = (cell for cell in part.__closure__ or ())
        held = [cell.cell_contents for cell in cells if _is_filled(cell)]
        wrapped = [part.__wrapped__] if hasattr(part, "__wrapped__") else []
        return [*wrapped, *held, *(part.__defaults__ or ()), *(part.__kwdefaults__ or {}).items()]
    if isinstance(part, dict):
        return [item for pair in part.items() for item in pair]
    if isinstance(part, list | tuple):
        return list(part)
    if isinstance(part, set | frozenset):
        return sorted(part, key=repr) if all(isinstance(item, _PLAIN) for item in part) else list(part)
    if callable(part) and not isinstance(part, type):
        wrapped = [part.__wrapped__] if hasattr(part, "__wrapped__") else []
        return [*wrapped, *vars(part).values()] if hasattr(part, "__dict__") else wrapped
    return []


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # of a name that is set later
        return False


def _file_of(part: Any) -> Path | None:
    """Return the file that the code of `part` is in; None for what is Python's own.

    Raises UnknownCodeError where there is none.
    """
    if isinstance(part, FunctionType):
        name = part.__code__.co_filename
        if not name.startswith("<frozen") and (file := existing_file(name)):
            return file
        if name.startswith("<") and not name.startswith("<frozen"):
            raise UnknownCodeError(f"the code of {part.__qualname__!r} is in no file ({name})")
        module = part.__module__
    elif isinstance(part, type | BuiltinFunctionType):
        module = part.__module__
    else:
        module = type(part).__module__
    if module is None or module.partition(".")[0] in sys.stdlib_module_names:
        return None
    origin = _origin(sys.modules.get(module))
    if origin is None:
        what = getattr(part, "__qualname__", type(part).__qualname__)
        raise UnknownCodeError(f"the code of {what!r} is in no file: its module is {module!r}")
    return Path(origin)


# Files


def _origin(module: ModuleType | None) -> str | None:
    name = getattr(module, "__file__", None)
    if not isinstance(name, str):
        return None
    return str(file) if (file := existing_file(str(Path(name).absolute()))) else None


def _would_load(name: str) -> str | None:
    """Return the file that `import name` gives or would give; None where it is not known before."""
    if (module := sys.modules.get(name)) is not None:
        return _origin(module)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin and str(existing_file(spec.origin) or spec.origin) if spec else None


def _beside(file: Path) -> Iterator[Path]:
    """Yield the file, and those of the package that it belongs to."""
    yield file
    top = file.parent
    if not (top / "__init__.py").is_file():
        return
    while (top.parent / "__init__.py").is_file():
        top = top.parent
    yield from (path for path in top.rglob("*") if path.suffix in _CODE and path.is_file())


@functools.lru_cache(64)
def _distributed(name: str) -> tuple[Path, ...]:
    """Return the files of an installed distribution, which may bring more than one package."""
    try:
        files = importlib.metadata.distribution(name).files if name else None
    except importlib.metadata.PackageNotFoundError:
        return ()
    paths = (Path(str(file.locate())) for file in files or () if file.suffix != ".pyc")
    return tuple(path for path in paths if path.is_file())


def _below(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _listed(reads: Reads, hash_of: Hash, since_ns: int | None = None) -> dict[str, dict[str, str | None]]:
    """Return the hashes of files, and of the names in folders; None for what is not there."""
    files = [name for name in sorted(reads.files) if not is_installed(name)]
    folders = [name for name in sorted(reads.folders) if not is_installed(name)]
    return {
        "files": {name: _hash(Path(name), hash_of, since_ns) for name in files},
        "folders": {name: _names_in(Path(name)) for name in folders},
    }


def _names_in(folder: Path) -> str | None:
    try:
        return _digest(sorted(path.name for path in folder.iterdir()))
    except OSError:
        return None


def _hash(path: Path, hash_of: Hash, since_ns: int | None = None) -> str | None:
    try:
        status = path.stat()
        if not path.is_file():
            return None
        if since_ns is not None and status.st_mtime_ns > since_ns:
            raise UnknownCodeError(f"{path} changed after the plugins were loaded")
        return hash_of(path)
    except OSError:
        return None


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()
