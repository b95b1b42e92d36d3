"""Every request is accounted once, with the tokens that its engine told, while callers leave and processes die.

It makes a few hundred requests; `make accounting` makes ten thousand.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import httpx
import psutil

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from modelgrid.spec.usage import UsageLine

REQUESTS = int(os.environ.get("ACCOUNTED_REQUESTS", "600"))
CALLERS = 6
PRICE = {"input": 1.0, "output": 2.0, "request": 0.5}


@dataclass
class Seen:
    """What callers saw."""

    requests: int = 0
    errors: int = 0
    input: int = 0
    output: int = 0
    images: int = 0
    strangers: int = 0  # requests for a model that isn't there
    leavers: int = 0  # requests whose caller left within their answer
    broke: list[str] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        for name in ("requests", "errors", "input", "output", "images", "strangers", "leavers", "broke"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Caller(threading.Thread):
    """Makes its share of the requests, of all kinds by lot."""

    def __init__(self, daemon: Daemon, keys: tuple[str, str], seed: int, count: int) -> None:
        super().__init__(daemon=True)
        self.seen = Seen()
        self._daemon = daemon
        self._reader, self._leaver = keys
        self._dice = Random(seed)
        self._count = count

    def run(self) -> None:
        kinds: list[Callable[[httpx.Client], None]] = [self._whole, self._stream, self._embed, self._draw]
        kinds += [self._whole, self._stream, self._fail, self._stray, self._leave]
        with self._daemon.client() as client:
            for _ in range(self._count):
                try:
                    self._dice.choice(kinds)(client)
                except (httpx.HTTPError, AssertionError) as error:
                    self.seen.broke.append(f"{type(error).__name__}: {error}")

    def _whole(self, client: httpx.Client) -> None:
        self._read(self._post(client, "/v1/chat/completions", model="a", messages=[{"role": "user", "content": "hi"}]))

    def _embed(self, client: httpx.Client) -> None:
        self._read(self._post(client, "/v1/embeddings", model="b", input=["one", "two"]))

    def _draw(self, client: httpx.Client) -> None:
        self._read(self._post(client, "/v1/images/generations", model="b", prompt="a cat", n=2))
        self.seen.images += 2

    def _fail(self, client: httpx.Client) -> None:
        answer = self._post(client, "/v1/chat/completions", "status=400", model="a", messages=[])
        assert answer.status_code == 400, answer.text
        self.seen.requests += 1
        self.seen.errors += 1

    def _stray(self, client: httpx.Client) -> None:
        answer = self._post(client, "/v1/chat/completions", model="nobody", messages=[])
        assert answer.status_code == 404, answer.text
        self.seen.strangers += 1

    def _stream(self, client: httpx.Client) -> None:
        body = {"model": "a", "stream": True, "stream_options": {"include_usage": True}, "messages": []}
        head = {"authorization": f"Bearer {self._reader}"}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=head) as answer:
            events = [line for line in answer.iter_lines() if line]
        assert events[-1] == "data: [DONE]", events
        self._count_tokens(json.loads(events[-2].removeprefix("data: "))["usage"])

    def _leave(self, client: httpx.Client) -> None:
        body = {"model": "a", "stream": True, "messages": []}
        head = {"authorization": f"Bearer {self._leaver}", "x-faulty": "chunks=200, chunk_delay=0.01"}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=head) as answer:
            next(answer.iter_lines())
        self.seen.leavers += 1

    def _post(self, client: httpx.Client, path: str, ways: str = "", **body: object) -> httpx.Response:
        head = {"authorization": f"Bearer {self._reader}", **({"x-faulty": ways} if ways else {})}
        return client.post(path, json=body, headers=head)

    def _read(self, answer: httpx.Response) -> None:
        assert answer.status_code == 200, answer.text
        self._count_tokens(answer.json()["usage"])

    def _count_tokens(self, usage: dict[str, int]) -> None:
        output = usage.get("completion_tokens", usage.get("output_tokens", 0))
        self.seen.requests += 1
        self.seen.output += output
        self.seen.input += usage["total_tokens"] - output


def test_accounted_is_what_was_answered_whoever_dies(make_daemon: MakeDaemon) -> None:
    models = {"a": faulty(scaling={"min": 1}, price=PRICE), "b": faulty(scaling={"min": 1}, price=PRICE)}
    daemon = make_daemon(models, workers=2).start()
    for model in models:
        daemon.until_state(model, "ready")
    keys = (_new_key(daemon, "reader"), _new_key(daemon, "leaver"))
    until("a key is asked for", lambda: all(_asks_for_a_key(daemon) for _ in range(10)))
    seen = Seen()

    callers = _callers(daemon, keys, 1, REQUESTS // 2)
    _kill_controller(daemon)
    assert daemon.run("restart-workers").returncode == 0  # each ends in peace, amid its requests
    _kill_controller(daemon)
    _join(callers, seen)
    _until_accounted(daemon, seen)

    _kill_worker(daemon)  # what it had counted was told
    _join(_callers(daemon, keys, 2, REQUESTS // 4), seen)
    _until_accounted(daemon, seen)

    _join(_callers(daemon, keys, 3, REQUESTS // 4), seen)
    assert daemon.run("stop").returncode == 0  # at once: nobody has waited for the second to be over
    assert _accounted(daemon) == _answered(seen)
    _costs_what_it_says(daemon, seen)


def _callers(daemon: Daemon, keys: tuple[str, str], seed: int, count: int) -> list[Caller]:
    callers = [Caller(daemon, keys, seed * 100 + number, count // CALLERS) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    return callers


def _join(callers: list[Caller], seen: Seen) -> None:
    for caller in callers:
        caller.join(240)
        assert not caller.is_alive()
        seen.add(caller.seen)
    assert seen.broke == []


def _new_key(daemon: Daemon, name: str) -> str:
    made = daemon.run("key", "create", name, "--json")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


def _asks_for_a_key(daemon: Daemon) -> bool:
    with daemon.client() as client:  # a connection of its own, which any worker may take
        return client.get("/v1/models").status_code == 401


def _kill_controller(daemon: Daemon) -> None:
    (controller,) = until("a controller", daemon.controllers)
    controller.send_signal(signal.SIGKILL)
    until("it is gone", lambda: not psutil.pid_exists(controller.pid) or not controller.is_running())
    until("the next one knows all workers", lambda: _knows_workers(daemon))


def _knows_workers(daemon: Daemon) -> bool:
    status = daemon.run("status", "--json")
    return status.returncode == 0 and json.loads(status.stdout)["workers"] == 2


def _kill_worker(daemon: Daemon) -> None:
    worker = daemon.workers()[0]
    worker.send_signal(signal.SIGKILL)
    until("another is there", lambda: worker.pid not in [p.pid for p in daemon.workers()] and _knows_workers(daemon))


def _until_accounted(daemon: Daemon, seen: Seen) -> None:
    try:
        until("all is accounted", lambda: _accounted(daemon) == _answered(seen), 10)
    except AssertionError:
        assert _accounted(daemon) == _answered(seen)


def _answered(seen: Seen) -> dict[str, int]:
    return {
        "requests": seen.requests,
        "errors": seen.errors,
        "input": seen.input,
        "output": seen.output,
        "images": seen.images,
        "estimated": 0,
        "strangers": seen.strangers,
        "leavers": seen.leavers,
        "left": seen.leavers,
    }


def _accounted(daemon: Daemon) -> dict[str, int]:
    lines = _usage(daemon)
    reader, leaver, nobody = (lines.get(name, UsageLine()) for name in ("reader", "leaver", ""))
    return {
        "requests": reader.requests,
        "errors": reader.errors,
        "input": reader.input,
        "output": reader.output,
        "images": reader.images,
        "estimated": reader.estimated_input + reader.estimated_output,
        "strangers": nobody.requests,
        "leavers": leaver.requests,
        "left": leaver.left,
    }


def _usage(daemon: Daemon) -> dict[str, UsageLine]:
    told = daemon.run("usage", "--by", "key", "--json")
    assert told.returncode == 0, told.stderr
    return {line["key"]: UsageLine(**line) for line in json.loads(told.stdout)["lines"]}


def _costs_what_it_says(daemon: Daemon, seen: Seen) -> None:
    reader = _usage(daemon)["reader"]
    cost = (seen.input * PRICE["input"] + seen.output * PRICE["output"]) / 1e6 + seen.requests * PRICE["request"]
    assert abs(reader.cost - cost) < 1e-6
    table = daemon.run("usage", "--by", "model,operation").stdout
    asked = Counter(line.split()[0] for line in table.splitlines()[1:])
    assert asked == {"a": 1, "b": 2, "(no": 1, "all": 1}, table
