"""The parity check, run after every start: the engine receives the same ids for a conversation as training does.

An engine turns a request into what a chat template sees, renders that, and tokenizes it, all with code of its own. So
fixed conversations are sent as an OpenAI client sends them, and the ids that the engine received are compared with the
harness's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import harness
from harness.checks.agreement import read_probes
from harness.client.asking import models_of, post_all
from harness.client.served import as_openai
from harness.contract import Endpoint
from harness.nouns import Message
from harness.run import Run
from harness.template import BoundTemplate, aligned
from harness.template.samples import require_text, samples
from harness.variants import Variant


@dataclass(frozen=True, slots=True)
class Case:
    """A conversation that asks for an answer; `expected` are the ids that training makes of it, or made."""

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    expected: tuple[int, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)  # of the template, which the request sets


@dataclass(frozen=True, slots=True)
class Parity:
    """The conversations that were compared and are equal, by name, and those that could not be, with the reason.

    Nothing was compared where the engine does not tell the ids that it receives: `unverified` says so.
    """

    models: tuple[str, ...]
    compared: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    unverified: str | None = None


def require_parity(
    endpoint: Endpoint, variants: Sequence[Variant], report: Callable[[str], None] = lambda waiting_for: None
) -> Parity:
    """Compare what the engine receives with what training makes of the same conversations.

    The endpoint's first model is asked all of them, every other two, and each run besides the probes that it left.

    Raises:
        HarnessError: at the first difference, with both renderings one above the other.
    """
    if "token_ids" not in endpoint.capabilities:
        return Parity(endpoint.models, (), unverified="the engine does not tell which ids it receives")
    report("the parity check")
    assert variants[0].chat_folder is not None  # else no engine could have started
    template = BoundTemplate.load(variants[0].chat_folder)
    context_tokens = next((model.get("max_model_len") for model in models_of(endpoint)), None)
    fixed, left_out = prompts(template, context_tokens)
    first, *others = endpoint.models
    telling = {case.name.split()[0]: case for case in fixed if case.name in ("plain", "hostile", "hostile 1")}
    asked = [(first, case) for case in fixed] + [(other, case) for other in others for case in telling.values()]
    runs = {variant.name: variant.run for variant in variants if variant.run is not None}
    probes = []
    for name, run in runs.items():
        for case in _probes(run, template):
            if why := _too_long(case, context_tokens):
                left_out[case.name] = why
            else:
                probes.append((name, case))
    cause = "Is an option in `extra_args`, or in vLLM's environment variables, changing how it renders or tokenizes?"
    if runs:
        cause = f"Has something in {next(iter(runs.values())).chat_folder} been changed since the run was tuned?"
    for (model, case), ids in zip(asked + probes, received_ids(endpoint, asked + probes), strict=True):
        if problem := difference(template, case, ids):
            raise harness.HarnessError(f"{model}: {problem}\n{cause}")
    compared = list(dict.fromkeys(case.name.rstrip("0123456789 ") for case in fixed))
    if probes:
        compared.append(f"{len(probes)} of the run{'s' * (len(runs) > 1)}")
    return Parity(endpoint.models, tuple(compared), left_out)


def prompts(template: BoundTemplate, context_tokens: int | None = None) -> tuple[list[Case], dict[str, str]]:
    """Return the fixed conversations that the template takes, up to their last answer, and why the others are left out.

    Args:
        context_tokens: the most tokens that the engine takes, the answer included.

    Raises:
        TemplateError: if a control-token string in a message's text becomes a control token.
    """
    cases = []
    taken, left_out = samples(template)
    for sample in taken:
        require_text(template, sample)
        messages, tools = sample.conversation.messages[:-1], sample.conversation.tools
        thinks = True if sample.conversation.messages[-1].reasoning else None  # else as requests ask that do not say
        variables = template.request_variables(True) if thinks else {}
        prompt = template.prompt_ids(messages, tools, thinks=thinks)
        case = Case(sample.name, messages, tools, tuple(prompt), variables)
        if why := _too_long(case, context_tokens):
            left_out[case.name] = why
        else:
            cases.append(case)
    return cases, left_out


def _too_long(case: Case, context_tokens: int | None) -> str | None:
    if context_tokens is None or len(case.expected) < context_tokens:
        return None
    return f"its {len(case.expected)} tokens do not fit into max_model_len, {context_tokens}"


def as_request(case: Case, model: str) -> dict[str, Any]:
    """Return the body that an OpenAI client sends: arguments as a JSON string, no content beside tool calls."""
    body: dict[str, Any] = {"model": model, "messages": [as_openai(message) for message in case.messages]}
    if case.tools:
        body |= {"tools": list(case.tools), "tool_choice": "none"}  # parses no answer; the prompt is the same
    if case.variables:
        body["chat_template_kwargs"] = dict(case.variables)
    return body


def received_ids(endpoint: Endpoint, asked: Sequence[tuple[str, Case]], **more: Any) -> list[list[int]]:
    """Return the ids that the engine received for each (model, conversation). `more` is added to each request.

    Raises:
        HarnessError: where the engine does not tell them.
    """
    settings = {"max_tokens": 1, "return_token_ids": True} | more
    answers = post_all(endpoint, "/chat/completions", [as_request(case, model) | settings for model, case in asked])
    for (model, _), answer in zip(asked, answers, strict=True):
        if answer.get("prompt_token_ids") is None:
            raise harness.HarnessError(
                f"{model}: the engine does not tell which ids it receives (`return_token_ids`), so that nothing shows "
                f"whether it is asked as the model was tuned"
            )
    return [answer["prompt_token_ids"] for answer in answers]


def _probes(run: Run, template: BoundTemplate) -> list[Case]:
    """Return the run's probes with the ids that training saw; the template renders the unrecorded end of a long one."""
    cases = []
    for number, probe in enumerate(read_probes(run)["probes"], 1):
        messages, tools = tuple(Message.from_dict(raw) for raw in probe["messages"]), tuple(probe.get("tools") or ())
        thinks = probe.get("thinks")  # None in runs of before it was recorded
        prompt = template.prompt_ids(messages, tools, thinks=thinks)
        length = probe.get("prompt_tokens", len(prompt))
        recorded = probe["input_ids"][:length]
        unrecorded = prompt[len(recorded) :] if len(recorded) < length else ()
        variables = {} if thinks is None else template.request_variables(thinks)
        cases.append(Case(f"probe {number} of {run.name}", messages, tools, (*recorded, *unrecorded), variables))
    return cases


def difference(template: BoundTemplate, case: Case, received: Sequence[int]) -> str | None:
    """Return both renderings aligned at the first difference, or None where the ids are those of training."""
    if tuple(received) == case.expected:
        return None
    return (
        f"the engine receives other tokens than training saw, in the conversation `{case.name}`, "
        f"{aligned(template.tokenizer, case.expected, received)}"
    )
