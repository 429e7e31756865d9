"""Tokenizers of the families that chat templates meet, in small."""

from __future__ import annotations

import json
from typing import Any

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from harness.testing.models import SENTENCES, tiny_tokenizer

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
SPACE = "▁"


def vocabularies() -> dict[str, Any]:
    """Return three new tokenizers by their family: byte-level with and without a BOS token, and SentencePiece-like."""
    return {
        "byte-level, as Qwen's": tiny_tokenizer(),
        "byte-level with a BOS token, as Llama 3's": _with_begin(tiny_tokenizer()),
        "SentencePiece-like with bytes, as Llama 2's": _sentencepiece(),
    }


def _with_begin(tokenizer: Any) -> Any:
    """Return the tokenizer with a token that begins every text."""
    tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    begin = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin[0]} $A", pair=f"{begin[0]} $A $B", special_tokens=[begin]
    )
    return tokenizer


def _sentencepiece() -> Any:
    """Return a BPE over words with a space's mark, and a token for each byte that no word has."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, min_frequency=1, show_progress=False))
    whole = json.loads(trained.to_str())["model"]
    names = [UNKNOWN, BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {name: id for id, name in enumerate([*names, *sorted(set(whole["vocab"]) - set(names))])}
    bpe = models.BPE(vocabulary, [tuple(pair) for pair in whole["merges"]], unk_token=UNKNOWN, byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, unk_token=UNKNOWN, pad_token=END
    )
