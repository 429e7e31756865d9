"""Recipes: the YAML that names model, template, data, tuning, evaluations and serving.

Reading one gives frozen, validated data; every error says file, line, key, what was found and the nearest right thing.
What a method, objective or evaluation lets a recipe set is declared by its plugin as `Options`.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from harness.errors import HarnessError, RecipeError, first_line, known_names, nearest
from harness.options import Options

if TYPE_CHECKING:
    from harness.declarations import Dataset, Filter, Template
    from harness.plugins import Plugins

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # of recipes and runs: a folder, and a model name in the served endpoint

T = TypeVar("T", bound=Options)
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


class ModelSpec(Options):
    """A base model: a local folder or a hub id, and how to load it."""

    path: str
    revision: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    trust_remote_code: bool = False

    @property
    def is_local(self) -> bool:
        return os.path.isdir(self.path)  # noqa: PTH112 - Path's raises for a name that is too long

    @property
    def short_name(self) -> str:
        """The last part of the path or hub id, for model names and tables."""
        return Path(self.path.rstrip("/")).name or "model"


class TemplateSpec(Options):
    """How conversations become text: a registered template, by its name alone or with the keys that it adds to these.

    `add_tokens` gives the tokenizer the control tokens that the template needs and it lacks, and trains their embeddings.
    """

    name: str = "chatml"
    add_tokens: bool = False


class DataSource(Options):
    """One source of rows: a registered data set, and where it is read from if it does not bring its own data.

    `path` is a file, folder, glob, URL, or `hub://owner/name?split=train` with its commit as `revision`. The data set adds
    its own keys to these. `columns` renames the columns of a file: `{instruction: question}`.
    `limit` reads only the beginning; `cap`, `weight` and `epochs` say how much of what was read goes into the mixture.
    """

    dataset: str
    path: str | None = None
    revision: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    limit: Positive | None = None
    cap: Positive | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0


def _combined(base: type[T], *added: type[Options] | None) -> type[T]:
    """A section with the keys of `base` and those that plugins add. Raises RecipeError where one adds a key that is there."""
    own = [options for options in added if options is not None and options is not Options]
    for options in own:
        if taken := sorted(set(options.model_fields) & set(base.model_fields)):
            raise RecipeError(
                f"{options.__module__}.{options.__name__} declares {taken[0]!r}, a key that recipes have already"
            )
    return type(base.__name__, (*own, base), {}) if own else base


def source_model(dataset: Dataset) -> type[DataSource]:
    """DataSource with the keys that `dataset` adds to it."""
    return _combined(DataSource, dataset.options)


def read_as(source: DataSource, dataset: Dataset) -> DataSource:
    """The same source, read as `dataset`."""
    return source_model(dataset)(**source.model_dump() | {"dataset": dataset.name})


class CleanStep(Options):
    """One step of cleaning. The filter adds its own keys to this."""

    filter: str


class DecontaminateSpec(Options):
    """What is done about rows that share `ngram` words in a row with an item of the recipe's evaluations.

    An item with fewer words counts whole, down to `min_words`. Words that more than `shared_by` items share are the
    phrasing of a task, and are not compared.
    """

    ngram: Annotated[int, Field(ge=3)] = 13
    min_words: Annotated[int, Field(ge=3)] = 5
    shared_by: Positive = 10
    action: Literal["warn", "drop", "error"] = "warn"


class DataSpec(Options):
    """What is trained on and what is validated on, and what is done with it first."""

    train: tuple[pydantic.SerializeAsAny[DataSource], ...] = Field(min_length=1)
    validation: tuple[pydantic.SerializeAsAny[DataSource], ...] = ()
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    clean: tuple[pydantic.SerializeAsAny[CleanStep], ...] = ()
    decontaminate: DecontaminateSpec | None = None
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    seed: int = 0
    train_on: Literal["all", "last", "none-but-marked"] = "all"
    max_tokens: Positive = 2048
    on_overlong: Literal["error", "drop", "truncate"] = "error"
    processes: Annotated[int, Field(ge=0)] | None = None  # that encode; decides nothing but the time it takes


class TuneSpec(Options):
    """How to tune. The chosen objective and method add their own keys to these."""

    objective: str = "sft"
    method: str = "lora"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    steps: Positive | None = None
    batch_tokens: Positive = 4096
    accumulate: Positive = 1
    warmup_ratio: Share = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    min_learning_rate_ratio: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    gradient_checkpointing: bool = False
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] = 0  # what torch takes
    checkpoint_every: Positive | None = None
    validate_every: Positive | None = None


class EvaluateSpec(Options):
    """One evaluation to run. The evaluation adds its own keys to this."""

    evaluation: str


class TrackSpec(Options):
    """One tracker to switch on. The tracker adds its own keys to this."""

    tracker: str


class ServeSpec(Options):
    """How to serve. The engine adds its own keys to this."""

    engine: str = "vllm"


class Recipe(Options):
    """A whole recipe, with every path absolute and every default filled in."""

    name: Annotated[str, Field(pattern=f"^{NAME}$")]
    model: ModelSpec
    template: pydantic.SerializeAsAny[TemplateSpec] = TemplateSpec()
    data: DataSpec
    tune: pydantic.SerializeAsAny[TuneSpec]
    evaluate: tuple[pydantic.SerializeAsAny[EvaluateSpec], ...] = ()
    track: tuple[pydantic.SerializeAsAny[TrackSpec], ...] = ()
    serve: pydantic.SerializeAsAny[ServeSpec] | None = None

    def as_yaml(self) -> str:
        """The resolved recipe as YAML, in the order in which a person reads it."""
        out = io.StringIO()
        yaml = YAML()
        yaml.default_flow_style = False
        yaml.width = 120
        yaml.dump(self.model_dump(mode="json"), out)
        return out.getvalue()

    @property
    def sha256(self) -> str:
        """Hash of the resolved recipe: equal for equal settings, however they were written."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load_recipe(path: Path, plugins: Plugins, sets: Sequence[str] = (), *, to_tune: bool = True) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: the YAML file; relative paths in it are relative to its folder.
        plugins: where the names in it are looked up.
        sets: overrides of the form `tune.rank=8` or `data.train.0.limit=100`, with a YAML value.
        to_tune: whether data sets, template and files must be there; what a run was tuned with may be gone since,
            and is not needed to use the run.

    Raises:
        RecipeError: naming file, line and key.
    """
    yaml = YAML()
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise RecipeError(f"{path}: no such recipe file{_recipes_near(path)}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text: {error}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise RecipeError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, CommentedMap):
        found = "nothing" if tree is None else f"{_plain(tree)!r}"[:60]
        raise RecipeError(f"{path}: a recipe is a mapping with model, data and tune; found {found}")
    overridden = {}
    for override in sets:
        overridden[_apply_override(tree, override)] = override
    return _validate(_Written(path, tree, overridden), plugins, to_tune)


@dataclass(frozen=True)
class _Written:
    """A recipe as it was written: the tree of its file with every `--set` in it, and which places those overrode."""

    path: Path
    tree: CommentedMap
    overridden: Mapping[tuple[str, ...], str]

    def place(self, *location: str | int) -> str:
        """Where `location` was written: `--set KEY=VALUE`, or `file, line N` of the innermost part that the file has."""
        keys = tuple(map(str, location))
        for length in range(len(keys), 0, -1):
            if (override := self.overridden.get(keys[:length])) is not None:
                return f"--set {override}"
        node: Any = self.tree
        line = None
        for part in location:
            try:
                position = node.lc.key(part) if isinstance(node, CommentedMap) else node.lc.item(part)
                line = position[0] + 1
                node = node[part]
            except (KeyError, AttributeError, TypeError, IndexError):
                break
        return f"{self.path}, line {line}" if line is not None else str(self.path)


def _validate(written: _Written, plugins: Plugins, to_tune: bool) -> Recipe:
    """Validate section by section, so that each plugin's options are checked under its own keys."""
    sections: dict[str, Any] = {key: _plain(value) for key, value in written.tree.items() if value is not None}

    def section(where: tuple[Any, ...], value: Any, model: type[Options]) -> Any:
        try:
            return model.model_validate(value, context={"folder": written.path.resolve().parent})
        except pydantic.ValidationError as error:
            raise RecipeError(_explain(error, written, where, model)) from None

    def named(
        where: tuple[Any, ...], spec: Mapping[str, Any], key: str, registry: Mapping[str, Any], default: str = ""
    ) -> Any:
        name = spec.get(key, default)
        if not isinstance(name, str):
            raise RecipeError(
                f"{written.place(*where, key)}: {key!r} is {name!r}: expected a name, one of {known_names(registry)}"
            )
        try:
            return registry[name]
        except HarnessError as error:
            raise RecipeError(f"{written.place(*where, key)}: {error}") from None

    unknown = [key for key in sections if key not in Recipe.model_fields]
    if unknown:
        raise RecipeError(
            f"{written.place(unknown[0])}: unknown key {unknown[0]!r}.{nearest(str(unknown[0]), Recipe.model_fields)} "
            f"A recipe has: {', '.join(Recipe.model_fields)}"
        )
    for key in ("model", "data", "tune", "serve"):
        if key in sections and not isinstance(sections[key], dict):
            raise RecipeError(
                f"{written.place(key)}: `{key}` is a section with keys of its own, found {sections[key]!r}"
            )
    if "template" in sections and not isinstance(sections["template"], str | dict):
        raise RecipeError(
            f"{written.place('template')}: 'template' is {sections['template']!r}: expected a name, or a section with a `name`"
        )
    for key, field in (("evaluate", "evaluation"), ("track", "tracker")):
        found = sections.get(key)
        if key in sections and not (isinstance(found, list) and all(isinstance(item, dict) for item in found)):
            raise RecipeError(
                f"{written.place(key)}: `{key}` is a list of sections (`- {field}: NAME`), found {found!r}"
            )

    sections.setdefault("name", written.path.stem)
    if isinstance(tune := sections.get("tune"), dict):
        objective = named(("tune",), tune, "objective", plugins.objectives, "sft")
        method = named(("tune",), tune, "method", plugins.methods, "lora")
        combined = _combined(TuneSpec, objective.options, method.options)
        sections["tune"] = section(("tune",), tune, combined)
    if isinstance(serve := sections.get("serve"), dict):
        engine = named(("serve",), serve, "engine", plugins.engines, "vllm")
        sections["serve"] = section(("serve",), serve, _combined(ServeSpec, engine.options))
    for key, field, registry, base in (
        ("evaluate", "evaluation", plugins.evaluations, EvaluateSpec),
        ("track", "tracker", plugins.trackers, TrackSpec),
    ):
        specs = []
        for index, spec in enumerate(sections.get(key, ())):
            declared: Any = named((key, index), spec, field, registry)
            specs.append(section((key, index), spec, _combined(base, declared.options)))
        sections[key] = tuple(specs)
    if isinstance(data := sections.get("data"), dict):
        sections["data"] = data | {
            part: [
                section(
                    ("data", part, index), source, _model_of(DataSource, source, "dataset", plugins.datasets, to_tune)
                )
                if isinstance(source, dict)
                else source
                for index, source in enumerate(data[part])
            ]
            for part in ("train", "validation")
            if isinstance(data.get(part), list)
        }
        if isinstance(clean := data.get("clean"), list):
            sections["data"]["clean"] = steps = []
            for index, step in enumerate(clean):
                where = ("data", "clean", index)
                if to_tune and isinstance(step, dict) and "filter" in step:
                    named(where, step, "filter", plugins.filters)
                steps.append(
                    section(where, step, _model_of(CleanStep, step, "filter", plugins.filters, to_tune))
                    if isinstance(step, dict)
                    else step
                )
    if isinstance(template := sections.get("template", {}), str):
        template = {"name": template}
    if isinstance(template, dict):
        if to_tune:
            named(("template",), template, "name", plugins.templates, TemplateSpec().name)
        spec = {"name": TemplateSpec().name} | template
        model = _model_of(TemplateSpec, spec, "name", plugins.templates, to_tune)
        sections["template"] = section(("template",), spec, model)
    recipe: Recipe = section((), sections, Recipe)
    if to_tune:
        _check_data(recipe, written)
    for part in ("train", "validation") if to_tune else ():
        for index, source in enumerate(getattr(recipe.data, part)):
            named(("data", part, index), {"dataset": source.dataset}, "dataset", plugins.datasets)
    return _resolve_paths(recipe, written, to_tune)


