"""OpenAI's realtime sessions: a WebSocket (RFC 6455) that says what it hears."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelgrid.services.faulty.answer import Json
from modelgrid.services.faulty.call import Call
from modelgrid.services.faulty.ending import die
from modelgrid.services.faulty.wire import Connection, Exchange, Head

MESSAGE_LIMIT = 16 << 20
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GOING_AWAY, PROTOCOL_ERROR, TOO_BIG = 1001, 1002, 1009
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


def refusal(head: Head) -> str | None:
    """Why this is no opening of a WebSocket, if it is none."""
    if "upgrade" not in head.header("connection").lower() or head.header("upgrade").lower() != "websocket":
        return "this path is for WebSockets"
    if head.header("sec-websocket-version") != "13":
        return "only version 13 of the WebSocket protocol is known"
    try:
        is_key = len(base64.b64decode(head.header("sec-websocket-key"), validate=True)) == 16
    except ValueError:
        is_key = False
    return None if is_key else "there is no Sec-WebSocket-Key of 16 bytes"


def opening(head: Head) -> bytes:
    """The 101 answer. Of the subprotocols `realtime` is chosen, else the first."""
    digest = hashlib.sha1(f"{head.header('sec-websocket-key')}{_MAGIC}".encode(), usedforsecurity=False).digest()
    lines = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: Upgrade"]
    lines.append(f"sec-websocket-accept: {base64.b64encode(digest).decode()}")
    offered = [name.strip() for line in head.all("sec-websocket-protocol") for name in line.split(",")]
    if offered:
        lines.append(f"sec-websocket-protocol: {'realtime' if 'realtime' in offered else offered[0]}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass(frozen=True)
class Message:
    """One message, its fragments joined; or a control frame."""

    opcode: int
    data: bytes


class Broken(Exception):
    """The peer breaks the rules; the argument is the code to close with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Session:
    """One client's session, after the opening."""

    def __init__(self, connection: Connection, exchange: Exchange, call: Call) -> None:
        self._connection = connection
        self._exchange = exchange
        self._call = call
        self._heard = 0
        self._said = 0

    async def run(self) -> None:
        """Until one of both closes, or a fault does."""
        try:
            await self._say({"type": "session.created", "session": self._session()})
            while not self._is_over():
                message = await self._next()
                if message.opcode == CLOSE:
                    await self._closing(message.data)
                    return
                await self._answer(message)
        except Broken as broken:
            await self._send(CLOSE, struct.pack(">H", broken.code))
        except asyncio.IncompleteReadError:
            pass  # it left without a word; the departure is noted elsewhere

    def _is_over(self) -> bool:
        ways = self._call.ways
        if ways.cut_events is None or self._heard < ways.cut_events:
            return False
        if ways.cut_by == "crash":
            die(f"RuntimeError: told to crash after {self._heard} messages", 1)
        if ways.cut_by == "reset":
            self._connection.reset()
        if ways.cut_by == "end":
            raise Broken(GOING_AWAY)
        return True

    async def _closing(self, data: bytes) -> None:
        self._exchange.closed_with = struct.unpack(">H", data[:2])[0] if len(data) >= 2 else 1005
        await self._send(CLOSE, data[:2])

    async def _answer(self, message: Message) -> None:
        self._heard += 1
        if message.opcode == BINARY:
            digest = hashlib.sha256(message.data).hexdigest()
            await self._say({"type": "faulty.binary", "size": len(message.data), "sha256": digest})
            await self._send(BINARY, message.data)
            return
        text = message.data.decode("utf-8", "replace")
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        for answer in self._answers(event if isinstance(event, dict) else {}, text):
            await self._say(answer)

    def _answers(self, event: Json, text: str) -> Iterator[Json]:
        kind = event.get("type")
        if kind == "session.update":
            yield {"type": "session.updated", "session": {**self._session(), **event.get("session", {})}}
        elif kind == "conversation.item.create":
            item = {"id": f"item_{self._call.mark}_{self._heard}", "object": "realtime.item", "status": "completed"}
            yield {"type": "conversation.item.added", "previous_item_id": None, "item": {**item, **event["item"]}}
        elif kind == "response.create":
            yield from self._response()
        else:
            yield {"type": "faulty.echo", "text": text}

    def _response(self) -> Iterator[Json]:
        words = self._call.words()
        response = {"id": f"resp_{self._call.mark}_{self._heard}", "object": "realtime.response"}
        ids = {"response_id": response["id"], "item_id": f"item_{self._call.mark}_{self._heard}"}
        at: Json = {**ids, "output_index": 0, "content_index": 0}
        yield {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}}
        for word in words:
            yield {"type": "response.output_text.delta", **at, "delta": word}
        yield {"type": "response.output_text.done", **at, "text": "".join(words)}
        usage = {"input_tokens": 3, "output_tokens": len(words), "total_tokens": 3 + len(words)}
        yield {"type": "response.done", "response": {**response, "status": "completed", "usage": usage}}

    def _session(self) -> Json:
        kind = {"object": "realtime.session", "type": "realtime", "output_modalities": ["text"]}
        return {"id": f"sess_{self._call.mark}", **kind, "model": self._call.model, "pid": os.getpid()}

    async def _say(self, event: Json) -> None:
        if self._call.ways.chunk_delay:
            await asyncio.sleep(self._call.ways.chunk_delay)
        self._said += 1
        text = json.dumps({"event_id": f"event_{self._call.mark}_{self._said}", **event})
        await self._send(TEXT, text.encode())

    async def _send(self, opcode: int, data: bytes) -> None:
        writer = self._connection.writer
        frame = _frame_head(opcode, len(data)) + data
        self._exchange.sent += len(frame)
        writer.write(frame)
        await writer.drain()

    async def _next(self) -> Message:
        """The next message; pings are answered on the way."""
        opcode, parts = 0, bytearray()
        while True:
            is_last, kind, data = await self._frame()
            if kind == PING:
                await self._send(PONG, data)
            elif kind == CLOSE:
                return Message(CLOSE, data)
            elif kind != PONG:
                if (kind == 0) != bool(opcode):
                    raise Broken(PROTOCOL_ERROR)  # a fragment of nothing, or a message within another
                opcode = opcode or kind
                parts += data
                if len(parts) > MESSAGE_LIMIT:
                    raise Broken(TOO_BIG)
                if is_last:
                    return Message(opcode, bytes(parts))

    async def _frame(self) -> tuple[bool, int, bytes]:
        read = self._connection.reader.readexactly
        first, second = await read(2)
        opcode, length = first & 15, second & 127
        is_control = opcode >= CLOSE
        if first & 0x70 or not second & 128 or opcode not in (0, TEXT, BINARY, CLOSE, PING, PONG):
            raise Broken(PROTOCOL_ERROR)  # extensions that nobody agreed on, or a client that doesn't mask
        if is_control and (length > 125 or not first & 128):
            raise Broken(PROTOCOL_ERROR)
        if length == 126:
            (length,) = struct.unpack(">H", await read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await read(8))
        if length > MESSAGE_LIMIT:
            raise Broken(TOO_BIG)
        mask = await read(4)
        data = await read(length)
        self._exchange.body.size += length
        return bool(first & 128), opcode, _unmasked(data, mask)


def _unmasked(data: bytes, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one large number each: a loop over bytes would take a second for 16 MiB."""
    length = len(data)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def _frame_head(opcode: int, length: int) -> bytes:
    if length < 126:
        return bytes([128 | opcode, length])
    if length < 1 << 16:
        return bytes([128 | opcode, 126]) + struct.pack(">H", length)
    return bytes([128 | opcode, 127]) + struct.pack(">Q", length)
