"""Two workers keep limits as one, and share replicas as one."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from e2e.daemon import Daemon, faulty, serving, until
from e2e.raw import Raw, chat
from e2e.seen import Engines, told

CHAT = "/v1/chat/completions"
LIMIT = 300


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    models = {
        "a": faulty(scaling={"min": 1}),
        "one": faulty(scaling={"min": 1}),
        "three": faulty(scaling={"min": 3, "max": 3}),
        "limited": faulty(scaling={"min": 1}, limits={"requests_per_minute": LIMIT}),
    }
    with serving(tmp_path_factory.mktemp("together"), models, workers=2) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def free(daemon: Daemon) -> str:
    """A key without limits."""
    return make_key(daemon, "free")


def make_key(daemon: Daemon, name: str, *limits: str) -> str:
    made = daemon.run("key", "create", name, *limits, "--json")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    until("all workers know the key", lambda: _statuses(daemon, key) == {200} and _statuses(daemon, "no key") == {401})
    return key


def _statuses(daemon: Daemon, key: str) -> set[int]:
    """What a key gets; by each worker, as connections come to them in turn."""
    headers = {"authorization": f"Bearer {key}"}
    return {httpx.get(f"{daemon.url}/v1/models", headers=headers, trust_env=False).status_code for _ in range(8)}


class Burst:
    """As many callers as connections, which ask one after the other, as fast as they can."""

    def __init__(self, daemon: Daemon, model: str, key: str, *, callers: int, each: int, **ways: object) -> None:
        self.statuses: Counter[int] = Counter()
        self.workers: Counter[str] = Counter()
        self._headers = {"authorization": f"Bearer {key}", **(told(**ways) if ways else {})}
        self._daemon, self._model, self._each = daemon, model, each
        self._start = threading.Barrier(callers)
        self._lock = threading.Lock()
        threads = [threading.Thread(target=self._call, daemon=True) for _ in range(callers)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.minutes = time.monotonic() // 60 - begun // 60  # that began meanwhile
        self.took_s = time.monotonic() - begun

    def _call(self) -> None:
        raw = Raw(self._daemon.port)
        raw.get("/health")
        worker = raw.answer().json()["worker"]
        self._start.wait(30)
        statuses: Counter[int] = Counter()
        for _ in range(self._each):
            raw.post(CHAT, chat(self._model), self._headers)
            statuses[raw.answer().status] += 1
        with self._lock:
            self.statuses += statuses
            self.workers[worker] += 1
        raw.leave()


@pytest.mark.parametrize("whose", ["key", "model"])
def test_a_burst_of_ten_times_a_minutes_requests_gets_as_many_as_are_allowed(
    daemon: Daemon, free: str, whose: str
) -> None:
    key = make_key(daemon, "burst", "--requests-per-minute", str(LIMIT)) if whose == "key" else free
    burst = Burst(daemon, "a" if whose == "key" else "limited", key, callers=20, each=LIMIT // 2)
    assert set(burst.statuses) == {200, 429}
    assert burst.statuses.total() == 10 * LIMIT
    assert len(burst.workers) == 2
    assert min(burst.workers.values()) >= 5  # both had their share of it
    # A minute that begins within the burst gives back what the last one fades by, a second's worth a second.
    regained = burst.took_s * LIMIT / 60 if burst.minutes else 0
    assert LIMIT * 0.99 <= burst.statuses[200] <= LIMIT * 1.01 + regained


def test_a_keys_requests_in_flight_are_counted_over_both_workers(daemon: Daemon) -> None:
    key = make_key(daemon, "few", "--concurrency", "4")
    burst = Burst(daemon, "one", key, callers=40, each=5, delay=0.1)
    assert len(burst.workers) == 2
    assert set(burst.statuses) == {200, 429}
    (page,) = Engines(daemon, "one").pages("left", 1)
    assert page["most_in_flight"] == 4
    with daemon.client(headers={"authorization": f"Bearer {key}"}) as client:  # and nothing of it is left counted
        statuses = [client.post(CHAT, content=chat("one")).status_code for _ in range(20)]
    assert statuses == [200] * 20


def test_requests_go_to_the_replica_with_the_least_to_do_whichever_worker_they_come_by(
    daemon: Daemon, free: str
) -> None:
    streams = 30
    callers, served, workers = [], Counter[str](), Counter[str]()
    for _ in range(streams):
        raw = Raw(daemon.port)
        raw.get("/health")
        workers[raw.answer().json()["worker"]] += 1
        ways = told(chunks=10_000, chunk_delay=0.05)
        raw.post(CHAT, chat("three", stream=True), {"authorization": f"Bearer {free}", **ways})
        served[json.loads(raw.until(b"\n\n").rpartition(b"data: ")[2])["system_fingerprint"]] += 1
        callers.append(raw)
    assert len(workers) == 2
    assert sorted(served.values()) == [streams // 3] * 3, (served, workers)
    for raw in callers:
        raw.leave()