def _model_of(
    base: type[T], spec: Mapping[str, Any], key: str, registry: Mapping[str, Dataset | Filter | Template], to_tune: bool
) -> type[T]:
    """`base` with the keys of what `spec` names under `key`; with any keys where that is gone and not needed."""
    name = spec.get(key)
    if isinstance(name, str) and name in registry:
        return _combined(base, registry[name].options)
    extra: Any = "forbid" if to_tune else "ignore"
    return type(base.__name__, (base,), {"model_config": {"extra": extra}})


def _check_data(recipe: Recipe, written: _Written) -> None:
    """Refuse keys of `data` that contradict each other, before anything is read."""
    data = recipe.data
    unweighted = [index for index, source in enumerate(data.train) if source.weight is None]
    if unweighted and len(unweighted) < len(data.train):
        raise RecipeError(
            f"{written.place('data', 'train', unweighted[0])}: this source has no `weight` and another has one: give every "
            f"source of data.train a weight, or none"
        )
    if data.validation_share and data.validation:
        raise RecipeError(
            f"{written.place('data', 'validation_share')}: validation rows come from `data.validation` or are a share of "
            f"data.train; take one of the two out"
        )
    if data.decontaminate and not recipe.evaluate:
        raise RecipeError(
            f"{written.place('data', 'decontaminate')}: it compares data.train with the items of the recipe's evaluations, "
            f"and there is no `evaluate`"
        )


