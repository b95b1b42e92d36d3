"""The base class of model servers: health, readiness, graceful shutdown, logging, keys and errors, once.

A service of one's own is a subclass and three lines::

    class Shout(Service):
        name = "shout"

        def load(self) -> None:
            self.suffix = "!"

        def routes(self) -> list[BaseRoute]:
            return [Route("/v1/shout", self.shout, methods=["POST"])]

        async def shout(self, request: Request) -> JSONResponse:
            body = await self.body(request)
            return JSONResponse({"text": await self.compute(str.upper, body["text"]) + self.suffix})


    if __name__ == "__main__":
        Shout.main()

It runs alone (``python shout.py --port 8004``) and below modelgrid alike, which tells it its port and key by the
environment. It imports nothing of the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import contextlib
import hmac
import json
import logging
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

P = ParamSpec("P")
T = TypeVar("T")

_OPEN_PATHS = frozenset({"/health", "/ready"})  # what runtimes ask without a key


class ServiceError(Exception):
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
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True)
class Options:
    """How a service was told to run."""

    name: str  # what callers know the model by
    model: str | None = None  # path or id of the weights
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "info"
    grace_s: int = 8  # for requests in flight at a shutdown; a runtime kills after 10 s unless told otherwise


class Service(ABC):
    """A model server. Subclasses say what to load and what to serve."""

    name: ClassVar[str] = "service"
    port: ClassVar[int] = 8000
    body_bytes: ClassVar[int] = 64 << 20  # the largest body that is read
    needs_model: ClassVar[bool] = False

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options(name=self.name, port=self.port)
        self.log = logging.getLogger(f"modelgrid.{self.name}")
        self._loaded = False
        self._stopping = False
        self._failure: BaseException | None = None
        # One thread: a model computes one thing at a time, and the event loop stays free to answer.
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")

    @abstractmethod
    def load(self) -> None:
        """Load the model. Blocks as long as it takes, in a thread; /health answers 503 until it returns."""

    @abstractmethod
    def routes(self) -> list[BaseRoute]:
        """What is served, besides /health, /ready and /v1/models."""

    def close(self) -> None:  # noqa: B027  a hook: most services have nothing to let go
        """Called once after the last request, where something has to be let go."""

    @classmethod  # noqa: B027  a hook: most services have none
    def arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add arguments of the service's own; `configure` receives them."""

    def configure(self, arguments: argparse.Namespace) -> None:  # noqa: B027  a hook, as `arguments` is
        """Take what `arguments` added."""

    @classmethod
    def main(cls, argv: list[str] | None = None) -> None:
        """The program: read the arguments, serve until SIGTERM. Exits with 1 when loading failed."""
        arguments = cls._parser(os.environ).parse_args(argv)
        service = cls._made(arguments)
        set_up_logging(service.options.log_level)
        service.run()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; what is in flight then has `grace_s` to end."""
        # uvicorn raises the signal again after it has shut down: with these in place that is not a second death,
        # and a service that stopped as asked exits with 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing)
        key = os.environ.get("MODELGRID_ENGINE_KEY")
        config = uvicorn.Config(
            self.app(key),
            host=self.options.host,
            port=self.options.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=self.options.grace_s,
            timeout_keep_alive=75,
        )
        server = _Server(config, self)
        self.log.info("serving %s on http://%s:%d", self.options.name, self.options.host, self.options.port)
        with contextlib.suppress(SystemExit):  # how uvicorn ends where it can't listen, after saying why
            server.run()
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._end(failed=self._failure is not None or not server.started)

    def app(self, key: str | None = None) -> Starlette:
        """The ASGI application. With `key`, all but health asks for it as a bearer token."""
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/ready", self._ready),
                Route("/v1/models", self._models),
                *self.routes(),
            ],
            middleware=[Middleware(_Guard, service=self, key=key)],
            exception_handlers={
                ServiceError: _answer_service_error,
                HTTPException: _answer_http_exception,
                Exception: _answer_failure,
            },
            lifespan=self._lifespan,
        )

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the service's one worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, lambda: function(*args, **kwargs))

    async def body(self, request: Request) -> dict[str, Any]:
        """The request's JSON object. Raises ServiceError."""
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.body_bytes:
                raise ServiceError(413, f"cannot read the request: its body is larger than {self.body_bytes} bytes")
            parts.append(part)
        try:
            body = json.loads(b"".join(parts))
        except ValueError as error:
            raise ServiceError(400, f"cannot read the request: its body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise ServiceError(400, "cannot read the request: its body is not a JSON object")
        return body

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has returned."""
        return self._loaded

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        # A daemon thread: a stop while a model loads must not wait for it.
        threading.Thread(target=self._load, name="load", daemon=True).start()
        yield
        if self._loaded:
            self.close()

    def _load(self) -> None:
        try:
            self.load()
        except BaseException as failure:
            self.log.exception("cannot load the model")
            self._failure = failure
        else:
            self._loaded = True
            self.log.info("ready")

    def _end(self, *, failed: bool) -> None:
        if self._failure is not None:
            reason = f"{type(self._failure).__name__}: {self._failure}".strip()
            self.log.error("cannot serve %s: %s", self.options.name, reason)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(1 if failed else 0)  # a thread that still loads or computes is not waited for

    async def _health(self, _request: Request) -> Response:
        if not self._loaded:
            return JSONResponse({"status": "loading"}, 503)
        return JSONResponse({"status": "ok", "model": self.options.name, "pid": os.getpid()})

    async def _ready(self, _request: Request) -> Response:
        if not self._loaded or self._stopping:
            return JSONResponse({"status": "stopping" if self._stopping else "loading"}, 503)
        return JSONResponse({"status": "ready"})

    async def _models(self, _request: Request) -> Response:
        model = {"id": self.options.name, "object": "model", "created": 0, "owned_by": "modelgrid"}
        return JSONResponse({"object": "list", "data": [model]})

    @classmethod
    def _made(cls, arguments: argparse.Namespace) -> Self:
        service = cls(
            Options(
                name=arguments.name,
                model=arguments.model,
                host=arguments.host,
                port=arguments.port,
                log_level=arguments.log_level,
                grace_s=arguments.grace,
            )
        )
        service.configure(arguments)
        return service

    @classmethod
    def _parser(cls, environ: Mapping[str, str]) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=(sys.modules[cls.__module__].__doc__ or "").split("\n")[0])
        add = parser.add_argument
        port = int(environ.get("MODELGRID_PORT") or environ.get("PORT") or cls.port)
        add("--model", required=cls.needs_model, help="path or id of the weights")
        add("--name", default=environ.get("MODELGRID_MODEL") or cls.name, help="what callers know it by")
        add("--host", default=environ.get("MODELGRID_HOST") or "127.0.0.1")
        add("--port", type=int, default=port, help="default: $MODELGRID_PORT, $PORT, %(default)s")
        add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
        add("--grace", type=int, default=8, metavar="S", help="seconds for requests in flight at a shutdown")
        cls.arguments(parser)
        return parser


def set_up_logging(level: str) -> None:
    """One line an event, on stderr."""
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(levelname)s %(asctime)s [%(name)s] %(message)s", force=True
    )
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Server(uvicorn.Server):
    """Ends when loading failed, and tells the service that it is stopping."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def on_tick(self, counter: int) -> bool:
        if self._service._failure is not None:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        self._service._stopping = True
        self._service.log.info("stopping: finishing what is in flight")
        await super().shutdown(sockets)


class _Guard:
    """Asks for the key, and turns requests away while the model loads."""

    def __init__(self, app: ASGIApp, service: Service, key: str | None) -> None:
        self._app = app
        self._service = service
        self._expected = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if self._expected and not hmac.compare_digest(given, self._expected):
                error = ServiceError(401, "the engine's key is missing or wrong", code="invalid_api_key")
                await _error_answer(error)(scope, receive, send)
                return
            if not self._service.is_loaded and scope["path"] != "/v1/models":
                error = ServiceError(503, f"{self._service.options.name} is still loading", retry_s=5)
                await _error_answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _error_answer(error: ServiceError) -> JSONResponse:
    kind = "invalid_request_error" if error.status < 500 else "engine_error"
    headers = {"retry-after": str(error.retry_s)} if error.retry_s is not None else None
    shape = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return JSONResponse({"error": shape}, error.status, headers=headers)


async def _answer_service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _error_answer(error)


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _error_answer(ServiceError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
    answer.headers.update(error.headers or {})
    return answer


async def _answer_failure(_request: Request, error: Exception) -> Response:
    # Starlette raises it on after this answer, and uvicorn logs it with its traceback.
    return _error_answer(ServiceError(500, f"the service failed: {type(error).__name__}: {error}"))


def _nothing(*_: object) -> None:
    """A signal handler that does nothing."""
