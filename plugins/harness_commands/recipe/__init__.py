"""`harness recipe`: list and copy the recipes that come along, write one for a file, import another tool's."""

from harness.cli.lazy import LazyGroup, Place

command = LazyGroup(
    "recipe",
    help="List, copy, write and import recipes.",
    places={
        "copy": Place("harness_commands.recipe.listing:copy_recipe"),
        "import": Place("harness_commands.recipe.importing:import_recipe"),
        "list": Place("harness_commands.recipe.listing:list_recipes"),
        "new": Place("harness_commands.recipe.new:new_recipe"),
    },
)
