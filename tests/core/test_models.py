"""`harness models`: a GGUF file or a hub's model becomes an ordinary folder, whole or not at all, with its origin."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

gguf = pytest.importorskip("gguf")
np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM  # noqa: E402

from harness.errors import ModelError  # noqa: E402
from harness.model.configs import load_config  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.tokenizer import load_tokenizer  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
HIDDEN = 64


@pytest.fixture
def harness(harness_here: Callable[..., Any]) -> Callable[..., Any]:
    """The command in this process: torch is imported once."""
    return harness_here


def write_gguf(
    path: Path, *, pre: str = "smollm", arch: str = "llama", eps: float = 1e-5, drop: str = "", **fields: Any
) -> dict[str, Any]:
    """A Llama of one layer, stored as Q4_1, whose vocabulary has the merges `1 2` and `12 3`; returns its tensors."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*CONTROL, *bytes_to_unicode().values(), "12", "123", "zebra"]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name("Tiny")
    writer.add_context_length(256)
    writer.add_block_count(1)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(HIDDEN)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(CONTROL) + [1] * (len(tokens) - len(CONTROL)))
    writer.add_token_merges(["1 2", "12 3"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for key, value in fields.items():
        kind = gguf.GGUFValueType.BOOL if isinstance(value, bool) else gguf.GGUFValueType.STRING
        writer.add_key_value(key.replace("__", "."), value, kind)
    shapes = {"token_embd": (len(tokens), HIDDEN), "output_norm": (HIDDEN,)} | {
        f"blk.0.{name}": (HIDDEN,) if "norm" in name else (HIDDEN, HIDDEN)
        for name in (
            "attn_norm",
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_norm",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
        )
    }
    random, written = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        if name == drop:
            continue
        values = random.normal(size=shape).astype(np.float32) / 8
        kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q4_1
        stored = values if len(shape) == 1 else gguf.quantize(values, kind)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=kind)
        written[name] = values if len(shape) == 1 else gguf.dequantize(stored, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


# GGUF files


def test_a_gguf_file_becomes_an_ordinary_folder_and_says_that_it_was_quantised(harness, tmp_path) -> None:
    written = write_gguf(tmp_path / "tiny.Q4_1.gguf")
    done = harness("models", "fetch", "tiny.Q4_1.gguf", "--name", "tiny")
    assert done.code == 0 and "dequantised from mostly Q4_1" in done.out and "not the original weights" in done.out
    folder = tmp_path / ".models/tiny"
    model = load_model(ModelSpec(path=str(folder)))
    layer = model.model.layers[0].mlp
    for name, weight in (("token_embd", model.model.embed_tokens), ("blk.0.ffn_up", layer.up_proj)):
        assert torch.equal(weight.weight, torch.from_numpy(written[name].copy()).to(torch.bfloat16)), name
    assert model.config.rms_norm_eps == 1e-5 and model.config.max_position_embeddings == 256
    assert not {"_model_name_or_path", "quantization_config"} & set(json.loads((folder / "config.json").read_text()))
    record = json.loads((folder / "source.json").read_text())
    assert record["sha256"] == {
        "tiny.Q4_1.gguf": hashlib.sha256((tmp_path / "tiny.Q4_1.gguf").read_bytes()).hexdigest()
    }
    assert "Q4_1" in record["done"] and record["versions"]["gguf"]
    assert not list((tmp_path / ".models/.partial").glob("*/*"))


@pytest.mark.parametrize(
    ("pre", "number"), [("smollm", ["1", "2", "3", "4"]), ("gpt-2", ["123", "4"]), ("llama-bpe", ["123", "4"])]
)
def test_digits_are_split_as_the_file_says(harness, tmp_path, pre: str, number: list[str]) -> None:
    write_gguf(tmp_path / "a.gguf", pre=pre)
    assert harness("models", "fetch", "a.gguf").code == 0
    tokenizer = load_tokenizer(str(tmp_path / ".models/a"))
    assert tokenizer.tokenize("1234") == number
    assert (tokenizer.tokenize("zebra") == ["zebra"]) == (pre == "llama-bpe"), "whole words before merges"


def test_the_tokenizer_keeps_control_tokens_and_any_text(harness, tmp_path) -> None:
    write_gguf(tmp_path / "a.gguf", tokenizer__ggml__add_bos_token=True)
    assert harness("models", "fetch", "a.gguf").code == 0
    tokenizer = load_tokenizer(str(tmp_path / ".models/a"))
    assert set(CONTROL) - {"<|endoftext|>"} <= set(tokenizer.all_special_tokens)
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [2]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.encode("1")[0] == 1 and tokenizer.encode("1", add_special_tokens=False)[0] != 1
    assert tokenizer.model_max_length == 256 and tokenizer.chat_template == TEMPLATE
    for text in ("  two  spaces , and a comma", "Fluß là-bas 漢字 👩‍👩‍👧 \x00\u200b", "12\r\n\t34"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"pre": "chameleon"}, "splits text as 'chameleon'"),
        ({"arch": "grok"}, "architecture 'grok', which transformers"),
        ({"llama__rope__scaling__type": "yarn"}, "its positions are scaled (rope scaling 'yarn')"),
        ({"drop": "blk.0.ffn_up"},
         "1 weights of LlamaForCausalLM are not in the file: model.layers.0.mlp.up_proj.weight"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)  # fmt: skip
def test_a_file_that_would_be_read_wrongly_is_refused(harness, tmp_path, changes: dict[str, Any], told: str) -> None:
    write_gguf(tmp_path / "a.gguf", **changes)
    done = harness("models", "fetch", "a.gguf")
    assert done.code == 1 and told in done.err and "Traceback" not in done.err
    assert not (tmp_path / ".models/a").exists()


def test_what_is_no_gguf_file_is_named(harness, tmp_path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "half.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:5000])
    (tmp_path / "text.gguf").write_text("GGUF, no: text")
    for name, told in (("half", "not all of one"), ("text", "not a GGUF file"), ("tyni", "Did you mean 'tiny.gguf'?")):
        done = harness("models", "fetch", f"{name}.gguf")
        assert done.code == 1 and told in done.err and "Traceback" not in done.err


def test_without_the_gguf_package_the_extra_is_named(harness, tmp_path, monkeypatch) -> None:
    write_gguf(tmp_path / "a.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    done = harness("models", "fetch", "a.gguf")
    assert done.code == 1 and "instruct-harness[gguf]" in done.err


def test_a_model_is_replaced_only_when_told_to(harness, tmp_path) -> None:
    write_gguf(tmp_path / "a.gguf", pre="smollm")
    write_gguf(tmp_path / "b.gguf", pre="gpt-2")
    assert harness("models", "fetch", "a.gguf", "--name", "m", "--origin", "a friend").code == 0
    done = harness("models", "fetch", "b.gguf", "--name", "m")
    assert done.code == 1 and "is there already (a friend)" in done.err and "--force" in done.err
    assert harness("models", "fetch", "b.gguf", "--name", "m", "--force").code == 0
    assert load_tokenizer(str(tmp_path / ".models/m")).tokenize("12") == ["12"]
    (only,) = json.loads(harness("models", "list", "--json").out)
    assert only["name"] == "m" and only["source"]["file"] == "b.gguf"


KILLED = """
import os, signal, sys
from harness.model import folders as model_folders
model_folders.move_into_place = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
from harness.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_at_the_last_moment_it_leaves_what_was_there(harness, tmp_path) -> None:
    """Before its first fetch nothing, and then the model that --force was about to replace."""
    write_gguf(tmp_path / "a.gguf", pre="smollm")
    write_gguf(tmp_path / "b.gguf", pre="gpt-2")

    def killed(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, "models", "fetch", *arguments],
            cwd=tmp_path,
            check=False,
            capture_output=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    killed("a.gguf")
    assert "no models" in harness("models", "list").out
    assert harness("models", "fetch", "a.gguf").code == 0
    killed("b.gguf", "--name", "a", "--force")
    assert harness("models", "fetch", "b.gguf", "--name", "a").code == 1, "there is a model still"
    assert load_tokenizer(str(tmp_path / ".models/a")).tokenize("12") == ["1", "2"]
    assert harness("models", "fetch", "b.gguf", "--name", "a", "--force").code == 0
    assert load_tokenizer(str(tmp_path / ".models/a")).tokenize("12") == ["12"]
    assert not list((tmp_path / ".models/.partial").glob("*/*"))


def test_a_disk_without_room_is_told_before_anything_is_written(harness, tmp_path, monkeypatch) -> None:
    write_gguf(tmp_path / "a.gguf")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("harness.model.folders.shutil.disk_usage", lambda path: usage)
    done = harness("models", "fetch", "a.gguf")
    assert done.code == 1 and "0.0 GB are free" in done.err and not (tmp_path / ".models/a").exists()


def test_the_list_tells_what_is_there_and_what_is_broken(harness, tiny_model, tmp_path) -> None:
    shutil.copytree(tiny_model, tmp_path / "models/tiny")
    (tmp_path / "models/torn").mkdir()
    (tmp_path / "models/torn/config.json").write_text("{}")
    (tmp_path / "models/torn/model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{")
    tiny, torn = json.loads(harness("models", "list", "--json", "--models", "models").out)
    model = load_model(ModelSpec(path=str(tiny_model)))
    assert tiny["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert tiny["architecture"] == "Qwen2ForCausalLM" and tiny["dtype"] == "bf16" and tiny["source"] is None
    assert "not a safetensors file, or not all of one" in torn["problem"]
    table = harness("models", "list", "--models", "models").out
    assert "Qwen2ForCausalLM" in table and "unknown" in table and "unreadable" in table


@pytest.mark.parametrize("load", [load_model, load_config, lambda spec: load_tokenizer(spec.path)])
def test_a_folder_that_is_gone_is_not_looked_up_on_the_hub(load, tmp_path):
    with pytest.raises(ModelError, match=r"gone: no such folder$"):
        load(ModelSpec(path=str(tmp_path / "gone"), dtype="float32"))


def test_weights_go_to_an_accelerator_as_they_are_read(tiny_model, monkeypatch):
    """transformers puts each tensor where `device_map` says; on a CPU it keeps those that it has read."""
    plain, asked = AutoModelForCausalLM.from_pretrained, []

    def loading(*args, device_map, **kwargs):
        asked.append(device_map)
        return plain(*args, device_map="cpu" if device_map else None, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", loading)
    spec = ModelSpec(path=str(tiny_model))
    models = [load_model(spec, device=torch.device(name)) for name in ("cpu", "cuda:1")]
    assert asked == [None, torch.device("cuda:1")]
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


# The hub: a server that answers huggingface_hub as the hub does, on the routes that it asks for

COMMIT = "c0ffee" + "0" * 34


class Hub(http.server.ThreadingHTTPServer):
    """`repos` holds the files of each repository; `breaks_after` ends each transfer after so many
    bytes; `sent` are the files that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.breaks_after: int | None = None
        self.sent: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            return self.tell(name, revision)
        repo, _, rest = path.removeprefix("/").partition("/resolve/")
        return self.send(self.server.repos[repo], rest.partition("/")[2])

    def tell(self, name: str, revision: str) -> None:
        if name == "owner/gated":
            return self.refuse(403, "GatedRepo")
        if name not in self.server.repos:
            return self.refuse(404, "RepoNotFound")
        if revision not in {"", "main", COMMIT}:
            return self.refuse(404, "RevisionNotFound")
        files = [
            {"rfilename": file, "size": len(content), "blobId": "b"}
            | (
                {"lfs": {"sha256": self.etag(content), "size": len(content), "pointerSize": 1}}
                if self.large(file)
                else {}
            )
            for file, content in self.server.repos[name].items()
        ]
        body = json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "tags": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def send(self, files: dict[str, bytes], name: str) -> None:
        content, start = files[name], 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self.etag(content)}"')
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "GET":
            self.server.sent.append(name)
            end = len(content) if self.server.breaks_after is None else start + self.server.breaks_after
            self.wfile.write(content[start:end])
            self.close_connection = True

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @staticmethod
    def large(name: str) -> bool:
        return name.endswith((".safetensors", ".gguf", ".bin"))

    @staticmethod
    def etag(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server of our own, taken for the hub by huggingface_hub in this process."""
    from huggingface_hub import constants

    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def published(hub: Hub, tiny_model: Path) -> dict[str, bytes]:
    """The tiny model as `owner/tiny`, with what a fetch leaves out."""
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    files |= {
        "modeling_tiny.py": b"raise SystemExit",
        "pytorch_model.bin": b"pickled",
        "onnx/model.safetensors": b"other",
    }
    hub.repos["owner/tiny"] = files
    return files


def test_a_hub_model_becomes_a_folder_at_its_commit(harness, published, tiny_model, tmp_path) -> None:
    done = harness("models", "fetch", "owner/tiny", "--revision", "main")
    assert done.code == 0, done.err
    folder = tmp_path / ".models/tiny"
    assert {path.name for path in folder.iterdir()} == {path.name for path in tiny_model.iterdir()} | {"source.json"}
    assert (folder / "model.safetensors").read_bytes() == published["model.safetensors"]
    record = json.loads((folder / "source.json").read_text())
    assert (record["source"], record["revision"], record["done"]) == ("owner/tiny", COMMIT, None)
    assert record["sha256"]["config.json"] == hashlib.sha256(published["config.json"]).hexdigest()
    load_model(ModelSpec(path=str(folder)))


def test_a_download_that_broke_off_goes_on_with_the_files_that_are_missing(
    harness, hub, published, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # huggingface_hub's, between its own attempts
    monkeypatch.setattr("logging.raiseExceptions", False)  # its log is an earlier test's standard error
    hub.breaks_after = len(published["model.safetensors"]) // 20
    done = harness("models", "fetch", "owner/tiny")
    assert (
        done.code == 1 and "broke off" in done.err and "came whole is kept" in done.err and "Traceback" not in done.err
    )
    assert not (tmp_path / ".models/tiny").exists()
    hub.breaks_after, hub.sent = None, []
    assert harness("models", "fetch", "owner/tiny").code == 0
    assert hub.sent == ["model.safetensors"]
    assert (tmp_path / ".models/tiny/model.safetensors").read_bytes() == published["model.safetensors"]


def test_what_came_damaged_is_refused(harness, hub, published, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(HubHandler, "tell", _another_sha(HubHandler.tell))
    done = harness("models", "fetch", "owner/tiny")
    assert done.code == 1 and "SHA-256" in done.err and not (tmp_path / ".models/tiny").exists()


def _another_sha(tell: Callable[..., None]) -> Callable[..., None]:
    def lying(handler: HubHandler, name: str, revision: str) -> None:
        handler.etag = lambda content: hashlib.sha256(content + b"!").hexdigest()  # type: ignore[method-assign]
        tell(handler, name, revision)

    return lying


def test_a_gguf_file_of_the_hub_is_converted(harness, hub, tmp_path) -> None:
    write_gguf(tmp_path / "there.gguf")
    hub.repos["owner/quantised"] = {"README.md": b"", "tiny-Q4_1.gguf": (tmp_path / "there.gguf").read_bytes()}
    done = harness("models", "fetch", "owner/quantised")
    assert done.code == 1 and "GGUF files only" in done.err and "--file tiny-Q4_1.gguf" in done.err
    done = harness("models", "fetch", "owner/quantised", "--file", "tiny-q4_1.gguf")
    assert done.code == 1 and "Did you mean 'tiny-Q4_1.gguf'?" in done.err
    done = harness("models", "fetch", "owner/quantised", "--file", "tiny-Q4_1.gguf")
    assert done.code == 0 and f"owner/quantised@{COMMIT[:7]}, tiny-Q4_1.gguf; dequantised" in done.out, done.err
    load_model(ModelSpec(path=str(tmp_path / ".models/quantised")))


def test_what_the_hub_refuses_is_told_with_what_to_do(harness, hub, published) -> None:
    hub.repos["owner/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    for arguments, told in (
        (("owner/gated",), "ask for consent"),
        (("owner/tyni",), "no such model"),
        (("owner/tiny", "--revision", "v9"), "no branch, tag or commit 'v9'"),
        (("owner/pickled",), "no safetensors but pytorch_model.bin"),
        (("owner/tiny", "--file", "model.safetensors"), "only GGUF files"),
        (("tiny",), "neither a hub id"),
        (("owner/tiny", "--name", "../up"), "cannot be a model's name"),
    ):
        done = harness("models", "fetch", *arguments)
        assert done.code == 1 and told in done.err and "Traceback" not in done.err, (arguments, done.err)


def test_without_a_network_it_says_so(harness, hub, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    done = harness("models", "fetch", "owner/tiny")
    assert done.code == 1 and "cannot be reached" in done.err and "harness doctor" in done.err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in harness("models", "fetch", "owner/tiny").err


# What `make real-model` leaves


@pytest.mark.real_model
def test_the_real_model_is_told_as_dequantised_and_tokenizes_as_published(real_model: Path) -> None:
    """The ids are those that llama.cpp and the model's own tokenizer.json give."""
    tokenizer = load_tokenizer(str(real_model))
    assert tokenizer.encode("Hello world! 123") == [19556, 905, 17, 216, 33, 34, 35]
    assert tokenizer.encode("Café déjà vu.") == [51, 1939, 2756, 32564, 90, 16739, 386, 101, 30]
    assert tokenizer.encode("  multiple   spaces") == [216, 2701, 256, 5600]
    assert [tokenizer.convert_tokens_to_ids(token) for token in CONTROL] == [0, 1, 2]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (CONTROL[1], CONTROL[2], CONTROL[2])
