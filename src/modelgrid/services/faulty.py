"""The test engine: a small OpenAI-speaking server, a real process, that fails in the ways its arguments tell.

``python -m modelgrid.services.faulty --port 8001 --crash-after 3``. Counts start at the first POST, so the first
real request that makes a replica ready is number one: ``--crash-after 1`` serves that one and dies at the next.
Only the standard library is used, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import contextlib
import hmac
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

HEAD_LIMIT = 1 << 20
REQUESTS_KEPT = 100
CHILD_LIFE_S = 600
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}
_OPERATIONS = {
    "/v1/chat/completions": "chat.completion",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embedding",
}


def main(argv: list[str] | None = None) -> None:
    """Serve until SIGTERM, or until a fault ends it."""
    options = _parser().parse_args(argv)
    options.served = options.model or "faulty"
    if options.port is None:
        die("no port was given (--port N, or MODELGRID_PORT)", 2)
    if options.refuse_stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log(f"starting {options.served} as process {os.getpid()}")
    die_at_start(options)
    hold = [touched(options.eat_memory)] if options.eat_memory else []
    if options.spawn_child:
        log(f"child process {spawn_child()}")
    time.sleep(options.start_delay)
    asyncio.run(Server(options, hold).serve())


def die_at_start(options: argparse.Namespace) -> None:
    """The faults that end the process before it listens."""
    if options.exit_at_start is not None:
        die(f"RuntimeError: told to exit at the start with code {options.exit_at_start}", options.exit_at_start)
    if options.crash_file and options.crash_file.exists():
        die(f"RuntimeError: told to crash while {options.crash_file} exists", 1)
    if options.crash_once_file and options.crash_once_file.exists():
        options.crash_once_file.unlink()
        die(f"RuntimeError: told to crash once by {options.crash_once_file}", 1)


def die(reason: str, code: int) -> NoReturn:
    """End at once, as a crash does: the reason is the last line, nothing is finished or cleaned up."""
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(code)


def log(line: str) -> None:
    sys.stderr.write(f"INFO {time.strftime('%H:%M:%S')} [faulty] {line}\n")
    sys.stderr.flush()


def touched(size: int) -> bytearray:
    """Memory that is really resident: every page was written to."""
    memory = bytearray(size)
    memory[::4096] = b"\1" * len(range(0, size, 4096))
    return memory


def spawn_child() -> int:
    """A process in a session of its own, which outlives this one unless somebody cleans up. It ends by itself late."""
    program = f"import time; time.sleep({CHILD_LIFE_S})"
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL, start_new_session=True).pid


@dataclass(frozen=True)
class Request:
    """One request, with its bytes as they came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def shown(self) -> dict[str, Any]:
        """For tests of fidelity: the body as text, and byte for byte."""
        return {
            "method": self.method,
            "path": self.path,
            "headers": [list(pair) for pair in self.headers],
            "body": self.body.decode("utf-8", "replace"),
            "body_base64": base64.b64encode(self.body).decode(),
        }


