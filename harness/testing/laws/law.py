"""Laws: claims about what a plugin registers that the harness can try by itself, and what their trial has to hand."""

from __future__ import annotations

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, get_args

from harness.contract.kinds import Kind
from harness.errors import ENDINGS, HarnessError
from harness.extras import require
from harness.plugins import Plugins
from harness.plugins.registry import Entry, PluginInfo

Outcome = Literal["kept", "broken", "doubtful", "not tried"]


class Doubtful(HarnessError):
    """A law that is probably broken: something that authors may mean."""


class NotTried(HarnessError):
    """A law that cannot be tried here, and the reason."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one law for one registered thing; `message` says what was found, or why it was not tried."""

    kind: str
    name: str
    law: str
    outcome: Outcome
    message: str = ""

    @property
    def where(self) -> str:
        """The kind and the name of the thing."""
        return f"{self.kind} {self.name}".strip()


@dataclass(slots=True)
class Kit:
    """The plugins, a scratch folder, and what a person gave: rows for a dataset, and options as `NAME.KEY`."""

    plugins: Plugins
    info: PluginInfo
    folder: Path
    rows: Path | None = None
    given: Mapping[str, Any] | None = None

    def options(self, kind: Kind, entry: Entry[Any]) -> Any:
        """Return the section of a recipe that names an entry and nothing more. Raises NotTried for lacking options.

        A required path leads into the scratch folder.
        """
        import pydantic

        from harness.recipe import combined

        model = combined(resolve_name(str(kind.section)), getattr(entry.item, "options", None))
        values: dict[str, Any] = {kind.key: entry.name}
        for name, field in model.model_fields.items():
            if (value := (self.given or {}).get(f"{entry.name}.{name}")) is not None:
                values[name] = value
            elif field.is_required() and name not in values and Path in (field.annotation, *get_args(field.annotation)):
                values[name] = self.folder / f"{entry.name}-{name}"
        try:
            return model.model_validate(values)
        except pydantic.ValidationError as error:
            key = ".".join(map(str, error.errors()[0]["loc"]))
            raise NotTried(
                f"its option {key!r} has no default ({error.errors()[0]['msg']}): "
                f"`--set {entry.name}.{key}=VALUE` gives it one"
            ) from None


Trial = Callable[[Kit, Kind, Entry[Any]], None]


def laws_of(kind: str) -> Mapping[str, Trial]:
    """Return the laws of a kind by their claims; importing those of a model's parts imports torch."""
    try:
        module = require(f"harness.testing.laws.{kind}s", "tuning")
    except ModuleNotFoundError as error:
        raise NotTried(f"{error.name} is not installed: pip install 'instruct-harness[tuning]'") from None
    laws: Mapping[str, Trial] = module.LAWS
    return laws


def tried(law: str, kind: str, name: str, trial: Callable[[], None], code: str) -> Finding:
    """Try one law. `code` is the path of the plugin, to name the line of it in which something was raised."""
    finding = functools.partial(Finding, kind, name, law)
    try:
        trial()
    except ENDINGS:
        raise
    except NotTried as reason:
        return finding("not tried", str(reason))
    except Doubtful as doubt:
        return finding("doubtful", str(doubt))
    except HarnessError as error:
        return finding("broken", str(error))
    except BaseException as error:
        return finding("broken", f"{type(error).__name__}: {error}{_line_in(error, code)}")
    return finding("kept")


def _line_in(error: BaseException, code: str) -> str:
    """Return the line of the plugin's own code that raised an error, as ` (file.py:3)`."""
    folder = Path(code).parent if Path(code).name == "__init__.py" else Path(code)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""


@contextlib.contextmanager
def expecting(what: str) -> Iterator[None]:
    """Name the step in which a HarnessError is raised."""
    try:
        yield
    except (Doubtful, NotTried):
        raise
    except HarnessError as error:
        raise HarnessError(f"{what}: {error}") from error
