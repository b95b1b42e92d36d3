"""`GET /metrics`, as Prometheus asks for it: on the real socket of the control API."""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx

from modelgrid.api.fake import FakeControl, fake_daemon
from modelgrid.spec import Status
from modelgrid.store import MemoryStore

STATUS = Status(
    version="0.1.0",
    now=100.0,
    started=10.0,
    config=None,
    config_error=None,
    memory_bytes=1,
    memory_source="measured",
    memory_planned_bytes=0,
    table=1,
    workers=1,
    address="http://127.0.0.1:9000",
    models=(),
    replicas=(),
)


def test_metrics_are_the_controllers_page_in_the_type_that_prometheus_knows() -> None:
    store = MemoryStore()
    store.broken = "its disk is gone"  # who watches wants to know that: it must not be asked
    control = FakeControl(STATUS, page=b"modelgrid_gateway_workers 1.0\n")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are too long for a socket's address
        socket = Path(folder) / "api.sock"
        transport = httpx.HTTPTransport(uds=str(socket))
        with fake_daemon(control, store, socket), httpx.Client(transport=transport, base_url="http://x") as http:
            answer = http.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.content == control.page
