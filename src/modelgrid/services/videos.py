"""Films by diffusers, behind /v1/videos: jobs that are created, asked after, fetched and deleted.

``python -m modelgrid.services.videos --model Wan-AI/Wan2.2-TI2V-5B-Diffusers``, or any other model whose pipeline makes
films from text: Wan, LTX-Video, CogVideoX, HunyuanVideo, Mochi. ``--model stand-in`` needs no weights. Jobs lie in
a folder, and are taken up again by the service's next process.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import io
import os
import time
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Final, Literal

from fastapi import FastAPI, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, model_validator
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute

from modelgrid.services import diffusion, film, forms, pictures
from modelgrid.services.accelerator import best_device, parse_bytes
from modelgrid.services.diffusion import PROMPT_LETTERS, SEED_LIMIT, STEPS_LIMIT, Dice, Reader, Setup, generators
from modelgrid.services.film import Camera, Write
from modelgrid.services.jobs import Job, Jobs, Keeping, Status
from modelgrid.services.pictures import Size
from modelgrid.services.service import Options, Service, ServiceError
from modelgrid.services.studio import FILM, IMAGE, THUMBNAIL, Studio

SECONDS: Final = 4.0  # as OpenAI has it
SECONDS_LIMIT: Final = 20.0
PIXELS: Final = 1920 * 1088
POLL_MS: Final = 500  # how often OpenAI's clients are to ask after a job


class Reference(BaseModel):
    """A picture to begin with, as JSON has it."""

    image_url: str  # no files are kept here that `file_id` could mean


class Asked(BaseModel):
    """A request for a film: OpenAI's fields, and after them those of diffusers. What is null isn't there."""

    prompt: str = Field(min_length=1, max_length=PROMPT_LETTERS)
    seconds: float = Field(SECONDS, gt=0, allow_inf_nan=False)
    size: str = "auto"
    input_reference: Reference | None = None

    seed: int | None = Field(None, ge=0, lt=SEED_LIMIT)
    steps: int | None = Field(None, ge=1, le=STEPS_LIMIT)
    guidance: float | None = Field(None, ge=0, le=100)
    negative_prompt: str | None = Field(None, max_length=PROMPT_LETTERS)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: object) -> object:
        return forms.without_nulls(given)


class Videos(Service):
    """The service. It makes one film at a time, the oldest first."""

    name: ClassVar[str] = "videos"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "video"
    queue_limit: ClassVar[int] = 100  # films that may wait

    def __init__(self, options: Options | None = None, jobs: Jobs | None = None) -> None:
        super().__init__(options)
        self._setup = Setup()
        self._rate: float | None = None
        self._pixels = PIXELS
        self._seconds = SECONDS_LIMIT
        self._jobs = jobs or Jobs(default_folder(self.options.name, os.environ), "video")
        self._camera: Camera | None = None
        self._reader: Reader | None = None
        self._studio: Studio | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._coming = 0  # jobs that are being written down
        self._reading = asyncio.Lock()  # one upload at a time: a few kB may become hundreds of MB

    @classmethod
    def arguments(cls, parser: argparse.ArgumentParser) -> None:
        diffusion.add_arguments(parser)
        add, keeping = parser.add_argument, Keeping()
        add("--folder", type=Path, help="where jobs and films lie; default: by the model's name, among modelgrid's")
        add("--fps", type=float, metavar="X", help="pictures a second; default: what the model was taught with")
        add("--seconds", type=float, default=SECONDS_LIMIT, metavar="S", help="the longest film; default: %(default)s")
        add("--pixels", type=int, default=PIXELS, metavar="N", help="the most that a picture may have")
        add("--keep-hours", type=float, default=keeping.age_s / 3600, metavar="H", help="how long a film is kept")
        add("--keep-jobs", type=int, default=keeping.jobs, metavar="N", help="how many jobs are kept that are over")
        add("--keep-bytes", type=parse_bytes, default=keeping.folder_bytes, metavar="BYTES", help="and how large")

    def configure(self, arguments: argparse.Namespace) -> None:
        self._setup = diffusion.setup(arguments)
        self._rate, self._pixels, self._seconds = arguments.fps, arguments.pixels, arguments.seconds
        keeping = Keeping(arguments.keep_hours * 3600, arguments.keep_jobs, arguments.keep_bytes)
        self._jobs = Jobs(arguments.folder or self._jobs.folder, "video", keeping)

    def load(self) -> None:
        diffusion.silence()
        where = self.weights()
        self.log.info("loading %s", where)
        device, trusts = self.options.device or best_device(), self.options.trust_remote_code
        self.take(diffusion.load(where, device, self._setup, trusts=trusts, dtypes=film.dtypes), where)

    def take(self, pipeline: Any, named: str = "", dice: Dice = generators, write: Write = film.write_mp4) -> None:
        """Serve `pipeline`, one of diffusers'. `named` is what its weights are called."""
        habits = diffusion.habits(pipeline, named, self._setup)
        self._reader = Reader(pipeline, habits)
        self._camera = camera = Camera(pipeline, habits, self._rate, dice)
        drawn = f"{habits.steps} steps and {camera.rate:g} pictures a second"
        self.log.info(
            "films by %s, %s unless told otherwise; jobs lie in %s", type(pipeline).__name__, drawn, self._jobs.folder
        )
        self._studio = studio = Studio(self._jobs, camera, write, self.run_for, self.log)
        self.meters.waiting.set_function(lambda: studio.queued)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(studio.open)

    def routes(self) -> list[BaseRoute]:
        one = "/v1/videos/{video_id}"
        return [
            APIRoute("/v1/videos", self.create, methods=["POST"], response_model=None),
            APIRoute("/v1/videos", self.all, methods=["GET"], response_model=None),
            APIRoute(one, self.get, methods=["GET"], response_model=None),
            APIRoute(one, self.delete, methods=["DELETE"], response_model=None),
            APIRoute(f"{one}/content", self.content, methods=["GET"], response_model=None),
        ]

    async def create(self, request: Request) -> Response:
        """Take a job on."""
        if forms.is_form(request):
            async with forms.form(request, 1) as form:
                asked = forms.checked(Asked, forms.fields(form))
                job = await self._created(
                    asked, next((file.file for file in forms.files(form, "input_reference")), None)
                )
        else:
            asked = forms.checked(Asked, await self.body(request))
            given = asked.input_reference
            job = await self._created(asked, None if given is None else _decoded(given.image_url))
        self.studio.wake()
        return JSONResponse(self._shown(job))

    def all(
        self,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        """The jobs there are, a page at a time."""
        jobs = self._jobs.all()
        if order == "desc":
            jobs.reverse()
        ids = [job.id for job in jobs]
        start = ids.index(after) + 1 if after in ids else 0
        shown = [self._shown(job) for job in jobs[start : start + limit]]
        ends = (
            {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
        )
        return JSONResponse({"object": "list", "data": shown, **ends, "has_more": start + limit < len(jobs)})

    def get(self, video_id: str) -> Response:
        """How far a job is."""
        return JSONResponse(self._shown(self._found(video_id)), headers={"openai-poll-after-ms": str(POLL_MS)})

    def delete(self, video_id: str) -> Response:
        """Delete a job and its film. One that is being made ends within a step."""
        self._found(video_id)
        self._jobs.remove(video_id)
        self.studio.count()
        return JSONResponse({"id": video_id, "object": "video.deleted", "deleted": True})

    def content(self, video_id: str, variant: Literal["video", "thumbnail", "spritesheet"] = "video") -> Response:
        """The film, or a part of it where a range is asked for."""
        if variant == "spritesheet":
            said = "cannot send a spritesheet: none is made (ask for the video, or its thumbnail)"
            raise ServiceError(400, said, param="variant", code="unsupported_value")
        job = self._found(video_id)
        if job.status is not Status.COMPLETED:
            said = (
                f"cannot send {video_id}: it is {job.status}, {job.progress} % done (ask after it, and fetch it then)"
            )
            raise ServiceError(409, said, code="video_not_ready")
        if variant == "thumbnail":
            return FileResponse(self._jobs.path(video_id, THUMBNAIL), media_type="image/webp")
        return FileResponse(self._jobs.path(video_id, FILM), media_type="video/mp4")

    @property
    def camera(self) -> Camera:
        assert self._camera is not None  # nothing is asked of it before it is loaded
        return self._camera

    @property
    def studio(self) -> Studio:
        assert self._studio is not None
        return self._studio

    async def _created(self, asked: Asked, image: BinaryIO | None) -> Job:
        """A job for what is asked, checked. Raises ServiceError."""
        if asked.seconds > self._seconds:
            said = f"cannot make {asked.seconds:g} seconds: {self._seconds:g} are the most"
            raise ServiceError(400, said, param="seconds", code="invalid_value")
        if self._reader is not None and not self._setup.truncates:
            self._reader.check(asked.prompt)
            if asked.negative_prompt:
                self._reader.check(asked.negative_prompt, "negative_prompt")
        size = self.camera.sizes(self._pixels).read(asked.size) or self.camera.usual_size
        self._check_image(has_image=image is not None)
        if self.studio.queued + self._coming >= self.queue_limit:
            said = f"cannot take the job: {self.queue_limit} others wait already; try again later"
            raise ServiceError(503, said, code="queue_full", retry_s=30)
        self._coming += 1
        try:
            async with self._reading:
                return await asyncio.to_thread(self._add, asked, size, image)
        except OSError as error:
            self.log.error("cannot write a job down in %s: %s", self._jobs.folder, error)
            raise ServiceError(500, f"cannot write the job down: {error.strerror}", code="storage_error") from None
        finally:
            self._coming -= 1

    def _add(self, asked: Asked, size: Size | None, image: BinaryIO | None) -> Job:
        """Write the job down. Blocks."""
        files = {}
        if image is not None:
            picture = pictures.read(image, "input_reference")
            size = size or self.camera.sizes(self._pixels).like(*picture.size)
            files[IMAGE] = base64.b64decode(pictures.encode(pictures.fitted(picture, size), pictures.Format.PNG, 100))
        habits = self.camera.habits
        wanted = {
            "prompt": asked.prompt,
            "negative": asked.negative_prompt,
            "seconds": asked.seconds,
            "size": None if size is None else str(size),
            "steps": asked.steps or habits.steps,
            "guidance": habits.guidance if asked.guidance is None else asked.guidance,
            "seed": diffusion.new_seed() if asked.seed is None else asked.seed,
        }
        return self._jobs.add(wanted, time.time(), files)

    def _check_image(self, *, has_image: bool) -> None:
        """Raises ServiceError where a picture is missing, or is of no use."""
        if has_image and not self.camera.takes_image:
            said = "cannot begin with a picture: the model makes films from text alone (leave input_reference out)"
            raise ServiceError(400, said, param="input_reference", code="unsupported_by_model")
        if self.camera.needs_image and not has_image:
            said = "'input_reference' is missing: the model makes films from a picture"
            raise ServiceError(400, said, param="input_reference", code="missing_required_parameter")

    def _found(self, id: str) -> Job:
        job = self._jobs.get(id)
        if job is None:
            raise ServiceError(404, f"there is no video {id[:80]}", param="video_id", code="not_found")
        return job

    def _shown(self, job: Job) -> dict[str, Any]:
        """A job in OpenAI's shape. Its prompt is left out: whoever may use the model may see its jobs."""
        return {
            "id": job.id,
            "object": "video",
            "model": self.options.name,
            "status": job.status,
            "progress": job.progress,
            "created_at": int(job.created_at),
            "completed_at": _whole(job.completed_at),
            "expires_at": _whole(job.expires_at),
            "seconds": f"{job.asked['seconds']:g}",
            "size": job.asked["size"] or "auto",
            "seed": job.asked["seed"],
            "remixed_from_video_id": None,
            "error": job.error,
        }

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        async with super()._lifespan(app):
            yield
            if self._studio is not None:
                await self._studio.close(self.options.grace_s)


def default_folder(name: str, environ: Any) -> Path:
    """Below the state of the modelgrid that started this, else where this user's programs keep their data."""
    if instance := environ.get("MODELGRID_INSTANCE"):
        base = Path(instance)
    else:
        base = Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "modelgrid"
    return base / "videos" / urllib.parse.quote(name, safe="")


def _decoded(url: str) -> BinaryIO:
    """What a data URL holds. Raises ServiceError."""
    head, _, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        said = "cannot read 'input_reference': only data URLs are read here (send data:image/png;base64,…, or a form)"
        raise ServiceError(400, said, param="input_reference", code="invalid_value")
    try:
        return io.BytesIO(base64.b64decode(data, validate=True))
    except binascii.Error:
        said = "cannot read 'input_reference': it is no base64"
        raise ServiceError(400, said, param="input_reference", code="invalid_value") from None


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


if __name__ == "__main__":
    Videos.main()
