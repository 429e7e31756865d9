"""The commands of the core. The others come with plugins."""

from harness.cli.lazy import Place

# With the line of each, so that `harness --help` imports none of them.
CORE_COMMANDS = {
    "completion": Place(
        "harness.cli.completion:command", "Print the line that completes commands and names in your shell."
    ),
    "doctor": Place(
        "harness.cli.doctor:command", "Report this machine's packages, devices and plugins, and what will not work."
    ),
    "models": Place("harness.cli.models:command", "Fetch models, as folders, and list them."),
    "plugins": Place("harness.cli.plugins:command", "List plugins, what they register, and the failed ones."),
    "runs": Place("harness.cli.runs:command", "List, show, compare, merge, export and remove runs."),
}
