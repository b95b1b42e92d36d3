"""Makes films, one after the other, the oldest job first: as long as there are jobs, whoever took them on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from modelgrid.services import pictures
from modelgrid.services.errors import LEFT, ServiceError
from modelgrid.services.film import Camera, Shot, Write
from modelgrid.services.jobs import Claim, Gone, Jobs, Status
from modelgrid.services.pictures import Size
from modelgrid.services.work import Caller, Turn

BEGUN_LIMIT: Final = 3  # a job that ends its service each time is not begun for ever
LOOK_S: Final = 5.0  # how often to look for jobs of a process that has died
SHOT: Final = 95  # percent of the work that is done when the last step is

FILM, THUMBNAIL, IMAGE = "video.mp4", "thumbnail.webp", "image.png"  # of a job's folder

Run = Callable[[Caller, Callable[[Turn], None]], Awaitable[None]]


class Studio:
    """Works jobs off. It is the event loop's, but for what it has done in threads."""

    def __init__(self, jobs: Jobs, camera: Camera, write: Write, run: Run, log: logging.Logger) -> None:
        self.queued = 0  # jobs that nobody works on yet
        self._jobs = jobs
        self._camera = camera
        self._write = write
        self._run = run
        self._log = log
        self._news = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._making: tuple[Caller, Claim, int] | None = None  # and how often it had been begun before
        self._ends = False

    def open(self) -> None:
        """Begin."""
        self._working = asyncio.create_task(self._work_off())

    def wake(self) -> None:
        """There is one job more."""
        self.queued += 1
        self._news.set()

    def count(self, claim: Claim | None = None) -> None:
        """See how many wait beside `claim`: some may have been deleted. Blocks."""
        waiting = sum(job.status is Status.QUEUED for job in self._jobs.all())
        self.queued = waiting - (claim is not None and claim.job.status is Status.QUEUED)

    async def close(self, grace_s: float) -> None:
        """Begin nothing more. What is being made goes back to those that wait, at its next step."""
        self._ends = True
        self._news.set()
        if self._making is not None:
            caller, claim, begun = self._making
            caller.leave()
            self._put_back(claim, begun)  # at once: a step may take longer than whoever ends this process waits
        if self._working is not None:
            await asyncio.wait([self._working], timeout=grace_s)

    async def _work_off(self) -> None:
        while not self._ends:
            self._news.clear()
            try:
                claim = await asyncio.to_thread(self._next)
                if claim is not None:
                    with claim:
                        if not self._ends:
                            await self._make(claim)
                    continue
            except OSError as error:  # a full disk: nothing can be written down, not even that it failed
                self._log.error("cannot work on the jobs in %s: %s", self._jobs.folder, error)
                self._news.clear()
            except Exception:  # whatever it is, it isn't the last job
                self._log.exception("cannot work on the jobs in %s", self._jobs.folder)
                self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), LOOK_S)

    def _next(self) -> Claim | None:
        """The next job, after those that were kept long enough have gone. Blocks."""
        for id in self._jobs.sweep(time.time()):
            self._log.info("%s is removed: it was kept long enough", id)
        claim = self._jobs.claim()
        self.count(claim)
        return claim

    async def _make(self, claim: Claim) -> None:
        """Make what is claimed, and write down what becomes of it."""
        job, caller, began = claim.job, Caller(), time.monotonic()
        self._making = caller, claim, job.begun
        try:
            if job.begun >= BEGUN_LIMIT:
                said = f"the service ended {job.begun} times while it was made (its log says why; ask for less)"
                self._fail(claim, "interrupted", said)
                return
            claim.tell(status=Status.IN_PROGRESS, progress=0, begun=job.begun + 1)
            self._log.info("%s begins", job.id)
            await self._run(caller, lambda turn: self._shoot(turn, claim, caller))
            self._log.info("%s is made, in %.1f s", job.id, time.monotonic() - began)
        except Gone:
            self._log.info("%s was deleted", job.id)
        except ServiceError as error:
            if error.status_code != LEFT:
                self._fail(claim, error.code or "engine_error", error.message)
            elif not self._ends:
                self._log.info("%s was deleted", job.id)
        except Exception as error:
            self._log.exception("cannot make %s", job.id)
            self._fail(claim, "engine_error", f"{type(error).__name__}: {error}")
        finally:
            self._making = None

    def _shoot(self, turn: Turn, claim: Claim, caller: Caller) -> None:
        """In the thread: make the film, and put it beside its job. Raises Left where it isn't wanted any more."""

        def told(share: float) -> None:
            progress = int(SHOT * min(share, 1.0))
            try:
                if progress > claim.job.progress:
                    claim.tell(progress=progress)
                else:
                    claim.check()
            except Gone:
                caller.leave()
                turn.step(turn.done, turn.of)
            except OSError:  # a disk that is full now may have room for the film
                pass

        footage = self._camera.shoot(turn, _shot(claim), told)
        coming = claim.path(f"{FILM}.new")
        try:
            self._write(footage, coming)
            with claim.path(THUMBNAIL).open("wb") as thumbnail:
                footage.pictures[0].save(thumbnail, format="WEBP")
            claim.keep(coming, FILM)
        except FileNotFoundError:
            raise Gone from None
        except BaseException:
            coming.unlink(missing_ok=True)  # else a full disk has no room to say so
            raise
        now = time.time()
        claim.tell(
            status=Status.COMPLETED,
            progress=100,
            completed_at=now,
            expires_at=now + self._jobs.keeping.age_s,
            asked={**claim.job.asked, "size": str(footage.size)},
        )

    def _put_back(self, claim: Claim, begun: int) -> None:
        """An end in peace doesn't count among those that the job may have caused."""
        if claim.job.is_over:
            return
        with contextlib.suppress(Gone, OSError):  # where the disk takes nothing more, it counts
            claim.tell(status=Status.QUEUED, progress=0, begun=begun)
            self._log.info("%s waits for the service's next process", claim.job.id)

    def _fail(self, claim: Claim, code: str, message: str) -> None:
        now = time.time()
        self._log.warning("%s failed: %s", claim.job.id, message)
        with contextlib.suppress(Gone):
            claim.tell(
                status=Status.FAILED,
                completed_at=now,
                expires_at=now + self._jobs.keeping.age_s,
                error={"code": code, "message": message},
            )


def _shot(claim: Claim) -> Shot:
    """What a job asks for, as the service wrote it down."""
    asked = dict(claim.job.asked)
    size = asked.pop("size")
    return Shot(**asked, size=Size(*map(int, size.split("x"))) if size else None, image=_image(claim))


def _image(claim: Claim) -> Any:
    """What the film begins with; None where it was sent none."""
    try:
        with claim.path(IMAGE).open("rb") as file:
            return pictures.read(file, "input_reference")
    except FileNotFoundError:
        return None
