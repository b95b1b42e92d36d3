"""Served by TLS to pages and programs elsewhere, with a line for each request: the real daemon, one for all of this."""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from e2e.daemon import Daemon, faulty, free_port, until
from modelgrid.config import TlsConfig
from unit.gateway.certificates import make

APP = "https://app.example.com"


@dataclass
class SecureDaemon(Daemon):
    """Its gateway speaks TLS."""

    trusted: list[str] = field(default_factory=list)  # what it was renewed with

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def files(self) -> TlsConfig:
        return TlsConfig(str(self.home / "a.pem"), str(self.home / "a.key"))

    def trusting(self) -> ssl.SSLContext:
        """As those do who trust an authority: also what one worker shows a moment longer than another."""
        context = ssl.create_default_context(cafile=self.files.certificate)
        for certificate in self.trusted:
            context.load_verify_locations(cadata=certificate)
        return context

    def client(self, **more: Any) -> httpx.Client:
        return super().client(verify=self.trusting(), **more)

    def requests(self) -> list[dict[str, Any]]:
        """What was logged, by all workers."""
        files = (self.home / "state" / "logs").glob("requests-*.log")
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def _serves(self) -> bool:
        return len(self.workers()) >= 2 and self.status().workers >= 2


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureDaemon]:
    folder = tmp_path_factory.mktemp("network")
    make(folder / "home")
    gateway = {
        "port": free_port(),
        "workers": 2,
        "tls": {"certificate": "a.pem", "key": "a.key"},
        "cors": {"origins": [APP]},
        "log": {"requests": "all", "format": "json"},
    }
    models = {"a": faulty(scaling={"min": 1})}
    daemon = SecureDaemon(folder / "home", {"gateway": gateway, "machine": {"memory": "8GiB"}, "models": models})
    try:
        daemon.start(ready=False)
        until("it serves", lambda: (daemon.home / "run").exists() and _is_up(daemon))
        daemon.until_state("a", "ready")
        yield daemon
    finally:
        daemon.end()


def _is_up(daemon: SecureDaemon) -> bool:
    try:
        with daemon.client() as client:
            return client.get("/v1/models").status_code == 200
    except httpx.HTTPError:
        return False


def test_openais_client_comes_by_tls(daemon: SecureDaemon) -> None:
    with openai.DefaultHttpxClient(verify=daemon.trusting(), trust_env=False) as transport:
        client = openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", http_client=transport, max_retries=0)
        answer = client.chat.completions.create(model="a", messages=[{"role": "user", "content": "hello"}])
        assert answer.choices[0].message.content
        stream = client.chat.completions.create(model="a", messages=[{"role": "user", "content": "hello"}], stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream if chunk.choices]


def test_who_does_not_trust_the_certificate_or_speaks_plainly_gets_nothing(daemon: SecureDaemon) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{daemon.url}/health", trust_env=False)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://localhost:{daemon.port}/health", trust_env=False)


def test_a_page_elsewhere_asks_first_and_then_reads_the_answer(daemon: SecureDaemon) -> None:
    asks = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with daemon.client() as client:
        first = client.options("/v1/chat/completions", headers=asks)
        assert (first.status_code, first.headers["access-control-allow-origin"]) == (204, APP)
        body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
        answer = client.post("/v1/chat/completions", json=body, headers={"origin": APP})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, APP)
        other = client.post("/v1/chat/completions", json=body, headers={"origin": "https://evil.example"})
        assert (other.status_code, "access-control-allow-origin" in other.headers) == (403, False)
        assert client.get("/health").headers["strict-transport-security"] == "max-age=86400"


def test_the_command_line_says_https(daemon: SecureDaemon) -> None:
    assert daemon.status().address == f"https://127.0.0.1:{daemon.port}"
    until("it is announced", lambda: f"https://127.0.0.1:{daemon.port}/v1" in daemon.output)


def test_each_request_has_a_line_and_no_line_has_a_prompt(daemon: SecureDaemon) -> None:
    body = {"model": "a", "messages": [{"role": "user", "content": "the-prompt"}]}
    with daemon.client() as client:
        headers = {"x-request-id": "seen-once", "x-forwarded-for": "6.6.6.6"}
        assert client.post("/v1/chat/completions?key=secret", json=body, headers=headers).status_code == 200
    lines = until("its line", lambda: [line for line in daemon.requests() if line.get("id") == "seen-once"])
    assert len(lines) == 1
    said = {name: lines[0][name] for name in ("status", "model", "operation", "address", "path")}
    assert said == {
        "status": 200,
        "model": "a",
        "operation": "chat",
        "address": "127.0.0.1",
        "path": "/v1/chat/completions",
    }
    assert "the-prompt" not in str(daemon.requests())
    assert "secret" not in str(daemon.requests())


@pytest.mark.parametrize("asks", ["nothing", "SIGHUP", "restart-workers"])
def test_a_certificate_is_renewed_and_no_caller_is_refused(daemon: SecureDaemon, tmp_path: Path, asks: str) -> None:
    fresh = make(tmp_path)
    daemon.trusted += [Path(files.certificate).read_text() for files in (daemon.files, fresh)]
    trusting = daemon.trusting()
    shown: set[bytes | None] = set()
    errors: list[str] = []
    is_over = threading.Event()

    def come_anew() -> None:
        while not is_over.is_set():
            try:
                with (
                    httpx.Client(verify=trusting, trust_env=False) as client,
                    client.stream("GET", f"{daemon.url}/health") as answer,
                ):
                    assert answer.status_code == 200
                    shown.add(answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True))
            except (httpx.HTTPError, AssertionError) as error:
                errors.append(repr(error))

    callers = [threading.Thread(target=come_anew) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        shutil.copy(fresh.certificate, daemon.files.certificate)
        shutil.copy(fresh.key, daemon.files.key)
        if asks == "SIGHUP":
            daemon.supervisor().send_signal(signal.SIGHUP)
        elif asks == "restart-workers":
            assert daemon.run("restart-workers").returncode == 0
        new = ssl.PEM_cert_to_DER_cert(Path(fresh.certificate).read_text())
        until("the new one is shown", lambda: new in shown)
    finally:
        is_over.set()
        for caller in callers:
            caller.join(30)
    assert errors == []


def test_a_check_tells_what_is_wrong_with_the_files(daemon: SecureDaemon, tmp_path: Path) -> None:
    make(tmp_path, "one", days=3)
    make(tmp_path, "other")
    file = tmp_path / "modelgrid.yaml"
    file.write_text("gateway:\n  tls: {certificate: one.pem, key: other.key}\n")
    refused = daemon.run("config", "check", "--config", str(file))
    assert refused.returncode != 0
    assert "is not the key of" in refused.stderr
    file.write_text("gateway:\n  tls: {certificate: one.pem, key: one.key}\n")
    warned = daemon.run("config", "check", "--config", str(file))
    assert warned.returncode == 0
    assert "warning: the certificate" in warned.stderr
    file.write_text("gateway:\n  cors: {origins: ['*'], credentials: true}\n")
    assert "pages of every site" in daemon.run("config", "check", "--config", str(file)).stderr
