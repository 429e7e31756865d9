"""First-party evaluations, and the commands `evaluate`, `compare`, `report`, `gate` and `score`."""

from __future__ import annotations

from collections.abc import Callable

import click

import harness
from harness.extras import installed_version


@harness.hookimpl
def register_evaluations(register: Callable[[harness.Evaluation], None]) -> None:
    from harness_evaluation import human, ifeval, instruct, judge, perplexity, preferences, tasks, val_loss

    register(tasks.EVALUATION)
    register(instruct.EVALUATION)
    register(ifeval.EVALUATION)
    register(judge.EVALUATION)
    register(human.EVALUATION)
    register(preferences.EVALUATION)
    register(val_loss.EVALUATION)
    register(perplexity.EVALUATION)


@harness.hookimpl
def diagnose() -> harness.Diagnosis:
    packages = {"lm-eval": installed_version("lm-eval")}
    return harness.Diagnosis("evaluation", "harness evaluate and compare", packages)


@harness.hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    from harness_evaluation import compare_command, evaluate_command, gate_command, score_command
    from harness_evaluation.report.command import command as report_command

    register(evaluate_command.command)
    register(compare_command.command)
    register(report_command)
    register(gate_command.command)
    register(score_command.command)
