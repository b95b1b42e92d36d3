"""Images and sounds: small ones, but real. Of uploads the answer says what was received."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from modelgrid.services.faulty.answer import Answer, Json, error, event, of_events, of_json
from modelgrid.services.faulty.call import Call, now

RATE = 8000
SAMPLES = 200  # of a piece of speech


def generations(call: Call) -> Answer:
    return _images(call, "image_generation")


def edits(call: Call) -> Answer:
    return _images(call, "image_edit")


def variations(call: Call) -> Answer:
    return _images(call, "image_variation")


def speech(call: Call) -> Answer:
    """A sound in pieces, in as many as an answer has; its header says how long it will be."""
    count = max(SAMPLES, call.ways.chunk_size // 2)
    pieces = [_tone(n * count, count) for n in range(call.ways.chunks)]
    sound = [_wav_head(sum(map(len, pieces))) + pieces[0], *pieces[1:]]
    if call.sent.get("stream_format") != "sse":
        return Answer(200, tuple(sound), "audio/wav", is_stream=True)
    deltas = [event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}) for piece in sound]
    return of_events([*deltas, event({"type": "speech.audio.done", "usage": _usage(call)})])


def transcriptions(call: Call) -> Answer:
    return _heard(call)


def translations(call: Call) -> Answer:
    return _heard(call)


def received(call: Call) -> Json:
    """The fields and files of a form; of a JSON body the names."""
    return call.form.shown() if call.form else {"fields": sorted(call.sent)}


def png(side: int, shade: int) -> bytes:
    """A square picture, of one colour."""
    row = b"\0" + bytes([shade, 0, 255 - shade]) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(row * side, 0)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in parts)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _images(call: Call, kind: str) -> Answer:
    if kind != "image_generation" and call.form and not call.form.files:
        return of_json(error("no image was received"), 400)
    side = max(4, math.isqrt(call.ways.chunk_size // 3))
    count = int(call.sent.get("n") or 1)
    pictures = [base64.b64encode(png(side, n % 256)).decode() for n in range(count)]
    facts: Json = {"size": f"{side}x{side}", "quality": "low", "background": "opaque", "output_format": "png"}
    if call.streams:
        return of_events(_image_events(call, kind, pictures[0], facts))
    data = [{"b64_json": picture, "revised_prompt": call.sent.get("prompt")} for picture in pictures]
    return of_json({"created": now(), "data": data, **facts, "usage": _usage(call), "received": received(call)})


def _image_events(call: Call, kind: str, picture: str, facts: Json) -> Iterator[bytes]:
    shown = {"b64_json": picture, "created_at": now(), **facts}
    for n in range(int(call.sent.get("partial_images") or 0)):
        yield event({"type": f"{kind}.partial_image", "partial_image_index": n, **shown}, f"{kind}.partial_image")
    yield event({"type": f"{kind}.completed", **shown, "usage": _usage(call)}, f"{kind}.completed")


def _usage(call: Call) -> Json:
    details = {"input_tokens_details": {"image_tokens": 0, "text_tokens": 3}}
    return {"input_tokens": 3, **details, "output_tokens": call.ways.chunks, "total_tokens": 3 + call.ways.chunks}


def _tone(start: int, count: int) -> bytes:
    values = (int(8000 * math.sin(2 * math.pi * 440 * n / RATE)) for n in range(start, start + count))
    return struct.pack(f"<{count}h", *values)


def _wav_head(length: int) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + length) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", length)


def _heard(call: Call) -> Answer:
    if not call.form or not call.form.files:
        return of_json(error("no file was received"), 400)
    part = call.form.files[0]
    text = f"{part.filename} of {part.size} bytes, sha256 {part.sha256}"
    if call.streams:
        return of_events(event(value) for value in _transcript(call, text))
    return _written(call, call.sent.get("response_format", "json"), text)


def _transcript(call: Call, text: str) -> Iterator[Json]:
    for piece in call.pieces(text):
        yield {"type": "transcript.text.delta", "delta": piece}
    yield {"type": "transcript.text.done", "text": text, "usage": {"type": "tokens", **_usage(call)}}


def _written(call: Call, how: Any, text: str) -> Answer:
    if how == "text":
        return Answer(200, (f"{text}\n".encode(),), "text/plain; charset=utf-8")
    if how == "srt":
        return Answer(200, (f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n\n".encode(),), "text/plain; charset=utf-8")
    if how == "vtt":
        return Answer(200, (f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n\n".encode(),), "text/vtt; charset=utf-8")
    told: Json = {"text": text, "usage": {"type": "duration", "seconds": 1}}
    if how == "verbose_json":
        segment = {"id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": text, "tokens": [], "temperature": 0.0}
        rates = {"avg_logprob": -0.1, "compression_ratio": 1.0, "no_speech_prob": 0.0}
        told |= {"task": "transcribe", "language": "english", "duration": 1.0, "segments": [{**segment, **rates}]}
    return of_json({**told, "received": received(call)})
