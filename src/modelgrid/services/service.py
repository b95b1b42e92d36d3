"""The base class of model servers: health, readiness, graceful shutdown, logging, keys and errors, once.

A service of one's own is a subclass and three lines; the routes are FastAPI's, and so are their checks::

    class Asked(BaseModel):
        text: str


    class Shout(Service):
        name = "shout"

        def load(self) -> None:
            self.suffix = "!"

        def routes(self) -> list[BaseRoute]:
            return [APIRoute("/v1/shout", self.shout, methods=["POST"])]

        async def shout(self, asked: Asked) -> dict[str, str]:
            return {"text": await self.compute(str.upper, asked.text) + self.suffix}


    if __name__ == "__main__":
        Shout.main()

It runs alone (``python shout.py --port 8004``) and below modelgrid alike, which tells it its port and key by the
environment. It imports nothing of the daemon.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, Self, TypeVar

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from modelgrid.services import stand_in
from modelgrid.services.accelerator import limit_memory, parse_bytes, share_cores
from modelgrid.services.errors import (
    ServiceError,
    answer_failure,
    answer_http_exception,
    answer_invalid,
    answer_left,
    answer_service_error,
)
from modelgrid.services.guard import Guard
from modelgrid.services.meters import Meters
from modelgrid.services.weights import find_weights
from modelgrid.services.work import Batcher, Caller, Turn, Work, streamed, watched

P = ParamSpec("P")
T = TypeVar("T")
Given = TypeVar("Given")
Made = TypeVar("Made")

__all__ = ["Batcher", "Caller", "Options", "Service", "ServiceError", "Turn"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a service was told to run."""

    name: str  # what callers know the model by
    model: str | None = None  # path or id of the weights
    host: str = "127.0.0.1"
    port: int = 8000
    log_level: str = "info"
    grace_s: int = 8  # for requests in flight at a shutdown; a runtime kills after 10 s unless told otherwise
    device: str | None = None  # as torch names it; None: the best one there is
    memory_limit_bytes: int | None = None  # of the GPU where it computes on one, else of main memory
    trust_remote_code: bool = False


