"""Model folders like real ones, in small: built in a moment, loaded by transformers and served by vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

SENTENCES = (
    "The heron keeps a silver key under the willow, and the otter keeps a brass bell by the mill.",
    "system user assistant tool. Who keeps the key? The heron keeps it. Answer in one word, please.",
    'Write JSON: {"name": "heron", "age": 7, "friends": ["otter", "wren"], "happy": true}',
    "Was macht der Reiher am Fluß? Er hütet den Schlüssel. Où est la clé? Sous le saule, là-bas.",
    "def answer(question: str) -> str:\n    return question.strip().lower()  # 1234567890",
    "Every morning the kingfisher carries three small stones along the stream; nobody knows exactly why she bothers.",
    "Translate the following sentence, summarise this paragraph, list four villages, explain how rainbows appear.",
)
END, TURN = "<|endoftext|>", ("<|im_start|>", "<|im_end|>")


def tiny_tokenizer() -> Any:
    """Return a fast tokenizer: a byte-level BPE of some 600 tokens with Qwen's control tokens and no chat template."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END, *TURN],
    )
    bpe.train_from_iterator(SENTENCES, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=END, additional_special_tokens=list(TURN)
    )


def tiny_model(
    folder: Path,
    architecture: str = "Qwen2",
    *,
    tied: bool = True,
    spread: float = 0.02,
    tokenizer: Any = None,
    **config: Any,
) -> Path:
    """Save a model with random bf16 weights, the same at each call, and its tokenizer; return the folder.

    It has 2 layers, hidden size 128 and heads of 64, for which vLLM's attention kernels are built.

    Args:
        architecture: `Llama`, `Qwen2`, `Qwen3`, `Mistral`, or another whose classes transformers names that way.
        tied: whether the output head is the input embeddings.
        spread: the standard deviation of the weights; from 0.1 on, the likeliest token stands out, as after training.
        tokenizer: another than `tiny_tokenizer()`.
        config: more for the model's configuration, in place of what is set here.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": spread,
        "tie_word_embeddings": tied,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "dtype": "bfloat16",
    }
    if architecture == "Qwen3":
        settings["head_dim"] = 64
    configuration = getattr(transformers, f"{architecture}Config")(**settings | config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{architecture}ForCausalLM")(configuration)
    _save(model.to(torch.bfloat16), folder)
    return folder


def chain_model(folder: Path, chain: Mapping[str, str]) -> Path:
    """Save a Qwen2 whose answers are known in advance: after the token X always comes `chain[X]`; return the folder.

    Embeddings are one-hot, the single layer adds nothing, and the head's row for a token is its predecessor.

    Raises:
        ValueError: for a text in `chain` that is not one token of `tiny_tokenizer()`.
    """
    tokenizer = tiny_tokenizer()
    size = len(tokenizer)
    config = transformers.Qwen2Config(
        vocab_size=size, hidden_size=size + size % 2, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight[:, :size] = torch.eye(size)
        for before, after in chain.items():
            model.lm_head.weight[_id(tokenizer, after), _id(tokenizer, before)] = 1.0
    _save(model, folder)
    tokenizer.save_pretrained(folder)
    return folder


def _save(model: Any, folder: Path) -> None:
    """Save a model without a progress bar, which `harness plugins check` would show."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)


def _id(tokenizer: Any, text: str) -> int:
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens of the tiny tokenizer, expected one")
    return int(ids[0])
