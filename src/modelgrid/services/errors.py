"""What a caller is told when a request can't be served: answers in OpenAI's shape."""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

LEFT = 499  # nobody reads it; proxies' logs know the number


class ServiceError(HTTPException):
    """A request that can't be served: becomes an OpenAI-shaped answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_s: int | None = None,
    ) -> None:
        super().__init__(status, message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_s = retry_s


def answer(error: ServiceError) -> JSONResponse:
    """The answer that tells it."""
    kind = "invalid_request_error" if error.status_code < 500 else "engine_error"
    headers = {"retry-after": str(error.retry_s)} if error.retry_s is not None else None
    shape = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return JSONResponse({"error": shape}, error.status_code, headers=headers)


async def answer_service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return answer(error)


async def answer_invalid(_request: Request, error: Exception) -> Response:
    """What pydantic refuses. The first problem is named: callers mend one at a time, and the rest often follows."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    kind, (_, *place) = str(first["type"]), first["loc"]
    if kind == "json_invalid":
        return answer(ServiceError(400, f"cannot read the request: its body is not JSON: {first['ctx']['error']}"))
    if not place:
        missing = "there is none" if kind == "missing" else "it is not a JSON object"
        return answer(ServiceError(400, f"cannot read the request's body: {missing}"))
    param = ".".join(str(step) for step in place)
    if kind == "missing":
        return answer(ServiceError(400, f"'{param}' is missing", param=param, code="missing_required_parameter"))
    # A validator of ours says all there is to say; pydantic would write "Value error, " before it.
    said = str(first["msg"]).removeprefix("Value error, ")
    return answer(ServiceError(400, f"cannot read '{param}': {said}", param=param, code="invalid_value"))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = answer(ServiceError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
    told.headers.update(error.headers or {})
    return told


async def answer_left(_request: Request, _error: Exception) -> Response:
    """For whoever left before all of the request had come: nobody reads it, and it is no failure to be logged."""
    return answer(ServiceError(LEFT, "the caller left"))


async def answer_failure(_request: Request, error: Exception) -> Response:
    # Starlette raises it on after this answer, and uvicorn logs it with its traceback.
    return answer(ServiceError(500, f"the service failed: {type(error).__name__}: {error}"))
