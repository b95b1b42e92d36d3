"""Callers come by TLS where that is configured: what works without it works with it, and certificates are replaced."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from modelgrid.config import TlsConfig
from modelgrid.gateway.certificate import Certificate
from unit.gateway.certificates import make
from unit.gateway.world import PATIENCE_S, Asked, Play, Raw, World, route, until

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m"}'


def trusting(files: TlsConfig) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files.certificate)


async def call(world: World, context: ssl.SSLContext) -> Raw:
    return Raw(*await asyncio.open_connection(*world.address, ssl=context, server_hostname="localhost"))


def secured(raw: Raw) -> Any:
    return raw.writer.get_extra_info("ssl_object")


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_and_streams_are_served(play: Play, tmp_path: Path, workers: int) -> None:
    files = make(tmp_path)

    async def stream(asked: Asked) -> None:
        await asked.begin_events()
        for _ in range(100):
            await asked.chunk(b"data: {}\n\n")
        await asked.chunk(b"")

    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        caller = await call(world, trusting(files))
        for body in (BODY, b'{"model":"m","x":"%b"}' % (b"x" * 3_000_000), BODY):
            caller.post(CHAT, body)
            assert (await caller.answer()).body == body
        engine.once.append(stream)
        caller.post(CHAT, BODY)
        assert (await caller.answer()).body == b"data: {}\n\n" * 100
        caller.post(CHAT, BODY)
        caller.post(CHAT, BODY)
        assert [(await caller.answer()).status for _ in range(2)] == [200, 200]
        caller.get("/health", "Connection: close\r\n")
        answered = await caller.answer()
        assert answered.headers["strict-transport-security"] == "max-age=86400"
        assert await caller.is_closed()

    play(scene, tls=files, workers=workers)


def test_it_is_http_1_by_tls_of_today(play: Play, tmp_path: Path) -> None:
    files = make(tmp_path)

    async def scene(world: World) -> None:
        await world.controller.publish()
        context = trusting(files)
        context.set_alpn_protocols(["h2", "http/1.1"])
        caller = await call(world, context)
        assert (secured(caller).version(), secured(caller).selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        old = trusting(files)
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await call(world, old)

    with pytest.warns(DeprecationWarning, match="deprecated"):  # to ask for it
        play(scene, tls=files)


def test_who_speaks_plainly_is_not_answered_and_hurts_nobody(play: Play, tmp_path: Path) -> None:
    files = make(tmp_path)

    async def scene(world: World) -> None:
        await world.controller.publish()
        plain = await world.call()
        plain.get("/health")
        assert b"HTTP/1.1 200" not in await plain.rest()
        caller = await call(world, trusting(files))
        caller.get("/health")
        assert (await caller.answer()).status == 200

    play(scene, tls=files)
    play(scene, tls=files, workers=2)


def test_a_caller_who_leaves_takes_its_request_along(play: Play, tmp_path: Path) -> None:
    files = make(tmp_path)

    async def scene(world: World) -> None:
        gone = asyncio.Event()

        async def wait(asked: Asked) -> None:
            await asked.gone()
            gone.set()

        engine = await world.engine(wait)
        await world.controller.publish(route(engine.target("m-1", slot=1)))
        caller = await call(world, trusting(files))
        caller.post(CHAT, BODY)
        await until(lambda: engine.asked, "the request")
        caller.leave()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
        await world.rests()

    play(scene, tls=files)


def test_who_is_refused_while_it_sends_can_read_why(play: Play, tmp_path: Path) -> None:
    files = make(tmp_path)

    async def scene(world: World) -> None:
        await world.controller.publish()
        caller = await call(world, trusting(files))
        caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{")
        assert (await caller.answer()).status == 413
        caller.leave()

    play(scene, tls=files)


def test_a_certificate_that_is_replaced_is_shown_to_who_comes_next(play: Play, tmp_path: Path) -> None:
    files, fresh = make(tmp_path / "served"), make(tmp_path / "fresh")

    async def scene(world: World) -> None:
        engine = await world.engine()
        await world.controller.publish(route(engine.target("m-1")))
        before = await call(world, trusting(files))
        before.post(CHAT, BODY)
        assert (await before.answer()).status == 200
        first = Path(files.certificate).read_bytes()
        shutil.copy(fresh.certificate, files.certificate)  # the key comes a moment later
        shutil.copy(fresh.key, files.key)

        async def is_shown() -> bool:
            with_new = trusting(fresh)
            try:
                (await call(world, with_new)).leave()
            except ssl.SSLCertVerificationError:
                return False
            return True

        async with asyncio.timeout(PATIENCE_S):
            while not await is_shown():
                await asyncio.sleep(0.05)
        before.post(CHAT, BODY)  # whoever is there goes on
        assert (await before.answer()).status == 200
        assert first != Path(files.certificate).read_bytes()

    play(scene, tls=files)


def test_files_that_do_not_belong_together_leave_what_was_there(tmp_path: Path) -> None:
    files, fresh = make(tmp_path / "served"), make(tmp_path / "fresh")
    shown = ssl.PEM_cert_to_DER_cert(Path(files.certificate).read_text())
    new = ssl.PEM_cert_to_DER_cert(Path(fresh.certificate).read_text())
    certificate = Certificate(files)
    assert _shown_by(certificate.context) == shown
    shutil.copy(fresh.certificate, files.certificate)
    certificate.refresh()
    assert _shown_by(certificate.context) == shown
    Path(files.key).unlink()
    certificate.refresh()
    assert _shown_by(certificate.context) == shown
    shutil.copy(fresh.key, files.key)
    certificate.refresh()
    assert _shown_by(certificate.context) == new


def _shown_by(context: ssl.SSLContext) -> bytes | None:
    """What a handshake shows, in memory."""
    caller = ssl.create_default_context()
    caller.check_hostname, caller.verify_mode = False, ssl.CERT_NONE
    to_server, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_caller, server_side=True)
    client = caller.wrap_bio(to_caller, to_server)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return client.getpeercert(binary_form=True)


def test_a_handshake_that_does_not_go_on_keeps_nobody_out(play: Play, tmp_path: Path) -> None:
    files = make(tmp_path)

    async def scene(world: World) -> None:
        await world.controller.publish()
        silent = [socket.create_connection(world.address) for _ in range(20)]
        caller = await call(world, trusting(files))
        caller.get("/health")
        assert (await caller.answer()).status == 200
        for one in silent:
            one.close()

    play(scene, tls=files)
    play(scene, tls=files, workers=2)
