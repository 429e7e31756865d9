"""`Options`: the typed settings that a plugin accepts from a recipe. Unknown keys are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator


class Options(BaseModel):
    """Base class of every recipe section and of what plugins let a recipe set."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_guessed(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` and `'8'` as numbers, which pydantic would convert."""
        kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool | str) and type(value) not in kinds and kinds <= {int, float, type(None)}:
            raise ValueError(f"input should be a {'valid integer' if float not in kinds else 'number'}")
        return value


def broken_default(options: type[Options]) -> str | None:
    """Return the problem of an invalid default of `options`, or None if all are valid; required keys may be missing."""
    try:
        options.model_validate({})
    except ValidationError as error:
        for problem in error.errors():
            if problem["type"] != "missing":
                key = ".".join(map(str, problem["loc"]))
                return f"the default of its option {key!r} is {problem['input']!r}: {problem['msg']}"
    return None


def leaves(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested settings by their names: `tune.method.rank`, `data.train.0.path`."""
    if isinstance(settings, Mapping) and settings:
        for key, item in settings.items():
            yield from leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(settings, Sequence) and not isinstance(settings, str) and settings:
        for number, item in enumerate(settings):
            yield from leaves(item, f"{name}.{number}" if name else str(number))
    else:
        yield name, list(settings) if isinstance(settings, tuple) else settings


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if isinstance(annotation, type) or not get_args(annotation):
        return {annotation}
    if get_origin(annotation) in (list, tuple, dict):
        return {get_origin(annotation)}
    return {kind for part in get_args(annotation) for kind in _kinds(part)}
