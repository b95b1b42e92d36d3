"""Models on GPUs: where they go, what they see, and that it is known again. The GPUs are a driver's word."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import psutil
import pytest

from e2e.daemon import Daemon, faulty, free_port, until
from e2e.gpus import GB, Driver, FakeGpu, make_driver
from modelgrid.client import ControlError, NotRunning

SMALL_GPU, LARGE_GPU = FakeGpu("NVIDIA L4", 24 * GB), FakeGpu("NVIDIA A100-SXM4-80GB", 80 * GB)
REFUSED_S = 10.0  # a refusal must not be a wait of ten minutes


def on_gpus(memory: str | None = None, gpus: float | None = None, **more: Any) -> dict[str, Any]:
    needs = {name: value for name, value in (("memory", memory), ("gpus", gpus)) if value is not None}
    return {**faulty(**more), "needs": needs}


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return make_driver(tmp_path / "driver", [SMALL_GPU, LARGE_GPU])


@pytest.fixture
def daemon(tmp_path: Path, driver: Driver) -> Any:
    models = {
        "small": on_gpus("10GB"),
        "half": on_gpus(gpus=0.5),
        "large": on_gpus("60GB"),
        "middle": on_gpus("15GB"),
        "main": on_gpus("1GB", 0),
        "pair": on_gpus("40GB", 2),
        "huge": on_gpus("90GB"),
        "three": on_gpus(gpus=3),
    }
    daemon = Daemon(tmp_path / "home", {"gateway": {"port": free_port()}, "models": models}, driver.environ)
    yield daemon
    daemon.end()


def ask(daemon: Daemon, model: str) -> None:
    answer = daemon.chat(model)
    assert answer.status_code == 200, answer.text


def placed(daemon: Daemon) -> dict[str, tuple[str, ...]]:
    """The devices of each model that is ready, after a look that no GPU is planned to hold more than it may."""
    status = daemon.status()
    assert status.memory_planned_bytes <= status.memory_bytes == int((24 + 80) * GB * 0.95)
    return {replica.model: replica.devices for replica in status.replicas if replica.state == "ready"}


def seen_gpus(daemon: Daemon) -> dict[str, str]:
    """What each engine's process is shown."""
    environs = [engine.environ() for engine in daemon.engines()]
    assert {environ["CUDA_DEVICE_ORDER"] for environ in environs} == {"PCI_BUS_ID"}
    return {environ["MODELGRID_MODEL"]: environ["CUDA_VISIBLE_DEVICES"] for environ in environs}


def fitting(daemon: Daemon, model: str) -> str:
    return daemon.run("fit", model).stdout.splitlines()[0]


def pids(daemon: Daemon) -> dict[str, int | None]:
    return {replica.model: replica.pid for replica in daemon.replicas()}


def test_models_go_where_fit_says_and_each_process_sees_its_own_gpus(daemon: Daemon) -> None:
    daemon.start()
    expected = {"small": "gpu0", "half": "gpu0", "large": "gpu1", "main": "cpu"}  # each where it leaves the least free
    for model, device in expected.items():
        where = "in main memory" if device == "cpu" else f"on {device}"
        assert fitting(daemon, model) == f"{model} (custom) fits: there is room for it {where}."
        ask(daemon, model)
        assert placed(daemon)[model] == (device,)
    assert seen_gpus(daemon) == {"small": "0", "half": "0", "large": "1", "main": ""}
    half = next(replica for replica in daemon.replicas() if replica.model == "half")
    assert half.memory_bytes == int(24 * GB * 0.95) // 2
    screen = daemon.run("status").stdout
    assert "ON" in screen.splitlines()[3]
    assert "0.5 of one GPU" in screen
    assert "(NVIDIA L4, NVIDIA A100-SXM4-80GB)" in screen
    assert "started it on gpu1" in daemon.run("why", "large").stdout
    # A part of each GPU: who stands there goes, but for the one that is in main memory.
    assert "fits, if others make room" in fitting(daemon, "pair")
    ask(daemon, "pair")
    until("the others have gone", lambda: set(placed(daemon)) == {"pair", "main"})
    assert placed(daemon)["pair"] == ("gpu0", "gpu1")
    assert seen_gpus(daemon) == {"pair": "0,1", "main": ""}


def test_what_no_gpu_can_hold_is_refused_at_once(daemon: Daemon) -> None:
    daemon.start()
    with daemon.client() as client:
        for model, why in (("huge", "of the largest GPU"), ("three", "it needs 3 GPUs, the largest machine has 2")):
            body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
            answer = client.post("/v1/chat/completions", json=body, timeout=REFUSED_S)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert why in answer.json()["error"]["message"]
            assert daemon.run("fit", model).returncode == 1
            assert daemon.model(model).state == "unavailable"
    assert daemon.engines() == []


@pytest.mark.parametrize("lost", ["controller", "store"])
def test_the_next_controller_knows_which_gpus_are_taken(daemon: Daemon, lost: str) -> None:
    daemon.start()
    for model in ("small", "large"):
        ask(daemon, model)
    before = pids(daemon)
    if lost == "controller":
        (controller,) = daemon.controllers()
        controller.kill()
        until("another one", lambda: [c.pid for c in daemon.controllers() if c.pid != controller.pid])
    else:
        _lose_store(daemon)
        daemon.start()
    until("both are adopted", lambda: _has_two(daemon))
    assert placed(daemon) == {"small": ("gpu0",), "large": ("gpu1",)}
    assert {replica.model: replica.memory_bytes for replica in daemon.replicas()} == {
        "small": 10 * GB,
        "large": 60 * GB,
    }
    ask(daemon, "half")  # beside the small one: that leaves room for the next beside the large one
    ask(daemon, "middle")
    assert placed(daemon) == {"small": ("gpu0",), "large": ("gpu1",), "half": ("gpu0",), "middle": ("gpu1",)}
    assert {model: pid for model, pid in pids(daemon).items() if model in before} == before


def _has_two(daemon: Daemon) -> bool:
    with contextlib.suppress(NotRunning, ControlError):
        return daemon.status().workers == 1 and len(placed(daemon)) == 2
    return False


def _lose_store(daemon: Daemon) -> None:
    """All but the engines is killed at once, and what was known is gone."""
    family = [daemon.supervisor(), *daemon.controllers(), *daemon.workers()]
    for process in family:
        process.kill()
    psutil.wait_procs(family, 10)
    assert daemon.process is not None
    daemon.process.wait(10)
    for file in (daemon.home / "state").glob("*.db*"):
        file.unlink()


def test_what_processes_hold_of_their_gpus_is_told(daemon: Daemon, driver: Driver) -> None:
    daemon.start()
    ask(daemon, "large")
    (replica,) = daemon.replicas()
    assert (replica.resident_bytes, replica.pid is not None) == (None, True)  # not what it has of main memory
    driver.tell([(1, replica.pid or 0, 15 << 30), (1, 1, 50 * GB)])
    until("it is seen", lambda: daemon.replicas()[0].resident_bytes == 15 << 30)
    assert "15.0 of 55.9 GiB  gpu1" in daemon.run("status").stdout
    with daemon.client() as client:
        metrics = client.get("/metrics").text.splitlines()
    (resident,) = [line for line in metrics if line.startswith('modelgrid_memory_resident_bytes{model="large"}')]
    assert float(resident.split()[1]) == 15 << 30
