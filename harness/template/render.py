"""Rendering of chat templates in the sandbox of transformers, which vLLM uses too, with limits on time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import EndlessTemplateError, TemplateError, first_line
from harness.template.escape import holds_any, markers, strings_of, unprotected

MEMORY_GIB = 4.0  # for one template's trial
TIME_LIMIT_S = 10.0  # for a template's trial, and then for one text, which takes microseconds


class Renderer:
    """A compiled chat template: messages and tools, as dicts, to one text.

    Args:
        name: of the template, for messages.
        source: its Jinja source.
        control: the control-token strings that it breaks inside messages, see `escape`.
        variables: further variables of the template: `bos_token`, `eos_token` and the like.

    Raises:
        TemplateError: if the source is not valid Jinja.
    """

    def __init__(self, name: str, source: str, control: Sequence[str], variables: Mapping[str, Any]) -> None:
        import jinja2

        from harness.template.sandbox import compiled

        self.name = name
        self._control, self._markers = control, markers(control)
        try:
            # Without a marker in the messages the prelude changes nothing, and is left out: it takes longer than the
            # rest.
            self._plain = compiled(plain := unprotected(source))
            self._protected = compiled(source)
        except jinja2.TemplateSyntaxError as error:
            line = (plain.splitlines() or [""])[error.lineno - 1 : error.lineno]
            raise TemplateError(
                f"template {name!r}: line {error.lineno} is not valid Jinja: {error.message}"
                + "".join(f": {text.strip()[:80]!r}" for text in line)
            ) from None
        except (RecursionError, MemoryError):
            raise TemplateError(f"template {name!r}: its Jinja is nested too deeply") from None
        # Jinja would merge them again for every text, which takes as long as rendering a short one.
        self._variables = {**self._plain.globals, "documents": None, **variables}

    def __call__(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        generation_prompt: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render messages and tools. Raises TemplateError if the template refuses them or leaves its sandbox.

        `variables` are what a request sends as `chat_template_kwargs`.
        """
        return self._render(
            self._protected if self.control_tokens_in(messages, tools) else self._plain,
            messages,
            tools,
            generation_prompt,
            variables,
        )

    def control_tokens_in(self, messages: list[dict[str, Any]], tools: list[Any] | None) -> tuple[str, ...]:
        """Return the control-token strings that stand in messages or tools."""
        if not holds_any(self._markers, messages, tools):
            return ()
        everything = "\0".join(strings_of([messages, tools]))
        return tuple(token for token in self._control if token in everything)

    def unprotected(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        generation_prompt: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Render messages and tools whose control tokens are broken already, see `escape.escaped`.

        Returns the same text as the protected template, in a tenth of the time.
        """
        return self._render(self._plain, messages, tools, generation_prompt, variables)

    def _render(
        self,
        compiled: Any,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        generation_prompt: bool,
        variables: Mapping[str, Any] | None,
    ) -> str:
        if not messages:
            return ""
        thread = threading.get_ident()
        _renders[thread] = _renders.get(thread, 0) + 1
        try:
            seen = self._variables | {"messages": messages, "tools": tools, "add_generation_prompt": generation_prompt}
            if variables:
                seen |= variables
            environment = compiled.environment
            context = environment.context_class(environment, seen, compiled.name, compiled.blocks)
            return "".join(compiled.root_render_func(context))
        except Exception as error:  # whatever Jinja code may raise: it is the template's doing
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> TemplateError:
        import jinja2

        if isinstance(error, jinja2.exceptions.SecurityError):
            return TemplateError(f"template {self.name!r} tries to leave its sandbox: {first_line(error)}")
        if isinstance(error, MemoryError):
            return TemplateError(f"template {self.name!r} makes more text than fits into memory")
        kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
        return TemplateError(f"template {self.name!r} cannot render this conversation: {kind}{first_line(error)}")


def variables_of(source: str) -> list[str]:
    """Return the variables that a chat template reads, except those that it is always given or sets somewhere."""
    from jinja2 import meta, nodes

    from harness.template.sandbox import environment

    given = {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        *environment().globals,
    }
    tree = environment().parse(unprotected(source))
    given |= {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    return sorted(meta.find_undeclared_variables(tree) - given)


_renders: dict[int, int] = {}  # the number of texts each thread has begun to render


class _TookTooLong(BaseException):  # not an Exception: Jinja code must not be able to go on after it
    pass


@contextlib.contextmanager
def time_limited(name: str, seconds: float = TIME_LIMIT_S, *, each: bool = False) -> Iterator[None]:
    """Abort rendering after `seconds` of CPU time, raising EndlessTemplateError, which names the template.

    The limit holds for everything that is rendered in the block or, with `each`, for every single text.
    """
    thread, lock, done = threading.get_ident(), threading.Lock(), threading.Event()
    began = _processor_time(thread)

    def watch() -> None:
        left, since, seen = seconds, began, _renders.get(thread)
        while left > 0:
            if done.wait(left):
                return
            before, seen, now = seen, _renders.get(thread), _processor_time(thread)
            if each and seen != before:
                since = now
            left = seconds - (now - since)
        with lock:
            if not done.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TookTooLong))

    threading.Thread(target=watch, daemon=True).start()
    try:
        try:
            yield
        finally:
            with lock:
                done.set()
    except _TookTooLong:
        raise EndlessTemplateError(f"template {name!r} does not come to an end: stopped after {seconds:g} s") from None


@contextlib.contextmanager
def memory_bounded(gib: float = MEMORY_GIB) -> Iterator[None]:
    """Limit the memory that the process can allocate in the block to `gib` more, on systems that support it.

    An allocation beyond the limit raises MemoryError.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + int(gib * 2**30)
    if before[0] == resource.RLIM_INFINITY or limit < before[0]:
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _processor_time(thread: int) -> float:
    """Return a thread's CPU time in seconds; on systems that do not report it, the time of day."""
    if hasattr(time, "pthread_getcpuclockid"):
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    return time.monotonic()
