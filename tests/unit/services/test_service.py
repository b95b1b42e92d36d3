"""The base class, by a service of one's own that runs as a real process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from unit.services.conftest import Program

PROGRAM = '''
"""Shouts."""
import os, pathlib, sys, time
from starlette.responses import JSONResponse
from starlette.routing import Route
from modelgrid.services import Service, ServiceError


class Shout(Service):
    name = "shout"
    body_bytes = 1000

    def load(self):
        gate = os.environ.get("GATE")
        while gate and not pathlib.Path(gate).exists():
            time.sleep(0.01)
        if os.environ.get("BREAK"):
            raise RuntimeError("the weights are broken")

    def routes(self):
        return [Route("/v1/shout", self.shout, methods=["POST"])]

    def close(self):
        print("let go", file=sys.stderr)

    async def shout(self, request):
        body = await self.body(request)
        if "text" not in body:
            raise ServiceError(400, "'text' is missing", param="text")
        return JSONResponse({"text": await self.compute(self.slowly, body["text"])})

    def slowly(self, text):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return text.upper()


if __name__ == "__main__":
    Shout.main()
'''

Shout = Callable[..., "Program"]


@pytest.fixture
def shout(start: Callable[..., Program], tmp_path: Path) -> Shout:
    program = tmp_path / "shout.py"
    program.write_text(PROGRAM)
    return lambda *arguments, port=None, **env: start(str(program), *arguments, env=env, port=port)


def test_it_serves_and_stops_as_asked(shout: Shout) -> None:
    program = shout()
    program.wait_for()
    assert program.post("/v1/shout", {"text": "hello"}).json() == {"text": "HELLO"}
    assert program.get("/ready").json() == {"status": "ready"}
    assert program.get("/v1/models").json()["data"][0]["id"] == "shout"
    assert program.stop() == 0
    assert program.lines()[-1] == "let go"


def test_it_is_not_healthy_before_it_is_loaded(shout: Shout, tmp_path: Path) -> None:
    program = shout(GATE=str(tmp_path / "gate"))
    program.wait_for(status=503)
    assert program.get("/ready").status_code == 503
    answer = program.post("/v1/shout", {"text": "hello"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "shout is still loading")
    (tmp_path / "gate").touch()
    program.wait_for()
    assert program.post("/v1/shout", {"text": "hello"}).status_code == 200


def test_a_stop_does_not_wait_for_a_model_that_loads(shout: Shout, tmp_path: Path) -> None:
    program = shout(GATE=str(tmp_path / "gate"))
    program.wait_for(status=503)
    assert program.stop() == 0


def test_a_model_that_does_not_load_ends_it_and_the_last_line_says_why(shout: Shout) -> None:
    program = shout(BREAK="1")
    assert program.process.wait(30) == 1
    assert program.lines()[-1].endswith("cannot serve shout: RuntimeError: the weights are broken")


def test_what_is_in_flight_is_finished_at_a_stop(shout: Shout) -> None:
    program = shout(SLOW="0.5")
    program.wait_for()
    with httpx.stream("POST", program.url + "/v1/shout", content=b'{"text": "late"}') as answer:
        program.process.send_signal(signal.SIGTERM)
        assert answer.read() == b'{"text":"LATE"}'
    assert program.process.wait(30) == 0


def test_what_outlasts_the_grace_is_left_behind(shout: Shout) -> None:
    program = shout("--grace", "1", SLOW="60")
    program.wait_for()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(program.url + "/v1/shout", content=b'{"text": "late"}', timeout=0.2)
    assert program.stop() == 0


def test_the_key_is_asked_for_everywhere_but_at_health(shout: Shout) -> None:
    program = shout(MODELGRID_ENGINE_KEY="k")
    program.wait_for()
    assert program.get("/ready").status_code == 200
    refused = program.post("/v1/shout", {"text": "x"}, headers={"Authorization": "Bearer other"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert program.get("/v1/models").status_code == 401
    assert program.post("/v1/shout", {"text": "x"}, headers={"Authorization": "Bearer k"}).status_code == 200
    assert "Bearer" not in program.log.read_text()


def test_errors_are_shaped_as_openais(shout: Shout) -> None:
    program = shout()
    program.wait_for()
    missing = program.post("/v1/shout", {})
    assert missing.status_code == 400
    assert missing.json() == {
        "error": {"message": "'text' is missing", "type": "invalid_request_error", "param": "text", "code": None}
    }
    assert "not JSON" in program.post("/v1/shout", b"{").json()["error"]["message"]
    assert "not a JSON object" in program.post("/v1/shout", b"[]").json()["error"]["message"]
    assert program.post("/v1/shout", b"x" * 1001).status_code == 413
    assert program.get("/nothing").json()["error"]["message"] == "GET /nothing: Not Found"
    assert program.get("/v1/shout").status_code == 405
    broken = program.post("/v1/shout", {"text": 1})
    assert (broken.status_code, broken.json()["error"]["type"]) == (500, "engine_error")
    assert program.post("/v1/shout", {"text": "still"}).json() == {"text": "STILL"}


def test_the_environment_names_what_the_arguments_do_not(shout: Shout) -> None:
    program = shout(MODELGRID_MODEL="owner/loud", MODELGRID_PORT="1")
    program.wait_for()
    assert program.get("/v1/models").json()["data"][0]["id"] == "owner/loud"


def test_a_port_in_use_ends_it_and_says_so(shout: Shout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        program = shout(port=taken.getsockname()[1])
        assert program.process.wait(30) == 1
    assert "address already in use" in program.log.read_text()


@pytest.mark.parametrize("module", ["modelgrid.services.faulty", "modelgrid.services.stand_in"])
def test_what_needs_no_web_framework_starts_without_one(module: str) -> None:
    program = f"import sys, {module}; print([m for m in ('starlette', 'uvicorn', 'httpx') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program]).strip() == b"[]"
