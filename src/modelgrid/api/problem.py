"""Every answer that is not what was asked for has one shape: ``{"error": {"message", "type", "code"}}``."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from modelgrid.store import StoreError


class Problem(Exception):
    """What can't be done, by whose fault (`type`), and a word for programs (`code`)."""

    def __init__(self, status: int, message: str, *, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def type(self) -> str:
        return "server_error" if self.status >= 500 else "invalid_request_error"


def shape_problems(app: FastAPI) -> None:
    """Make `app` answer in this shape, whatever goes wrong."""

    async def problem(request: Request, error: Problem) -> Response:
        return _told(request, error)

    async def store(request: Request, error: StoreError) -> Response:
        return _told(request, Problem(503, str(error), code="store_error"))

    async def http(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}"
        why = {404: "there is no such path", 405: "this path has another method"}.get(error.status_code, error.detail)
        code = {404: "unknown_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return _answer(
            Problem(error.status_code, f"cannot answer {what}: {why} (see: GET /control/v1/openapi.json)", code=code),
            dict(error.headers or {}),
        )

    async def invalid(request: Request, error: RequestValidationError) -> Response:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        what = f"{request.method} {request.url.path}"
        why = Problem(422, f"cannot answer {what}: {faults} (mend the request)", code="invalid_request")
        return _told(request, why)

    async def defect(request: Request, error: Exception) -> Response:
        what = f"{request.method} {request.url.path}"
        why = f"{type(error).__name__} in modelgrid"
        return _answer(Problem(500, f"cannot answer {what}: {why} (its log has the details)", code="defect"))

    # FastAPI's type for handlers is of the widest exception, so each is handed over by name.
    app.exception_handler(Problem)(problem)
    app.exception_handler(StoreError)(store)
    app.exception_handler(HTTPException)(http)
    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(Exception)(defect)


def _told(request: Request, problem: Problem) -> Response:
    request.state.code = problem.code  # for the audit log
    return _answer(problem)


def _answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    body = {"error": {"message": str(problem), "type": problem.type, "code": problem.code}}
    return Response(msgspec.json.encode(body), problem.status, headers, media_type="application/json")
