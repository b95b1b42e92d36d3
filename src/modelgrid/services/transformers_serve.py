"""`transformers serve` behind a door: it asks for the engine's key, and what is to be seen has to come along.

Left to itself it fetches every address that a message names, from inside of the network that it stands in, waits for
it as long as that takes, and opens every picture among the files that it may read.

``python -m modelgrid.services.transformers_serve PATH --port 8000 …`` takes the arguments of ``transformers serve``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelgrid.services.accelerator import share_cores
from modelgrid.services.errors import ServiceError, answer

BODY_BYTES: Final = 64 << 20
PIXELS: Final = 64_000_000  # of one picture
PIXELS_TOGETHER: Final = 3 * PIXELS  # of all in a request, which are open at once when they are seen
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")  # those that OpenAI takes; the library knows some that run programs
_RESPONSES: Final = "/v1/responses"
_PATHS: Final = ("/v1/chat/completions", _RESPONSES)
_OPEN_PATHS: Final = ("/health",)
_MEDIA: Final = {"image_url": "image", "video_url": "video", "audio_url": "audio"}
_STEP: Final = "this model opens no addresses and no files: send it as a data URL"


def main() -> None:
    """Serve until SIGTERM, as ``transformers serve`` does."""
    share_cores()
    server: Any = importlib.import_module("transformers.cli.serving.server")
    build = server.build_server
    key = os.environ.pop("MODELGRID_ENGINE_KEY", None)

    def build_behind_door(*args: Any, **kwargs: Any) -> Any:
        app = build(*args, **kwargs)
        app.add_middleware(Door, key=key)
        return app

    server.build_server = build_behind_door
    sys.argv[:1] = ["transformers", "serve"]
    importlib.import_module("transformers.cli.transformers").main()


class Door:
    """What stands before every request. `open_picture` reads the head of a file, as Pillow's `open` does."""

    def __init__(self, app: ASGIApp, key: str | None, open_picture: Callable[[BytesIO], Any] | None = None) -> None:
        self._app = app
        self._open_picture = open_picture or _open_picture
        self._expected = f"Bearer {key}".encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        try:
            if self._expected and not hmac.compare_digest(given, self._expected):
                raise ServiceError(401, "the engine's key is missing or wrong", code="invalid_api_key")
            if scope["path"] in _PATHS:
                receive = await self._seen(scope, receive)
        except ServiceError as error:
            await answer(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _seen(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` again, once what it brings was looked at. Raises ServiceError."""
        body = bytearray()
        last: Message = {"more_body": True}
        while last.get("more_body"):
            last = await receive()
            body += last.get("body", b"")
            if len(body) > BODY_BYTES:
                said = f"cannot read the request: its body is larger than {BODY_BYTES} bytes"
                raise ServiceError(413, said, code="request_too_large")
        asked = await asyncio.to_thread(read, bytes(body), self._open_picture)
        if scope["path"] == _RESPONSES and asked.get("stream") is None:
            body[:] = json.dumps({**asked, "stream": False}).encode()  # it streams to whoever asks for nothing else
        is_told = False

        async def again() -> Message:
            nonlocal is_told
            if is_told:
                return await receive()
            is_told = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again


def read(body: bytes, open_picture: Callable[[BytesIO], Any]) -> dict[str, Any]:
    """A request's body, once all was looked at that its messages bring with them. Raises ServiceError."""
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise ServiceError(400, f"cannot read the request: its body is not JSON: {error}") from None
    except RecursionError:
        raise ServiceError(400, "cannot read the request: its body is nested too deeply") from None
    if not isinstance(asked, dict):
        raise ServiceError(400, "cannot read the request's body: it is not a JSON object")
    left = PIXELS_TOGETHER
    for place, part in _objects({name: asked[name] for name in ("messages", "input") if name in asked}):
        for field, kind in _MEDIA.items():
            if field in part:
                url = _data_url(f"{place}.{field}", kind, part[field])
                if kind == "image":
                    left -= _check_image(f"{place}.{field}", url, open_picture, left)
        if "input_audio" in part:
            _check_audio(f"{place}.input_audio", part["input_audio"])
    return asked


def _objects(asked: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object within `asked`, and where it stands."""
    left: list[tuple[str, Any]] = list(asked.items())
    while left:
        place, value = left.pop()
        if isinstance(value, dict):
            yield place, value
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        left += [(f"{place}.{step}", held) for step, held in inner if isinstance(held, dict | list)]


def _data_url(place: str, kind: str, given: object) -> str:
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url.startswith(f"data:{kind}/"):
        said = f"cannot open what '{place}' names: {_STEP} (data:{kind}/…;base64,…)"
        raise ServiceError(400, said, param=place, code=f"invalid_{kind}_url")
    return url


def _open_picture(content: BytesIO) -> Any:
    pillow: Any = importlib.import_module("PIL.Image")
    return pillow.open(content, formats=FORMATS)


def _check_image(place: str, url: str, open_picture: Callable[[BytesIO], Any], left: int) -> int:
    """How many pixels it has, of those that are left. Raises ServiceError."""
    try:
        content = base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        said = f"cannot read the image of '{place}': it is not base64: {error}"
        raise ServiceError(400, said, param=place, code="invalid_base64_image") from None
    try:
        with open_picture(BytesIO(content)) as image:
            pixels: int = image.width * image.height
            if pixels > min(left, PIXELS):
                said = f"cannot take the image of '{place}': it has {image.width} by {image.height} pixels"
                step = f"at most {PIXELS:,} are taken, {PIXELS_TOGETHER:,} of all in a request (send less)"
                raise ServiceError(400, f"{said}, {step}", param=place, code="image_too_large")
            image.load()
            return pixels
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises of files that are none, or are cut off
        said = f"cannot read the image of '{place}': it is no {', '.join(FORMATS)}, or is damaged"
        raise ServiceError(400, said, param=place, code="invalid_image") from error


def _check_audio(place: str, given: object) -> None:
    """Audio whose format is told becomes a data URL; what comes without one may be a path."""
    told = given.get("format") if isinstance(given, dict) else None
    if not isinstance(told, str) or not told.isalnum():
        said = f"cannot read '{place}': it needs 'data' and a 'format', such as wav"
        raise ServiceError(400, said, param=place, code="invalid_value")


if __name__ == "__main__":
    main()
