"""Speech by transformers, behind POST /v1/audio/speech, as it is computed: sentence by sentence.

``python -m modelgrid.services.speech --model PATH`` serves alone; ``--model stand-in`` with a model made on the spot.

A model has voices of its own, which GET /v1/audio/voices names. OpenAI's stand for them in order, so that what was
written for OpenAI speaks: ``alloy`` is the first, ``ash`` the second, and after the last the first comes again.
``instructions`` have no effect, as with OpenAI's tts-1: the models here take none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from modelgrid.services.accelerator import best_device
from modelgrid.services.audio import Encoder, Encoding, Format, Samples, encode
from modelgrid.services.sentences import sentences
from modelgrid.services.service import Caller, Options, Service, ServiceError, Turn
from modelgrid.services.speakers import Speaker, load_speaker
from modelgrid.services.written import Written

CHARACTERS_LIMIT: Final = 4096  # of one request, as OpenAI has it
EVENTS: Final = "text/event-stream"

# fmt: off
OPENAI_VOICES: Final = (
    "alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar",
)
# fmt: on


def _named(voice: object) -> object:
    """A voice by its name; OpenAI's clients may write an object that has it for an id."""
    return voice.get("id") if isinstance(voice, dict) else voice


class Asked(BaseModel):
    """A request, as OpenAI's clients write it."""

    input: Written
    voice: Annotated[str | None, BeforeValidator(_named)] = None  # the first one
    response_format: Format | None = None  # mp3
    speed: float | None = Field(None, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] | None = None  # audio


class Speech(Service):
    """The service."""

    name: ClassVar[str] = "speech"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "speech"

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._speaker: Speaker
        self._streamed: Callable[[Format, int], Encoding]
        self._whole: Callable[[Samples, Format, int], bytes]

    def load(self) -> None:
        """Load the weights, and speak once: a model that can't is found out now, and the first request is quicker."""
        where = self.weights()
        self.log.info("loading %s", where)
        speaker = load_speaker(where, self.options.device or best_device(), self.options.trust_remote_code)
        speaker.say("Hello.", speaker.voices[0], 1.0, Turn([Caller()]))
        self.take(speaker)

    def take(
        self,
        speaker: Speaker,
        streamed: Callable[[Format, int], Encoding] = Encoder,
        whole: Callable[[Samples, Format, int], bytes] = encode,
    ) -> None:
        """Serve `speaker`; what it says is written by `streamed` and `whole`."""
        self._speaker, self._streamed, self._whole = speaker, streamed, whole

    def routes(self) -> list[BaseRoute]:
        return [
            APIRoute("/v1/audio/speech", self._speak, methods=["POST"], response_model=None),
            APIRoute("/v1/audio/voices", self._voices, methods=["GET"]),
        ]

    async def _voices(self) -> dict[str, Any]:
        known = self._speaker.voices
        return {"voices": known, "aliases": {name: find_voice(name, known) for name in OPENAI_VOICES}}

    async def _speak(self, request: Request, asked: Asked) -> Response:
        form = asked.response_format or Format.MP3
        pieces, voice = read_text(asked.input), self._voice(asked.voice)
        is_events = asked.stream_format == "sse"

        def produce(turn: Turn) -> Iterator[bytes]:
            said = [piece for piece in pieces if self._speaker.count(piece)]
            if not said:
                raise _unspeakable("it holds no character that the model can pronounce")
            written = self._written(turn, said, voice, asked.speed or 1.0, form)
            return self._events(written, said) if is_events else written

        sound = await self.stream(request, produce)
        return StreamingResponse(sound, media_type=EVENTS if is_events else form.media_type)

    def _written(self, turn: Turn, pieces: list[str], voice: str, speed: float, form: Format) -> Iterator[bytes]:
        """The sound, a piece after each sentence. What is one sentence is one file, whose head says how long it is."""

        def say(done: int) -> Samples:
            samples = self._speaker.say(pieces[done], voice, speed, turn)
            turn.step(done + 1, len(pieces))
            return samples

        if len(pieces) == 1:
            yield self._whole(say(0), form, self._speaker.rate)
            return
        encoder = self._streamed(form, self._speaker.rate)
        for done in range(len(pieces)):
            if ready := encoder.feed(say(done)):
                yield ready
        if rest := encoder.finish():
            yield rest

    def _events(self, written: Iterator[bytes], pieces: list[str]) -> Iterator[bytes]:
        for part in written:
            yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()})
        tokens = sum(map(self._speaker.count, pieces))
        usage = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
        yield _event({"type": "speech.audio.done", "usage": usage})

    def _voice(self, named: str | None) -> str:
        known = self._speaker.voices
        if named is None:
            return known[0]
        found = find_voice(named, known)
        if found is None:
            raise ServiceError(
                400,
                f"cannot speak with voice {named!r}: {self.options.name} has {_listed(known)}; "
                "OpenAI's names stand for them in order, alloy for the first",
                param="voice",
                code="voice_not_found",
            )
        return found


def read_text(text: str) -> list[str]:
    """The sentences of a request's text. Raises ServiceError."""
    if len(text) > CHARACTERS_LIMIT:
        raise ServiceError(
            400,
            f"cannot speak the text: it has {len(text)} characters, at most {CHARACTERS_LIMIT} are taken "
            "(send it in parts)",
            param="input",
            code="string_above_max_length",
        )
    pieces = sentences(text)
    if not pieces:
        raise _unspeakable("it is empty, or holds neither letters nor digits")
    return pieces


def find_voice(named: str, known: tuple[str, ...]) -> str | None:
    """The voice that is meant: the model's own of that name, else the one that OpenAI's name stands for."""
    if named in known:
        return named
    if named in OPENAI_VOICES:
        return known[OPENAI_VOICES.index(named) % len(known)]
    return None


def _unspeakable(why: str) -> ServiceError:
    return ServiceError(400, f"cannot speak the text: {why}", param="input", code="invalid_value")


def _listed(voices: tuple[str, ...], most: int = 20) -> str:
    rest = f" and {len(voices) - most} others (GET /v1/audio/voices)" if len(voices) > most else ""
    return ", ".join(voices[:most]) + rest


def _event(told: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(told)}\n\n".encode()


if __name__ == "__main__":
    Speech.main()
