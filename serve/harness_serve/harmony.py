"""gpt-oss rendered by its chat template, as every other model is.

vLLM 0.32 renders the chats of a model of that type with `openai_harmony`, which takes no template: it writes the day of
the request, other words for tools, and fails where somebody says a control token. Here a chat is rendered by the
template that the run saved. Answers are read as vLLM does it, from their ids.

Imported by the server's process before vLLM starts.
"""

from __future__ import annotations

import copy
from typing import Any

from vllm.renderers.online_renderer import OnlineRenderer

render = OnlineRenderer.render_chat


async def render_chat(renderer: Any, request: Any, **named: Any) -> Any:
    """Return the conversation and the engine's inputs of a chat request, as vLLM renders other models' requests."""
    by_template = copy.copy(renderer)
    by_template.use_harmony = False
    return await render(by_template, request, **named)


OnlineRenderer.render_chat = render_chat  # type: ignore[method-assign]
