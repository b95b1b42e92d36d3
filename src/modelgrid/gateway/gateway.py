"""From a request to who answers it: the endpoint, the key, the model, the replica."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec
import structlog

from modelgrid.gateway import answers, plain
from modelgrid.gateway.access import Caller, credential
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.body import BodyError, read
from modelgrid.gateway.connection import ClientConnection, Job
from modelgrid.gateway.control import CONTROL_BYTES, ControlRequest, control_head
from modelgrid.gateway.cors import Cors, own_lines
from modelgrid.gateway.departures import Departures
from modelgrid.gateway.endpoints import Act, Endpoint, Found, WrongMethod, find_endpoint
from modelgrid.gateway.heads import Heads
from modelgrid.gateway.nearby import why_not_nearby, why_not_ours
from modelgrid.gateway.options import CALLER_HEADS, GatewayOptions
from modelgrid.gateway.relay import Relay
from modelgrid.gateway.reply import PassThrough, Reply
from modelgrid.gateway.request import Head, Request
from modelgrid.gateway.request_log import open_log
from modelgrid.gateway.routes import Lane, Routes, describe_model
from modelgrid.gateway.search import Search, lanes_behind, lanes_that_may_know
from modelgrid.gateway.switchboard import Switchboard
from modelgrid.gateway.tunnel import SocketRelay, query_of, wants_socket
from modelgrid.gateway.upload_relay import UploadRelay
from modelgrid.gateway.wishes import WishError, read_wishes

_KEY: Final = b"=mg-"  # how a key of ours would stand in a query

_log = structlog.get_logger()


class Gateway:
    """The `Service` of a worker's connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: GatewayOptions) -> None:
        self.loop = loop
        self.options = options
        self.board = Switchboard(loop, options, self._switched)
        self.heads: Heads[Head] = Heads(CALLER_HEADS, options.header_bytes)
        self.departures = Departures(loop)
        self.connections: set[ClientConnection] = set()
        self.is_empty = asyncio.Event()
        self.is_empty.set()
        self.left: Callable[[], object] = lambda: None  # called when a connection has ended
        self.access: object = None
        self._key_timer: asyncio.TimerHandle | None = None  # until a key ends
        self.is_draining = False
        self.cors = None if options.cors is None else Cors(options.cors)
        self.log = open_log(loop, options)
        self.is_tls = options.tls is not None
        self.own_lines = own_lines(options.tls)
        self._pages = frozenset[bytes]() if self.cors is None else self.cors.named_pages
        self._held_bytes = 0
        self._ids = count(1)
        self._id_prefix = f"{secrets.token_hex(6)}-".encode()

    def drain(self) -> None:
        """Finish what is there, take nothing new."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.drain()

    # What connections call: see `Service`.

    def opened(self, connection: ClientConnection) -> bool:
        """See `Service`."""
        self.connections.add(connection)
        self.board.connections = len(self.connections)
        self.is_empty.clear()
        return len(self.connections) <= self.options.connections

    def closed(self, connection: ClientConnection) -> None:
        """See `Service`."""
        self.connections.discard(connection)
        self.board.connections = len(self.connections)
        self.left()
        if not self.connections:
            self.is_empty.set()

    def hold(self, count: int) -> bool:
        """See `Service`."""
        self._held_bytes += count
        return self._held_bytes <= self.options.bodies_bytes

    def request_id(self) -> bytes:
        """See `Service`."""
        return b"%b%x" % (self._id_prefix, next(self._ids))

    def check(self, head: Head) -> Found | Answer:
        """See `Service`."""
        head.access = self.access
        routes = self.board.routes
        head.caller = None
        found = find_endpoint(head.method, head.path)
        if found is None and routes is not None and (lane := routes.at_endpoint(head.path)) is not None:
            found = _own(head, lane)
        if found is None:
            return answers.unknown_path(head.method, head.path)
        if isinstance(found, WrongMethod):
            if self.cors is not None and self.cors.is_preflight(head):
                return self.cors.preflight(head, found.allow)
            return answers.wrong_method(head.method, head.path, found.allow)
        if found.endpoint.open:
            return found
        refusal = self._check_access(head, found)
        if refusal is None and head.read.get(b"content-encoding", b"identity").lower() != b"identity":
            refusal = answers.encoded_body(head.read[b"content-encoding"].decode("latin-1"))
        if refusal is None:
            try:
                head.wishes = read_wishes(head.read)
            except WishError as error:
                refusal = answers.bad_request(str(error), error.header)
        return found if refusal is None else answers.in_shape(refusal, found)

    def serve(self, connection: ClientConnection, request: Request) -> Job | None:
        """See `Service`."""
        found = request.head.found
        assert isinstance(found, Found)
        try:
            if found.is_relayed and request.upload is None:
                return self._relay(connection, request, found)
            return self._serve(connection, request, found)
        except Exception:
            _log.exception("request failed", request=request.id.decode("latin-1"), path=request.head.path)
            connection.answer(answers.internal())
            return None

    def _serve(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        routes = self.board.routes
        match found.act:
            case Act.HEALTH:
                connection.answer(answers.ok(self._health()))
                return None
            case Act.ROOT:
                connection.answer(answers.root())
                return None
        if routes is None:
            connection.answer(answers.no_table())
            return None
        match found.act:
            case Act.RELAY:
                return self._relay_upload(PassThrough(connection, found), request, found)
            case Act.PLAIN:
                return self._relay_plain(connection, request, found)
            case Act.OWN:
                reply = PassThrough(connection, found)
                return self._enter(reply, request, found, found.model, request.body, self._lines(request))
            case Act.OBJECT:
                return self._search(connection, request, found)
            case Act.SOCKET:
                return self._open_socket(connection, request, found)
            case Act.CONTROL | Act.ADMIN:
                return self._ask_controller(connection, request, found)
            case Act.MODELS:
                caller = request.head.caller
                connection.answer(answers.ok(routes.listing if caller is None else routes.list_for(caller)))
            case Act.MODEL:
                connection.answer(self._describe(routes, found.model, request.head.caller))
        return None

    def _switched(self, routes: Routes) -> None:
        self.access = object()  # so that every head is checked anew
        if self._key_timer is not None:
            self._key_timer.cancel()
        self._await_end_of_key(routes)

    def _await_end_of_key(self, routes: Routes) -> None:
        """Look again when the next key ends, and each second until then: clocks are set right."""
        self._key_timer = None
        now = time.time()
        ends = routes.access.next_end(now)
        if ends is not None:
            self._key_timer = self.loop.call_later(min(ends - now, 1.0), self._look_at_keys, routes, ends)

    def _look_at_keys(self, routes: Routes, ends: float) -> None:
        if time.time() >= ends:
            self.access = object()
        self._await_end_of_key(routes)

    # Models.

    def _relay(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        """What nearly all requests come by, so calls are spared where it can still be read."""
        body = request.body
        head = request.head
        caller = head.caller
        board = self.board
        try:
            named = read(body).model or ""
        except BodyError as error:
            why = answers.bad_request(str(error), error.param)
            self._refuse(PassThrough(connection, found), found, why)
            return None
        lane = None if board.routes is None else board.routes.by_name.get(named)
        if (
            lane is None
            or found.operation not in lane.operations
            or (caller is not None and caller.models is not None and lane.model not in caller.models)
        ):
            self._refuse(PassThrough(connection, found), found, self._why_not(named, found, caller))
            return None
        lines = head.forward if head.sent_id else b"%bx-request-id: %b\r\n" % (head.forward, request.id)
        relay = Relay(board, PassThrough(connection, found), found, request, named, body, lines, caller)
        relay.enter(lane)
        return relay

    def _why_not(self, named: str, found: Found, caller: Caller | None) -> Answer:
        lane = self._find(named, found, caller) if named else answers.no_model_in_body()
        assert isinstance(lane, Answer)
        return lane

    def _relay_plain(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        reply = plain.PlainReply(connection, found)
        try:
            body = plain.chat_body(found.model, request.body)
        except BodyError as error:
            self._refuse(reply, found, answers.bad_request(str(error), error.param))
            return None
        return self._enter(reply, request, found, found.model, body, plain.engine_lines(request.id))

    def _relay_upload(self, reply: Reply, request: Request, found: Found) -> Job | None:
        upload = request.upload
        assert upload is not None
        relay = UploadRelay(self.board, reply, found, request, "", b"", self._lines(request), request.head.caller)
        relay.upload = upload
        relay.find = lambda named: self._find(named, found, request.head.caller)
        relay.refuse = lambda answer: self._refuse(reply, found, answer)
        upload.attend(relay)
        return relay

    def _search(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        reply = PassThrough(connection, found, head_only=request.head.method == "HEAD")
        routes = self.board.routes
        assert routes is not None
        caller = request.head.caller
        named = dict(query_of(request)).get("model")
        if named is not None:
            lane = self._find(named, found, caller)
            if isinstance(lane, Answer):
                self._refuse(reply, found, lane)
                return None
            lanes = lanes_behind(lane, routes, found.operation)
        else:
            lanes = lanes_that_may_know(routes, found.operation, caller)
            is_list = "{" not in found.endpoint.path
            if is_list and len(lanes) != 1:
                self._refuse(reply, found, answers.unnamed_model(found.operation, routes.allowed(caller)))
                return None
        if not lanes:
            self._refuse(reply, found, answers.unknown_object(request.head.path))
            return None
        search = Search(self.board, reply, found, request, lanes[0].model, request.body, self._lines(request), caller)
        search.seek(lanes)
        return search

    def _open_socket(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        reply = PassThrough(connection, found)
        head = request.head
        if not wants_socket(head):
            self._refuse(reply, found, answers.not_a_socket(head.path))
            return None
        named = dict(query_of(request)).get("model", "")
        lane = self._find(named, found, head.caller) if named else None
        if lane is None:
            assert self.board.routes is not None
            lane = answers.unnamed_model(found.operation, self.board.routes.allowed(head.caller))
        if isinstance(lane, Answer):
            self._refuse(reply, found, lane)
            return None
        relay = SocketRelay(self.board, reply, found, request, named, b"", self._lines(request), head.caller)
        relay.far = connection
        relay.enter(lane)
        return relay

    def _ask_controller(self, connection: ClientConnection, request: Request, found: Found) -> Job | None:
        reply = PassThrough(connection, found, head_only=request.head.method == "HEAD")
        socket = self.options.control_socket
        if socket is None:
            reply.refuse(answers.controller_away())
            return None
        body = request.body
        if len(body) > CONTROL_BYTES:
            reply.refuse(answers.control_body_too_large(CONTROL_BYTES))
            return None
        head = control_head(found, request.head, len(body))
        asked = ControlRequest(self.board.pool, self.board.dialing.tasks, reply, head, body)
        if self.log is not None:
            asked.request = request
        asked.start(self.board.pool.origin(str(socket), 0, is_tls=False))
        return asked

    def _enter(self, reply: Reply, request: Request, found: Found, named: str, body: bytes, lines: bytes) -> Job | None:
        lane = self._find(named, found, request.head.caller)
        if isinstance(lane, Answer):
            self._refuse(reply, found, lane)
            return None
        relay = Relay(self.board, reply, found, request, named, body, lines, request.head.caller)
        relay.enter(lane)
        return relay

    def _find(self, named: str, found: Found, caller: Caller | None) -> Lane | Answer:
        routes = self.board.routes
        if routes is None:
            return answers.no_table()
        lane = routes.by_name.get(named)
        if lane is None:
            return answers.unknown_model(named, routes.allowed(caller))
        if caller is not None and not caller.may_use(lane.model):
            return answers.not_allowed(caller.name, found.endpoint.path if found.act is Act.OWN else named)
        if found.operation not in lane.operations and found.act is not Act.OWN:
            return answers.wrong_operation(lane.route, found.operation, routes.allowed(caller))
        return lane

    def _lines(self, request: Request) -> bytes:
        """The headers that the engine gets."""
        head = request.head
        return head.forward if head.sent_id else b"%bx-request-id: %b\r\n" % (head.forward, request.id)

    def _refuse(self, reply: Reply, found: Found, answer: Answer) -> None:
        """A request that never became one of a model's."""
        meters = self.board.meters
        meters.failed("", answer.kind, answer.code)
        meters.turned_away(found.operation, answer.status)
        reply.refuse(answer)

    # What is answered here.

    def _check_access(self, head: Head, found: Found) -> Answer | None:
        routes = self.board.routes
        if routes is None:
            return answers.no_table()  # nobody knows yet whether a key is asked for
        if routes.access.is_open and not self.options.needs_key:
            why = why_not_nearby(head.read, is_http10=head.is_http10, pages=self._pages)
            if why is not None:
                return answers.not_nearby(why)
            why = why_not_ours(head.read, changes=found.verb != b"GET") if found.act is Act.ADMIN else None
            return None if why is None else answers.not_ours(why)
        caller = routes.access.find(head.read, time.time())
        if caller is None:
            return _why_not_in(head, routes)
        if found.scopes.isdisjoint(caller.scopes):
            return answers.missing_scope(caller.name, caller.scopes, found.scopes)
        if caller.operations is not None and found.operation not in caller.operations and found.act not in _FOR_ALL:
            asked_for = found.operation or head.path
            return answers.operation_not_allowed(caller.name, asked_for, caller.operations)
        head.caller = caller
        return None

    def _health(self) -> bytes:
        number = self.board.routes.number if self.board.routes else None
        return msgspec.json.encode({"status": "ok", "worker": self.options.worker, "table": number})

    def _describe(self, routes: Routes, model: str, caller: Caller | None) -> Answer:
        lane = routes.by_name.get(model)
        if lane is None:
            return answers.unknown_model(model, routes.allowed(caller))
        if caller is not None and not caller.may_use(lane.model):
            return answers.not_allowed(caller.name, model)
        return answers.ok(describe_model(lane.route))


_FOR_ALL: Final = (Act.MODELS, Act.MODEL, Act.CONTROL, Act.ADMIN)  # whatever operations a key is for


def _why_not_in(head: Head, routes: Routes) -> Answer:
    over = routes.access.holder(head.read)
    if over is not None:
        return answers.key_is_over(over.name)
    was_sent = credential(head.read) is not None
    return answers.key_in_url() if not was_sent and _KEY in head.query else answers.no_access(was_sent=was_sent)


def _own(head: Head, lane: Lane) -> Found | WrongMethod:
    """The path that a model has for itself."""
    if head.method != "POST":
        return WrongMethod(("POST",))
    return Found(Endpoint("POST", head.path, Act.OWN, streams=True), head.path, lane.model)
