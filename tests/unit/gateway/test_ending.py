"""How a worker ends: what is in flight is finished, within the grace time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, perf_counter

import pytest

from unit.gateway.world import PATIENCE_S, Asked, Play, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'


async def stall(asked: Asked) -> None:
    await asked.gone()


def takes_connections(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def test_a_worker_that_is_told_to_end_finishes_streams_and_closes_what_is_idle(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        idle, busy = await world.call(), await world.call()
        idle.get("/health")
        await idle.answer()
        busy.post(CHAT, BODY)
        asked = (await until(lambda: engine.asked))[0]
        await asked.begin_events()
        await asked.chunk(b"data: 1\n\n")
        assert (await busy.head()).status == 200
        assert await busy.chunk() == b"data: 1\n\n"
        world.told.set()
        assert await idle.is_closed()
        with pytest.raises(OSError):
            await world.call()
        await asked.chunk(b"data: [DONE]\n\n")
        await asked.chunk(b"")
        assert await busy.chunk() == b"data: [DONE]\n\n"
        assert await busy.chunk() == b""
        assert await busy.is_closed()
        await until(world.worker.done)

    play(scene)


def test_an_answer_during_the_end_says_that_the_connection_closes(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        asked = (await until(lambda: engine.asked))[0]
        world.told.set()
        await until(lambda: world.is_draining)
        await asked.sized(b"{}")
        answered = await caller.answer()
        assert (answered.status, answered.headers["connection"]) == (200, "close")

    play(scene)


def test_those_who_wait_are_still_served_within_the_grace_time(play: Play) -> None:
    async def scene(world: World) -> None:
        await world.controller.publish(route())
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: world.controller.demands)
        world.told.set()
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        assert (await caller.answer()).status == 200

    play(scene)


def test_the_grace_time_ends_with_an_answer_or_an_error_event(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        silent, streaming = await world.call(), await world.call()
        silent.post(CHAT, BODY)
        await until(lambda: len(engine.asked) == 1)
        streaming.post(CHAT, BODY)
        await until(lambda: len(engine.asked) == 2)
        await engine.asked[1].begin_events()
        await engine.asked[1].chunk(b"data: 1\n\n")
        start = perf_counter()
        world.told.set()
        answered = await silent.answer()
        assert (answered.status, json.loads(answered.body)["error"]["code"]) == (503, "stopping")
        answered = await streaming.answer()
        assert not answered.is_whole
        error = json.loads(answered.body.split(b"data: ")[-1])["error"]
        assert (error["type"], error["code"]) == ("server_error", "stopping")
        assert error["message"] == "the stream ends early: modelgrid is stopping"
        await until(world.worker.done)
        assert 0.2 < perf_counter() - start < 5

    play(scene, grace_s=0.3)


def test_told_twice_it_ends_at_once(play: Play) -> None:
    async def scene(world: World) -> None:
        engine = await world.engine(stall)
        await world.controller.publish(route(engine.target("m-1")))
        caller = await world.call()
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked)
        world.told.set()
        await until(lambda: world.is_draining)
        start = perf_counter()
        world.told_again.set()
        await until(world.worker.done)
        assert perf_counter() - start < 1

    play(scene)


def test_a_worker_whose_link_fails_for_a_defect_ends_by_itself_and_says_so(play: Play) -> None:
    async def scene(world: World) -> None:
        await until(world.worker.done)
        ends.append(world.worker.exception())
        assert not takes_connections(world.address)

    ends: list[BaseException | None] = []
    with pytest.raises(UnicodeEncodeError) as raised:  # again as its world ends
        play(scene, link_socket=Path("no\ud800name"))
    assert ends == [raised.value]


@pytest.mark.parametrize("twice", [False, True])
def test_a_worker_process_ends_by_sigterm_and_not_by_sigint(tmp_path: Path, twice: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    program = (
        "import socket, sys; from pathlib import Path; from modelgrid.gateway import GatewayOptions, run_worker;"
        "folder = Path(sys.argv[2]);"
        "options = GatewayOptions(worker='w', link_socket=folder / 'link', table_file=folder / 'table');"
        "run_worker(socket.socket(fileno=int(sys.argv[1])), options)"
    )
    number = listener.fileno()
    worker = subprocess.Popen([sys.executable, "-c", program, str(number), str(tmp_path)], pass_fds=[number])
    address = listener.getsockname()
    listener.close()
    try:
        with socket.create_connection(address, timeout=PATIENCE_S) as caller:
            caller.sendall(b"POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            assert caller.recv(1000).startswith(b"HTTP/1.1 405")
            caller.sendall(b"GET /health HT")  # begun, so that the drain waits for the rest
            os.kill(worker.pid, signal.SIGINT)
            os.kill(worker.pid, signal.SIGTERM)
            if twice:
                os.kill(worker.pid, signal.SIGTERM)
            else:
                deadline = monotonic() + PATIENCE_S
                while takes_connections(address) and monotonic() < deadline:
                    pass
                caller.sendall(b"TP/1.1\r\n\r\n")
                assert b"connection: close" in caller.recv(1000)
        assert worker.wait(PATIENCE_S) == 0
    finally:
        worker.kill()
        worker.wait()