@dataclass
class Connection:
    """One client. `ahead` is what was read while watching whether the client leaves."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ahead: bytes = b""

    async def request(self) -> Request | None:
        """The next request, or None when the client is done."""
        try:
            head = (self.ahead + await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.ahead = b""
            start, *lines = head.rstrip("\r\n").split("\r\n")
            method, path, _ = start.split(" ", 2)
            headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
            bare = Request(method, path, headers, b"")
            return Request(method, path, headers, await self._body(bare))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            return None

    async def _body(self, request: Request) -> bytes:
        if request.header("expect").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.header("transfer-encoding").lower() == "chunked":
            parts = []
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                parts.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
            return b"".join(parts)
        return await self.reader.readexactly(int(request.header("content-length") or 0))

    async def left(self) -> None:
        """Return when the client has closed the connection; a pipelined request is kept for later."""
        self.ahead += await self.reader.read(1)
        if self.ahead:
            await asyncio.Event().wait()


@dataclass
class Server:
    """The server, and what it counts."""

    options: argparse.Namespace
    hold: list[bytearray]
    started: float = field(default_factory=time.monotonic)
    posts: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    left: int = 0  # clients that left before their answer had ended
    seen: collections.deque[Request] = field(default_factory=lambda: collections.deque(maxlen=REQUESTS_KEPT))
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self) -> None:
        stop = asyncio.Event()
        if not self.options.refuse_stop:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            listener = await asyncio.start_server(
                self.connected, self.options.host, self.options.port, limit=HEAD_LIMIT, backlog=1024
            )
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            die(f"OSError: cannot listen on {self.options.host}:{self.options.port}: {reason}", 1)
        log(f"serving {self.options.served} on http://{self.options.host}:{self.options.port}")
        await stop.wait()
        log("told to stop: finishing what is in flight")
        listener.close()
        await asyncio.sleep(self.options.stop_delay)
        while self.in_flight:
            await asyncio.sleep(0.01)
        for task in self.connections:
            task.cancel()
        log("stopped")

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        try:
            while request := await connection.request():
                if not await self.watched(connection, request) or request.header("connection").lower() == "close":
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(task)
            writer.close()

    async def watched(self, connection: Connection, request: Request) -> bool:
        """Answer a request, unless its client leaves first. Whether the connection may be used again."""
        answer = asyncio.ensure_future(self.answer(connection.writer, request))
        leaving = asyncio.ensure_future(connection.left())
        try:
            await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.left += 1
                return False
            return answer.result()
        finally:
            for task in (answer, leaving):
                task.cancel()
            await asyncio.wait({answer, leaving})

    async def answer(self, writer: asyncio.StreamWriter, request: Request) -> bool:
        path = request.path.partition("?")[0]
        if request.method in ("GET", "HEAD"):
            return await self.get(writer, path, request.method == "HEAD")
        self.seen.append(request)
        self.posts += 1
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            return await self.post(writer, path, request)
        finally:
            self.in_flight -= 1

    async def get(self, writer: asyncio.StreamWriter, path: str, head: bool) -> bool:
        if path == "/health":
            if self.options.hang_health and past(self.options.hang_after, self.posts):
                await asyncio.Event().wait()
            waited = time.monotonic() - self.started
            if self.options.never_healthy or waited < self.options.health_delay:
                return await send(writer, 503, {"status": "loading"}, head)
            return await send(writer, 200, {"status": "ok", "pid": os.getpid()}, head)
        if path == "/v1/models":
            model = {"id": self.options.served, "object": "model", "created": 0, "owned_by": "faulty"}
            return await send(writer, 200, {"object": "list", "data": [model]}, head)
        if path == "/_requests":
            return await send(writer, 200, self.counts(), head)
        return await send(writer, 404, error(f"no such path: {path}"), head)

    def counts(self) -> dict[str, Any]:
        """What tests ask for: who answered what, byte for byte."""
        return {
            "pid": os.getpid(),
            "posts": self.posts,
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "left": self.left,
            "requests": [request.shown() for request in self.seen],
        }

    async def post(self, writer: asyncio.StreamWriter, path: str, request: Request) -> bool:
        options = self.options
        number = self.posts
        key = os.environ.get("MODELGRID_ENGINE_KEY") if options.key_from_env else None
        if key and not hmac.compare_digest(request.header("authorization").encode(), f"Bearer {key}".encode()):
            return await send(writer, 401, error("the engine's key is missing or wrong"))
        if past(options.crash_after, number):
            die(f"RuntimeError: told to crash after {options.crash_after} requests", 1)
        if past(options.hang_after, number):
            await asyncio.Event().wait()
        if options.eat_per_request:
            self.hold.append(touched(options.eat_per_request))
        await asyncio.sleep(options.delay)
        if past(options.error_after, number):
            return await send(writer, 500, error(f"told to fail after {options.error_after} requests"))
        if options.garbage and past(options.garbage_after, number):
            return await garbage(writer, options.garbage)
        if options.echo:
            return await send(writer, 200, {"object": "echo", "pid": os.getpid(), **request.shown()})
        if path not in _OPERATIONS:
            return await send(writer, 404, error(f"no such path: {path}"))
        try:
            body = json.loads(request.body)
            asked = body.get("model")
        except (ValueError, AttributeError):
            return await send(writer, 400, error("the body is not a JSON object"))
        if options.model and asked != options.model:
            return await send(writer, 404, error(f"The model `{asked}` does not exist."))
        if path == "/v1/embeddings":
            return await send(writer, 200, embeddings(body, options.served))
        reply = Reply(_OPERATIONS[path], number, options.served, options.chunks)
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return await self.stream(writer, reply, usage)
        if options.cut_body:
            whole = json.dumps(reply.whole()).encode()
            writer.write(head_of(200, f"content-length: {len(whole)}") + whole[: len(whole) // 2])
            await writer.drain()
            return False
        return await send(writer, 200, reply.whole())

    async def stream(self, writer: asyncio.StreamWriter, reply: Reply, usage: bool) -> bool:
        writer.write(head_of(200, "transfer-encoding: chunked", "text/event-stream"))
        for sent, event in enumerate(reply.events(usage)):
            if self.options.crash_mid_stream is not None and sent >= self.options.crash_mid_stream:
                await writer.drain()
                die(f"RuntimeError: told to crash after {sent} chunks of a stream", 1)
            await asyncio.sleep(self.options.chunk_delay)
            writer.write(chunk(b"data: " + json.dumps(event).encode() + b"\n\n"))
            await writer.drain()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True


def past(count: int | None, number: int) -> bool:
    """Whether a fault that begins after `count` requests holds for request `number`."""
    return count is not None and number > count


@dataclass(frozen=True)
class Reply:
    """A completion, whole or in events. It says which process and which model answered."""

    kind: str  # chat.completion or text_completion
    number: int
    model: str
    chunks: int

    def words(self) -> list[str]:
        return [f"pid {os.getpid()} model {self.model}", *(f" word{n}" for n in range(1, self.chunks))]

    def facts(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"faulty-{os.getpid()}-{self.number}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": f"pid-{os.getpid()}",
        }

    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": 3, "completion_tokens": self.chunks, "total_tokens": 3 + self.chunks}

    def whole(self) -> dict[str, Any]:
        text = "".join(self.words())
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
        if self.kind == "text_completion":
            said = {"text": text}
        choice = {"index": 0, **said, "finish_reason": "stop"}
        return {**self.facts(self.kind), "choices": [choice], "usage": self.usage()}

    def events(self, usage: bool) -> Iterator[dict[str, Any]]:
        is_chat = self.kind == "chat.completion"
        facts = self.facts("chat.completion.chunk" if is_chat else self.kind)
        for n, word in enumerate(self.words()):
            role = {"role": "assistant"} if n == 0 else {}
            said: dict[str, Any] = {"delta": {**role, "content": word}} if is_chat else {"text": word}
            yield {**facts, "choices": [{"index": 0, **said, "finish_reason": None}]}
        end: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
        yield {**facts, "choices": [{"index": 0, **end, "finish_reason": "stop"}]}
        if usage:
            yield {**facts, "choices": [], "usage": self.usage()}


def embeddings(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Vectors of 8 numbers that depend on the input only."""
    given = body.get("input", "")
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    data = []
    for index, item in enumerate(inputs):
        text = json.dumps(item).encode()
        vector = [((sum(text) * (n + 1)) % 97) / 97 for n in range(8)]
        packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
        shown = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "engine_error", "param": None, "code": None}}


