"""A real modelgrid of a test's own: its own home, its own port, the real command."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import yaml

from modelgrid.client import ControlClient, ControlError, NotRunning
from modelgrid.config.paths import find_paths
from modelgrid.daemon import roles
from modelgrid.runtimes import census
from modelgrid.spec import Event, ModelStatus, ReplicaStatus, Status

T = TypeVar("T")

LOOPBACK = "127.0.0.1"


def until(what: str, probe: Callable[[], T | None], deadline_s: float = 30.0) -> T:
    """The first true answer of `probe`; fails loudly when none comes in time."""
    deadline = time.monotonic() + deadline_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {deadline_s:.0f}s: {what}; last answer: {answer!r}")
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def faulty(*arguments: str, memory: str = "100MiB", **more: Any) -> dict[str, Any]:
    """A model of the test engine, started with `arguments`."""
    command = [sys.executable, "-m", "modelgrid.services.faulty", "--port", "{port}", *arguments]
    return {"engine": "custom", "command": command, "needs": {"memory": memory}, **more}


@contextlib.contextmanager
def serving(folder: Path, models: dict[str, Any], *, virtual: Any = None, **gateway: Any) -> Iterator[Daemon]:
    """One that serves, with all models ready that are kept so: for tests that don't disturb each other."""
    config = {"gateway": {"port": free_port(), **gateway}, "machine": {"memory": "8GiB"}, "models": models}
    daemon = Daemon(folder / "home", config | ({"virtual": virtual} if virtual else {}))
    try:
        daemon.start()
        for name, model in models.items():
            if model.get("scaling", {}).get("min") or "urls" in model:
                daemon.until_state(name, "ready")
        yield daemon
    finally:
        daemon.end()


@dataclass
class Daemon:
    """`modelgrid serve`, started in a folder of its own."""

    home: Path
    config: dict[str, Any]
    environ: dict[str, str] = field(default_factory=dict)
    has_session: bool = False  # of its own, and so no terminal, whatever the tests have
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where its gateway listens."""
        port: int = self.config["gateway"]["port"]
        return port

    @property
    def url(self) -> str:
        """Its gateway."""
        return f"http://{LOOPBACK}:{self.port}"

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Write the configuration file, whole."""
        self.home.mkdir(parents=True, exist_ok=True)
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
        fresh = self.home / "modelgrid.yaml.new"
        fresh.write_text(text)
        fresh.replace(self.home / "modelgrid.yaml")

    def start(self, *arguments: str, ready: bool = True, to: int | None = None) -> Daemon:
        """Start it, and wait until its gateway serves with a table of its controller. What it prints goes `to` a
        descriptor, else into `output`."""
        self.write(self.config)
        out = (self.home / "serve.out").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modelgrid", "serve", *arguments],
            env=self._environ(),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=out if to is None else to,
            stderr=out if to is None else to,
            start_new_session=self.has_session,
        )
        out.close()
        if ready:
            until("the gateway serves", self._serves)
        return self

    def run(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command of `modelgrid`, as somebody beside the daemon would type it."""
        return subprocess.run(
            [sys.executable, "-m", "modelgrid", *arguments],
            env=self._environ(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, left to itself."""
        return subprocess.Popen(
            [sys.executable, "-m", "modelgrid", *arguments],
            env=self._environ(),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def output(self) -> str:
        """What `serve` has printed."""
        return (self.home / "serve.out").read_text()

    def log(self) -> str:
        """The controller's log."""
        return (self.home / "state" / "logs" / "modelgrid.log").read_text()

    def status(self) -> Status:
        """The control API's picture."""
        with ControlClient(self._paths().api_socket) as client:
            return client.status()

    def control(self) -> ControlClient:
        """A client of the control API, to be closed."""
        return ControlClient(self._paths().api_socket)

    def events(self, model: str) -> list[Event]:
        """What has happened to a model, oldest first."""
        with self.control() as client:
            return list(client.why(model, 1000).events)

    def model(self, name: str) -> ModelStatus:
        """One model of it."""
        return next(model for model in self.status().models if model.name == name)

    def replicas(self, model: str | None = None) -> list[ReplicaStatus]:
        """The replicas of a model, or all."""
        return [replica for replica in self.status().replicas if model in (None, replica.model)]

    def until_state(self, model: str, state: str, deadline_s: float = 30.0) -> ModelStatus:
        """Wait for a model's state."""

        def look() -> ModelStatus | None:
            with contextlib.suppress(NotRunning, ControlError, StopIteration):  # before the first lap there are none
                found = self.model(model)
                return found if found.state == state else None
            return None

        return until(f"{model} is {state}", look, deadline_s)

    def client(self, **more: Any) -> httpx.Client:
        """A client of the gateway."""
        return httpx.Client(base_url=self.url, timeout=60.0, trust_env=False, **more)

    def chat(self, model: str, content: str = "hello", **more: Any) -> httpx.Response:
        """One chat, not streamed."""
        body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)

    # its processes, found from the outside

    def supervisor(self) -> psutil.Process:
        """`modelgrid serve` itself."""
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def controllers(self) -> list[psutil.Process]:
        """The controllers that live."""
        return self._members(roles.Role.CONTROLLER)

    def workers(self) -> list[psutil.Process]:
        """The gateway workers that live."""
        return self._members(roles.Role.GATEWAY)

    def engines(self) -> list[psutil.Process]:
        """Every process of every replica, by the mark that it inherits."""
        return [process for process in self._marked() if census.REPLICA in process.environ()]

    def processes(self) -> list[psutil.Process]:
        """Everything that this installation has started and that still lives, but for `serve` itself."""
        return list(self._marked())

    def end(self) -> None:
        """Kill all of it, in whatever state a test has left it: how it ends in peace has tests of its own."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
        while marked := self.processes():  # until none is left that could have started another
            for process in marked:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(marked, 5)

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"serve has ended with {self.process.returncode}:\n{self.output}"
        with contextlib.suppress(NotRunning, ControlError, httpx.HTTPError):
            expected = self.config["gateway"].get("workers", 1)
            return (
                self.status().workers >= expected
                and httpx.get(f"{self.url}/v1/models", trust_env=False).status_code < 500
            )
        return False

    def _members(self, role: roles.Role) -> list[psutil.Process]:
        return [member.process for member in roles.members(self._paths()) if member.role is role]

    def _marked(self) -> Iterator[psutil.Process]:
        mark = str(self._paths().state)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_alive = process.status() != psutil.STATUS_ZOMBIE
                if is_alive and process.environ().get(census.INSTANCE) == mark:
                    yield process

    def _paths(self) -> Any:
        return find_paths({"MODELGRID_HOME": str(self.home)})

    def _environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELGRID_")}
        return {**kept, "MODELGRID_HOME": str(self.home), **self.environ}