class Service(ABC):
    """A model server. Subclasses say what to load and what to serve."""

    name: ClassVar[str] = "service"
    port: ClassVar[int] = 8000
    body_bytes: int = 64 << 20  # the largest body that is read
    queue_limit: ClassVar[int] = 256  # requests that may wait for the thread; past that they are turned away
    needs_model: ClassVar[bool] = False
    stand_in: ClassVar[str | None] = None  # of which kind it makes a model for ``--model stand-in``

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options(name=self.name, port=self.port)
        self.log = logging.getLogger(f"modelgrid.{self.name}")
        self._loaded = False
        self._stopping = False
        self._failure: BaseException | None = None
        self.meters = Meters()
        self._work = Work(self.queue_limit, self.meters, self.log)

    @abstractmethod
    def load(self) -> None:
        """Load the model. Blocks as long as it takes, in a thread; /health answers 503 until it returns."""

    @abstractmethod
    def routes(self) -> list[BaseRoute]:
        """What is served, besides /health, /ready, /metrics and /v1/models: FastAPI's routes."""

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
        share_cores()
        service = cls._made(arguments)
        set_up_logging(service.options.log_level)
        service.serve()

    def serve(self) -> None:
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
        self._work.close()
        self._end(failed=self._failure is not None or not server.started)

    def app(self, key: str | None = None) -> FastAPI:
        """The ASGI application. With `key`, all but health asks for it as a bearer token."""
        return FastAPI(
            title=self.name,
            docs_url=None,
            redoc_url=None,
            routes=[
                APIRoute("/health", self._health, methods=["GET"]),
                APIRoute("/ready", self._ready, methods=["GET"]),
                APIRoute("/metrics", self._metrics, methods=["GET"]),
                APIRoute("/v1/models", self._models, methods=["GET"]),
                *self.routes(),
            ],
            middleware=[Middleware(Guard, service=self, key=key)],
            exception_handlers={
                ServiceError: answer_service_error,
                RequestValidationError: answer_invalid,
                HTTPException: answer_http_exception,
                ClientDisconnect: answer_left,
                Exception: answer_failure,
            },
            lifespan=self._lifespan,
        )

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking function in the service's one thread, which computes one thing at a time."""
        return await self._work.run(Caller(), lambda _: function(*args, **kwargs))

    async def run(self, request: Request, work: Callable[[Turn], T]) -> T:
        """Run `work` in the thread for as long as the caller stays: `Turn.step` ends it when the caller has left.
        Raises ServiceError where the queue is full or memory runs out, and whatever `work` raises."""
        async with watched(request) as caller:
            return await self._work.run(caller, work)

    async def run_for(self, caller: Caller, work: Callable[[Turn], T]) -> T:
        """The same for work that no connection waits for: `Caller.leave` ends it."""
        return await self._work.run(caller, work)

    async def stream(self, request: Request, produce: Callable[[Turn], Iterator[bytes]]) -> AsyncGenerator[bytes, None]:
        """What `produce` makes in the thread, piece by piece, for a StreamingResponse. Returns when the first piece is
        there: what fails before it raises here."""
        return await streamed(self._work, request, produce)

    def batcher(
        self,
        compute: Callable[[Turn, list[Given]], Sequence[Made]],
        *,
        limit: int,
        key: Callable[[Given], object] = lambda _: None,
        size: Callable[[Given], int] = lambda _: 1,
    ) -> Batcher[Given, Made]:
        """Computes requests together that wait at the same time and have one `key` (which is hashable): up to `limit`
        of their sizes, and one of any size. ``compute(turn, items)`` answers with an outcome for each."""
        return Batcher(self._work, compute, limit=limit, key=key, size=size)

    async def run_in(self, batcher: Batcher[Given, Made], request: Request, item: Given) -> Made:
        """The outcome of `item`, computed with others, for as long as the caller stays."""
        async with watched(request) as caller:
            return await batcher.run(caller, item)

    def weights(self) -> str:
        """Where the weights lie: a path, or a hub's id. Makes the stand-in where that is asked for."""
        assert self.options.model is not None
        if self.options.model == stand_in.NAME and self.stand_in is not None:
            return str(stand_in.folder(self.stand_in))
        return find_weights(self.options.model)

    async def body(self, request: Request) -> dict[str, Any]:
        """The request's JSON object. Raises ServiceError."""
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise ServiceError(400, f"cannot read the request: its body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise ServiceError(400, "cannot read the request: its body is not a JSON object")
        return body

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has returned."""
        return self._loaded

    @property
    def known_as(self) -> str:
        """What callers know the model by."""
        return self.options.name

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        # A daemon thread: a stop while a model loads must not wait for it.
        threading.Thread(target=self._load, name="load", daemon=True).start()
        yield
        if self._loaded:
            self.close()

    def _load(self) -> None:
        try:
            if self.options.memory_limit_bytes is not None:
                limit_memory(self.options.memory_limit_bytes, self.options.device)
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

    async def _health(self) -> Response:
        if not self._loaded:
            return JSONResponse({"status": "loading"}, 503)
        return JSONResponse({"status": "ok", "model": self.options.name, "pid": os.getpid()})

    async def _ready(self) -> Response:
        if not self._loaded or self._stopping:
            return JSONResponse({"status": "stopping" if self._stopping else "loading"}, 503)
        return JSONResponse({"status": "ready"})

    async def _metrics(self) -> Response:
        return Response(self.meters.page(), media_type=CONTENT_TYPE_LATEST)

    async def _models(self) -> Response:
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
                device=arguments.device,
                memory_limit_bytes=arguments.memory_limit,
                trust_remote_code=arguments.trust_remote_code,
            )
        )
        service.configure(arguments)
        return service

    @classmethod
    def _parser(cls, environ: Mapping[str, str]) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=(sys.modules[cls.__module__].__doc__ or "").split("\n")[0])
        add = parser.add_argument
        port = int(environ.get("MODELGRID_PORT") or environ.get("PORT") or cls.port)
        kinds = f"path or id of the weights{f', or {stand_in.NAME}' if cls.stand_in else ''}"
        add("--model", required=cls.needs_model, help=kinds)
        add("--name", default=environ.get("MODELGRID_MODEL") or cls.name, help="what callers know it by")
        add("--host", default=environ.get("MODELGRID_HOST") or "127.0.0.1")
        add("--port", type=int, default=port, help="default: $MODELGRID_PORT, $PORT, %(default)s")
        add("--log-level", default="info", choices=("debug", "info", "warning", "error"))
        add("--grace", type=int, default=8, metavar="S", help="seconds for requests in flight at a shutdown")
        add("--device", help="cpu, cuda, cuda:1, mps; default: the best one there is")
        add(
            "--memory-limit",
            type=parse_bytes,
            metavar="BYTES",
            help="take no more than this, such as 8GB, of the device",
        )
        add("--trust-remote-code", action="store_true", help="run code that comes with the weights")
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


def _nothing(*_: object) -> None:
    """A signal handler that does nothing."""
