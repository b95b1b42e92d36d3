"""Music by MusicGen, behind POST /v1/audio/music: a description and a duration in, a file out.

``python -m modelgrid.services.music --model PATH`` serves alone; ``--model stand-in`` with a model made on the spot.

Requests of equal length and manner that wait at the same time are computed together. One with a ``seed`` is computed
by itself, for only then does the same seed make the same song.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from modelgrid.services.accelerator import best_device
from modelgrid.services.audio import Format, Samples, encode
from modelgrid.services.composer import Composer, Manner, load_composer
from modelgrid.services.service import Caller, Options, Service, ServiceError, Turn
from modelgrid.services.written import Written

TOGETHER_S: Final = 60  # of music in one turn: what a song keeps while it is made grows with its length
USUAL_S: Final = 10.0
CHARACTERS_LIMIT: Final = 4096


class Asked(BaseModel):
    """A request. What is left out is as the model has it."""

    prompt: Written
    duration: float | None = Field(None, ge=0.1)  # seconds
    response_format: Literal["wav", "mp3", "flac"] | None = None  # wav
    seed: int | None = Field(None, ge=0, lt=2**63)
    guidance: float | None = Field(None, ge=1, le=100)  # how closely the prompt is followed; 1: not more than learned
    temperature: float | None = Field(None, ge=0, le=10)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    n: Literal[1] | None = None  # an answer is one file

    @property
    def manner(self) -> Manner:
        return Manner(self.duration or USUAL_S, self.guidance, self.temperature, self.top_k, self.top_p)


@dataclass(frozen=True, slots=True, eq=False)
class Song:
    """One to be made."""

    prompt: str
    manner: Manner
    seed: int | None

    @property
    def kind(self) -> Hashable:
        """What those have in common that can be made together. With a seed it is alone."""
        return self.manner if self.seed is None else self


class Music(Service):
    """The service."""

    name: ClassVar[str] = "music"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "music"

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._composer: Composer
        self._written: Callable[[Samples, Format, int], bytes]
        self._songs = self.batcher(
            self._compose,
            limit=TOGETHER_S,
            key=lambda song: song.kind,
            size=lambda song: math.ceil(song.manner.duration_s),
        )

    def load(self) -> None:
        """Load the weights, and make a tenth of a second: a model that can't is found out now."""
        where = self.weights()
        self.log.info("loading %s", where)
        composer = load_composer(where, self.options.device or best_device(), self.options.trust_remote_code)
        composer.compose(["warm"], Manner(0.1), None, Turn([Caller()]))
        self.take(composer)

    def take(self, composer: Composer, written: Callable[[Samples, Format, int], bytes] = encode) -> None:
        """Serve `composer`; what it makes is `written` into a file."""
        self._composer, self._written = composer, written

    def routes(self) -> list[BaseRoute]:
        return [APIRoute("/v1/audio/music", self._make, methods=["POST"], response_model=None)]

    async def _make(self, request: Request, asked: Asked) -> Response:
        self._check(asked)
        form = Format(asked.response_format or Format.WAV)
        song = Song(asked.prompt, asked.manner, asked.seed)
        samples = await self.run_in(self._songs, request, song)
        file = await asyncio.to_thread(self._written, samples, form, self._composer.rate)
        return Response(file, media_type=form.media_type)

    def _compose(self, turn: Turn, songs: list[Song]) -> list[Samples]:
        first = songs[0]
        return self._composer.compose([song.prompt for song in songs], first.manner, first.seed, turn)

    def _check(self, asked: Asked) -> None:
        name, limit_s, duration_s = self.options.name, self._composer.longest_s, asked.manner.duration_s
        if duration_s > limit_s:
            said = f"cannot make {duration_s:g} s of music: {name} makes {limit_s:g} s at most (ask for less)"
            raise ServiceError(400, said, param="duration", code="invalid_value")
        if not asked.prompt.strip():
            said = "cannot make music: 'prompt' is empty (describe it: genre, instruments, mood, tempo)"
            raise ServiceError(400, said, param="prompt", code="invalid_value")
        if len(asked.prompt) > CHARACTERS_LIMIT:
            said = (
                f"cannot make music: 'prompt' has {len(asked.prompt)} characters, at most {CHARACTERS_LIMIT} are read"
            )
            raise ServiceError(400, said, param="prompt", code="string_above_max_length")
        tokens = self._composer.count(asked.prompt)
        if tokens > self._composer.prompt_limit:
            said = (
                f"cannot make music: 'prompt' has {tokens} tokens, {name} reads {self._composer.prompt_limit} at most"
            )
            raise ServiceError(400, said, param="prompt", code="context_length_exceeded")


if __name__ == "__main__":
    Music.main()
