"""Reading a recipe: each section is validated with the keys that the named plugin adds to it."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from harness.errors import HarnessError, RecipeError, first_line, known_names, nearest, shown
from harness.options import Options
from harness.recipe.document import Document, plain, read_document
from harness.recipe.explain import explain
from harness.recipe.paths import resolve_paths, with_absolute_paths
from harness.recipe.schema import (
    CleanStep,
    DataRecipe,
    DataSource,
    EvaluateSpec,
    MethodSpec,
    ObjectiveSpec,
    Recipe,
    ServeSpec,
    TemplateSpec,
    TrackSpec,
    TuneSpec,
    combined,
)

if TYPE_CHECKING:
    from harness.plugins import Plugins, Registry

T = TypeVar("T", bound=Options)
R = TypeVar("R", bound=DataRecipe)
Where = tuple[str | int, ...]  # the keys and positions that lead to a part of the recipe


def load_recipe(path: Path, plugins: Plugins, sets: Sequence[str] = (), *, to_tune: bool = True) -> Recipe:
    """Read and validate a recipe; one that lies in a run's folder is migrated if an earlier version wrote it.

    Args:
        path: the YAML file; relative paths in it are relative to its folder.
        plugins: where the names in it are looked up.
        sets: overrides of the form `tune.method.rank=8` or `data.train.0.limit=100`, with a YAML value.
        to_tune: whether datasets, template and files must be there; what a run was tuned with may be gone since,
            and is not needed to use the run.

    Raises:
        RecipeError: naming file, line and key.
    """
    return _read(path, plugins, sets, to_tune).recipe(Recipe)


def load_data_recipe(path: Path, plugins: Plugins, sets: Sequence[str] = ()) -> DataRecipe:
    """Read and validate a recipe to prepare its data: `model` and `tune` may be missing, and so may the model folder.

    Raises RecipeError, as `load_recipe` does.
    """
    return _read(path, plugins, sets, to_tune=True).recipe(DataRecipe)


def _read(path: Path, plugins: Plugins, sets: Sequence[str], to_tune: bool) -> _Reader:
    document = read_document(path)
    if (path.parent / "manifest.json").is_file():
        _nest_flat_options(document, plugins)
        _rename_values(document)
    document.override(sets)
    _load_plugins(document, plugins, to_tune)
    return _Reader(document, plugins, to_tune)


def _load_plugins(document: Document, plugins: Plugins, to_tune: bool) -> None:
    """Load the single-file plugins that a recipe names, and write their paths absolute.

    Raises RecipeError for one that is missing where the recipe is tuned with, and warns for one of a run.
    """
    files = document.tree.get("plugins")
    if files is None:
        return
    place = document.place("plugins")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise RecipeError(
            f"{place}: `plugins` is a list of Python files, as in `plugins: [riddles.py]`, found {files!r}"
        )
    for index, name in enumerate(files):
        file = document.path.resolve().parent / Path(name).expanduser()
        if file.is_file():
            plugins.add_file(file)
        elif to_tune:
            near = nearest(file.name, (one.name for one in file.parent.glob("*.py")))
            raise RecipeError(f"{document.place('plugins', index)}: no such plugin file: {file}.{near}")
        files[index] = str(file)


def qualified(recipe: Recipe, plugins: Plugins) -> Recipe:
    """Return the recipe with every name of something registered as `owner:name`, which nobody else can claim."""

    def named(spec: T, key: str, registry: Registry[Any]) -> T:
        return spec.model_copy(update={key: registry.entry(getattr(spec, key)).qualified})

    def all_named(specs: tuple[T, ...], key: str, registry: Registry[Any]) -> tuple[T, ...]:
        return tuple(named(spec, key, registry) for spec in specs)

    data, tune = recipe.data, recipe.tune
    sources = {part: all_named(getattr(data, part), "dataset", plugins.datasets) for part in ("train", "validation")}
    parts = {
        "objective": named(tune.objective, "name", plugins.objectives),
        "method": named(tune.method, "name", plugins.methods),
    }
    return recipe.model_copy(
        update={
            "template": named(recipe.template, "name", plugins.templates),
            "data": data.model_copy(update=sources | {"clean": all_named(data.clean, "filter", plugins.filters)}),
            "tune": tune.model_copy(update=parts),
            "evaluate": all_named(recipe.evaluate, "evaluation", plugins.evaluations),
            "track": all_named(recipe.track, "tracker", plugins.trackers),
            "serve": recipe.serve and named(recipe.serve, "engine", plugins.engines),
        }
    )


def template_spec(written: str, plugins: Plugins, sets: Sequence[str] = ()) -> TemplateSpec:
    """Return the section `template` as a command line has it: a name, or `{name: model, variables: {think: false}}`.

    `sets` are KEY=VALUE of it. Raises RecipeError, as a recipe would, and UnknownNameError.
    """
    where = Path(f"--template {written}")
    try:
        tree = YAML().load(written)
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or first_line(error)}") from None
    if not isinstance(tree, CommentedMap):
        tree = CommentedMap(name=written)
    document = Document(where, tree)
    document.override(sets)
    tree.setdefault("name", plugins.templates.default)
    name = tree["name"]
    return _section(
        document, combined(TemplateSpec, plugins.templates[name].options if isinstance(name, str) else None)
    )


def evaluate_spec(name: str, plugins: Plugins, sets: Sequence[str] = ()) -> EvaluateSpec:
    """Return the section of an evaluation that no recipe has: its defaults, with `sets` (KEY=VALUE) over them.

    Raises RecipeError, as a recipe would, and UnknownNameError.
    """
    document = Document(Path(f"--evaluation {name}"), CommentedMap(evaluation=name))
    document.override(sets)
    spec = _section(document, combined(EvaluateSpec, plugins.evaluations[name].options))
    return with_absolute_paths(spec, Path.cwd())


def with_sets(spec: T, sets: Sequence[str]) -> T:
    """Return a section with `sets` (KEY=VALUE) in it, validated; relative paths are relative to the working directory.

    Raises RecipeError, as a recipe would.
    """
    if not sets:
        return spec
    document = Document(Path("--set"), YAML().load(json.dumps(spec.model_dump(mode="json"))))
    document.override(sets)
    return with_absolute_paths(_section(document, type(spec)), Path.cwd())


def _section(document: Document, model: type[T]) -> T:
    """Return a document that is one section alone. Raises RecipeError."""
    try:
        return model.model_validate(plain(document.tree))
    except pydantic.ValidationError as error:
        raise RecipeError(explain(error, document, (), model)) from None


class _Reader:
    """Validates the sections of one document."""

    def __init__(self, document: Document, plugins: Plugins, to_tune: bool) -> None:
        self.document, self.plugins, self.to_tune = document, plugins, to_tune

    def recipe(self, model: type[R]) -> R:
        """Return the document as a `model`: a recipe to tune with, or one to prepare data with."""
        sections = {key: plain(value) for key, value in self.document.tree.items() if value is not None}
        self._require_sections(sections)
        sections.setdefault("name", self.document.path.stem)
        sections.setdefault("track", [{"tracker": name} for name in self.plugins.trackers.defaults])
        sections["template"] = self._named(
            ("template",), sections.get("template", {}), self.plugins.templates, TemplateSpec
        )
        if "tune" in sections:
            sections["tune"] = self._tune(sections["tune"])
        if "serve" in sections:
            sections["serve"] = self._named(
                ("serve",), sections["serve"], self.plugins.engines, ServeSpec, key="engine"
            )
        for key, field, registry, base in (
            ("evaluate", "evaluation", self.plugins.evaluations, EvaluateSpec),
            ("track", "tracker", self.plugins.trackers, TrackSpec),
        ):
            specs = enumerate(sections.get(key, ()))
            sections[key] = tuple(self._named((key, index), spec, registry, base, key=field) for index, spec in specs)
        if isinstance(data := sections.get("data"), dict):
            sections["data"] = self._data(data)
        recipe = self._validated((), sections, model)
        if self.to_tune:
            self._require_consistent_data(recipe)
        return resolve_paths(recipe, self.document, self.to_tune)

    def _require_sections(self, sections: Mapping[str, Any]) -> None:
        """Refuse unknown sections, and sections that are not of the form they should have."""
        place = self.document.place
        if unknown := [key for key in sections if key not in Recipe.model_fields]:
            raise RecipeError(
                f"{place(unknown[0])}: unknown key {unknown[0]!r}.{nearest(str(unknown[0]), Recipe.model_fields)} "
                f"A recipe has: {', '.join(Recipe.model_fields)}"
            )
        for key in ("model", "data", "tune", "serve"):
            if key in sections and not isinstance(sections[key], dict):
                raise RecipeError(f"{place(key)}: `{key}` is a section with keys of its own, found {sections[key]!r}")
        for key, field in (("evaluate", "evaluation"), ("track", "tracker")):
            value = sections.get(key)
            if key in sections and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
                raise RecipeError(f"{place(key)}: `{key}` is a list of sections (`- {field}: NAME`), found {value!r}")

    def _tune(self, tune: Mapping[str, Any]) -> TuneSpec:
        parts = {
            "objective": self._named(
                ("tune", "objective"), tune.get("objective", {}), self.plugins.objectives, ObjectiveSpec
            ),
            "method": self._named(("tune", "method"), tune.get("method", {}), self.plugins.methods, MethodSpec),
        }
        self._refuse_flat_options(tune, parts)
        return self._validated(("tune",), {**tune, **parts}, TuneSpec)

    def _refuse_flat_options(self, tune: Mapping[str, Any], parts: Mapping[str, Options]) -> None:
        """Refuse an option of the method or objective that stands beside it, and show where it belongs."""
        problems = []
        for part, spec in parts.items():
            flat = [key for key in tune if key not in TuneSpec.model_fields and key in type(spec).model_fields]
            if not flat:
                continue
            name = spec.name  # type: ignore[attr-defined]
            own = spec.model_dump(mode="json", exclude_unset=True, exclude={"name"})
            inside = own | {key: tune[key] for key in flat}
            written = "".join(f", {key}: {shown(value, 200)}" for key, value in inside.items())
            are, go = ("is an option", "goes") if len(flat) == 1 else ("are options", "go")
            problems.append(
                f"{self.document.place('tune', flat[0])}: {', '.join(map(repr, flat))} {are} of the {part} {name!r} "
                f"and {go} into its section: `{part}: {{name: {name}{written}}}`, or --set tune.{part}.{flat[0]}=…"
            )
        if problems:
            raise RecipeError("\n".join(problems))

    def _data(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return sources and cleaning steps as their plugins' sections; any other form is left to `Recipe`."""
        out = dict(data)
        for part in ("train", "validation"):
            if isinstance(data.get(part), list):
                out[part] = self._each(("data", part), data[part], self.plugins.datasets, DataSource, "dataset")
        if isinstance(data.get("clean"), list):
            out["clean"] = self._each(("data", "clean"), data["clean"], self.plugins.filters, CleanStep, "filter")
        return out

    def _each(
        self, where: Where, written: list[Any], registry: Registry[Any], base: type[Options], key: str
    ) -> list[Any]:
        return [
            self._named((*where, index), item, registry, base, key=key) if isinstance(item, dict) else item
            for index, item in enumerate(written)
        ]

    def _named(
        self,
        where: Where,
        written: Any,
        registry: Registry[Any],
        base: type[T],
        *,
        key: str = "name",
    ) -> T:
        """Validate a section that names something registered; a name alone stands for the section with that name.

        `key` holds the name; where a default is registered it may be left out. A run that is only used, and not tuned,
        does without what a plugin registered that is gone: a warning says so, and the section has its name alone.
        """
        if isinstance(written, str) and key == "name":
            written = {key: written}
        if not isinstance(written, dict):
            form = "a name, or a section with a `name`" if key == "name" else f"a section with a `{key}`"
            raise RecipeError(f"{self.document.place(*where)}: {where[-1]!r} is {written!r}: expected {form}")
        assumed = key not in written and registry.kind.default
        try:
            name = registry.default if assumed else written.get(key)
        except HarnessError as error:
            raise RecipeError(f"{self.document.place(*where)}: {error}") from None
        if key not in written and not assumed:
            return self._validated(where, written, base)
        if not isinstance(name, str):
            raise RecipeError(
                f"{self.document.place(*where, key)}: {key!r} is {name!r}: expected a name, one of "
                f"{known_names(registry)}"
            )
        if not self.to_tune and name not in registry:
            _warn_of(self.document.path, registry.kind.name, name)
            model = type(base.__name__, (base,), {"model_config": {"extra": "ignore"}})
        else:
            try:
                model = combined(base, registry[name].options)
            except HarnessError as error:
                raise RecipeError(f"{self.document.place(*where, key)}: {error}") from None
        try:
            return self._validated(where, written | {key: name}, model)
        except RecipeError as error:
            if not (assumed and written):
                raise
            raise RecipeError(
                f"{error}\n`{where[-1]}` has no `{key}`, so that it is read as {name!r}; name another "
                f"{registry.kind.name} with `{key}`: {known_names(registry)}"
            ) from None

    def _validated(self, where: Where, value: Any, model: type[T]) -> T:
        try:
            return model.model_validate(value, context={"folder": self.document.path.resolve().parent})
        except pydantic.ValidationError as error:
            raise RecipeError(explain(error, self.document, where, model)) from None

    def _require_consistent_data(self, recipe: DataRecipe) -> None:
        """Refuse keys of `data` that contradict each other, before anything is read."""
        data, place = recipe.data, self.document.place
        unweighted = [index for index, source in enumerate(data.train) if source.weight is None]
        if unweighted and len(unweighted) < len(data.train):
            raise RecipeError(
                f"{place('data', 'train', unweighted[0])}: this source has no `weight` and another has one: give every "
                f"source of data.train a weight, or none"
            )
        if data.validation_share and data.validation:
            raise RecipeError(
                f"{place('data', 'validation_share')}: validation rows come from `data.validation` or are a share of "
                f"data.train; take one of the two out"
            )
        tune = recipe.tune
        needing = [key for key in ("keep", "early_stopping") if tune and getattr(tune, key) not in (None, "last")]
        if needing and not (data.validation or data.validation_share):
            raise RecipeError(
                f"{place('tune', needing[0])}: it goes by the validation loss, and there are no validation rows: set "
                f"data.validation, or data.validation_share"
            )
        if needing and tune and not tune.validate_every:
            raise RecipeError(
                f"{place('tune', needing[0])}: it compares validations while the run goes on: set tune.validate_every"
            )
        if data.decontaminate and not recipe.evaluate:
            raise RecipeError(
                f"{place('data', 'decontaminate')}: it compares data.train with the items of the recipe's evaluations, "
                f"and there is no `evaluate`"
            )


@functools.cache
def _warn_of(path: Path, kind: str, name: str) -> None:
    """Say once that what a run's recipe names is of no plugin that is loaded now."""
    print(f"warning: {path}: no plugin brings its {kind} {name!r} now; the run is used without", file=sys.stderr)


def _rename_values(document: Document) -> None:
    """Replace values that versions up to 0.1 wrote by their present names."""
    data = document.tree.get("data")
    if isinstance(data, CommentedMap) and data.get("train_on") == "none-but-marked":
        data["train_on"] = "marked"


def _nest_flat_options(document: Document, plugins: Plugins) -> None:
    """Move options that stand beside `objective` and `method`, as in recipes of version 0.1, into sections of these."""
    tune = document.tree.get("tune")
    if not isinstance(tune, CommentedMap):
        return
    for part, registry in (("objective", plugins.objectives), ("method", plugins.methods)):
        name = tune.get(part)
        if isinstance(name, str) and name in registry:
            keys = [key for key in registry[name].options.model_fields if key in tune]
            tune[part] = CommentedMap(name=name, **{key: tune.pop(key) for key in keys})
