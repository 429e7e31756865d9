"""No test hangs on how fast a machine is: none sleeps or reads a clock, but where `ALLOWED` has the reason."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLOCKS = {"sleep", "monotonic", "perf_counter", "process_time", "wait_for_timeout"}
ALLOWED = {
    "tests/conftest.py": "wait_until, which everyone waits with",
    "tests/generation/conftest.py": (
        "the played endpoint notes when it was asked: a client may not come before its Retry-After"
    ),
    "tests/generation/killed.py": "no test: a person runs it against a real endpoint",
    "tests/tuning/processes.py": "looks whether a process is stopped",
    "tests/tuning/test_launch.py": "kills at moments that chance picks",
    "tests/tuning/test_resume.py": "kills a little later than a step's end, by chance",
    "tests/serve/test_browser.py": "looks whether a server has started",
    "tests/serve/test_page.py": "the pace of a page that is asked again",
}


def clocks_in(source: str) -> list[str]:
    """The calls that sleep or read a clock, as `LINE NAME`; `asyncio.sleep` too."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [(call, getattr(call.func, "attr", getattr(call.func, "id", ""))) for call in calls]
    return [f"{call.lineno} {name}" for call, name in named if name in CLOCKS]


def test_no_test_sleeps_or_measures_time():
    found = {
        path.relative_to(ROOT).as_posix(): clocks
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if (clocks := clocks_in(path.read_text(encoding="utf-8")))
    }
    assert {name: clocks for name, clocks in found.items() if name not in ALLOWED} == {}, "wait with `wait_until`"
    assert set(ALLOWED) == set(found), "no longer needed"


def test_the_check_finds_what_it_should():
    assert clocks_in("import time\ntime.sleep(1)\npage.wait_for_timeout(9)\n") == ["2 sleep", "3 wait_for_timeout"]
    assert clocks_in("from time import monotonic as now, sleep\nsleep(1)\nprocess.wait(3)") == ["2 sleep"]
