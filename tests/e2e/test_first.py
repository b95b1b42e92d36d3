"""The main job: a request to a model that is not there yet is answered."""

from __future__ import annotations

from e2e.conftest import MakeDaemon
from e2e.daemon import faulty, until


def test_a_request_starts_its_model_and_is_answered(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--start-delay", "0.2")}).start()
    assert daemon.model("a").state == "cold"
    answer = daemon.chat("a")
    assert answer.status_code == 200, answer.text
    assert daemon.model("a").state == "ready"


def test_stop_leaves_no_process(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon({"a": faulty("--spawn-child")}).start()
    assert daemon.chat("a").status_code == 200
    assert len(daemon.engines()) == 2
    stopped = daemon.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert daemon.process is not None
    until("serve has ended", lambda: daemon.process is not None and daemon.process.poll() is not None)
    assert daemon.process.returncode == 0
    assert daemon.processes() == []