def _resolve_paths(recipe: Recipe, written: _Written, must_exist: bool) -> Recipe:
    """Make relative paths absolute, and refuse a missing file now instead of after the model was loaded."""
    folder = written.path.resolve().parent

    def absolute(value: str) -> str:
        return os.path.normpath(folder / os.path.expanduser(value))  # noqa: PTH111 - Path's raises for an unknown user

    model = recipe.model
    if not _may_be_hub_id(model.path, folder):
        model = model.model_copy(update={"path": absolute(model.path)})
        if must_exist and not model.is_local:
            near = _file_near(Path(model.path))
            raise RecipeError(f"{written.place('model', 'path')}: no such folder: {model.path}.{near}")

    def resolved(where: tuple[Any, ...], source: DataSource) -> DataSource:
        if source.path is None:
            return source
        if "://" in source.path:
            return source
        source = source.model_copy(update={"path": absolute(source.path)})
        if must_exist and not glob.has_magic(str(source.path)) and not _exists(str(source.path)):
            place = written.place(*where, "path")
            raise RecipeError(f"{place}: no such file: {source.path}.{_file_near(Path(str(source.path)))}")
        return source

    sources = {
        part: tuple(resolved(("data", part, index), source) for index, source in enumerate(getattr(recipe.data, part)))
        for part in ("train", "validation")
    }
    evaluate = []
    for index, spec in enumerate(recipe.evaluate):
        changes: dict[str, Any] = {
            key: absolute(getattr(spec, key)) for key in _path_fields(spec) if getattr(spec, key)
        }
        for key, value in changes.items():
            if must_exist and not _exists(value):
                near = _file_near(Path(value))
                raise RecipeError(f"{written.place('evaluate', index, key)}: no such file or folder: {value}.{near}")
        for key in type(spec).model_fields:  # an evaluation's own data, read as the recipe's data are
            found = getattr(spec, key)
            if isinstance(found, tuple) and found and all(isinstance(item, DataSource) for item in found):
                changes[key] = tuple(resolved(("evaluate", index, key, at), item) for at, item in enumerate(found))
        evaluate.append(spec.model_copy(update=changes))
    return recipe.model_copy(
        update={"model": model, "data": recipe.data.model_copy(update=sources), "evaluate": tuple(evaluate)}
    )


