"""A form that is relayed while it comes, in bounded memory: held only until its model is known and a replica chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from modelgrid.gateway import answers
from modelgrid.gateway.answers import Answer
from modelgrid.gateway.multipart import HELD_IN_MEMORY_BYTES, Field, Held, MultipartScanner, boundary_of


class Source(Protocol):
    """Where an upload comes from: its caller's connection."""

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Sink(Protocol):
    """Where it goes: an engine's connection."""

    def write(self, data: bytes) -> bool:
        """False where the rest should wait until there is room."""
        ...

    def sent(self) -> None:
        """That was all."""
        ...


class Attendant(Protocol):
    """Whose upload it is: the request on its way."""

    def on_model(self, named: str) -> None:
        """The form names its model."""
        ...

    def on_refused(self, answer: Answer) -> None:
        """It can't be read, or not to its end."""
        ...


class Upload:
    """One. Its connection `add`s to it, its relay lets it `flow` into a sink; whichever is ahead waits."""

    _refusal: Answer | None = None
    _model: Field | None = None
    _pieces: Iterator[bytes] | None = None  # of what is held, on their way into the sink
    _counted = 0  # bytes in memory that the worker counts
    _is_closed = False
    _is_full = False  # the sink wants no more for now
    _is_all_held = True  # what was sent is here too, and can be sent again

    def __init__(
        self, content_type: bytes, length: int | None, source: Source, hold: Callable[[int], bool], limit_bytes: int
    ) -> None:
        """`hold` is told of bytes in memory, and says whether there is room for them among `limit_bytes`."""
        self.is_ended = False  # all of it has come
        self._length = length
        self._source = source
        self._hold = hold
        self._limit_bytes = limit_bytes
        self._attendant: Attendant | None = None
        self._sink: Sink | None = None
        self._held = Held()
        self._sent = 0  # of what has come
        boundary = boundary_of(content_type)
        self._scanner = MultipartScanner(boundary or b"")
        if boundary is None:
            self._refusal = answers.not_a_form("its Content-Type names no boundary")

    @property
    def can_be_resent(self) -> bool:
        """Nothing of what was sent is gone."""
        return self._is_all_held

    # What the caller's connection calls.

    def add(self, data: bytes) -> None:
        """More of it."""
        if self._is_closed or self._refusal is not None:
            return
        self._scanner.feed(data)
        if self._scanner.error is not None:
            self.lose(answers.bad_form(self._scanner.error))
            return
        is_flowing = self._sink is not None and self._pieces is None
        if not is_flowing or (self._is_all_held and self._held.size + len(data) <= HELD_IN_MEMORY_BYTES):
            try:
                self._held.add(data)
            except OSError as error:
                self.lose(answers.cannot_hold(str(error)))
                return
            if not self._count():
                self.lose(answers.too_many_bodies(self._limit_bytes))
                return
        elif is_flowing:
            self._is_all_held = False
        if is_flowing:
            self._sent += len(data)
            self._pass(data)
        self._look_for_model()
        self._balance()

    def end(self) -> None:
        """That was all of it."""
        self.is_ended = True
        if self._is_closed or self._refusal is not None:
            return
        if self._model is None:
            self.lose(answers.no_model_in_form())
        elif self._sink is not None and self._pieces is None:
            self._finish()

    def lose(self, answer: Answer) -> None:
        """It won't come to its end."""
        if self._refusal is None and not self._is_closed:
            self._refusal = answer
            if self._attendant is not None:
                self._attendant.on_refused(answer)

    def close(self) -> None:
        """Nobody wants it any more."""
        self._is_closed = True
        self._attendant = self._sink = self._pieces = None
        self._held.close()
        self._hold(-self._counted)
        self._counted = 0

    # What its relay calls.

    def attend(self, attendant: Attendant) -> None:
        """Be told of it."""
        self._attendant = attendant
        if self._refusal is not None:
            attendant.on_refused(self._refusal)
        elif self._model is not None:
            attendant.on_model(_name(self._model))

    def framing(self, served: str) -> bytes:
        """The header that says how it is sent, with `served` as the model."""
        assert self._model is not None
        if self._length is None:
            return b"transfer-encoding: chunked\r\n"
        return b"content-length: %d\r\n" % (self._length + len(served.encode()) - len(self._model.value))

    def flow(self, sink: Sink, served: str) -> None:
        """Send it, from its begin on, with `served` as the model."""
        assert self._model is not None
        self._sink = sink
        self._is_full = False
        self._sent = self._held.size
        self._pieces = self._held.with_value(self._model, served.encode())
        self._pump()

    def stop(self) -> None:
        """The sink is gone; another may come."""
        self._sink = self._pieces = None
        self._balance()

    def on_room(self) -> None:
        """The sink takes more."""
        self._is_full = False
        self._pump()

    # Between the two.

    def _count(self) -> bool:
        more = min(self._held.size, HELD_IN_MEMORY_BYTES) - self._counted
        self._counted += more
        return not more or self._hold(more)

    def _look_for_model(self) -> None:
        if self._model is None and self._scanner.model is not None:
            self._model = self._scanner.model
            if self._attendant is not None:
                self._attendant.on_model(_name(self._model))

    def _pump(self) -> None:
        while self._sink is not None and self._pieces is not None and not self._is_full:
            try:
                piece = next(self._pieces, None)
            except OSError as error:  # what was still to be written to the file finds no room
                self.lose(answers.cannot_hold(str(error)))
                return
            if piece is not None:
                self._pass(piece)
            elif self._sent < self._held.size:  # more has come meanwhile
                start, self._sent = self._sent, self._held.size
                self._pieces = self._held.pieces(start, self._sent)
            else:
                self._pieces = None
                if self._held.size > HELD_IN_MEMORY_BYTES:
                    self._is_all_held = False
                    self._held.close()
                    self._held = Held()
                    self._count()
                if self.is_ended:
                    self._finish()
        self._balance()

    def _pass(self, data: bytes) -> None:
        assert self._sink is not None
        if data:
            framed = data if self._length is not None else b"%x\r\n%b\r\n" % (len(data), data)
            self._is_full = not self._sink.write(framed)

    def _finish(self) -> None:
        assert self._sink is not None
        if self._length is None:
            self._sink.write(b"0\r\n\r\n")
        self._sink.sent()

    def _balance(self) -> None:
        """Read no more than there is room for, and go on when there is again."""
        if self._is_closed:
            return
        if self._sink is not None and self._pieces is None:
            is_ahead = self._is_full
        else:  # until the model is known all of it may have to come
            is_ahead = self._model is not None and self._held.size > HELD_IN_MEMORY_BYTES
        if is_ahead:
            self._source.pause_reading()
        else:
            self._source.resume_reading()


def _name(model: Field) -> str:
    return model.value.decode(errors="replace").strip()
