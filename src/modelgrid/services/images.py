"""Pictures by diffusers, behind POST /v1/images/generations and POST /v1/images/edits.

``python -m modelgrid.services.images --model black-forest-labs/FLUX.1-schnell``, or any other model whose pipeline
draws from text: Stable Diffusion, SDXL, SD3, FLUX, Qwen-Image, Z-Image. ``--model stand-in`` needs no weights.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Final, Literal, TypeVar

from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from modelgrid.services import diffusion, forms, pictures
from modelgrid.services.accelerator import best_device
from modelgrid.services.diffusion import PROMPT_LETTERS, SEED_LIMIT, STEPS_LIMIT, Dice, Reader, Setup, generators
from modelgrid.services.painter import Given, Painter, Wish
from modelgrid.services.pictures import Format, Size, Sizes
from modelgrid.services.service import Batcher, Options, Service, ServiceError, Turn

T = TypeVar("T")

IMAGES_LIMIT: Final = 10  # in one answer, as OpenAI has it
GIVEN_LIMIT: Final = 16  # pictures of one edit, as OpenAI has it
TOGETHER: Final = 4  # pictures in one call; a card of 24 GB has room for so many beside what draws them
PIXELS: Final = 2048 * 2048

Quality = Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"]
_STEPS_BY_QUALITY: Final = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.0}


class Asked(BaseModel):
    """A request for pictures: OpenAI's fields, and after them those of diffusers. What is null isn't there."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(min_length=1, max_length=PROMPT_LETTERS)
    n: int = Field(1, ge=1, le=IMAGES_LIMIT)
    size: str = "auto"
    quality: Quality = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Format = Format.PNG
    output_compression: int = Field(100, ge=0, le=100)
    background: Literal["auto", "opaque", "transparent"] = "auto"
    stream: bool = False
    partial_images: int = Field(0, ge=0, le=3)

    seed: int | None = Field(None, ge=0, lt=SEED_LIMIT)
    steps: int | None = Field(None, ge=1, le=STEPS_LIMIT)
    guidance: float | None = Field(None, ge=0, le=100)
    negative_prompt: str | None = Field(None, max_length=PROMPT_LETTERS)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: object) -> object:
        return forms.without_nulls(given)


class AskedEdit(Asked):
    """A request to change pictures, which come beside it."""

    strength: float | None = Field(None, gt=0, le=1)  # how much of the picture is given up


