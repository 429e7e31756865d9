"""`harness template`: list templates, show a conversation as tokens, and verify that training and serving agree."""

from harness.cli.lazy import LazyGroup, Place

command = LazyGroup(
    "template",
    help="See, compare and check chat templates.",
    places={
        "list": Place("harness_commands.template.listing:list_templates"),
        "show": Place("harness_commands.template.show:show"),
        "verify": Place("harness_commands.template.verify:verify"),
    },
)
