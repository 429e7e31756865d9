"""The engine's process: vLLM's own OpenAI-compatible server, started quickly by `engine.py` with vLLM's arguments.

Starting vLLM is mostly importing it: about ten seconds of processor time in each of its processes, one after another.
With HARNESS_PRELOAD=1 (one worker on a CPU) the modules of the second process are imported by a fork server while this
process imports its own, which makes the start about three times as quick; `cpu_lora`, `cpu_seeds` and
`cpu_scores` take the place of parts of vLLM in it. `harmony` takes the place of a part of the server everywhere.
"""

from __future__ import annotations

import os


def main() -> None:
    if os.environ.get("HARNESS_PRELOAD") == "1":
        _preload()
    from vllm.entrypoints.launchers.api_server import entry

    import harness_serve.harmony  # noqa: F401

    bind = entry.setup_server
    # The command that started this answers at the port until this process listens there.
    entry.setup_server = lambda args, reuse_port: bind(args, reuse_port=True)
    entry.main()  # type: ignore[no-untyped-call]


def _preload() -> None:
    import multiprocessing
    from multiprocessing import forkserver

    ours = [f"harness_serve.{name}" for name in ("cpu_lora", "cpu_seeds", "cpu_scores")]
    modules = ["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", *ours]
    multiprocessing.set_forkserver_preload(modules)
    forkserver.ensure_running()
    # vLLM's CPU platform insists on `spawn`. Replaced before the engine's modules take the function by name.
    from vllm.utils import system_utils

    system_utils.get_mp_context = lambda: multiprocessing.get_context("forkserver")


if __name__ == "__main__":
    main()