class Images(Service):
    """The service. Requests that wait at the same time and agree in size, steps and guidance are drawn together."""

    name: ClassVar[str] = "images"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "image"
    body_bytes: int = 256 << 20

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._setup = Setup()
        self._together = TOGETHER
        self._pixels = PIXELS
        self._painter: Painter | None = None
        self._reader: Reader | None = None
        self._drawing = self._gatherer(TOGETHER)
        self._reading = asyncio.Lock()  # one upload at a time: a few kB may become hundreds of MB

    @classmethod
    def arguments(cls, parser: argparse.ArgumentParser) -> None:
        diffusion.add_arguments(parser)
        parser.add_argument("--batch", type=int, default=TOGETHER, metavar="N", help="pictures to draw at once")
        parser.add_argument("--pixels", type=int, default=PIXELS, metavar="N", help="the most that a picture may have")

    def configure(self, arguments: argparse.Namespace) -> None:
        self._setup = diffusion.setup(arguments)
        self._together = max(1, arguments.batch)
        self._pixels = arguments.pixels
        self._drawing = self._gatherer(self._together)

    def load(self) -> None:
        diffusion.silence()
        where = self.weights()
        self.log.info("loading %s", where)
        device = self.options.device or best_device()
        pipeline = diffusion.load(where, device, self._setup, trusts=self.options.trust_remote_code)
        self.take(pipeline, where, device)

    def take(self, pipeline: Any, named: str = "", device: str = "cpu", dice: Dice = generators) -> None:
        """Serve `pipeline`, one of diffusers'. `named` is what its weights are called."""
        habits = diffusion.habits(pipeline, named, self._setup)
        self._reader = Reader(pipeline, habits)
        self._painter = Painter(pipeline, habits, self._setup, device, self._together, dice)
        self.log.info("draws by %s, in %d steps unless told otherwise", type(pipeline).__name__, habits.steps)

    def routes(self) -> list[BaseRoute]:
        return [
            APIRoute("/v1/images/generations", self.generate, methods=["POST"], response_model=None),
            APIRoute("/v1/images/edits", self.edit, methods=["POST"], response_model=None),
        ]

    async def generate(self, request: Request, asked: Asked) -> Response:
        """Draw from text."""
        if not self.painter.draws_from_text:
            said = "cannot draw from text alone: the model changes pictures (POST them to /v1/images/edits)"
            raise ServiceError(400, said, param="model", code="unsupported_by_model")
        wish = self._wish(asked, self._sizes.read(asked.size))
        if asked.stream:
            events = await self.stream(request, lambda turn: self._sketches(turn, asked, wish))
            return StreamingResponse(events, media_type="text/event-stream")
        drawn = await self.run_in(self._drawing, request, wish)
        return await self._answer(asked, wish, drawn)

    async def edit(self, request: Request) -> Response:
        """Change pictures, whole or where a mask says so."""
        async with forms.form(request, GIVEN_LIMIT + 2) as form:
            asked = forms.checked(AskedEdit, forms.fields(form))
            given, size = await self._given(asked, forms.files(form, "image", "image[]"), forms.files(form, "mask"))
        wish = self._wish(asked, size)
        if given.strength is not None:
            wish = self._with_steps_enough(asked, wish, given.strength)
        if asked.stream:
            events = await self.stream(request, lambda turn: self._changes(turn, asked, wish, given))
            return StreamingResponse(events, media_type="text/event-stream")
        drawn = await self.run(request, lambda turn: self.painter.change(turn, wish, given))
        return await self._answer(asked, wish, drawn)

    @property
    def painter(self) -> Painter:
        assert self._painter is not None  # nothing is asked of it before it is loaded
        return self._painter

    @property
    def _sizes(self) -> Sizes:
        return self.painter.sizes(self._pixels)

    def _wish(self, asked: Asked, size: Size | None) -> Wish:
        """What is asked for, checked. Raises ServiceError."""
        if asked.background == "transparent":
            said = "cannot draw a transparent background: the model draws every pixel (ask for opaque, or auto)"
            raise ServiceError(400, said, param="background", code="unsupported_by_model")
        if self._reader is not None and not self._setup.truncates:
            self._reader.check(asked.prompt)
            if asked.negative_prompt:
                self._reader.check(asked.negative_prompt, "negative_prompt")
        habits = self.painter.habits
        factor = 1.0 if habits.is_distilled else _STEPS_BY_QUALITY.get(asked.quality, 1.0)
        first = diffusion.new_seed() if asked.seed is None else asked.seed
        return Wish(
            prompt=asked.prompt,
            seeds=tuple((first + place) % SEED_LIMIT for place in range(asked.n)),
            size=size,
            steps=asked.steps or max(1, min(STEPS_LIMIT, round(habits.steps * factor))),
            guidance=habits.guidance if asked.guidance is None else asked.guidance,
            negative=asked.negative_prompt,
        )

    def _with_steps_enough(self, asked: Asked, wish: Wish, strength: float) -> Wish:
        """`strength` is also how many of the steps are made. Where nobody named them, models of few steps make all of
        theirs, and the others one at least. Raises ServiceError where somebody did, and none would be made."""
        if asked.steps is None:
            wanted = self.painter.habits.steps if self.painter.habits.is_distilled else 1
            if strength * STEPS_LIMIT < wanted:
                said = f"cannot change a picture at strength {strength:g}: {wanted / STEPS_LIMIT:g} is the least"
                raise ServiceError(400, said, param="strength", code="invalid_value")
            return dataclasses.replace(wish, steps=max(wish.steps, math.ceil(wanted / strength)))
        if int(wish.steps * strength) < 1:
            said = f"cannot change a picture in {wish.steps} steps at strength {strength:g}: that is less than one"
            raise ServiceError(400, said, param="steps", code="invalid_value")
        return wish

    async def _given(self, asked: AskedEdit, files: list[UploadFile], masks: list[UploadFile]) -> tuple[Given, Size]:
        """The pictures of a form, and the size of what is to be drawn."""
        if not files:
            raise ServiceError(400, "'image' is missing", param="image", code="missing_required_parameter")
        if len(files) > GIVEN_LIMIT:
            said = f"cannot use {len(files)} pictures: {GIVEN_LIMIT} are the most"
            raise ServiceError(400, said, param="image", code="too_many_images")
        wanted = self._sizes.read(asked.size)
        usual = await self.compute(self.painter.strength, len(files), masked=bool(masks))

        def read() -> tuple[Given, Size]:
            first = pictures.read(files[0].file, "image")
            sent = Size(*first.size)
            size = wanted or self._sizes.like(sent.width, sent.height)
            images = [pictures.fitted(first, size)]
            del first  # it may be far larger
            images += [pictures.fitted(pictures.read(file.file, "image"), size) for file in files[1:]]
            hole = pictures.read(masks[0].file, "mask") if masks else None
            if hole is not None and hole.size != (sent.width, sent.height):
                width, height = hole.size
                said = f"cannot use the mask: it has {width}x{height} pixels, the picture {sent}"
                raise ServiceError(400, said, param="mask", code="invalid_mask")
            changed = pictures.to_change(hole, size) if hole is not None else None
            return Given(tuple(images), changed, asked.strength or usual), size

        async with self._reading:
            return await asyncio.to_thread(read)

    def _gatherer(self, together: int) -> Batcher[Wish, list[Any]]:
        return self.batcher(self._draw, limit=together, key=lambda wish: wish.kind, size=lambda wish: len(wish.seeds))

    def _draw(self, turn: Turn, wishes: list[Wish]) -> list[list[Any]]:
        return self.painter.draw(turn, wishes)

    async def _answer(self, asked: Asked, wish: Wish, drawn: list[Any]) -> Response:
        encoded = await asyncio.to_thread(lambda: [_encode(asked, picture) for picture in drawn])
        data = [_shown(asked, picture, seed) for picture, seed in zip(encoded, wish.seeds, strict=True)]
        described = _described(asked, Size(*drawn[0].size))
        return JSONResponse({"created": int(time.time()), "data": data, **described, "usage": self._usage(asked)})

    def _sketches(self, turn: Turn, asked: Asked, wish: Wish) -> Iterator[bytes]:
        """Events: what each picture looks like on its way, and when it is done."""
        for seed in wish.seeds:
            for picture, place in self._sketched(turn, wish, seed, _moments(wish.steps, asked.partial_images)):
                kind = "completed" if place is None else "partial_image"
                yield self._event("image_generation", kind, asked, picture, place)

    def _sketched(self, turn: Turn, wish: Wish, seed: int, at: list[int]) -> Iterator[tuple[Any, int | None]]:
        """A picture after some of its steps, with its place among those, and then the picture."""

        def draw(tell: Callable[[tuple[Any, int | None]], None]) -> None:
            def seen(step: int, latents: Any) -> None:
                if step in at and (picture := self.painter.preview(latents, wish.size)) is not None:
                    tell((picture, at.index(step)))

            tell((self.painter.sketch(turn, wish, seed, seen), None))

        return told_by(draw)

    def _changes(self, turn: Turn, asked: Asked, wish: Wish, given: Given) -> Iterator[bytes]:
        for picture in self.painter.change(turn, wish, given):
            yield self._event("image_edit", "completed", asked, picture, None)

    def _event(self, of: str, kind: str, asked: Asked, picture: Any, place: int | None) -> bytes:
        told: dict[str, Any] = {"type": f"{of}.{kind}", "created_at": int(time.time())}
        told |= {"b64_json": _encode(asked, picture), **_described(asked, Size(*picture.size))}
        told |= {"partial_image_index": place} if place is not None else {"usage": self._usage(asked)}
        return f"event: {told['type']}\ndata: {json.dumps(told)}\n\n".encode()

    def _usage(self, asked: Asked) -> dict[str, Any]:
        """Pictures aren't made of tokens here: those of the prompt are told, as whoever accounts for them expects."""
        tokens = self._reader.tokens(asked.prompt) if self._reader is not None else 0
        details = {"text_tokens": tokens, "image_tokens": 0}
        return {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens, "input_tokens_details": details}


