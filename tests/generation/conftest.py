"""A local server that plays an OpenAI endpoint: the same answer to the same question, and faults on demand."""

import hashlib
import math
import random
import threading
import time
from collections import Counter

import pytest

from harness.testing import FakeEndpoint, Reply


def words(text):
    return text.split()


VERBS = words(
    "explain describe compare summarise list name translate rewrite sort count correct praise question defend plan rate"
)
THINGS = words(
    "rivers bridges violins tides lanterns orchards glaciers beetles ferries "
    "chimneys comets saddles pebbles quilts anchors "
    "kettles meadows turnips whistles sparrows ladders candles harbours mittens thimbles acorns marbles ropes"
)
WHO = words("children sailors bakers judges nurses farmers poets clerks pilots miners tailors gardeners")
BAD = [
    "Too short",
    "Draw a picture of a very small house",
    "Write a program that sorts seven numbers",
    "...and then explain what came before it",
]


class Played(FakeEndpoint):
    """A FakeEndpoint that fails as `faults` says: for the number of a request, a fault or None."""

    def __init__(self):
        super().__init__(self.plausible, models=("played",))
        self.faults = lambda number: None
        self.held_from: float = math.inf  # the number of the first request that is not answered before `released`
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.started: list[float] = []
        self.seen: Counter[str] = Counter()
        self.prompts: list[str] = []

    def reply(self, request):
        with self.lock:
            number = len(self.started)
            self.started.append(time.monotonic())
            self.prompts.append(request.prompt)
        fault = self.faults(number)
        self.seen[str(fault)] += 1
        if fault == "torn":
            return Reply(body=b'{"id": "x", "choices": [', headers={"Content-Length": "5000"})
        if fault == "slow":
            self.closed.wait()
            return None
        if fault == "nonsense":
            return Reply(body={"hello": "there"})
        if fault is not None:
            return Reply(f"fault {fault}", status=fault, headers={"Retry-After": "1"} if fault == 429 else {})
        if number >= self.held_from:
            self.released.wait()
        return super().reply(request)

    @staticmethod
    def plausible(request):
        question = request.prompt
        rng = random.Random(hashlib.sha256(f"{request.body.get('seed')}{question}".encode()).digest())
        if "Go on with the list" in question:
            tasks = [
                (
                    f"{rng.choice(VERBS).title()} {rng.choice(THINGS)} and {rng.choice(THINGS)} "
                    f"to {rng.choice(WHO)} who like {rng.choice(THINGS)}."
                )
                for _ in range(6)
            ]
            tasks[2:2] = [rng.choice(BAD)]
            return "Sure! Here they are:\n" + "\n".join(f"{n}. {task}" for n, task in enumerate(tasks, 9))
        if "Yes or No" in question:
            return "Yes" if rng.random() < 0.3 else "No."
        if 'after "Output:", and below it' in question:
            return "Output: good\nInput: It was fine.\nOutput: bad\nInput: It rained, and so on."
        if rng.random() < 0.1:
            return "Input: none\nOutput:"
        return f"Input: {rng.choice(['none', 'some tea'])}\nOutput: An answer about {rng.randrange(10**6)}."


@pytest.fixture
def endpoint():
    with Played() as endpoint:
        yield endpoint
        endpoint.released.set()


@pytest.fixture
def seeds(write_rows):
    rows = [
        {
            "instruction": f"Tell {who} a short story about {thing}.",
            "instances": [{"input": "", "output": f"Once there were {thing}."}],
            "is_classification": False,
        }
        for who, thing in zip(WHO, THINGS, strict=False)
    ]
    rows.append(
        {
            "instruction": "Is the review kind or unkind?",
            "instances": [{"input": "Lovely tea!", "output": "kind"}],
            "is_classification": True,
        }
    )
    return write_rows(*rows, name="seeds.jsonl")
