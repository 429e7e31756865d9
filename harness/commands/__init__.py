"""The commands of the core. Those of tuning, evaluation and serving come with their plugins."""

# By module and short help. Each is imported when it is used.
CORE_COMMANDS = {
    "data": ("harness.commands.data", "See, check, count and build data."),
    "demo": ("harness.commands.demo", "Tune the seedling, evaluate, compare and serve it."),
    "doctor": ("harness.commands.doctor", "Say what was found on this machine and what will not work."),
    "models": ("harness.commands.models", "Fetch models, as folders, and list them."),
    "plugins": ("harness.commands.plugins", "List plugins, what they register, and the failed ones."),
    "runs": ("harness.commands.runs", "List, show and remove runs."),
    "template": ("harness.commands.template", "See, compare and check chat templates."),
}