def _may_be_hub_id(path: str, folder: Path) -> bool:
    """Whether a model's path is to be looked up on the hub: `name` or `owner/name`, and no such folder in `folder`."""
    return HUB_ID.fullmatch(path) is not None and not os.path.isdir(folder / path)  # noqa: PTH112 - as above


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path's raises for a name that is too long, or a folder one may not read


def _path_fields(spec: Options) -> list[str]:
    """Option fields that hold a path: by the field's own name, `path` or `..._path`."""
    return [key for key in type(spec).model_fields if key == "path" or key.endswith("_path")]


def _explain(error: pydantic.ValidationError, written: _Written, where: tuple[Any, ...], model: type[Options]) -> str:
    """Every problem of a section, each with file, line, key, what was found and what was expected."""
    lines: dict[str, str] = {}
    problems = error.errors()
    parents = {problem["loc"][:end] for problem in problems for end in range(len(problem["loc"]))}
    for problem in problems:
        if problem["type"] == "too_short" and problem["loc"] in parents:
            continue  # its items are wrong, not too few
        # Of a choice between types pydantic names the type as if it were a key: `target_modules.tuple[str, ...]`.
        location = (
            *where,
            *(part for part in problem["loc"] if part not in ("str", "constrained-int") and "[" not in str(part)),
        )
        key = ".".join(str(part) for part in location)
        about = f"{written.place(*location)}: "
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
            lines[key] = f"{lines[key]}, or {expected}" if key in lines else (
                f"{about}{key!r} is {problem['input']!r}: {expected}"
            )  # fmt: skip
    return "\n".join(lines.values())


