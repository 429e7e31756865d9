"""First-party chat templates, as Jinja source that transformers and vLLM render alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import harness


@harness.hookimpl
def register_templates(register: Callable[[harness.Template], None]) -> None:
    register(
        harness.Template("chatml", "<|im_start|>role … <|im_end|>, as Qwen and many others use it", chatml, _im_end)
    )
    register(
        harness.Template(
            "alpaca", "### Instruction: … ### Response: …, for base models without chat tokens", alpaca, _eos
        )
    )
    register(harness.Template("model", "the template that the model's own folder brings", models_own, models_stops))
    register(harness.Template("plain", "the text as it is, ended by eos: for pretraining, not for chat", plain, _eos))


def chatml(tokenizer: Any) -> str:
    """ChatML without a default system prompt. Control tokens inside a message come out as ordinary text."""
    content = _content(tokenizer)
    return (
        "{%- for message in messages -%}"
        "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
        f"{{{{- {content} -}}}}"
        "{{- '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


def alpaca(tokenizer: Any) -> str:
    """Alpaca's wording (Taori et al. 2023) as ordinary text, so that it fits any base model; eos ends an answer."""
    content = _content(tokenizer)
    default = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    )
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    return (
        f"{{{{- {bos!r} -}}}}"
        f"{{%- if messages[0]['role'] != 'system' -%}}{{{{- {default!r} -}}}}{{%- endif -%}}"
        "{%- for message in messages -%}"
        f"{{%- if message['role'] == 'system' -%}}{{{{- {content} -}}}}"
        f"{{%- elif message['role'] == 'user' -%}}{{{{- '\n\n### Instruction:\n' + ({content}) + '\n\n### Response:\n' -}}}}"
        f"{{%- elif message['role'] == 'assistant' -%}}{{{{- ({content}) + {eos!r} -}}}}"
        "{%- else -%}{{- raise_exception('the alpaca template has no place for a ' + message['role'] + ' message') -}}{%- endif -%}"
        "{%- endfor -%}"
    )


def plain(tokenizer: Any) -> str:
    """The messages one after another; eos after each of the assistant's, nothing after the others."""
    content = _content(tokenizer)
    return (
        "{%- for message in messages -%}"
        f"{{{{- {content} -}}}}"
        f"{{%- if message['role'] == 'assistant' -%}}{{{{- {tokenizer.eos_token!r} -}}}}{{%- endif -%}}"
        "{%- endfor -%}"
    )


def models_own(tokenizer: Any) -> str:
    """The chat template in the model's folder."""
    source = tokenizer.chat_template
    if isinstance(source, dict):  # several named ones: the default is the one that chat without tools uses
        source = source.get("default")
    if not source:
        raise harness.TemplateError(
            "the model brings no chat template of its own (base models often do not); choose one, such as `template: chatml`"
        )
    return str(source)


def models_stops(tokenizer: Any) -> tuple[str, ...]:
    """The tokens a model's own template can end a turn with: its eos, and the end-of-turn tokens the field uses."""
    endings = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
    source = models_own(tokenizer)
    named = tuple(token for token in endings if token in source and token in tokenizer.get_vocab())
    return named + tuple(token for token in _eos(tokenizer) if token not in named)


def _content(tokenizer: Any) -> str:
    """The Jinja expression for a message's words, as text and nothing else."""
    from harness.template import without_control_tokens

    return without_control_tokens("message['content']", tokenizer)


def _im_end(tokenizer: Any) -> tuple[str, ...]:
    return ("<|im_end|>",)


def _eos(tokenizer: Any) -> tuple[str, ...]:
    return (tokenizer.eos_token,) if tokenizer.eos_token else ()
