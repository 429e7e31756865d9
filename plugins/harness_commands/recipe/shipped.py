"""The recipes that come with the package: their names, what each is for, and the files that each needs.

They lie in the folder `recipes`, which is part of this package: a link to the one at the top in a checkout, the files
themselves in a wheel.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness.errors import RecipeError, known_names, nearest
from harness.recipe import HUB_ID

RECIPES = Path(str(files("harness_commands") / "recipes")).resolve()
SENTENCE = re.compile(r"(.+?[.:])(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Shipped:
    """One recipe: its name (`smollm2/json`) and its file."""

    name: str
    path: Path

    @property
    def tree(self) -> dict[str, Any]:
        """The recipe as plain data."""
        tree: dict[str, Any] = YAML(typ="safe").load(self.path)
        return tree

    @property
    def model(self) -> str:
        """The last part of the model's path or hub id; of a model that comes along, with its folder."""
        path = str(self.tree["model"]["path"])
        inside = self.named.get(path)
        return inside.parent.name if inside and RECIPES in inside.parents else Path(path).name

    @property
    def summary(self) -> str:
        """The first sentence of the comment at the recipe's top."""
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# ") or line.startswith("#  "):
                break
            lines.append(line.removeprefix("# "))
        text = " ".join(lines)
        sentence = SENTENCE.match(text)
        return (sentence[1] if sentence else text).rstrip(".:")

    @property
    def named(self) -> dict[str, Path]:
        """Each relative path that the recipe names, with where it leads. A hub id is none."""
        folder = self.path.parent
        return {text: Path(os.path.normpath(folder / text)) for text in _paths(self.tree, folder)}

    @property
    def is_complete(self) -> bool:
        """True if everything is there that the recipe names of the folder of recipes."""
        return all(path.exists() for path in self.named.values() if RECIPES in path.parents)


def shipped_recipes() -> dict[str, Shipped]:
    """Return the recipes by name; one that needs files which are not kept with it is left out."""
    paths = sorted((*RECIPES.glob("*.yaml"), *RECIPES.glob("*/*.yaml")))
    recipes = (Shipped(path.relative_to(RECIPES).with_suffix("").as_posix(), path) for path in paths)
    return {recipe.name: recipe for recipe in recipes if recipe.is_complete}


def find_recipe(name: str) -> Shipped:
    """Return a recipe by its name, or by the last part of it where that is clear. Raises RecipeError."""
    recipes = shipped_recipes()
    name = name.removesuffix(".yaml").removeprefix("recipes/")
    if name in recipes:
        return recipes[name]
    alike = [recipe for recipe in recipes.values() if recipe.path.stem == name]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise RecipeError(f"several recipes are named {name!r}: {known_names(recipe.name for recipe in alike)}")
    lasts = {recipe.path.stem for recipe in recipes.values()}
    near = nearest(name, recipes) or nearest(name, lasts)
    raise RecipeError(f"no recipe is named {name!r}.{near} `harness recipe list` shows them")


def copy(recipe: Shipped, folder: Path) -> Path:
    """Copy a recipe and the folders that it reads to `folder`, and return the path of the copy.

    A path that leads out of the recipes (to a model in `.models/`, a run in `runs/`) leads to the same place in the
    working directory then.

    Raises:
        RecipeError: where a file of the recipe's name is there already, or the folder cannot be written.
    """
    target = folder / recipe.path.name
    if target.exists():
        raise RecipeError(f"{target} is there already: name another folder, as in `harness recipe copy NAME FOLDER`")
    text = recipe.path.read_text(encoding="utf-8").replace(f"recipes/{recipe.name}.yaml", str(target))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for written, path in recipe.named.items():
            inside = RECIPES in path.parents
            here = _beside(written) if inside else os.path.relpath(path.relative_to(RECIPES.parent), folder)
            text = re.sub(rf"(?<=path: ){re.escape(written)}(?=[\s,}}])", here, text)
            if inside:
                source, beside = (path, here) if path.is_dir() else (path.parent, os.path.dirname(here))  # noqa: PTH120
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, folder / beside, dirs_exist_ok=True, ignore=ignored)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return target


def _beside(written: str) -> str:
    """Return a relative path without the way up at its beginning."""
    while written.startswith("../"):
        written = written.removeprefix("../")
    return written


def _paths(tree: Any, folder: Path, section: str = "") -> Iterator[str]:
    """Yield the relative paths in a recipe: texts under `path` and `..._path`, but for a model's hub id."""
    if isinstance(tree, list):
        for item in tree:
            yield from _paths(item, folder, section)
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if isinstance(value, str) and (key == "path" or key.endswith("_path")) and "://" not in value:
            is_hub_id = section == "model" and HUB_ID.fullmatch(value) and not (folder / value).exists()
            if not is_hub_id and not Path(value).is_absolute():
                yield value
        else:
            yield from _paths(value, folder, key)
