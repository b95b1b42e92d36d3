"""One request's way: a replica is chosen, it is sent, the answer relayed; or it waits, or is sent again, or ends.

A request may be sent again while no byte of an answer has reached its caller, and only then: to another replica of its
model, and, where its caller named a virtual one, to another model behind it. It is counted as in flight at a replica
from the choice of it until its answer has ended there, whatever the end; and once as a request, when it ends.
"""

from __future__ import annotations

from random import randrange
from time import monotonic

from modelgrid.gateway import answers
from modelgrid.gateway.access import Caller
from modelgrid.gateway.accounts import CALLER_LEFT
from modelgrid.gateway.affinity import PRIME
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.body import BodyError
from modelgrid.gateway.choose import pick
from modelgrid.gateway.endpoints import Act, Found
from modelgrid.gateway.exchange import EngineHead, Loss
from modelgrid.gateway.options import ATTEMPTS
from modelgrid.gateway.passes import Passes
from modelgrid.gateway.paying import PICTURES, pay_rest, usage_of_answer, usage_of_stream
from modelgrid.gateway.progress import offer_progress, without_encoding
from modelgrid.gateway.reply import EngineTrouble, Reply
from modelgrid.gateway.request import Record, Request
from modelgrid.gateway.routes import Destination, Lane
from modelgrid.gateway.standing import Standing
from modelgrid.gateway.stay import Stay
from modelgrid.gateway.switchboard import Switchboard
from modelgrid.gateway.tally import Tally
from modelgrid.gateway.upstream import Upstream
from modelgrid.gateway.usage import Usage, read_usage
from modelgrid.gateway.usage_stream import UsageOfAnswer, UsageOfStream
from modelgrid.spec import Choice
from modelgrid.spec.operations import CHAT, COMPLETIONS, INFILL, MESSAGES, RESPONSES

_BUSY = frozenset((502, 503, 504))  # an engine that answers so has done nothing: another replica may
_ENDS_BY_EVENT = frozenset((CHAT, COMPLETIONS))
_BY_TOKENS = frozenset(
    (CHAT, COMPLETIONS, RESPONSES, MESSAGES, INFILL)
)  # a whole answer's first byte comes with its last
_LAST_EVENTS = (b"data: [DONE]", b"data:[DONE]")
_TAIL_BYTES = 64
_FELL_THROUGH = frozenset((429, 500, 502, 503, 504, 529))  # and so may another model


