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

Bys = Annotated[str, Query(description="one or more of key, model, operation, day, hour, with commas")]
Seconds = Annotated[float, Query(ge=0, le=MOST_S)]


def usage_routes(store: Store) -> APIRouter:
    """`GET /usage`. It asks the store alone."""
    routes = APIRouter()

    @routes.get("/usage", response_model=UsageReport)
    async def usage(
        by: Bys = "key,model",
        since_s: Seconds = 7 * 86_400.0,
        key: str | None = None,
        model: str | None = None,
        format: Literal["json", "csv"] = "json",
    ) -> UsageReport | Response:
        """What was used in the last `since_s` seconds, in hours of the clock that lie in them at least in part."""
        now = time.time()
        lines = _lines(by)
        try:
            report = await run_in_threadpool(tell_usage, store, now, now - since_s, lines, key, model)
        except UnknownKey as error:
            raise Problem(404, str(error), code="unknown_key") from error
        if format == "csv":
            return PlainTextResponse(usage_as_csv(report), media_type="text/csv; charset=utf-8")
        return report

    return routes


def _lines(by: str) -> tuple[By, ...]:
    try:
        return tuple(By(part) for part in by.split(","))
    except ValueError as error:
        why = f"{error} (write one or more of {', '.join(By)}, with commas between them)"
        raise Problem(422, f"cannot tell the usage by {by!r}: {why}", code="invalid_request") from error
