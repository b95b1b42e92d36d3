"""Callers of a service: so many at once, each asking for the next thing as soon as it has the last."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

TIMEOUT_S = 120.0


def rate(port: int, key: str, path: str, body: Callable[[int], dict[str, Any]], callers: int, seconds: float) -> float:
    """Requests answered in a second, over so many seconds. Ends the program where one fails."""
    numbers = itertools.count()
    ends: list[float] = []
    failures: list[str] = []
    began = time.perf_counter()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def call() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        while time.perf_counter() - began < seconds and not failures:
            connection.request("POST", path, json.dumps(body(next(numbers))), headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                failures.append(f"{answer.status} {said[:300]!r}")
            ends.append(time.perf_counter())
        connection.close()

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"cannot measure {path}: it answered {failures[0]}")
    return len(ends) / (max(ends) - began)
