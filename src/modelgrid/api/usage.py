"""What was used, as the control API tells it."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, Response

from modelgrid.api.problem import Problem
from modelgrid.spec.usage import By, UsageReport
from modelgrid.store import Store, UnknownKey, tell_usage, usage_as_csv

MOST_S = 400 * 86_400.0

Bys = Annotated[tuple[By, ...], Query()]
Seconds = Annotated[float, Query(ge=0, le=MOST_S)]


def usage_routes(store: Store) -> APIRouter:
    """`GET /usage`. It asks the store alone."""
    routes = APIRouter()

    @routes.get("/usage", response_model=UsageReport)
    async def usage(
        by: Bys = (By.KEY, By.MODEL),
        since_s: Seconds = 7 * 86_400.0,
        key: str | None = None,
        model: str | None = None,
        format: Literal["json", "csv"] = "json",
    ) -> UsageReport | Response:
        """What was used in the last `since_s` seconds, in hours of the clock that lie in them at least in part."""
        now = time.time()
        try:
            report = await run_in_threadpool(tell_usage, store, now, now - since_s, by, key, model)
        except UnknownKey as error:
            raise Problem(404, str(error), code="unknown_key") from error
        if format == "csv":
            return PlainTextResponse(usage_as_csv(report), media_type="text/csv; charset=utf-8")
        return report

    return routes