def told_by(work: Callable[[Callable[[T], None]], None]) -> Iterator[T]:
    """What `work` tells while it runs, as it tells it; in a thread beside this one, for diffusers calls back and can't
    yield. What it raises is raised here."""
    told: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            work(lambda item: told.put((False, item)))
        except BaseException as error:
            told.put((True, error))
        else:
            told.put((True, None))

    beside = threading.Thread(target=run, name="sketch", daemon=True)
    beside.start()
    try:
        while True:
            is_end, item = told.get()
            if not is_end:
                yield item
            elif item is not None:
                raise item
            else:
                return
    finally:
        beside.join()  # one thing at a time


def _moments(steps: int, partial: int) -> list[int]:
    """After which steps to show what there is: evenly spread, and never the last."""
    return sorted({round(steps * place / (partial + 1)) for place in range(1, partial + 1)} - {0, steps})


def _encode(asked: Asked, picture: Any) -> str:
    return pictures.encode(picture, asked.output_format, asked.output_compression)


def _shown(asked: Asked, encoded: str, seed: int) -> dict[str, Any]:
    """A picture in an answer, with the seed that draws it again. Nothing is kept here, so its URL is the picture."""
    if asked.response_format == "url":
        return {"url": f"data:{asked.output_format.media_type};base64,{encoded}", "seed": seed}
    return {"b64_json": encoded, "seed": seed}


def _described(asked: Asked, size: Size) -> dict[str, Any]:
    facts = {"background": "opaque", "output_format": asked.output_format, "quality": asked.quality}
    return {**facts, "size": str(size)}


if __name__ == "__main__":
    Images.main()
