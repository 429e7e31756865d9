"""Laws of templates: they bind on vocabularies of several families, and encode what they are given."""

from __future__ import annotations

from typing import Any

from harness.contract.kinds import Kind
from harness.errors import HarnessError, listed
from harness.model.tokenizer import add_tokens
from harness.plugins.registry import Entry
from harness.template import bind, missing_tokens
from harness.testing.laws.items import conversations
from harness.testing.laws.law import Kit, NotTried, expecting
from harness.testing.vocabularies import vocabularies


def binds_on_vocabularies(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that binding, with all its trials, passes on each vocabulary; lacking control tokens are added."""
    _bound(kit, kind, entry)


def answers_are_trained_on(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that every answer of an encoded conversation is supervised, its stop token included."""
    for family, template in _bound(kit, kind, entry):
        for conversation in conversations():
            answers = [one.content for one in conversation.messages if one.role == "assistant"]
            if len(answers) > 1 and not template.takes_turns:
                continue
            with expecting(f"on the vocabulary {family}"):
                examples = template.encode_batch([conversation])
            for example in examples:
                ends = zip(example.input_ids, example.loss_mask, strict=True)
                if not any(mask and id in template.stop_ids for id, mask in ends):
                    raise HarnessError(f"on the vocabulary {family}: no stop token is trained on, so no answer ends")
            trained = [id for one in examples for id, mask in zip(one.input_ids, one.loss_mask, strict=True) if mask]
            words = template.decoded(trained)
            if lost := [answer for answer in answers if answer not in words]:
                raise HarnessError(
                    f"on the vocabulary {family}: the answer {listed(map(repr, lost))} is not trained on"
                )


LAWS = {
    "binds on every vocabulary": binds_on_vocabularies,
    "answers and their ends are trained on": answers_are_trained_on,
}


def _bound(kit: Kit, kind: Kind, entry: Entry[Any]) -> list[tuple[str, Any]]:
    template = entry.item
    if template.takes_turns is None:
        raise NotTried("it is whatever a model brings")
    options = kit.options(kind, entry) if template.options else None
    bound = []
    for family, tokenizer in vocabularies().items():
        with expecting(f"on the vocabulary {family}"):
            add_tokens(tokenizer, missing_tokens(template, tokenizer))
            bound.append((family, bind(template, tokenizer, options)))
    return bound
