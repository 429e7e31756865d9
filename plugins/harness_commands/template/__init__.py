"""`harness template`: list templates, show a conversation as tokens, and verify that training and serving agree."""

from __future__ import annotations

import click

from harness_commands.template.listing import list_templates
from harness_commands.template.show import show
from harness_commands.template.verify import verify


@click.group(name="template", help="See, compare and check chat templates.")
def command() -> None:
    pass


for part in (list_templates, show, verify):
    command.add_command(part)
