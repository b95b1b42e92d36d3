"""The control API: what people ask of the daemon, answered on a Unix socket that only its owner may open."""

from __future__ import annotations

import difflib
import time
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from modelgrid import __version__
from modelgrid.api.audit import UNTOLD, Audited, audit_routes
from modelgrid.api.control import Control
from modelgrid.api.keys import group_routes, key_routes
from modelgrid.api.problem import Problem, shape_problems
from modelgrid.api.usage import usage_routes
from modelgrid.spec import Event, LogLines, ModelName, Status, Why, Wish
from modelgrid.spec.fit import Asked, Fit
from modelgrid.spec.status import History
from modelgrid.store import Store

PREFIX = "/control/v1"
LOG_LINES = 10_000  # at most, a replica and an answer
EVENTS = 1_000  # at most, an answer

Limit = Annotated[int, Query(ge=1, le=EVENTS)]
Window = Annotated[float | None, Query(ge=0)]  # seconds up to now; None: as far back as events are kept

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # as Prometheus knows it
_EVENTS_SHOWN = 20
_NAMES_SHOWN = 8


class Health(BaseModel):
    """The daemon answers."""

    status: Literal["ok"] = "ok"
    version: str = __version__


def create_app(control: Control, store: Store) -> FastAPI:
    """The app. `control` is called in the event loop, `store` in threads: its calls may wait for a disk."""
    app = FastAPI(title="modelgrid control API", version=__version__, openapi_url=f"{PREFIX}/openapi.json")
    app.router.redirect_slashes = False
    for routes in (
        _daemon(control),
        _history(control, store),
        _models(control, store),
        key_routes(control, store),
        group_routes(control, store),
        audit_routes(store),
        usage_routes(store),
    ):
        app.include_router(routes, prefix=PREFIX)
    app.include_router(_metrics(control))
    app.add_middleware(Audited, store=store, prefix=PREFIX)
    shape_problems(app)
    return app


def _daemon(control: Control) -> APIRouter:
    routes = APIRouter()

    @routes.get("/health")
    async def health() -> Health:
        return Health()

    @routes.get("/status")
    async def status() -> Status:
        return control.status()

    @routes.post("/fit", name=UNTOLD)
    async def fit(asked: Asked) -> Fit:
        try:
            return await control.fit(asked)
        except ValueError as error:
            raise Problem(422, str(error), code="no_such_fit") from error

    @routes.get("/config", response_class=PlainTextResponse)
    async def config() -> str:
        return control.config()

    return routes


def _metrics(control: Control) -> APIRouter:
    routes = APIRouter()

    @routes.get("/metrics")  # where Prometheus looks, whatever the version of this API
    async def metrics() -> Response:
        return Response(await control.metrics(), media_type=_METRICS_TYPE)

    return routes


def _history(control: Control, store: Store) -> APIRouter:
    routes = APIRouter()

    @routes.get("/why")
    async def why(limit: Limit = EVENTS, since_s: Window = None) -> History:
        status = control.status()
        events, since, has_more = await run_in_threadpool(_recent, store, None, limit, since_s, status.now)
        return History(status.now, status.models, events, since, has_more)

    return routes


def _recent(
    store: Store, model: str | None, limit: int, since_s: float | None, now: float
) -> tuple[tuple[Event, ...], float, bool]:
    """The last events, `limit` at most; since when; and whether that time has more of them."""
    since = 0.0 if since_s is None else now - since_s
    found = [event for event in store.events(model, limit + 1) if event.at >= since]
    return tuple(found[-limit:]), since, len(found) > limit


def _models(control: Control, store: Store) -> APIRouter:
    # A model's name may hold slashes, so it takes all of the path before the last word: "a/why" has its own why.
    routes = APIRouter(prefix="/models")

    @routes.get("/{name:path}/why")
    async def why(name: str, limit: Limit = _EVENTS_SHOWN, since_s: Window = None) -> Why:
        model = _resolve(control, name)
        told = _explain(control.status(), model)
        events, since, has_more = await run_in_threadpool(_recent, store, model, limit, since_s, told.now)
        return replace(told, events=events, since=since, has_more=has_more)

    @routes.get("/{name:path}/logs")
    async def logs(name: str, lines: Annotated[int, Query(ge=1, le=LOG_LINES)] = 100) -> list[LogLines]:
        model = _resolve(control, name)
        _refuse_virtual(control.status(), model, "show the logs of")
        try:
            return list(await control.logs(model, lines))
        except LookupError as error:
            raise _unknown(control, name) from error

    @routes.post("/{name:path}/load", status_code=202, name="model.load")
    async def load(name: str) -> Why:
        return await wish(name, Wish.LOADED, "load", "asked by hand to be loaded")

    @routes.post("/{name:path}/unload", status_code=202, name="model.unload")
    async def unload(name: str) -> Why:
        return await wish(name, Wish.UNLOADED, "unload", "asked by hand to be unloaded")

    async def wish(name: str, wanted: Wish, what: str, reason: str) -> Why:
        model = _resolve(control, name)
        found = _explain(control.status(), model)  # first: what is refused must leave no wish behind
        _refuse_virtual(control.status(), model, what)
        await run_in_threadpool(store.set_wish, ModelName(model), wanted)
        await run_in_threadpool(store.record, [Event(time.time(), model, None, what, reason)])
        control.wake()
        return replace(found, events=tuple(await run_in_threadpool(store.events, model, _EVENTS_SHOWN)))

    return routes


def _explain(status: Status, model: str) -> Why:
    for described in status.models:
        if described.name == model:
            replicas = tuple(replica for replica in status.replicas if replica.model == model)
            behind = tuple(other for name in described.behind for other in status.models if other.name == name)
            is_waiting = described.state != "ready" and (described.waiting > 0 or described.wish == Wish.LOADED)
            others = [replica for replica in status.replicas if replica.model != model and replica.memory_bytes]
            return Why(
                now=status.now,
                model=described,
                replicas=replicas,
                events=(),
                behind=behind,
                free_bytes=status.memory_bytes - status.memory_planned_bytes,
                others=tuple(others) if is_waiting else (),
                kept=tuple(one.name for one in status.models if one.min or one.wish == Wish.LOADED)
                if is_waiting
                else (),
                started=status.started,
            )
    raise Problem(
        503, f"cannot find {model} in the plan: it was configured a moment ago (try again)", code="not_planned_yet"
    )


def _refuse_virtual(status: Status, model: str, what: str) -> None:
    """Raise Problem for what only a model can have done to it."""
    behind = next((described.behind for described in status.models if described.name == model), ())
    if behind:
        why = "it is virtual, with nothing of its own to run"
        step = f"{what} one of the models behind it: {', '.join(behind)}"
        raise Problem(409, f"cannot {what} {model}: {why} ({step})", code="model_is_virtual")


def _resolve(control: Control, name: str) -> str:
    if (model := control.names().get(name)) is None:
        raise _unknown(control, name)
    return model


def _unknown(control: Control, name: str) -> Problem:
    names = control.names()
    models = sorted(set(names.values()))
    if not models:
        why = "no model is configured (try: modelgrid config init)"
    elif near := difflib.get_close_matches(name, names, n=1):
        why = f"there is no such model (did you mean {near[0]!r}?)"
    else:
        more = f", and {len(models) - _NAMES_SHOWN} more" if len(models) > _NAMES_SHOWN else ""
        why = f"there is no such model (there are: {', '.join(models[:_NAMES_SHOWN])}{more})"
    return Problem(404, f"cannot find model {name!r}: {why}", code="model_not_found")
