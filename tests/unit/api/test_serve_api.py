"""Serving the control API: one daemon a socket, and an end that comes."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from fastapi import FastAPI

from modelgrid.api import ApiError, serve_api


def test_a_second_daemon_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"

    async def both() -> None:
        stop = asyncio.Event()
        first = asyncio.create_task(serve_api(FastAPI(), path, stop))
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="another modelgrid answers there"):
            await asyncio.wait_for(serve_api(FastAPI(), path, stop), 10)
        assert path.exists()
        stop.set()
        await first

    asyncio.run(both())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match=r"cannot serve the control API at .*/none/api\.sock: No such file"):
        asyncio.run(serve_api(FastAPI(), tmp_path / "none" / "api.sock", asyncio.Event()))


def test_it_ends_although_a_client_holds_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"

    async def hold() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(serve_api(FastAPI(), path, stop, grace_s=1))
        await asyncio.sleep(0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            stop.set()
            await asyncio.wait_for(serving, 20)

    asyncio.run(hold())