class Relay:
    """One request on its way. Ends by itself, or by `leave` or `stop`; then it has let go of everything."""

    # What most requests never need is said here, so that it costs them nothing.
    takes_chunks = False
    _standing: Standing | None = None  # counted as in flight there
    _era = 0
    _destination: Destination | None = None
    _upstream: Upstream | None = None
    _choice: Choice | None = None  # of the models behind a virtual one
    _passes: Passes | None = None
    _lot = 0  # drawn once, so that a retry is with the same of them
    _failed: frozenset[str] = frozenset()  # models behind a virtual one that have failed
    _busy: tuple[Standing, ...] = ()  # replicas that were busy
    _stay: Stay | None = None  # in the lines of those that wait
    _attempts = 0
    _loss: Loss | None = None  # the last one
    _lost_by = ""
    _is_over = False
    _status = 0  # that the engine answered with
    _first_byte_s = 0.0
    _tally: Tally | None = None  # of the model that it was last a request for
    _is_stream = False
    _is_broken = False  # the answer has begun, and ended before its end
    _needs_end = False  # only its last event tells whether the stream is whole
    _tail = b""  # of such a stream

    def __init__(
        self,
        board: Switchboard,
        reply: Reply,
        found: Found,
        request: Request,
        named: str,
        body: bytes,
        lines: bytes,
        caller: Caller | None,
    ) -> None:
        self._board = board
        self._reply = reply
        self._found = found
        self._request = request
        self._named = named  # the model, as the caller did
        self._body = body
        self._lines = lines
        self._caller = caller
        self._began_at = monotonic()
        self._usage: UsageOfAnswer | UsageOfStream | None = None  # here, since compiled a default of the class is lost

    @property
    def is_begun(self) -> bool:
        """See `Job`."""
        return self._reply.is_begun

    @property
    def sign(self) -> bytes:
        """See `Job`."""
        return self._reply.sign

    def enter(self, lane: Lane) -> None:
        """Begin, if neither the key's quota nor the model's is used up."""
        self._named_lane = self._lane = lane
        caller = self._caller
        if lane.gate is not None or (caller is not None and caller.gate is not None):
            self._passes = Passes()
            refusal = self._passes.admit(caller, lane, self._began_at)
            if refusal is not None:
                self._refuse(refusal)
                return
        self._start(lane)

    # What the caller's connection calls.

    def leave(self) -> None:
        """The caller is gone."""
        if not self._is_over:
            self._end(CALLER_LEFT)

    def stop(self) -> None:
        """The worker ends now."""
        if self._is_over:
            return
        if self._reply.is_begun:
            self._break_off(answers.SERVER, "stopping", "modelgrid is stopping")
        else:
            self._refuse(answers.stopping())

    def pause(self) -> None:
        """The caller doesn't read as fast as the engine writes."""
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        """After `pause`."""
        if self._upstream is not None:
            self._upstream.resume()

    # What the line calls: see `Waiter`.

    def proceed(self) -> None:
        """See `Waiter`."""
        stay = self._stay
        assert stay is not None
        if stay.leave():
            self._again()
        else:
            self._give_up(self._lane)

    def reconsider(self) -> None:
        """See `Waiter`."""
        lane = self._board.find(self._named)
        if lane is None or lane.options is None:
            return
        for option in lane.options.order(self._found.operation, self._board.ledger, 1):
            if option.route.model not in self._failed and pick(option.standings, self._board.ledger) is not None:
                self.proceed()
                return

    def wait_out(self) -> None:
        """See `Waiter`."""
        self._leave_line()
        self._give_up(self._lane)

    def give_way(self) -> None:
        """See `Waiter`."""
        self._leave_line()
        self._fail(answers.outranked(self._lane.route))

    # What the engine's connection calls.

    def on_whole(self, head: EngineHead, body: bytes) -> None:
        """The engine has answered, all at once."""
        self._upstream = None
        self._status = status = head.status
        standing = self._standing
        if status >= 500 or (standing is not None and standing.breaker.is_watched):
            self._judge(head)
        if status >= 400 and self._goes_elsewhere(head):
            return
        usage = read_usage(body) if status == 200 else None
        if status == 200 and (usage is None or self._found.operation in PICTURES):
            self._usage = heard = usage_of_answer(self._found.operation)
            heard.add(body)
        self._board.replicas.finish(self._lane.model)
        self._end(status, usage)
        try:
            self._reply.whole(head, body)
        except EngineTrouble as trouble:
            self._refuse(answers.engine_trouble(self._lane.model, str(trouble)))

    def on_head(self, head: EngineHead, length: int | None) -> None:
        """The engine begins to answer."""
        self._status = head.status
        self._judge(head)
        if head.status >= 400 and self._goes_elsewhere(head):
            return
        self._is_stream = head.is_events
        self._usage = None
        if head.is_events:
            self._usage = usage_of_stream(self._found.operation)
        elif head.status == 200 and head.type == b"application/json":
            self._usage = usage_of_answer(self._found.operation)
        is_cuttable = head.ends_by_close and head.is_events and head.status == 200
        self._needs_end = is_cuttable and self._found.operation in _ENDS_BY_EVENT
        self._tail = b""
        self._reply.begin(head, length)

    def on_body(self, data: bytes, ended: bool) -> None:
        """The engine goes on, or ends."""
        if self._is_stream and not self._first_byte_s and data:
            self._first_byte_s = first_byte_s = monotonic() - self._began_at
            if self._tally is not None:
                self._tally.begin(first_byte_s)
        usage = self._usage
        if usage is not None:
            usage.add(data)
        if self._needs_end:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            if ended and not self._tail.rstrip().endswith(_LAST_EVENTS):
                self.on_lost(Loss("broke", "closed the connection before the stream's last event, data: [DONE]"))
                return
        if ended:
            self._upstream = None
            self._board.replicas.finish(self._lane.model)
            self._end(self._status, None if usage is None else usage.usage)
        try:
            self._reply.add(data, ended)
            self.takes_chunks = self._reply.takes_chunks
        except EngineTrouble as trouble:
            if self._reply.is_begun:
                self._break_off(answers.ENGINE, "engine_trouble", f"the engine {trouble}")
            else:
                self._refuse(answers.engine_trouble(self._lane.model, str(trouble)))

    def on_chunks(self, data: bytes) -> None:
        """The engine goes on, in chunks as the caller takes them."""
        if self._usage is not None:
            self._usage.add(data)
        self._reply.add_chunks(data)

    def on_switch(self, lines: bytes, rest: bytes) -> bool:  # noqa: ARG002  see `Exchange`
        """Nobody asked for that."""
        return False

    def on_defect(self) -> None:
        """Nobody knows how far it came, so the caller's connection ends."""
        self._upstream = None
        if not self._is_over:
            self._end(500)
        self._reply.abort()

    def on_room(self) -> None:
        """The request was sent whole."""

    def on_lost(self, loss: Loss) -> None:
        """The engine won't go on."""
        self._upstream = None
        standing = self._standing
        assert standing is not None
        if loss.is_stale and not self._reply.is_begun and self._attempts < ATTEMPTS and self._can_be_resent:
            self._attempts += 1  # it may as well be the request that the engine fails of
            self._connect(standing)  # the same replica, by a connection that it can't have closed for idleness
            return
        self._board.report(standing, self._era, loss)
        self._release()
        self._loss, self._lost_by = loss, standing.replica
        if self._reply.is_begun:
            why = f"the engine {loss.why} {answers.steps(self._lane.model, loss.setting)}"
            self._break_off(answers.ENGINE, "engine_lost", why)
        elif loss.outcome == "timed_out":  # it may be at work still: once more would be twice
            self._fail(answers.engine_timed_out(self._lane.model, self._lost_by, loss.why, loss.setting))
        elif self._attempts >= ATTEMPTS or not (self._can_be_resent or loss.outcome == "refused"):
            self._fail(self._engine_failed(loss, loss.why))
        else:
            self._again()

    # Choosing.

    @property
    def _is_edited(self) -> bool:
        """The body has a place for the model's name, and for its parameters."""
        return self._found.act is not Act.OWN

    @property
    def _can_be_resent(self) -> bool:
        """All that was sent is still here."""
        return True

    def _again(self) -> None:
        """Choose anew: the table may be another."""
        lane = self._board.find(self._named)
        if lane is None:
            self._refuse(self._board.unknown_model(self._named, self._caller))
        else:
            self._start(lane)

    def _start(self, lane: Lane) -> None:
        if lane.options is not None:
            chosen = self._choose_model(lane)
            if isinstance(chosen, Answer):
                self._refuse(chosen)
                return
            lane = chosen
        self._lane = lane
        if self._tally is not lane.tally:
            self._tally = lane.tally
            lane.tally.arrive()
        board = self._board
        key = None if lane.affinity is None or self._busy else self._key(lane)
        standings = lane.standings
        if self._busy:
            standings = tuple(standing for standing in standings if standing not in self._busy)
        standing = pick(standings, board.ledger, key, lane.slack)
        if standing is None and self._busy:  # the others are gone: better one that was busy than none
            self._busy = ()
            standing = pick(lane.standings, board.ledger)
        if standing is None:
            self._wait(lane)
        else:
            self._go(lane, standing)

    def _go(self, lane: Lane, standing: Standing) -> None:
        board = self._board
        self._attempts += 1
        if self._attempts > 1:
            board.meters.retried(lane.model)
        self._standing = standing
        self._era = board.replicas.begin(standing)
        self._destination = destination = standing.destination
        idle = destination.origin.idle
        if idle:
            self._transmit(idle.pop(), destination)
        else:
            self._connect(standing)

    def _choose_model(self, lane: Lane) -> Lane | Answer:
        """One of the models behind a virtual one, which has a place for it."""
        assert lane.options is not None
        operation = self._found.operation
        key = None if lane.affinity is None else self._key(lane)
        if key is None:
            key = self._lot = self._lot or randrange(1, PRIME)  # noqa: S311  a lot to draw, no secret
        refused: Answer | None = None
        for option in lane.options.order(operation, self._board.ledger, key):
            model = option.route.model
            real = self._board.find(model)
            if model in self._failed or real is None:
                continue
            if real.gate is not None or self._passes is not None:
                self._passes = self._passes or Passes()
                refusal = self._passes.choose(real, monotonic())
                if refusal is not None:
                    refused = refusal
                    continue
            self._choice = option.choice
            return real
        return refused or answers.nothing_behind(lane.route, operation)

    def _key(self, lane: Lane) -> int | None:
        assert lane.affinity is not None
        return lane.affinity.key(self._found.operation, self._request.head.read, self._body)

    def _judge(self, head: EngineHead) -> None:
        """Say at once what an answer's head tells of its replica: its end may be an hour away."""
        standing = self._standing
        if standing is not None and (head.status >= 500 or standing.breaker.is_watched):
            self._board.replicas.judge(standing, self._era, head.status, head.says_when)

    def _goes_elsewhere(self, head: EngineHead) -> bool:
        """An answer that isn't the caller's to have while somebody else may give a better one."""
        status = head.status
        standing = self._standing
        if standing is None or not self._can_be_resent:
            return False
        board = self._board
        if status in _BUSY and self._attempts < ATTEMPTS:
            busy = (*self._busy, standing)
            others = tuple(one for one in self._lane.standings if one not in busy)
            if others and pick(others, board.ledger) is not None:
                self._busy = busy
                self._drop_answer()
                self._again()
                return True
        if status in _FELL_THROUGH and self._falls_back():
            self._drop_answer()
            self._again()
            return True
        return False

    def _drop_answer(self) -> None:
        standing = self._standing
        assert standing is not None
        if self._upstream is not None:
            self._upstream.leave()
            self._upstream = None
        self._standing = None
        self._board.replicas.end(standing, self._era)

    def _falls_back(self) -> bool:
        """Whether another of the models behind a virtual one is to be tried; then this one isn't any more."""
        if self._choice is None or self._reply.is_begun:
            return False
        lane = self._board.find(self._named)
        if lane is None or lane.options is None or not lane.options.virtual.fall_back:
            return False
        failed = self._failed | {self._lane.model}
        order = lane.options.order(self._found.operation, self._board.ledger, 1)
        if all(option.route.model in failed for option in order):
            return False
        self._failed = failed
        self._busy = ()
        self._attempts = 0
        self._loss = None
        return True

    def _fail(self, answer: Answer) -> None:
        """This model can't answer."""
        if self._falls_back():
            self._again()
        else:
            self._refuse(answer)

    # Sending.

    def _connect(self, standing: Standing) -> None:
        self._board.dialing.dial(standing.destination.origin, self)

    def connected(self, result: Upstream | Loss) -> None:
        """See `Asker`."""
        if self._is_over:
            if isinstance(result, Upstream):
                self._board.pool.put_back(result, is_reusable=True)
        elif isinstance(result, Loss):
            self.on_lost(result)
        elif not result.is_open:
            self.on_lost(Loss("broke", "closed the connection before it was asked"))
        else:
            assert self._destination is not None
            self._transmit(result, self._destination)

    def _transmit(self, upstream: Upstream, destination: Destination) -> None:
        """Send the request."""
        body = self._body
        choice = self._choice
        if (not destination.is_plain or choice is not None or destination.served != self._named) and self._is_edited:
            edits = destination.edits if choice is None else destination.edits_behind(choice)
            try:
                body = edits.apply(body)
            except BodyError as error:
                self._board.pool.put_back(upstream, is_reusable=True)
                self._refuse(answers.bad_request(str(error), error.param))
                return
        self._upstream = upstream
        found = self._found
        head = b"%b %b%b%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            found.verb,
            destination.root if found.is_rooted else destination.base,
            found.path,
            self._request.head.query,
            destination.lines,
            self._lines,
            len(body),
        )
        upstream.send(self, head, body)

    # Waiting.

    def _wait(self, lane: Lane) -> None:
        route = lane.route
        if route.unavailable is not None and not route.targets:
            self._fail(answers.unavailable(route))
            return
        stay = self._stay
        if stay is None:
            head = self._request.head
            progress = offer_progress(self._reply, self._found, head, self._body, by_default=route.progress)
            if progress is not None:
                self._reply = progress
                self._lines = without_encoding(self._lines)
            stay = self._stay = Stay(self._board, self, self._began_at, head.wishes, self._body, progress)
        left_s = stay.left_s(route)
        if left_s <= 0:
            self._give_up(lane)
            return
        options = self._named_lane.options
        is_flexible = options is not None and not options.is_weighted
        refusal = stay.join(lane, left_s, has_place=self._loss is not None, is_flexible=is_flexible)
        if refusal is not None:
            self._fail(refusal)

    def _leave_line(self) -> None:
        assert self._stay is not None
        self._stay.leave()

    def _give_up(self, lane: Lane) -> None:
        assert self._stay is not None
        lane = self._board.find(lane.model) or lane
        waited_s = self._stay.waited_s
        if self._loss is None:
            self._fail(answers.waited_out(lane.route, waited_s, is_hurried=self._stay.is_hurried))
            return
        why = f"{self._loss.why}, and nothing took its place within {waited_s:.1f} s"
        self._fail(self._engine_failed(self._loss, why))

    # Ending.

    def _engine_failed(self, loss: Loss, why: str) -> Answer:
        return answers.engine_failed(self._lane.model, self._lost_by, why, loss.setting, self._attempts)

    def _refuse(self, answer: Answer) -> None:
        self._board.meters.failed(self._lane.model, answer.kind, answer.code)
        if not self._is_over:
            self._end(answer.status)
        self._reply.refuse(answer)

    def _break_off(self, kind: str, code: str, why: str) -> None:
        self._board.meters.failed(self._lane.model, kind, code)
        if not self._is_over:
            self._is_broken = True
            self._end(self._status)
        if (record := self._request.record) is not None:
            record.code = code
        self._reply.break_off(kind, code, why)

    def _end(self, status: int, usage: Usage | None = None) -> None:
        """Let go of everything, and count what was."""
        self._is_over = True
        if self._stay is not None:
            self._stay.close()
            self._stay = None  # it knows this request, too
        if self._upstream is not None:
            self._upstream.leave()
            self._upstream = None
        replica = self._lost_by
        if self._standing is not None:
            replica = self._standing.replica
            self._release()
        if usage is None and self._is_stream and self._usage is not None:
            usage = self._usage.usage  # of a stream that has no end: what came was paid for
        now = monotonic()
        duration_s = now - self._began_at
        operation = self._found.operation
        books = self._named_lane.books(operation, self._caller)
        meter = books.meter
        tally = self._tally
        if usage is None:
            meter.done(status, duration_s, self._first_byte_s)
        else:
            meter.done(status, duration_s, self._first_byte_s, usage.input, usage.output, usage.cached)
            if tally is not None:
                tally.spend(usage.input, usage.output)
        if tally is not None and status == 200 and not self._first_byte_s and operation not in _BY_TOKENS:
            tally.begin(duration_s)
        account = books.account
        if self._lane is not self._named_lane:  # behind a virtual model: the real one is paid for
            account = self._lane.books(operation, self._caller).account
        account.close(status, duration_s, self._is_broken)
        if usage is not None and not usage.is_estimated:
            account.spend(usage.input, usage.output, usage.cached)
        if self._usage is not None and self._status == 200:
            pay_rest(account, operation, self._usage, usage, self._body)
        if self._passes is not None:
            self._passes.settle(0 if usage is None else usage.input + usage.output, now)
        if self._board.is_logged:
            self._request.record = Record(
                status,
                operation,
                self._lane.model,
                duration_s=duration_s,
                first_byte_s=self._first_byte_s,
                input=0 if usage is None else usage.input,
                output=0 if usage is None else usage.output,
                cached=0 if usage is None else usage.cached,
                replica=replica,
                retries=max(0, self._attempts - 1),
            )

    def _release(self) -> None:
        standing = self._standing
        assert standing is not None
        self._standing = None
        self._board.replicas.end(standing, self._era)
