"""A local server that plays an OpenAI endpoint: the same answer to the same question, and faults on demand."""

import hashlib
import json
import math
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def words(text):
    return text.split()


VERBS = words(
    "explain describe compare summarise list name translate rewrite sort count correct praise question defend plan rate"
)
THINGS = words(
    "rivers bridges violins tides lanterns orchards glaciers beetles ferries chimneys comets saddles pebbles quilts anchors "
    "kettles meadows turnips whistles sparrows ladders candles harbours mittens thimbles acorns marbles ropes"
)
WHO = words("children sailors bakers judges nurses farmers poets clerks pilots miners tailors gardeners")
BAD = [
    "Too short",
    "Draw a picture of a very small house",
    "Write a program that sorts seven numbers",
    "...and then explain what came before it",
]


class Endpoint:
    """What it was asked, and how it is to fail: `faults` gives, for the number of a request, a fault or None."""

    def __init__(self):
        self.key: str | None = None
        self.faults = lambda number: None
        self.held_from: float = math.inf  # the number of the first request that is not answered before `released`
        self.released = threading.Event()
        self.gone = threading.Event()
        self.answer = self.plausible
        self.lock = threading.Lock()
        self.started: list[float] = []
        self.seen: Counter[str] = Counter()
        self.usage = True
        self.prompts: list[str] = []
        self.keys: set[str] = set()
        self.url = ""

    def plausible(self, question, sent):
        rng = random.Random(hashlib.sha256(f"{sent.get('seed')}{question}".encode()).digest())
        if "Go on with the list" in question:
            tasks = [
                f"{rng.choice(VERBS).title()} {rng.choice(THINGS)} and {rng.choice(THINGS)} to {rng.choice(WHO)} who like {rng.choice(THINGS)}."
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


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def allowed(self):
        endpoint = self.server.endpoint
        given = self.headers.get("Authorization", "")
        endpoint.keys.add(given)
        if endpoint.key is not None and given != f"Bearer {endpoint.key}":
            self.reply(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
            return False
        return True

    def do_GET(self):
        if self.allowed():
            self.reply(200, {"object": "list", "data": [{"id": "played", "object": "model"}]})

    def do_POST(self):
        endpoint = self.server.endpoint
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        question = sent["messages"][-1]["content"] if "messages" in sent else sent["prompt"]
        with endpoint.lock:
            number = len(endpoint.started)
            endpoint.started.append(time.monotonic())
            endpoint.prompts.append(question)
        fault = endpoint.faults(number)
        endpoint.seen[str(fault)] += 1
        if fault == "torn":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id": "x", "choices": [')
            self.close_connection = True
            return
        if fault == "slow":
            endpoint.gone.wait()
            self.close_connection = True
            return
        if fault == "nonsense":
            self.reply(200, {"hello": "there"})
            return
        if isinstance(fault, int):
            self.reply(
                fault, {"error": {"message": f"fault {fault}"}}, **({"Retry_After": "1"} if fault == 429 else {})
            )
            return
        if number >= endpoint.held_from:
            endpoint.released.wait()
        text = endpoint.answer(question, sent)
        chat = "messages" in sent
        choice = {"index": 0, "finish_reason": "stop"} | (
            {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        )
        usage = {"prompt_tokens": len(question.split()), "completion_tokens": len(text.split())}
        made = {"id": "x", "object": "chat.completion", "created": 0, "model": sent["model"], "choices": [choice]}
        if endpoint.usage:
            made["usage"] = usage | {"total_tokens": sum(usage.values())}
        self.reply(200, made)


@pytest.fixture
def endpoint():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that was killed
    server.endpoint = Endpoint()
    server.endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.endpoint
    server.endpoint.gone.set()
    server.endpoint.released.set()
    server.shutdown()
    server.server_close()


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
