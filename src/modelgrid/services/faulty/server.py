"""The server: who is connected, what is asked of it, and how each request is answered."""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hmac
import json
import os
import signal
import sys
import time
import traceback
from typing import Any

from modelgrid.services.faulty import endpoints, messages, realtime
from modelgrid.services.faulty.answer import Answer, Json, Sender, error, of_json
from modelgrid.services.faulty.call import Call, Kept
from modelgrid.services.faulty.ending import die, log
from modelgrid.services.faulty.memory import Memory
from modelgrid.services.faulty.sleep import CLOSE, Sleep
from modelgrid.services.faulty.ways import HEADER, NONE_OF_THEM, UnknownWay, Ways, from_header
from modelgrid.services.faulty.wire import (
    READ_LIMIT,
    SHOWN_LIMIT,
    Body,
    Connection,
    Departures,
    Exchange,
    Head,
    Malformed,
    Moment,
)

KEPT = 1000  # requests that are remembered
BODIES_LIMIT = 64 << 20  # of the bodies that are remembered with them


def past(count: int | None, number: int) -> bool:
    """Whether a fault that begins after `count` requests holds for request `number`."""
    return count is not None and number > count


class Server:
    """The server, and what it counts."""

    def __init__(self, options: argparse.Namespace, memory: Memory) -> None:
        self.options = options
        self.sleep = Sleep(options, memory)
        self.hold: list[Memory] = []
        self.slots = asyncio.Semaphore(options.at_once or sys.maxsize)
        self.kept = Kept()
        self.started = time.monotonic()
        self.posts = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.left = 0  # clients that left before their answer had ended
        self.accepted = 0  # connections
        self.malformed = 0
        self.asked_asleep = 0  # requests that came while it slept: none should
        self.seen: collections.deque[Exchange] = collections.deque(maxlen=KEPT)
        self.bodies: collections.deque[Body] = collections.deque()
        self.bodies_bytes = 0
        self.same: collections.Counter[str] = collections.Counter()  # requests by their header
        self.tasks: set[asyncio.Task[None]] = set()
        self.departures: Departures

    async def serve(self) -> None:
        """Until SIGTERM; what is in flight is finished."""
        stop = asyncio.Event()
        if not self.options.refuse_stop:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self.departures = Departures()
        try:
            listener = await asyncio.start_server(
                self._connected, self.options.host, self.options.port, limit=READ_LIMIT, backlog=1024
            )
        except OSError as failure:
            reason = os.strerror(failure.errno or 0)
            die(f"OSError: cannot listen on {self.options.host}:{self.options.port}: {reason}", 1)
        log(f"serving {self.options.served} on http://{self.options.host}:{self.options.port}")
        await stop.wait()
        log("told to stop: finishing what is in flight")
        listener.close()
        await asyncio.sleep(self.options.stop_delay)
        while self.in_flight:
            await asyncio.sleep(0.01)
        for task in self.tasks:
            task.cancel()
        log("stopped")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.accepted += 1
        connection = Connection(reader, writer, task)
        try:
            self.departures.watch(connection)
            while await self._next(connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self.departures.unwatch(connection)
            self.tasks.discard(task)
            writer.close()

    async def _next(self, connection: Connection) -> bool:
        """Answer the connection's next request. Whether there may be another."""
        head = await self._head(connection)
        if head is None:
            return False
        exchange = Exchange(self.posts + 1, head, Body(head))
        if connection.ways is not None and connection.ways.stale:
            self.seen.append(exchange)
            return False
        page = self._page(head) or await self.sleep.answer(head.method, head.path)
        if page is None:
            return await self._counted(connection, exchange)
        if page is CLOSE:
            return False
        if page.status == 0:
            await asyncio.Event().wait()
        return await Sender(connection, exchange, NONE_OF_THEM).send(page)

    async def _head(self, connection: Connection) -> Head | None:
        idle_s = connection.ways.idle_close if connection.ways else None
        try:
            async with asyncio.timeout(idle_s):
                return await connection.head()
        except TimeoutError:
            return None
        except Malformed as malformed:
            self.malformed += 1
            exchange = Exchange(self.posts, Head("", "", "HTTP/1.1", ()), Body(Head("", "", "", ())))
            exchange.malformed = str(malformed)
            self.seen.append(exchange)
            await Sender(connection, exchange, NONE_OF_THEM).send(of_json(error(str(malformed)), 400))
            return None

    # what it says about itself

    def _page(self, head: Head) -> Answer | None:
        """An answer that is no engine's work, and that no fault but a few changes."""
        if head.method not in ("GET", "HEAD"):
            return None
        if head.path == "/health":
            return self._health()
        if head.path == "/v1/models":
            model = {"id": self.options.served, "object": "model", "created": 0, "owned_by": "faulty"}
            return of_json({"object": "list", "data": [model]})
        if head.path == "/faulty/requests":
            return of_json({**self._counts(), "requests": [exchange.request() for exchange in self._last(head)]})
        if head.path == "/faulty/left":
            courses = [exchange.course() for exchange in self._last(head)]
            return of_json({**self._counts(), "now": Moment().shown(), "requests": courses})
        return None

    def _last(self, head: Head) -> list[Exchange]:
        """All, or with ``?last=N`` the last of them."""
        return list(self.seen)[-int(head.query.get("last", KEPT)) :]

    def _health(self) -> Answer:
        if self.options.hang_health and past(self.options.hang_after, self.posts):
            return Answer(0, ())
        waited = time.monotonic() - self.started
        if self.options.never_healthy or waited < self.options.health_delay:
            return of_json({"status": "loading"}, 503)
        return of_json({"status": "ok", "pid": os.getpid()})

    def _counts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "posts": self.posts,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "left": self.left,
            "accepted": self.accepted,
            "connections": len(self.tasks),
            "malformed": self.malformed,
            "asked_asleep": self.asked_asleep,
            "slept": self.sleep.times,
        }

    # what it is for

    async def _counted(self, connection: Connection, exchange: Exchange) -> bool:
        if exchange.head.method not in ("GET", "HEAD"):
            self.posts += 1
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        self.seen.append(exchange)
        connection.exchange = exchange
        try:
            return await self._answered(connection, exchange)
        finally:
            self.in_flight -= 1
            if exchange.left is not None:
                self.left += 1
            exchange.ended = exchange.ended or Moment()
            connection.exchange = None
            self._remember(exchange.body)

    def _remember(self, body: Body) -> None:
        """One that is small enough to be shown; the oldest give way."""
        if body.size > SHOWN_LIMIT:
            body.forget()
            return
        self.bodies.append(body)
        self.bodies_bytes += body.size
        while self.bodies_bytes > BODIES_LIMIT or len(self.bodies) > KEPT:
            oldest = self.bodies.popleft()
            self.bodies_bytes -= oldest.size
            oldest.forget()

    async def _answered(self, connection: Connection, exchange: Exchange) -> bool:
        try:
            ways = self._ways(exchange)
        except UnknownWay as unknown:
            return await self._refused(connection, exchange, str(unknown))
        connection.ways = ways
        sender = Sender(connection, exchange, ways)
        try:
            if ways.read == "whole":
                if not await self._expected(sender, exchange, ways):
                    return False
                await connection.read_body(exchange, ways)
            answer = await self._faulted(exchange, ways)
            if isinstance(answer, Call):
                exchange.status = 101
                await sender.raw(realtime.opening(exchange.head))
                await realtime.Session(connection, exchange, answer).run()
                return False
            keeps = await sender.send(answer)
            exchange.ended = Moment()
            if ways.read == "late":
                await connection.read_body(exchange, ways)
            return keeps and ways.read != "never"
        except Malformed as malformed:
            return await self._refused(connection, exchange, str(malformed))

    async def _refused(self, connection: Connection, exchange: Exchange, why: str) -> bool:
        """A request that this engine can't read: nothing after it on its connection could be trusted."""
        exchange.malformed = why
        self.malformed += 1
        await Sender(connection, exchange, NONE_OF_THEM).send(of_json(error(why), 400))
        return False

    def _ways(self, exchange: Exchange) -> Ways:
        """The process's ways at this number of request, changed by the header's at its own."""
        base: Ways = self.options.ways.at(exchange.number)
        if text := exchange.head.header(HEADER):
            self.same[text] += 1
            base = from_header(text, base).at(self.same[text])
        if base.garbage and not past(self.options.garbage_after, exchange.number):
            return base.plain()
        return base

    async def _expected(self, sender: Sender, exchange: Exchange, ways: Ways) -> bool:
        """What there is to say to Expect: 100-continue. Whether the body will come."""
        if exchange.head.header("expect").lower() != "100-continue" or ways.expect == "ignore":
            return True
        if ways.expect == "refuse":
            await sender.send(of_json(error("told to refuse what is expected"), 417))
            return False
        await sender.interim(100)
        return True

    async def _faulted(self, exchange: Exchange, ways: Ways) -> Answer | Call:
        """The answer, or what comes instead of it; a `Call` is one of a realtime session."""
        options, number = self.options, exchange.number
        is_counted = exchange.head.method not in ("GET", "HEAD")
        if not self._has_key(exchange.head):
            return self._error(exchange.head, 401, "the engine's key is missing or wrong")
        if self.sleep.is_sleeping:
            self.asked_asleep += 1
            return self._error(exchange.head, 500, "it sleeps")
        if is_counted and past(options.crash_after, number):
            die(f"RuntimeError: told to crash after {options.crash_after} requests", 1)
        if ways.hang or (is_counted and past(options.hang_after, number)):
            await asyncio.Event().wait()
        if options.eat_per_request and is_counted:
            self.hold.append(Memory(options.eat_per_request))
            self.hold[-1].take()
        if ways.delay:
            async with self.slots:
                await asyncio.sleep(ways.delay)
        if is_counted and past(options.error_after, number):
            return self._error(exchange.head, 500, f"told to fail after {options.error_after} requests")
        if ways.status is not None:
            retry = (f"retry-after: {ways.retry_after}",) if ways.retry_after else ()
            return self._error(exchange.head, ways.status, f"told to answer {ways.status}", retry)
        if ways.echo:
            return of_json({"object": "echo", "pid": os.getpid(), **exchange.request()})
        if ways.read != "whole":
            return of_json({"object": "unread", "pid": os.getpid()})
        return self._worked(exchange, ways)

    def _has_key(self, head: Head) -> bool:
        key = os.environ.get("MODELGRID_ENGINE_KEY") if self.options.key_from_env else None
        if not key:
            return True
        given = [head.header("authorization").removeprefix("Bearer ")]
        if head.path.startswith("/v1/messages"):
            given.append(head.header("x-api-key"))
        return any(hmac.compare_digest(one.encode(), key.encode()) for one in given)

    def _worked(self, exchange: Exchange, ways: Ways) -> Answer | Call:
        head, form = exchange.head, exchange.body.form
        found = endpoints.find_endpoint(head.method, head.path)
        is_realtime = (head.method, head.path) == ("GET", endpoints.REALTIME)
        if found is None and not is_realtime:
            return self._error(head, 404, f"no such path: {head.path}")
        if form is not None and not form.is_whole:
            return self._error(head, 400, "the form has no end")
        names_model = found is None or found[0].names_model
        sent: Any = form.values() if form else head.query if is_realtime else _read(exchange, names_model)
        if not isinstance(sent, dict):
            return self._error(head, 400, "the body is not a JSON object")
        endpoint, id_ = found or (None, "")
        asked = sent.get("model")
        if names_model and self.options.model and asked != self.options.model:
            return self._error(head, 404, f"The model `{asked}` does not exist.")
        call = Call(exchange.number, self.options.served, ways, sent, form, head.query, id_, self.kept)
        if endpoint is None:
            refusal = realtime.refusal(head)
            return self._error(head, 426, refusal, ("upgrade: websocket",)) if refusal else call
        try:
            return endpoint.answer(call)
        except Exception:  # as an engine of the field does: whatever is odd in a request is a 500
            log(traceback.format_exc())
            return self._error(head, 500, "Internal Server Error")

    def _error(self, head: Head, status: int, message: str, headers: tuple[str, ...] = ()) -> Answer:
        """An error in the shape of its path."""
        is_anthropic = head.path.startswith("/v1/messages")
        shown: Json = messages.error(message, status) if is_anthropic else error(message)
        return Answer(status, (json.dumps(shown).encode(),), headers=headers)


def _read(exchange: Exchange, is_needed: bool) -> Any:
    """A JSON body; None when it is none."""
    held = exchange.body.held
    if not is_needed and not held:
        return {}
    with contextlib.suppress(ValueError):
        return json.loads(held or b"")
    return None
