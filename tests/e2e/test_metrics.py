"""`GET /metrics` of a real daemon says exactly what was asked of it, over all workers, also after one has ended."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until

WHOLE, STREAMS, ERRORS = 7, 5, 3


class Page:
    """All samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """The sum over whatever other labels there are."""
        return sum(one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items())


def scrape(daemon: Daemon) -> Page:
    with daemon.client() as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Page(answer.text)


def scraped(daemon: Daemon, requests: int) -> Page:
    """The page once it has as many requests: workers tell theirs each second."""

    def look() -> Page | None:
        page = scrape(daemon)
        return page if page.total("modelgrid_requests_total") >= requests else None

    return until(f"{requests} requests are counted", look)


def send_all(daemon: Daemon) -> tuple[int, int]:
    """Some of each kind, each by a connection of its own; answers the tokens that the engine told."""
    told = [daemon.chat("a").json()["usage"] for _ in range(WHOLE)]
    for _ in range(STREAMS):
        stream = daemon.chat("a", stream=True, stream_options={"include_usage": True})
        assert stream.text.rstrip().endswith("[DONE]"), stream.text
        told.append(told[0])  # the same engine says as much
    for _ in range(ERRORS):
        assert daemon.chat("nobody").status_code == 404
    return sum(one["prompt_tokens"] for one in told), sum(one["completion_tokens"] for one in told)


def test_every_request_is_counted_once_by_its_kind(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()}, workers=2).start()
    tokens_in, tokens_out = send_all(daemon)
    page = scraped(daemon, WHOLE + STREAMS + ERRORS)
    served = {"model": "a", "operation": "chat"}
    assert page.total("modelgrid_requests_total", **served, status="200") == WHOLE + STREAMS
    assert page.total("modelgrid_requests_total", status="404") == ERRORS
    assert page.total("modelgrid_requests_total") == WHOLE + STREAMS + ERRORS
    assert page.total("modelgrid_errors_total", code="model_not_found", who="request") == ERRORS
    assert page.total("modelgrid_errors_total") == ERRORS
    assert page.total("modelgrid_request_duration_seconds_count", **served) == WHOLE + STREAMS
    assert page.total("modelgrid_time_to_first_token_seconds_count", **served) == STREAMS
    assert page.total("modelgrid_tokens_total", **served, type="input") == tokens_in
    assert page.total("modelgrid_tokens_total", **served, type="output") == tokens_out
    assert page.total("modelgrid_queue_time_seconds_count", model="a") == 1, "the first one waited for the engine"
    assert page.total("modelgrid_cold_start_seconds_count", model="a") == 1
    assert page.total("modelgrid_model_state", model="a", state="ready") == 1
    assert page.total("modelgrid_gateway_workers") == 2


def test_what_an_ended_worker_has_counted_stays(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty()}, workers=2).start()
    send_all(daemon)
    scraped(daemon, WHOLE + STREAMS + ERRORS)
    old = daemon.workers()
    assert len(old) == 2
    for worker in old:
        worker.kill()
    until("other workers serve", lambda: _serve_again(daemon, {worker.pid for worker in old}))
    daemon.chat("a")
    page = scraped(daemon, WHOLE + STREAMS + ERRORS + 1)
    assert page.total("modelgrid_requests_total") == WHOLE + STREAMS + ERRORS + 1


def _serve_again(daemon: Daemon, old: set[int]) -> bool:
    """Two others serve, and the controller knows them."""
    new = {process.pid for process in daemon.workers()} - old
    return len(new) == 2 and daemon.status().workers == 2
