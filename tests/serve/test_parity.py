"""The ids that vLLM receives are those of training, for every family, and a person sees where they are not."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness import HarnessError
from harness.checks.parity import Case, as_request, difference, prompts, received_ids, require_parity
from harness.contract import Endpoint
from harness.nouns import Message
from harness.plugins import Plugins
from harness.template import BoundTemplate, aligned, bind
from harness.variants import Variant, resolve_variants

TEMPLATES = Plugins().templates


class Served(NamedTuple):
    """An engine that serves one plain model."""

    endpoint: Endpoint
    variants: tuple[Variant, ...]


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    """The tiny model's tokenizer with the control tokens of every family, and a bos token."""
    from harness.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokens = {
        token
        for template in TEMPLATES.values()
        for token in (*template.control_tokens, *template.stop_tokens(tokenizer))
    }
    tokens |= {"<|begin_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "</s>"}
    tokenizer.add_tokens(sorted(tokens - tokenizer.get_vocab().keys()), special_tokens=True)
    tokenizer.bos_token = "<|begin_of_text|>"
    return tokenizer


def _bind(name: str, tokenizer: Any) -> BoundTemplate:
    return bind(TEMPLATES[name], copy.deepcopy(tokenizer))


@pytest.fixture(scope="session")
def llama(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of no size whose vocabulary has the control tokens of every family."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _save_model(tmp_path_factory.mktemp("llama"), tokenizer, LlamaConfig, LlamaForCausalLM)


@pytest.fixture(scope="session")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral of no size with the SentencePiece vocabulary of version 3, which mistral_common brings."""
    common = pytest.importorskip("mistral_common.tokens.tokenizers.mistral")
    from transformers import LlamaTokenizerFast, MistralConfig, MistralForCausalLM

    vocabulary = tmp_path_factory.mktemp("vocabulary")
    data = common.MistralTokenizer._data_path()
    shutil.copy(data / "mistral_instruct_tokenizer_240323.model.v3", vocabulary / "tokenizer.model")
    tokenizer = LlamaTokenizerFast.from_pretrained(vocabulary)
    return _save_model(tmp_path_factory.mktemp("mistral"), tokenizer, MistralConfig, MistralForCausalLM)


def _save_model(folder: Path, tokenizer: Any, config_class: Any, model_class: Any) -> Path:
    import torch

    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="bfloat16",
    )
    model_class(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engines(  # type: ignore[no-untyped-def]
    llama: Path, mistral: Path, free_port, tmp_path_factory
) -> Iterator[dict[str, Served]]:
    """Two engines, side by side: one for llama3.1, which takes other families' templates too, one for mistral-v3."""
    from harness_serve.engine import VllmOptions, start

    from harness.model.templates import with_chat_folders

    def serve(name: str, model: Path, *extra: str) -> Served:
        plugins = Plugins()
        variants = resolve_variants((str(model),), model, plugins, name)
        variants = with_chat_folders(variants, plugins, tmp_path_factory.mktemp(name) / "chat")
        options = VllmOptions(port=free_port(), kv_cache_gib=0.25, max_model_len=4096, extra_args=extra)
        return Served(stack.enter_context(start(variants, options)), variants)

    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        asked = (("llama3.1", llama, "--trust-request-chat-template"), ("mistral-v3", mistral))
        yield dict(zip([name for name, *_ in asked], pool.map(lambda each: serve(*each), asked), strict=True))


@pytest.mark.vllm
@pytest.mark.parametrize("name", ["llama3.1", "mistral-v3"])
def test_a_plain_model_is_asked_through_the_template_that_was_named(engines: dict[str, Served], name: str) -> None:
    parity = require_parity(*engines[name])
    assert {"plain", "system", "multi-turn", "unicode", "tools", "hostile", "hostile tools"} <= set(parity.compared)
    assert parity.left_out.keys() <= {"two calls"}


@pytest.mark.vllm
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_every_family_is_rendered_by_vllm_as_in_training(engines: dict[str, Served], tokenizer: Any, name: str) -> None:
    endpoint = engines["llama3.1"].endpoint
    template = _bind(name, tokenizer)
    cases, _ = prompts(template, 4096)
    names = {case.name.rstrip("0123456789 ") for case in cases}
    assert {"plain", "unicode", "hostile"} <= names and ("hostile tools" in names) == template.takes_tools
    source = template.tokenizer.chat_template
    asked = [(endpoint.models[0], case) for case in cases]
    for case, received in zip(cases, received_ids(endpoint, asked, chat_template=source), strict=True):
        assert difference(template, case, received) is None, difference(template, case, received)


@pytest.mark.vllm
def test_runs_are_asked_as_they_were_tuned(endpoint, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    parity = require_parity(endpoint, resolve_variants(("alpha", "beta"), runs_folder, Plugins()))
    assert parity.models == endpoint.models and "8 of the runs" in parity.compared
    assert {"plain", "system", "multi-turn", "unicode", "hostile"} <= set(parity.compared)


def test_what_is_longer_than_the_context_is_left_out_and_named(tokenizer: Any) -> None:
    cases, left_out = prompts(_bind("chatml", tokenizer), 120)
    assert "plain" in {case.name for case in cases} and all(len(case.expected) < 120 for case in cases)
    assert "do not fit into max_model_len, 120" in left_out["tools"]


@pytest.mark.vllm
def test_a_template_that_the_engine_does_not_have_is_refused(  # type: ignore[no-untyped-def]
    endpoint, runs_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs_folder / "alpha", tmp_path / "alpha")
    template = tmp_path / "alpha/chat/chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant\\n", "<|im_start|>assistant:\\n"))
    with pytest.raises(
        HarnessError, match=r"(?s)base: .*in the conversation `plain`, from token \d+.*\n +\^\n  token \d+: in training"
    ):
        require_parity(endpoint, resolve_variants((str(tmp_path / "alpha"),), runs_folder, Plugins()))


@pytest.mark.vllm
def test_a_probe_that_training_saw_otherwise_is_refused_with_both_renderings(  # type: ignore[no-untyped-def]
    endpoint, runs_folder: Path, tmp_path: Path
) -> None:
    """As when a template was changed after tuning: it is served and loaded changed, and only the probes tell."""
    shutil.copytree(runs_folder / "alpha", tmp_path / "alpha")
    path = tmp_path / "alpha/probes.json"
    probes = json.loads(path.read_text())
    template = BoundTemplate.load(tmp_path / "alpha/chat")
    ids = probes["probes"][2]["input_ids"]
    ids.insert(ids.index(template.stop_ids[0]), template.tokenizer.convert_tokens_to_ids("z"))
    path.write_text(json.dumps(probes))
    with pytest.raises(HarnessError) as refused:
        require_parity(endpoint, resolve_variants((str(tmp_path / "alpha"),), runs_folder, Plugins()))
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(
        "alpha: the engine receives other tokens than training saw, in the conversation `probe 3 of alpha`"
    )
    trained, served, caret = lines[1:4]
    at = caret.index("^")
    assert trained[:at].replace("in training", "") == served[:at].replace("served     ", "")
    assert trained[at:].startswith("z«<|im_end|>»") and served[at:].startswith("«<|im_end|>»")
    assert f"{tmp_path / 'alpha/chat'} been changed" in lines[-1]


def test_the_difference_stands_in_the_same_column_whatever_is_written_before_it(tokenizer: Any) -> None:
    from rich.cells import cell_len

    template = _bind("chatml", tokenizer)
    (stop,) = template.stop_ids[:1]
    ids = template.prompt_ids((Message("user", "中文 🐦 \n key"),))
    for at in [at for at, token in enumerate(ids) if token != stop]:
        _, trained, served, caret, told = aligned(template.tokenizer, ids, [*ids[:at], stop]).splitlines()
        same = served.removesuffix("«<|im_end|>»").removeprefix("  served       ")
        assert trained.startswith(f"  in training  {same}")
        assert caret == " " * (15 + cell_len(same)) + "^"
        assert told.startswith(f"  token {at + 1}: in training {ids[at]} `") and told.endswith(
            f"served {stop} `«<|im_end|>»`"
        )


def test_a_prompt_that_ends_early_is_a_difference(tokenizer: Any) -> None:
    template = _bind("chatml", tokenizer)
    case = prompts(template)[0][0]
    assert (told := difference(template, case, case.expected[:-1])) and told.endswith("served nothing")
    assert (told := difference(template, case, [*case.expected, 9])) and "in training nothing, served 9 `" in told
    assert difference(template, case, list(case.expected)) is None


def test_a_request_is_what_an_openai_client_sends(tokenizer: Any) -> None:
    (case,) = [case for case in prompts(_bind("chatml", tokenizer))[0] if case.name == "tools"]
    body = as_request(case, "base")
    assistant, tool = body["messages"][1:]
    (call,) = assistant["tool_calls"]
    assert assistant["content"] is None and call["id"] == tool["tool_call_id"]
    assert json.loads(call["function"]["arguments"])["nobody"] is None
    assert body["tools"][0]["function"]["name"] == call["function"]["name"]


def test_an_engine_that_does_not_tell_its_ids_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.checks.parity.post_all", lambda *_: [{"choices": []}])
    with pytest.raises(HarnessError, match="does not tell which ids it receives"):
        received_ids(Endpoint("http://127.0.0.1:1/v1", ("base",)), [("base", Case("plain", (Message("user", "Hi"),)))])
