"""Who may call, and that no secret is ever shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from e2e.conftest import MakeDaemon
from e2e.daemon import LOOPBACK, Daemon, faulty, until

# Of no known shape, so that only knowing what is a secret hides it.
CANARY = "canary.of.a.remote.3f9c1b7a"
ENGINE_CANARY = "canary.of.an.engine.77d0e2aa"


def new_key(daemon: Daemon, name: str) -> str:
    made = daemon.run("key", "create", name, "--json")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


def status_with(daemon: Daemon, **headers: str) -> int:
    with daemon.client(headers=headers) as client:
        return client.get("/v1/models").status_code


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_a_key_anyone_here_may_call_and_with_one_its_holder_until_it_is_revoked(
    make_daemon: MakeDaemon,
) -> None:
    daemon = make_daemon({"a": faulty()}).start()
    assert status_with(daemon) == 200
    assert status_with(daemon, **bearer("whatever")) == 200
    key = new_key(daemon, "laptop")
    spare = new_key(daemon, "spare")
    until("a key is asked for", lambda: status_with(daemon) == 401, 2)

    assert status_with(daemon, **bearer(key)) == 200
    assert status_with(daemon, **{"x-api-key": key}) == 200
    for wrong in ({}, bearer("mg-" + "x" * 43), bearer(key[:-1]), {"authorization": f"Basic {key}"}):
        assert status_with(daemon, **wrong) == 401
    _refusals_say_what_to_send(daemon)
    _health_needs_no_key(daemon)
    with daemon.client(headers=bearer(key)) as client:
        body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        assert client.post("/v1/chat/a", content="hello").status_code == 200

    assert daemon.run("key", "revoke", "laptop").returncode == 0
    revoked = time.monotonic()
    until("the revoked key is refused", lambda: status_with(daemon, **bearer(key)) == 401, 5)
    assert time.monotonic() - revoked < 1.5  # within a second, and what the look took
    assert status_with(daemon, **bearer(spare)) == 200
    _what_is_kept_of_a_key_is_its_hash(daemon, spare)


def _what_is_kept_of_a_key_is_its_hash(daemon: Daemon, key: str) -> None:
    kept = [path for path in daemon.home.rglob("*") if path.is_file()]
    assert not [path for path in kept if key.encode() in path.read_bytes()]
    for path in (daemon.home / "state", daemon.home / "run"):
        assert path.stat().st_mode & 0o077 == 0


def _refusals_say_what_to_send(daemon: Daemon) -> None:
    with daemon.client() as client:
        none = client.get("/v1/models")
        wrong = client.get("/v1/models", headers=bearer("mg-wrong"))
        plain = client.post("/v1/chat/a", content="hello")
    assert none.headers["www-authenticate"] == "Bearer"
    assert none.json()["error"]["code"] == "invalid_api_key"
    assert none.json()["error"]["message"] == (
        "cannot let this request in: no key was sent "
        "(send 'Authorization: Bearer KEY'; modelgrid key create NAME makes one)"
    )
    assert "is not known here, or was revoked" in wrong.json()["error"]["message"]
    assert "mg-wrong" not in wrong.text
    assert (plain.status_code, plain.headers["content-type"]) == (401, "text/plain; charset=utf-8")


def _health_needs_no_key(daemon: Daemon) -> None:
    with daemon.client() as client:
        assert client.get("/health").json()["status"] == "ok"


class _Provider(BaseHTTPRequestHandler):
    """A provider that asks for its key, as they do."""

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": []})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer({"choices": [{"message": {"role": "assistant", "content": "from afar"}}]})

    def _answer(self, value: dict[str, object]) -> None:
        is_known = self.headers.get("authorization") == f"Bearer {CANARY}"
        body = json.dumps(value if is_known else {"error": {"message": "who are you?"}}).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def provider() -> Iterator[str]:
    server = ThreadingHTTPServer((LOOPBACK, 0), _Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{LOOPBACK}:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_secret_is_shown_anywhere(make_daemon: MakeDaemon, provider: str) -> None:
    remote = {"engine": "remote", "url": provider, "key": "${ELSEWHERE_KEY}"}
    lost = {"engine": "remote", "url": "http://127.0.0.1:9/v1", "key": "${ELSEWHERE_KEY}", "start_timeout": "1s"}
    # An engine that writes its environment's secret into its log, and dies: what its callers are told is masked.
    tells = ["sh", "-c", 'echo "port {port} $TOLD"; exit 3']
    leaky = {"engine": "custom", "command": tells, "env": {"TOLD": "${LEAKY_TOKEN}"}, "needs": {"memory": "1MiB"}}
    environ = {"ELSEWHERE_KEY": CANARY, "LEAKY_TOKEN": ENGINE_CANARY}
    daemon = make_daemon({"far": remote, "lost": lost, "leaky": leaky, "a": faulty()}, environ=environ).start()
    key = new_key(daemon, "laptop")
    until("a key is asked for", lambda: status_with(daemon) == 401, 2)
    secrets = (CANARY, ENGINE_CANARY, key)

    shown: dict[str, str] = {}
    with daemon.client(headers=bearer(key)) as client:
        for model in ("far", "a", "lost", "leaky", "nobody"):
            body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
            answer = client.post("/v1/chat/completions", json=body)
            shown[f"chat {model}"] = answer.text + str(answer.headers)
            assert answer.status_code == {"far": 200, "a": 200, "nobody": 404}.get(model, 503), answer.text
        shown["models"] = client.get("/v1/models").text
        shown["health"] = client.get("/health").text
    assert "exited with code 3" in shown["chat leaky"]  # it did fail as meant, and its last lines are there
    assert "the last lines of its log" in shown["chat leaky"]
    commands = ["status", "status --json", "config show", "key list --json", "why leaky", "why leaky --json"]
    commands += ["why lost --json", "why far --json", "logs leaky"]
    for command in commands:
        done = daemon.run(*command.split())
        shown[command] = done.stdout + done.stderr
    shown["serve"] = daemon.output
    shown |= _command_lines(daemon)
    daemon.run("stop")
    shown |= _files(daemon.home / "state" / "logs")

    found = {where: secret for where, text in shown.items() for secret in secrets if secret in text}
    # What an engine itself writes goes to its own file, byte for byte, which only its owner can read.
    own = {where for where in found if Path(where).match("replicas/leaky-*.log")}
    assert found.keys() - own == set(), found
    assert all(Path(where).stat().st_mode & 0o077 == 0 for where in own)


def _command_lines(daemon: Daemon) -> dict[str, str]:
    processes = [daemon.supervisor(), *daemon.processes()]
    assert len(processes) >= 4  # serve, the controller, a worker, an engine
    lines = {}
    for process in processes:
        try:
            lines[f"process {process.pid}"] = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
    return lines


def _files(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return {str(path): path.read_text(errors="replace") for path in files}