async def send(writer: asyncio.StreamWriter, status: int, answer: dict[str, Any], head: bool = False) -> bool:
    body = json.dumps(answer).encode()
    writer.write(head_of(status, f"content-length: {len(body)}") + (b"" if head else body))
    await writer.drain()
    return True


async def garbage(writer: asyncio.StreamWriter, kind: str) -> bool:
    """Bytes that are no HTTP, or an answer whose JSON is broken."""
    if kind == "http":
        writer.write(b"\x00\x16\x03 this is not HTTP\r\n\r\n")
        await writer.drain()
        return False
    body = b'{"choices": [{"message": '
    writer.write(head_of(200, f"content-length: {len(body)}") + body)
    await writer.drain()
    return True


def head_of(status: int, framing: str, content_type: str = "application/json") -> bytes:
    reason = _REASONS.get(status, "Unavailable")
    return f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelgrid.services.faulty", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    port = os.environ.get("MODELGRID_PORT")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=int(port) if port else None, help="default: MODELGRID_PORT")
    add("--model", help="the only model that it answers for; any when absent")
    add("--key-from-env", action="store_true", help="ask for the bearer token MODELGRID_ENGINE_KEY, where it is set")
    add("--echo", action="store_true", help="answer every POST with what was received")
    add("--chunks", type=int, default=4, metavar="N", help="words of an answer, each an event of a stream")
    add("--delay", type=float, default=0, metavar="S", help="wait before each answer")
    add("--chunk-delay", type=float, default=0, metavar="S", help="wait before each event of a stream")
    add("--start-delay", type=float, default=0, metavar="S", help="open the port late")
    add("--health-delay", type=float, default=0, metavar="S", help="answer 503 to /health until then")
    add("--never-healthy", action="store_true", help="answer 503 to /health for ever")
    add("--hang-after", type=int, metavar="N", help="accept requests after N, and never answer them")
    add("--hang-health", action="store_true", help="then /health hangs as well")
    add("--error-after", type=int, metavar="N", help="answer 500 after N requests")
    add("--crash-after", type=int, metavar="N", help="die at the request after N, before a byte of an answer")
    add("--crash-mid-stream", type=int, nargs="?", const=2, metavar="K", help="die after K events of a stream (2)")
    add("--cut-body", action="store_true", help="close the connection in the middle of an answer that is no stream")
    add("--exit-at-start", type=int, metavar="CODE", help="say why and exit, before the port opens")
    add("--crash-file", type=Path, metavar="PATH", help="crash at the start while this file exists")
    add("--crash-once-file", type=Path, metavar="PATH", help="crash at the start if this file exists, and remove it")
    add("--garbage", choices=("http", "json"), help="answer POSTs with bytes that aren't HTTP, or aren't JSON")
    add("--garbage-after", type=int, default=0, metavar="N", help="after N requests (0)")
    add("--refuse-stop", action="store_true", help="ignore SIGTERM")
    add("--stop-delay", type=float, default=0, metavar="S", help="take this long to stop")
    add("--eat-memory", type=size, default=0, metavar="SIZE", help="hold this much memory, e.g. 500MiB")
    add("--eat-per-request", type=size, default=0, metavar="SIZE", help="and this much more for each request")
    add("--spawn-child", action="store_true", help="start a child in a session of its own that must be cleaned up")
    return parser


def size(text: str) -> int:
    """Bytes from ``500MiB``, ``1GiB``, ``64KiB`` or a plain number."""
    match = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size (write for example 500MiB)")
    return int(match[1]) << {"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[match[2]]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
