"""A caller's connection: its requests are answered in the order in which they came, within limits."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.deadline import Deadline
from modelgrid.gateway.departures import Departures
from modelgrid.gateway.endpoints import Found
from modelgrid.gateway.options import LINGER_S, PIPELINED_BYTES, PROBES_S, SMALL_BYTES, STALL_PROBES_S, STILL_S
from modelgrid.gateway.receiver import Ready, Receiver
from modelgrid.gateway.receiver import Service as Checks
from modelgrid.gateway.request import Record, Request
from modelgrid.gateway.request_log import RequestLog


class Job(Protocol):
    """A request that is being answered."""

    @property
    def is_begun(self) -> bool:
        """Something of an answer was written."""
        ...

    @property
    def sign(self) -> bytes:
        """What can be written now and changes nothing of the answer; empty where there is nothing like that."""
        ...

    def leave(self) -> None: ...
    def stop(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Tunnel(Protocol):
    """What a connection becomes once its caller and the engine have agreed on another protocol."""

    def from_caller(self, data: bytes) -> None: ...
    def caller_ended(self) -> None: ...


class Service(Checks, Protocol):
    """What answers requests, and counts connections."""

    departures: Departures
    log: RequestLog | None  # of requests
    own_lines: bytes  # headers of answers that are our own
    is_tls: bool

    def opened(self, connection: ClientConnection) -> bool:
        """A connection came; False where there are too many."""
        ...

    def closed(self, connection: ClientConnection) -> None: ...

    def serve(self, connection: ClientConnection, request: Request) -> Job | None:
        """Answer `request`, at once (None) or by a job."""
        ...


class ClientConnection:
    """One caller. While a job is at work, what else arrives is held unparsed, so answers keep their order."""

    # What most connections never need is said here, so that it costs them nothing.
    _transport: asyncio.Transport | None = None
    _request: Request | None = None  # whose turn it is
    _receiver: Receiver | None = None
    _is_resting = True  # between two requests, with nothing of the next one here
    _is_serving = False
    _is_closing = False
    _is_deaf = False  # nothing more is read
    _is_lingering = False
    _is_paused = False  # the caller doesn't read
    _is_stopped = False  # the caller's upload is not read for now
    _stopped_file = -1  # its socket, while that is so
    _asked = 0  # times that a caller was asked, as it were, whether it is there, since its upload began
    _ask_timer: asyncio.TimerHandle | None = None
    _has_ended = False  # the caller says that it sends no more
    _is_moving = False  # something was written since that was looked at, after `_has_ended`
    _is_switching = False  # the request asks for another protocol: what follows it is not HTTP
    _held = b""
    _peer = ""  # its address, where requests are logged

    def __init__(self, service: Service) -> None:
        self._service = service
        self._find_head = service.heads.find
        self._small_bytes = min(SMALL_BYTES, service.options.body_bytes)
        self._deadline = Deadline(service.loop, self._expire)
        self._ready: list[Ready] = []
        self._job: Job | None = None
        self._tunnel: Tunnel | None = None

    # What the worker calls.

    def drain(self) -> None:
        """Finish what is there, take nothing new."""
        if self._request is None and not self._ready and not self._is_receiving:
            self.close()

    def cut(self) -> None:
        """The grace time is over."""
        if self._job is not None:
            self._job.stop()
        self.close()

    # What a reply calls: see `Caller`.

    @property
    def request_id(self) -> bytes:
        """See `Caller`."""
        assert self._request is not None
        return self._request.id

    @property
    def is_http10(self) -> bool:
        """See `Caller`."""
        assert self._request is not None
        return self._request.head.is_http10

    def connection_line(self, *, must_close: bool = False) -> bytes:
        """See `Caller`."""
        assert self._request is not None
        head = self._request.head
        is_uploading = self._request.upload is not None and not self._request.upload.is_ended
        if must_close or self._is_closing or not head.is_kept or self._service.is_draining or is_uploading:
            self._is_closing = True
            return b"connection: close\r\n%b" % head.web
        return b"connection: keep-alive\r\n%b" % head.web if head.is_http10 else head.web

    def write(self, data: bytes) -> None:
        """See `Caller`."""
        if self._transport is not None:
            self._transport.write(data)
            if self._has_ended:
                self._is_moving = True

    def relay_whole(self, start: bytes, body: bytes, *, has_id: bool) -> bool:
        """See `Caller`."""
        request = self._request
        transport = self._transport
        service = self._service
        if request is None or transport is None or request.upload is not None:
            return False
        head = request.head
        if not head.is_plain or self._is_closing or service.is_draining:
            return False
        if has_id:
            transport.write(b"%b%d\r\n\r\n%b" % (start, len(body), body))
        else:
            transport.write(b"%b%d\r\nx-request-id: %b\r\n\r\n%b" % (start, len(body), request.id, body))
        is_more = self._ready or self._held or self._receiver is not None or self._is_paused
        if is_more or len(request.body) > SMALL_BYTES:
            self.finish()
        else:
            if service.log is not None:
                service.log.ended(request, self._peer)
            self._request = self._job = None
            self._is_resting = True
            self._deadline.move(service.options.keep_alive_s)
        return True

    def answer(self, answer: Answer) -> None:
        """See `Caller`."""
        request = self._request
        assert request is not None
        if self._service.log is not None:
            self._note(request, answer)
        line = self.connection_line() + self._service.own_lines
        head_only = request.head.method == "HEAD"
        self.write(answers.render(answer, request_id=request.id, connection=line, head_only=head_only))
        self.finish()

    def finish(self) -> None:
        """See `Caller`."""
        request, self._request = self._request, None
        self._job = None
        if request is not None:
            if self._service.log is not None:
                self._service.log.ended(request, self._peer)
            if len(request.body) > SMALL_BYTES:
                self._service.hold(-len(request.body))
            if request.upload is not None:
                self._let_go_of_upload(request)
        is_more = self._ready or self._held or self._receiver is not None or self._is_paused
        if is_more or self._is_closing or self._service.is_draining:
            self._finish_slowly()
        else:
            self._is_resting = True
            self._deadline.move(self._service.options.keep_alive_s)

    def close(self) -> None:
        """See `Caller`."""
        self._is_closing = self._is_deaf = True
        self._is_resting = False
        if self._transport is not None:
            self._transport.close()
            self._deadline.move(self._service.options.idle_timeout_s)  # for what was written to be read

    def abort(self) -> None:
        """See `Caller`."""
        self._is_closing = self._is_deaf = True
        self._is_resting = False
        if self._transport is not None:
            self._transport.abort()

    def become(self, tunnel: Tunnel) -> None:
        """From now on, bytes are not ours to read."""
        assert self._request is not None
        self._tunnel = tunnel
        self._is_closing = True
        self._deadline.stop()
        early = self._request.body + self._held
        self._held = b""
        if early:
            tunnel.from_caller(early)

    # What an upload calls: see `Source`.

    def pause_reading(self) -> None:
        """See `Source`."""
        if self._transport is not None and not self._is_stopped and not self._transport.is_closing():
            self._is_stopped = True
            self._transport.pause_reading()
            self._watch(self._transport)

    def resume_reading(self) -> None:
        """See `Source`."""
        if self._transport is not None and self._is_stopped and not self._transport.is_closing():
            self._is_stopped = False
            self._watch_no_more()
            self._transport.resume_reading()
            self._set_deadline()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._deadline.move(self._service.options.keep_alive_s)
        if self._service.log is not None:
            self._peer = _address(self._transport.get_extra_info("peername"))
        if not self._service.opened(self):
            self._refuse(answers.too_many_connections(self._service.options.connections))

    def data_received(self, data: bytes) -> None:
        if self._is_resting and (seen := self._find_head(data)) is not None:
            head, start, length = seen
            service = self._service
            if len(data) - start == length and length <= self._small_bytes and head.access is service.access:
                # The request is all there, and nothing is left to parse: what nearly all requests come by.
                self._is_resting = False
                request = self._request = Request(head, head.sent_id or service.request_id(), data[start:])
                job = service.serve(self, request)
                if self._is_turn_of(request):
                    self._job = job
                    self._deadline.stop()
                return
        if self._tunnel is not None:
            self._tunnel.from_caller(data)
        elif self._is_switching:
            self._hold(data)
        elif self._is_deaf:
            return
        elif self._is_uploading and not self._held:
            self._feed(data)
            self._go_on()
        elif self._request is not None or self._is_paused:
            self._hold(data)
        else:
            if self._held or len(data) > self._parsed_bytes:
                self._held += data
            else:
                self._feed(data)
            self._go_on()

    def eof_received(self) -> bool:
        """The caller sends no more: it is gone, or it waits for its answer. To tell them apart something is written,
        which whoever is gone answers with a reset. Where nothing can be, it is gone unless its answer flows."""
        if self._tunnel is not None:
            self._tunnel.caller_ended()
            return not self._service.is_tls
        if self._service.is_tls:  # which can't be closed by halves
            return False
        job, request = self._job, self._request
        if job is None or request is None or self._is_receiving:
            return False
        if self._is_switching:  # who sends no more has no use for a socket
            return False
        if not job.is_begun and not job.sign:
            return False
        if self._receiver is None:  # so that the answer's end is looked at
            self._receiver = Receiver(self._service, self, self._ready)
        self._has_ended = self._is_moving = True
        self._probe(0)
        return True

    def pause_writing(self) -> None:
        self._is_paused = True
        if self._tunnel is None:
            self._is_resting = False
            self._deadline.move(self._service.options.idle_timeout_s)
        if self._job is not None:
            self._job.pause()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._set_deadline()
        if self._job is not None:
            self._job.resume()
        elif not self._is_serving:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it so
        self._transport = None
        self._is_closing = self._is_deaf = True
        self._is_resting = False
        self._deadline.close()
        self._watch_no_more()
        requests = [ready.request for ready in self._ready]
        if self._request is not None:
            requests.append(self._request)
        if self._receiver is not None:
            self._receiver.let_go()
        self._service.hold(-sum(len(request.body) for request in requests if len(request.body) > SMALL_BYTES))
        for request in requests:
            if request.upload is not None:
                request.upload.close()
        self._ready.clear()
        self._held = b""
        self._service.closed(self)
        job, self._job = self._job, None
        current, self._request = self._request, None
        if job is not None:
            job.leave()
        if current is not None and self._service.log is not None:
            self._service.log.ended(current, self._peer, is_left=True)

    # Reading.

    def _is_turn_of(self, request: Request) -> bool:
        return self._request is request  # asked here, as a type checker takes what was assigned for what is there still

    @property
    def _is_receiving(self) -> bool:
        return self._receiver is not None and self._receiver.is_receiving

    @property
    def _is_uploading(self) -> bool:
        """What is received is the body of the request whose turn it is."""
        upload = None if self._receiver is None else self._receiver.upload
        return upload is not None and self._request is not None and self._request.upload is upload

    @property
    def _parsed_bytes(self) -> int:
        return PIPELINED_BYTES if self._receiver is None else self._receiver.parsed_bytes

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > PIPELINED_BYTES:
            self.abort()  # to leave it in the kernel would hide that its caller leaves, which shows behind it only

    def _feed(self, data: bytes) -> None:
        self._is_resting = False
        if self._receiver is None:
            self._receiver = Receiver(self._service, self, self._ready)
        receiver = self._receiver
        was_serving, self._is_serving = self._is_serving, True  # an answer to what has come doesn't go on to the rest
        receiver.feed(data)
        self._is_serving = was_serving
        self._is_deaf = self._is_deaf or receiver.is_done

    def _feed_held(self) -> None:
        """Parse what is held, little by little, until there is something to answer."""
        held, self._held = self._held, b""
        at = 0
        while at < len(held) and not self._is_deaf and not self._ready:
            count = self._parsed_bytes
            self._feed(held[at : at + count])
            at += count
        self._held = held[at:]

    # Answering, in order.

    def _finish_slowly(self) -> None:
        """One answer is whole; see what is next."""
        receiver = self._receiver
        if receiver is not None and receiver.refusal is not None and not self._ready:
            self._linger()
        elif self._is_closing or self._service.is_draining:
            self._close_gently()
        elif not self._is_serving:
            self._go_on()

    def _go_on(self) -> None:
        """Serve what is ready, one after the other, then wait for more."""
        self._is_serving = True  # answers that come at once return here, instead of calling deeper and deeper
        while not self._is_closing and not self._is_paused:
            if self._request is None and self._ready:
                self._serve(self._ready.pop(0))
            elif self._held and not self._is_deaf and (self._request is None or self._is_uploading):
                self._feed_held()
            else:
                break
        self._is_serving = False
        if self._request is None and not self._is_paused and not self._is_closing:
            if self._has_ended:
                self.close()
                return
            if not self._is_receiving and not self._is_deaf:
                self._is_resting = True
                self._receiver = None
        if not self._is_paused:
            self._set_deadline()
        receiver = self._receiver
        if receiver is not None and receiver.owes_continue and not self._is_closing:
            request = self._request
            if request is None or (request.upload is not None and request.upload is receiver.upload):
                receiver.owes_continue = False
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve(self, ready: Ready) -> None:
        self._request = request = ready.request
        self._is_closing = self._is_closing or ready.must_close
        if ready.refusal is not None:
            self.answer(ready.refusal)
            return
        self._is_switching = ready.must_close
        if request.head.access is not self._service.access:  # keys have changed while it waited for its turn
            found = self._service.check(request.head)
            if isinstance(found, Answer):
                request.head.access = found  # it may be remembered: who repeats it is not let in by it either
                self.answer(found)
                return
            request.head.found = found
        job = self._service.serve(self, request)
        if self._is_turn_of(request):
            self._job = job

    def _set_deadline(self) -> None:
        if self._is_lingering or self._transport is None or self._tunnel is not None:
            return
        receiver = self._receiver
        options = self._service.options
        if receiver is None or not receiver.is_receiving:
            if self._request is None:
                self._deadline.move(options.keep_alive_s)
            else:
                self._deadline.stop()
        elif self._is_stopped:
            receiver.is_timed = False
            self._deadline.stop()
        elif self._request is not None and not self._is_uploading:
            receiver.is_timed = False  # what was received of the next one begins its time when its turn comes
            self._deadline.stop()
        elif not receiver.is_timed:  # else it stands: a byte now and then is not what it waits for
            receiver.begin_time()
            self._deadline.move(options.header_timeout_s)

    def _refuse(self, answer: Answer) -> None:
        if self._receiver is None:
            self._receiver = Receiver(self._service, self, self._ready)
        self._receiver.put_last(answer)
        self._is_deaf = True
        self._is_resting = False
        self._go_on()

    def _note(self, request: Request, answer: Answer) -> None:
        """For the log; what a relay has noted of itself stays."""
        record = request.record
        if record is None:
            found = request.head.found
            record = request.record = Record(answer.status, found.operation if isinstance(found, Found) else "")
        record.status = answer.status
        record.code = answer.code

    # Ending.

    def _let_go_of_upload(self, request: Request) -> None:
        upload = request.upload
        assert upload is not None
        if not upload.is_ended:  # answered before all of it came: what is left can't be told from the next request
            self._is_closing = self._is_deaf = True
        if self._is_stopped:
            self.resume_reading()
        self._asked = 0
        upload.close()

    def _close_gently(self) -> None:
        if self._is_deaf and self._is_receiving:
            self._linger()
        else:
            self.close()

    def _linger(self) -> None:
        """Close once the caller has read why: a connection closed before all was received would take that away."""
        self._is_closing = self._is_lingering = self._is_deaf = True
        self._is_resting = False
        if self._transport is not None and not self._transport.is_closing():
            if not self._service.is_tls:
                self._transport.write_eof()
            self._deadline.move(LINGER_S)

    def _probe(self, times: int) -> None:
        transport, job = self._transport, self._job
        if transport is None or transport.is_closing() or job is None:
            return
        if sign := job.sign:
            if times < len(PROBES_S):
                transport.write(sign)
                self._service.loop.call_later(PROBES_S[times], self._probe, times + 1)
        elif self._is_moving or self._is_paused:
            self._is_moving = False
            self._service.loop.call_later(STILL_S, self._probe, times)
        else:
            self.close()

    def _watch(self, transport: asyncio.Transport) -> None:
        """While an upload isn't read, its caller's end stands behind what is unread; a reset is seen at once."""
        self._stopped_file = transport.get_extra_info("socket").fileno()
        self._service.departures.watch(self._stopped_file, self._left)
        self._ask_later()

    def _watch_no_more(self) -> None:
        if self._stopped_file >= 0:
            self._service.departures.forget(self._stopped_file)
            self._stopped_file = -1
        if self._ask_timer is not None:
            self._ask_timer.cancel()
            self._ask_timer = None

    def _left(self, is_gone: bool) -> None:
        if is_gone:
            self.abort()
        else:
            self._ask()

    def _ask_later(self) -> None:
        if self._asked < len(STALL_PROBES_S):
            self._ask_timer = self._service.loop.call_later(STALL_PROBES_S[self._asked], self._ask)

    def _ask(self) -> None:
        """Who is gone answers with a reset, as in `eof_received`. So it does who has left what was asked unread, when
        it goes. More than a few such signs some callers don't bear."""
        if self._ask_timer is not None:
            self._ask_timer.cancel()
            self._ask_timer = None
        job = self._job
        if not self._is_stopped or job is None or job.is_begun or self._asked >= len(STALL_PROBES_S):
            return
        if sign := job.sign:
            self._asked += 1
            self.write(sign)
            self._ask_later()

    def _expire(self) -> None:
        receiver = self._receiver
        is_ending = self._transport is not None and self._transport.is_closing()
        if self._is_paused or self._is_lingering or is_ending:
            self.abort()  # a caller who doesn't read
        elif receiver is not None and receiver.is_receiving:
            options = self._service.options
            if receiver.head is None:
                self._refuse(answers.head_too_slow(options.header_timeout_s))
            else:
                self._refuse(answers.body_too_slow(options.body_bytes_per_s))
        else:
            self.close()


def _address(peer: object) -> str:
    """Of a socket's other end; empty for a Unix socket's."""
    return str(peer[0]) if isinstance(peer, tuple) else ""
