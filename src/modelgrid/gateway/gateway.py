"""From a request to who answers it: the endpoint, the key, the model, the replica."""

from __future__ import annotations

import asyncio
import secrets
from itertools import count

import msgspec
import structlog

from modelgrid.gateway import answers, plain
from modelgrid.gateway.access import credential
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.body import BodyError, read_model
from modelgrid.gateway.connection import ClientConnection, Job
from modelgrid.gateway.endpoints import Act, Endpoint, Found, WrongMethod, find_endpoint
from modelgrid.gateway.nearby import why_not_nearby
from modelgrid.gateway.heads import Heads
from modelgrid.gateway.options import CALLER_HEADS, GatewayOptions
from modelgrid.gateway.relay import Relay
from modelgrid.gateway.reply import PassThrough, Reply
from modelgrid.gateway.request import Head, Request
from modelgrid.gateway.routes import Routes, describe_model
from modelgrid.gateway.switchboard import Switchboard
from modelgrid.spec import Route

_log = structlog.get_logger()


class Gateway:
    """The `Service` of a worker's connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: GatewayOptions) -> None:
        self.loop = loop
        self.options = options
        self.board = Switchboard(loop, options)
        self.heads: Heads[Head] = Heads(CALLER_HEADS, options.header_bytes)
        self.connections: set[ClientConnection] = set()
        self.is_empty = asyncio.Event()
        self.is_empty.set()
        self._held_bytes = 0
        self._ids = count(1)
        self._id_prefix = f"{secrets.token_hex(6)}-"

    @property
    def is_draining(self) -> bool:
        """Nothing new is taken."""
        return self.board.is_draining

    def drain(self) -> None:
        """Finish what is there, take nothing new."""
        self.board.is_draining = True
        for connection in list(self.connections):
            connection.drain()

    # What connections call: see `Service`.

    def opened(self, connection: ClientConnection) -> bool:
        """See `Service`."""
        self.connections.add(connection)
        self.is_empty.clear()
        return len(self.connections) <= self.options.connections

    def closed(self, connection: ClientConnection) -> None:
        """See `Service`."""
        self.connections.discard(connection)
        if not self.connections:
            self.is_empty.set()

    def hold(self, count: int) -> bool:
        """See `Service`."""
        self._held_bytes += count
        return self._held_bytes <= self.options.bodies_bytes

    def request_id(self) -> str:
        """See `Service`."""
        return f"{self._id_prefix}{next(self._ids):x}"

    @property
    def access(self) -> object:
        """See `Service`."""
        return self.board.routes

    def check(self, head: Head) -> Found | Answer:
        """See `Service`."""
        head.access = self.access
        found = find_endpoint(head.method, head.path)
        if found is None:
            return answers.unknown_path(head.method, head.path)
        if isinstance(found, WrongMethod):
            return answers.wrong_method(head.method, head.path, found.allow)
        if found.endpoint.open:
            return found
        refusal = self._check_access(head)
        if refusal is None and head.read.get(b"content-encoding", b"identity").lower() != b"identity":
            refusal = answers.encoded_body(head.read[b"content-encoding"].decode("latin-1"))
        if refusal is None:
            return found
        return answers.as_text(refusal) if found.endpoint.act is Act.PLAIN else refusal

    def serve(self, connection: ClientConnection, request: Request) -> Job | None:
        """See `Service`."""
        found = request.head.found
        assert isinstance(found, Found)
        try:
            return self._serve(connection, request, found)
        except Exception:
            _log.exception("request failed", request=request.id, path=request.head.path)
            connection.answer(answers.internal())
            return None

    def _serve(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        match found.endpoint.act:
            case Act.RELAY | Act.PLAIN:
                return self._relay(connection, request, found)
            case Act.HEALTH:
                connection.answer(answers.ok(self._health()))
            case Act.ROOT:
                connection.answer(answers.ok(b'{"name":"modelgrid","models":"/v1/models","health":"/health"}'))
            case Act.MODELS:
                routes = self.board.routes
                connection.answer(answers.ok(routes.listing) if routes else answers.no_table())
            case Act.MODEL:
                connection.answer(self._describe(found.model or ""))
        return None

    # Models.

    def _relay(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        endpoint = found.endpoint
        named = found.model or ""
        is_plain = endpoint.act is Act.PLAIN
        reply: Reply = (
            plain.PlainReply(connection, named) if is_plain else PassThrough(connection, may_stream=endpoint.streams)
        )
        try:
            if is_plain:
                body = plain.chat_body(named, request.body)
            else:
                body = request.body
                named = read_model(body)
        except BodyError as error:
            reply.refuse(answers.bad_request(str(error), error.param))
            return None
        routes = self.board.routes
        route = self._find(routes, named, endpoint)
        if isinstance(route, Answer):
            reply.refuse(route)
            return None
        head = request.head
        lines = plain.engine_lines(request.id) if is_plain else head.forward
        if not is_plain and not head.sent_id:
            lines += b"x-request-id: %b\r\n" % request.id.encode()
        relay = Relay(self.board, reply, named, endpoint.upstream + head.query, lines, body)
        relay.start()
        return relay

    def _find(self, routes: Routes | None, named: str, endpoint: Endpoint) -> Route | Answer:
        if routes is None:
            return answers.no_table()
        route = routes.find(named)
        if route is None:
            return answers.unknown_model(named, routes.table.routes)
        if endpoint.operation not in route.operations:
            return answers.wrong_operation(route, endpoint.operation, routes.table.routes)
        return route

    # What is answered here.

    def _check_access(self, request: Head) -> Answer | None:
        routes = self.board.routes
        if routes is None:
            return answers.no_table()  # nobody knows yet whether a key is asked for
        if routes.access.is_open and not self.options.needs_key:
            why = why_not_nearby(request.read, is_http10=request.is_http10)
            return None if why is None else answers.not_nearby(why)
        if routes.access.is_known(request.read):
            return None
        return answers.no_access(was_sent=credential(request.read) is not None)

    def _health(self) -> bytes:
        number = self.board.routes.number if self.board.routes else None
        return msgspec.json.encode({"status": "ok", "worker": self.options.worker, "table": number})

    def _describe(self, model: str) -> Answer:
        routes = self.board.routes
        if routes is None:
            return answers.no_table()
        route = routes.find(model)
        return answers.ok(describe_model(route)) if route else answers.unknown_model(model, routes.table.routes)
