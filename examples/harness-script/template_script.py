"""A template in one file: roles and words as in a play, which needs no token but the tokenizer's own end.

harness --plugin examples/harness-script/template_script.py template show --template script --model FOLDER
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness

SOURCE = """\
{%- for message in messages -%}
{{ message.role }}:
{{ message.content }}{{ eos_token if message.role == 'assistant' }}
{% endfor -%}
{%- if add_generation_prompt -%}
assistant:
{% endif -%}
"""


def jinja(tokenizer: Any, options: Any) -> str:
    """Return the source in the form that transformers and vLLM take."""
    return SOURCE


def stop_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Return the tokens that end an assistant's turn."""
    return (tokenizer.eos_token,)


@harness.hookimpl
def register_templates(register: Callable[[harness.Template], None]) -> None:
    register(harness.Template("script", "roles and words as in a play", jinja, stop_tokens))
