"""The audit log: whoever changes something by the control API leaves a line that says so, refused or not."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelgrid.spec import Deed
from modelgrid.spec.messages import ANYONE, BY, OWNER
from modelgrid.store import KeyRecord, Store, StoreError

UNTOLD = "untold"  # the name of a route that is asked by POST, and changes nothing

_DEEDS = 1_000  # at most, an answer
_TARGET_CHARACTERS = 200
_SAFE = ("GET", "HEAD", "OPTIONS")

_log = structlog.get_logger()


def audit_routes(store: Store) -> APIRouter:
    """``/audit``"""
    routes = APIRouter()

    @routes.get("/audit")
    async def audit(
        limit: Annotated[int, Query(ge=1, le=_DEEDS)] = 100,
        since_s: Annotated[float | None, Query(ge=0, allow_inf_nan=False)] = None,
    ) -> list[Deed]:
        since = 0.0 if since_s is None else time.time() - since_s
        return await run_in_threadpool(store.audit, limit, since)

    return routes


def aim(request: Request, target: str) -> None:
    """Say what the request does something to, where its path doesn't."""
    request.state.target = target


class Audited:
    """Around the app: notes what was done, and lets nobody keep an answer."""

    def __init__(self, app: ASGIApp, store: Store, prefix: str) -> None:
        self._app = app
        self._store = store
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        status = 500  # of what ends without an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"cache-control", b"no-store")]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if scope["method"] not in _SAFE:
                await self._note(scope, status)

    async def _note(self, scope: Scope, status: int) -> None:
        route = scope.get("route")
        what = getattr(route, "name", UNTOLD)
        if what == UNTOLD or scope["method"] not in getattr(route, "methods", ()):  # of the path's, none was asked
            return
        state, named = scope.get("state", {}), scope.get("path_params", {})
        target = state.get("target") or named.get("name") or named.get("id_or_name") or ""
        outcome = "ok" if status < 400 else str(state.get("code", status))
        try:
            await run_in_threadpool(self._write, _by(scope), what, printable(target), outcome)
        except StoreError as error:
            _log.error("audit.not_written", what=what, why=str(error))

    def _write(self, by: str, what: str, target: str, outcome: str) -> None:
        name = "" if by in (OWNER, ANYONE) else _name_of(by, self._store.keys())
        self._store.note(Deed(time.time(), by, name, what, target, outcome))


def printable(target: str) -> str:
    """`target` on one line, without what would move a terminal's cursor."""
    shown = target[:_TARGET_CHARACTERS]
    return shown if shown.isprintable() else repr(shown)[1:-1]


def _name_of(id: str, keys: Iterable[KeyRecord]) -> str:
    return next((key.name for key in keys if key.id == id), "")


def _by(scope: Scope) -> str:
    found: bytes | None = next((value for name, value in scope["headers"] if name == BY), None)
    return OWNER if found is None else printable(found.decode("latin-1"))
