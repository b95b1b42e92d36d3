"""The official OpenAI client for Node, through the gateway. Node 20 or later and npm have to be there."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.clients import FITTING, SCHEMA, SOLO, SOUND, Served, heard, told
from e2e.daemon import until

HERE = Path(__file__).parent / "node"
MODULES = Path(__file__).parents[2] / ".cache" / "node"  # installed once, and used without a network afterwards
PINS = ("package.json", "package-lock.json")
INSTALL_S, SCENARIO_S = 240.0, 60.0

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def modules() -> Path:
    """The folder that holds the pinned client."""
    if not all(_same(HERE / pin, MODULES / pin) for pin in PINS) or not (MODULES / "node_modules" / "openai").exists():
        npm = shutil.which("npm")
        assert npm, "cannot install the Node client: npm is not there (install Node 20 or later)"
        shutil.rmtree(MODULES, ignore_errors=True)
        MODULES.mkdir(parents=True)
        for pin in PINS:
            shutil.copy(HERE / pin, MODULES / pin)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=MODULES, check=True, timeout=INSTALL_S)
    return MODULES


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


@pytest.fixture
def run(served: Served, modules: Path) -> Run:
    """Runs a scenario: ``run("chat")`` returns what it printed."""

    def run(name: str, **more: Any) -> Any:
        node = shutil.which("node")
        assert node, "cannot run the Node client: node is not there (install Node 20 or later)"
        argument = {"url": served.url, "key": served.key, "model": SOLO, "modules": str(modules), "schema": SCHEMA}
        done = subprocess.run(
            [node, str(HERE / "scenarios.mjs"), name, json.dumps({**argument, **more})],
            capture_output=True,
            text=True,
            timeout=SCENARIO_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_chat_is_answered_whole_and_streamed(run: Run) -> None:
    chat = run("chat")
    assert chat["whole"].startswith("pid ")
    assert chat["streamed"] == chat["whole"]
    assert chat["usage"]["completion_tokens"] > 0


def test_a_tool_is_called(run: Run) -> None:
    assert run("tools") == {"asked": FITTING, "streamed": FITTING}


def test_structured_output_fits(run: Run) -> None:
    assert run("structured") == [FITTING, FITTING]


def test_responses_are_made_kept_and_deleted(run: Run) -> None:
    responses = run("responses")
    assert responses["found"] == responses["made"]
    assert (responses["gone"], responses["last"]) == ("NotFoundError", "response.completed")


def test_files_are_uploaded(run: Run) -> None:
    data = SOUND[:65_000]  # it travels on the command line
    uploads = run("uploads", sound=base64.b64encode(data).decode())
    assert uploads["heard"] == uploads["streamed"] == heard("talk.wav", data)
    assert uploads["digests"] == [hashlib.sha256(data).hexdigest()] * 2


def test_sounds_and_pictures_arrive(run: Run) -> None:
    assert run("binary") == ["RIFF", "\x89PNG"]


ERRORS = {
    400: "BadRequestError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
}


@pytest.mark.parametrize("status", ERRORS)
def test_an_engines_error_is_the_clients_exception(run: Run, status: int) -> None:
    failure = run("failure", headers=told(status=status))
    assert (failure["kind"], failure["status"]) == (ERRORS[status], status)
    assert f"told to answer {status}" in failure["message"]


def test_modelgrids_own_errors_are_the_clients_exceptions(run: Run) -> None:
    assert run("failure", model="nothing")["kind"] == "NotFoundError"
    assert run("failure", key="mg-wrong")["kind"] == "AuthenticationError"


@pytest.mark.parametrize("status", [429, 503])
def test_a_client_retries_as_long_as_it_is_told_to_wait(served: Served, run: Run, status: int) -> None:
    headers = told(status=status, retry_after="1", first=1)
    failure = run("failure", headers=headers, retries=2)
    assert failure["kind"] == "answered"
    assert 1000 <= failure["took_ms"] < 10_000
    assert [seen["status"] for seen in served.course(headers["x-request-id"])] == [status, 200]


def test_a_client_that_times_out_frees_the_engine(served: Served, run: Run) -> None:
    headers = told(hang=True)
    assert run("failure", headers=headers, timeout_ms=500)["kind"] == "APIConnectionTimeoutError"
    until("the engine is told", lambda: [seen for seen in served.course(headers["x-request-id"]) if seen["left"]])


def test_an_engine_lost_within_a_stream_is_an_error_of_the_stream(run: Run) -> None:
    failure = run("failure", headers=told(cut_events=2, chunk_delay=0.05), stream=True)
    assert (failure["kind"], failure["said"]) == ("APIError", 2)


def test_a_stream_that_its_reader_leaves_is_ended_at_the_engine(served: Served, run: Run) -> None:
    headers = told(chunks=500, chunk_delay=0.02)
    run("leave", headers=headers)
    (seen,) = served.course(headers["x-request-id"])
    assert seen["left"]
    assert seen["left"]["monotonic_ms"] - seen["first_byte"]["monotonic_ms"] < 1500
