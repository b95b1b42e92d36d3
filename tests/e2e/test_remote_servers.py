"""Several servers of one model: each is a replica, requests go to all of them, one that is away is left out."""

from __future__ import annotations

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, free_port, until

BODY = {"model": "both", "messages": [{"role": "user", "content": "Hello"}]}


def answering(daemon: Daemon, requests: int = 8) -> set[int]:
    """The processes that answer requests which are in flight together."""
    with daemon.client(headers={"x-faulty": "echo"}) as client:
        answers = [client.post("/v1/chat/completions", json=BODY) for _ in range(requests)]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.json()["pid"] for answer in answers}


def test_servers_of_one_model_share_its_requests(make_daemon: MakeDaemon) -> None:
    ports = free_port(), free_port()
    models = {f"server-{port}": faulty(port=port, scaling={"min": 1}) for port in ports}
    urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
    daemon = make_daemon({**models, "both": {"engine": "remote", "urls": urls}}).start()
    for name in (*models, "both"):
        daemon.until_state(name, "ready")
    pids = {daemon.replicas(name)[0].pid for name in models}
    until("both servers are ready", lambda: [r.state for r in daemon.replicas("both")] == ["ready"] * 2)
    assert sorted(replica.url or "" for replica in daemon.replicas("both")) == sorted(urls)
    until("both servers answer", lambda: answering(daemon) == pids)

    daemon.config["models"]["both"]["urls"] = urls[:1]
    daemon.write(daemon.config)
    left = daemon.replicas(f"server-{ports[0]}")[0].pid
    until("one server is left", lambda: [r.url for r in daemon.replicas("both")] == urls[:1])
    assert answering(daemon) == {left}
