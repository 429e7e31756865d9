"""Small and real vocabularies that hold the control tokens of every family, and templates bound to them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import harness
from harness.plugins import Plugins
from harness.plugins.registry import Registry
from harness.template import BoundTemplate
from harness.template import bind as bind_to_tokenizer

Bind = Callable[..., BoundTemplate]

SENTENCES = (
    "The heron keeps a silver key under the willow, and the otter keeps a brass bell by the mill.",
    "system user assistant tool model. Who keeps the key? The heron keeps it. Answer in one word, please.",
    'Write JSON: {"name": "look", "arguments": {"at": "key"}, "happy": true}',
    "### Instruction: translate. ### Response: done. USER: hello ASSISTANT: hello",
)
OWN = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level_tokenizer() -> Any:
    """A byte-level BPE of some 500 tokens with `<s>`, `</s>` and its own ChatML template; it adds no `<s>` itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = OWN
    return fast


def real_tokenizer(folder: Any) -> Any:
    """The tokenizer in a folder of the real data; GPT-2's has no settings beside it."""
    from transformers import PreTrainedTokenizerFast

    from harness.model.tokenizer import load_tokenizer

    if (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(str(folder))
    eos = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=eos, eos_token=eos)


def written(template: harness.Template, tokenizer: Any) -> list[str]:
    """The control tokens that a family's template writes; `model` is used with what the vocabulary has."""
    if template.name == "model":
        return []
    return [*template.control_tokens, *template.stop_tokens(tokenizer)]


@pytest.fixture(scope="session")
def templates() -> Registry[harness.Template]:
    return Plugins().templates


@pytest.fixture(scope="session")
def bind(templates: Registry[harness.Template], request: pytest.FixtureRequest) -> Bind:
    """`bind("gemma", "tok-gpt2", **options)`: that template on that vocabulary (default: a small one), once a session.

    A vocabulary is used as it is where it has the template's control tokens, and else with those of all families added.
    """
    vocabularies: dict[tuple[str, bool], Any] = {}
    bound: dict[Any, BoundTemplate] = {}

    def vocabulary(name: str, complete: bool) -> Any:
        if (name, complete) not in vocabularies:
            if complete:
                tokenizer = copy.deepcopy(vocabulary(name, False))
                there = tokenizer.get_vocab()
                tokens = dict.fromkeys(
                    token for template in templates.values() for token in written(template, tokenizer)
                )
                tokenizer.add_tokens([token for token in tokens if token not in there], special_tokens=True)
            elif name == "small":
                tokenizer = byte_level_tokenizer()
            else:
                tokenizer = real_tokenizer(request.getfixturevalue("real_data") / name)
            vocabularies[name, complete] = tokenizer
        return vocabularies[name, complete]

    def bind(name: str, vocabulary_name: str = "small", **options: Any) -> BoundTemplate:
        key = (name, vocabulary_name, repr(sorted(options.items())))
        if key not in bound:
            template = templates[name]
            tokenizer = vocabulary(vocabulary_name, False)
            if not set(written(template, tokenizer)) <= tokenizer.get_vocab().keys():
                tokenizer = vocabulary(vocabulary_name, True)
            given = template.options(**options) if template.options and options else None
            bound[key] = bind_to_tokenizer(template, copy.copy(tokenizer), given)
        return bound[key]

    return bind
