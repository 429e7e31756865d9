"""A plugin of every kind as it was written against the plugin API 1.0. It is not changed: later harnesses load it."""

import contextlib
from pathlib import Path

import click
import pydantic

import harness
from harness.contract import Endpoint
from harness.contract.events import Event, Step
from harness.data import messages_of, take

harness_api = "1.0"


class OldOptions(harness.Options):
    count: int = 3


def convert(row, options):
    return harness.Conversation.of(("user", take(row, "q", str)), ("assistant", take(row, "a", str)))


@harness.hookimpl
def register_datasets(register):
    fields = (("q", "a"),)
    register(harness.Dataset("old_rows", "rows", convert, licence="CC0-1.0", fields=fields, yields="conversations"))


@harness.hookimpl
def register_shapes(register):
    register(harness.Shape("old_shape", "titles", "prompt_completion", (("prompt=old_title", "completion=old_body"),)))


@harness.hookimpl
def register_filters(register):
    def create(options):
        return lambda item: "long" if sum(len(one.content) for one in messages_of(item)) > 99 * options.count else None

    register(harness.Filter("old_filter", "leaves out", OldOptions, create))


@harness.hookimpl
def register_templates(register):
    source = (
        "{%- for message in messages -%}{{ message.role }}: {{ message.content }}"
        "{{ eos_token if message.role == 'assistant' }}\n{% endfor -%}"
        "{%- if add_generation_prompt -%}assistant: {% endif -%}"
    )
    register(
        harness.Template(
            "old_template", "a play", lambda tokenizer, options: source, lambda tokenizer: (tokenizer.eos_token,),
            tool_parser=lambda source: "hermes" if "{" in source else None,
        )
    )  # fmt: skip


@harness.hookimpl
def register_objectives(register):
    def loss(policy, batch, options):
        return harness.Loss({"tokens": harness.Term(-policy.logprobs(batch).sum())})

    register(harness.Objective("old_loss", "a loss", OldOptions, loss, lambda batch: {"tokens": batch.supervised}))


@harness.hookimpl
def register_methods(register):
    def apply(model, options):
        return model

    def save(model, folder):
        model.save_pretrained(str(folder), safe_serialization=True)

    register(harness.Method("old_method", "all weights", OldOptions, apply, save, "model"))


def items(options, context):
    for number in range(options.count):
        question = harness.Message("user", f"What is {number}?")
        asked = harness.Request((question,), sampling=harness.Sampling(max_tokens=8))
        yield harness.EvaluationItem(str(number), (asked,), target=str(number))


def score(item, answers):
    return {"exact": float(answers[0].text.strip() == item.target)}


@harness.hookimpl
def register_evaluations(register):
    register(harness.Evaluation("old_sums", "sums", OldOptions, items=items, score=score))


class OldServer(harness.Options):
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: pydantic.SecretStr | None = None
    allow_hosts: tuple[str, ...] = ()


@contextlib.contextmanager
def start(variants, options, report):
    yield Endpoint(f"http://{options.host}:{options.port}/v1", tuple(variant.name for variant in variants))


@harness.hookimpl
def register_engines(register):
    def unable(variants, options):
        return "no server runs"

    register(harness.Engine("old_engine", "runs elsewhere", OldServer, start, unable=unable))


class OldDiary(harness.Options):
    file: Path = Path("diary.txt")


@harness.hookimpl
def register_trackers(register):
    def create(options):
        def receive(event: Event):
            if isinstance(event, Step):
                options.file.write_text(f"{event.step} {event.metrics['loss']}")

        return receive

    register(harness.Tracker("old_diary", "writes down", OldDiary, create))


@harness.hookimpl
def register_commands(register):
    @click.command("old_hello")
    def hello():
        """Say hello."""
        click.echo("hello")

    register(hello)


@harness.hookimpl
def diagnose():
    return harness.Diagnosis(problems=("nothing is wrong",))