def _fields_at(model: type[Options], location: tuple[Any, ...]) -> list[str]:
    """The field names of the (nested) section at `location`."""
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


def template_spec(written: str, plugins: Plugins, sets: Sequence[str] = ()) -> TemplateSpec:
    """The section `template` of a recipe, as a command line has it: a name, or `{name: model, variables: {think: false}}`.

    `sets` are KEY=VALUE of it. Raises RecipeError, as a recipe would, and UnknownNameError.
    """
    where = Path(f"--template {written}")
    try:
        tree = YAML().load(written)
    except (YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or first_line(error)}") from None
    if not isinstance(tree, CommentedMap):
        tree = CommentedMap(name=written)
    overridden = {_apply_override(tree, override): override for override in sets}
    name = tree.get("name", TemplateSpec().name)
    model = _combined(TemplateSpec, plugins.templates[name].options if isinstance(name, str) else None)
    try:
        return model.model_validate(_plain(tree))
    except pydantic.ValidationError as error:
        raise RecipeError(_explain(error, _Written(where, tree, overridden), (), model)) from None


def with_sets(spec: T, sets: Sequence[str]) -> T:
    """A section with `sets` (KEY=VALUE) in it, validated; relative paths are relative to the working directory.

    Raises RecipeError, as a recipe would.
    """
    if not sets:
        return spec
    tree = YAML().load(json.dumps(spec.model_dump(mode="json")))
    overridden = {_apply_override(tree, override): override for override in sets}
    try:
        changed = type(spec).model_validate(_plain(tree))
    except pydantic.ValidationError as error:
        raise RecipeError(_explain(error, _Written(Path("--set"), tree, overridden), (), type(spec))) from None
    named = [key for key in _path_fields(changed) if getattr(changed, key)]
    return changed.model_copy(update={key: os.path.normpath(Path.cwd() / getattr(changed, key)) for key in named})


def _apply_override(tree: CommentedMap, override: str) -> tuple[str, ...]:
    """Put the value of `KEY=VALUE` into the tree. Returns where it went."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise RecipeError(f"--set {override}: expected KEY=VALUE, as in --set tune.rank=8")
    try:
        value = YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or first_line(error)
        raise RecipeError(
            f"--set {override}: the value is not valid YAML: {problem}. Text that YAML reads otherwise goes in quotes: {key}='\"…\"'"
        ) from None
    *parents, last = key.split(".")
    if parents[:1] == ["template"] and isinstance(name := tree.get("template"), str):
        tree["template"] = CommentedMap(name=name)  # which is what a name alone stands for
    node: Any = tree
    for part in parents:
        if isinstance(node, CommentedMap):
            node = node.setdefault(part, CommentedMap())
        elif isinstance(node, CommentedSeq) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            raise RecipeError(f"--set {override}: there is no {part!r} to go into")
    if isinstance(node, CommentedMap):
        node[last] = value
    elif isinstance(node, CommentedSeq) and last.isdecimal() and int(last) < len(node):
        node[int(last)] = value
    else:
        raise RecipeError(f"--set {override}: {'.'.join(parents)!r} is {node!r} and has no {last!r}")
    return (*parents, last)


def _plain(value: Any) -> Any:
    """Plain Python data out of what ruamel read (its scalars remember how they were written)."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _file_near(path: Path) -> str:
    names = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    return nearest(path.name, names)


def _recipes_near(path: Path) -> str:
    return f".{_file_near(path)}" if path.parent.is_dir() else ""
