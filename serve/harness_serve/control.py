"""The hold of the starting process on vLLM: asked of the guard in its process, with a key made for this start."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
from harness.contract.engines import Capacity
from harness.variants import Variant
from harness_serve.adapters import Adapter, in_layer
from harness_serve.engine_log import why_it_ended
from harness_serve.engine_routes import PREFIX, UNLOAD_S
from harness_serve.options import VllmOptions
from harness_serve.plan import plan_engine

LOAD_S = 600.0


class VllmControl:
    """A running vLLM: `url` without `/v1`."""

    def __init__(
        self,
        url: str,
        key: str,
        process: subprocess.Popen[bytes],
        log_path: Path,
        options: VllmOptions,
        capacity: Capacity | None,
    ) -> None:
        self.url, self.key, self.capacity = url, key, capacity
        self._process, self._log_path, self._options = process, log_path, options
        self._stuck = 0  # slots whose adapter was still asked when it was taken away
        self._ended: str | None = None

    def ended(self) -> str | None:
        """Return why the engine has ended, with the end of its log, which is kept under another name; else None."""
        if self._ended is None and self._process.poll() is not None:
            kept = self._log_path.with_suffix(".ended.log")
            self._log_path.replace(kept)
            self._ended = f"the engine has ended: {why_it_ended(kept)}.\n  the whole log: {kept}"
        return self._ended

    def load(self, variant: Variant, beside: Sequence[Variant]) -> None:
        """Load a variant's adapter on every replica, under the variant's name.

        Raises:
            HarnessError: where it does not fit the engine or the other variants, or vLLM does not use all its modules.
        """
        adapter = plan_engine((replace(beside[0], adapter=None), variant), self._options).adapters[variant.name]
        self._require_room(variant.name, adapter, sum(other.adapter is not None for other in beside))
        answer = self._post("load", LOAD_S, name=variant.name, path=str(adapter.folder))
        try:
            require_active(variant.name, adapter, answer["replicas"])
        except harness.HarnessError:
            self.unload(variant.name)
            raise

    def _require_room(self, name: str, adapter: Adapter, used: int) -> None:
        room, again = self.capacity, f"Serve again with {name.rpartition('-')[0]} named at the start, or with --set"
        if room is None:
            raise harness.HarnessError(
                f"{name}: this engine was started without adapters and has no room for any. {again} adapter_slots=4"
            )
        if used + self._stuck >= room.slots:
            raise harness.HarnessError(
                f"{name}: all {room.slots} slots for adapters are in use. `harness adapters remove NAME` frees one. "
                f"{again} adapter_slots={2 * room.slots}"
            )
        if adapter.rank > room.rank:
            raise harness.HarnessError(
                f"{name}: the adapter has rank {adapter.rank}, and the engine was started for at most {room.rank}. "
                f"{again} adapter_rank={adapter.rank}"
            )
        if others := sorted(adapter.targets - room.modules):
            raise harness.HarnessError(
                f"{name}: the adapter changes {', '.join(others)}, and the engine was started for "
                f"{', '.join(sorted(room.modules))}. {again} adapter_modules='[{', '.join(others)}]'"
            )

    def require_active(self, adapters: Mapping[str, Adapter]) -> None:
        """Raise HarnessError where vLLM does not use all modules of an adapter."""
        replicas = self._post("active", LOAD_S)["replicas"]
        for name, adapter in adapters.items():
            require_active(name, adapter, replicas)

    def publish(self, name: str) -> None:
        self._post("publish", 10.0, name=name)

    def unload(self, name: str) -> bool:
        is_freed = bool(self._post("unload", UNLOAD_S + 30, name=name))
        self._stuck += not is_freed
        return is_freed

    def drain(self) -> int:
        return int(self._post("drain", 10.0))

    def _post(self, route: str, timeout_s: float, **asked: Any) -> Any:
        request = urllib.request.Request(
            self.url + PREFIX + route,
            json.dumps(asked).encode(),
            {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            reply = json.load(error)["error"]["message"]
            raise harness.HarnessError(f"the engine refuses: {reply}") from None
        except OSError as error:
            why = self.ended() or f"the engine does not answer ({error}); its log: {self._log_path}"
            raise harness.HarnessError(why) from None


def require_active(name: str, adapter: Adapter, replicas: list[Mapping[str, list[str]]]) -> None:
    """Raise HarnessError where a replica does not use every module of the adapter's file.

    Compared by what follows the number of the layer: vLLM puts other names before it for some models.
    """
    wanted = {in_layer(module): module for module in adapter.modules}
    for number, replica in enumerate(replicas):
        active = {in_layer(module) for module in replica.get(name, ())}
        if missing := [module for short, module in wanted.items() if short not in active]:
            which = f" on replica {number}" if len(replicas) > 1 else ""
            raise harness.HarnessError(
                f"{name}: vLLM uses {len(wanted) - len(missing)} of the adapter's {len(wanted)} modules{which}, and "
                f"answers as the base for the others, as {missing[0]}. Was it tuned on another model, or is its "
                f"lora_A all zeros there?"
            )
