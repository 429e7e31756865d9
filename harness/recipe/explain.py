"""The problems of a recipe, each with file, line, key, what was found and what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import known_names, nearest
from harness.options import Options

if TYPE_CHECKING:
    import pydantic

    from harness.recipe.document import Document


def explain(error: pydantic.ValidationError, document: Document, where: tuple[Any, ...], model: type[Options]) -> str:
    """Return every problem of a section, each with file, line, key, what was found and what was expected."""
    lines: dict[str, str] = {}
    problems = error.errors()
    parents = {problem["loc"][:end] for problem in problems for end in range(len(problem["loc"]))}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in parents:
            continue  # its items are wrong, not too few
        # Of a choice between types pydantic names the type as if it were a key: `target_modules.tuple[str, ...]`.
        location = (
            *where,
            *(
                part
                for part in problem["loc"]
                if part not in ("str", "bool", "constrained-int") and "[" not in str(part)
            ),
        )
        key = ".".join(str(part) for part in location)
        about = f"{document.place(*location)}: "
        if problem["type"] == "extra_forbidden":
            siblings = _fields_at(model, problem["loc"][:-1])
            lines[key] = (
                f"{about}unknown key {key!r}.{nearest(str(location[-1]), siblings)} Known here: {known_names(siblings)}"
            )
        elif problem["type"] == "missing":
            lines[key] = f"{about}{key!r} is missing"
        else:
            expected = (
                problem["msg"]
                .removeprefix("Value error, ")
                .replace("valid tuple", "list")
                .replace("tuple should", "a list should")
                .removesuffix(" after validation, not 0")
            )
            expected = expected[0].lower() + expected[1:]
            # Of keys that do not go together, the message names them, and the whole section is no news.
            wrong = f"{about}{key!r} is {problem['input']!r}: " if problem["loc"] else about
            lines[key] = f"{lines[key]}, or {expected}" if key in lines else f"{wrong}{expected}"
    return "\n".join(lines.values())


def _fields_at(model: type[Options], location: tuple[Any, ...]) -> list[str]:
    """Return the field names of the (nested) section at `location`."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        inner = [
            arg
            for arg in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(arg, type) and issubclass(arg, Options)
        ]
        if not inner:
            return []
        current = inner[0]
    return list(current.model_fields)
