"""The part of the harness in vLLM's workers: which modules an adapter really changes, read from the kernels' buffers.

vLLM loads an adapter whose module names do not match the model's, and the base answers in its name. Given to vLLM with
`--worker-extension-cls`; the server's process asks by `collective_rpc`.
"""

from __future__ import annotations

from typing import Any


class ActiveAdapters:
    """A class that vLLM mixes into that of its workers."""

    model_runner: Any

    def harness_active_modules(self) -> dict[int, list[str]]:
        """Return, by the number of each adapter, the modules of this worker whose lora_A is not all zeros.

        A layer that joins several modules, as vLLM's `qkv_proj`, counts as those that it joins.
        """
        manager = self.model_runner.lora_manager._adapter_manager
        slots = {number: slot for slot, number in enumerate(manager.lora_index_to_id) if number is not None}
        active: dict[int, list[str]] = {number: [] for number in slots}
        for name, layer in manager.modules.items():
            parts = manager.packed_modules.get(name, [name])
            stacks = getattr(layer, "lora_a_stacked", ())
            for number, slot in slots.items():
                filled = [bool(stack[slot].any()) for stack in stacks]
                if len(parts) == len(stacks):
                    active[number] += [part for part, is_filled in zip(parts, filled, strict=True) if is_filled]
                elif any(filled):  # one module of the files in several slices
                    active[number].append(name)
        return active
