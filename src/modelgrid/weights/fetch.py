"""One file from a hub, resumed where it was broken off. (The hub's library begins a broken file anew.)"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modelgrid.weights.choose import File
from modelgrid.weights.explain import Answer, WeightsError

if TYPE_CHECKING:
    import httpx

TRIES: Final = 5  # in a row without a byte
WAIT_S: Final = 0.5  # before the second try; doubles
LONGEST_WAIT_S: Final = 60.0  # that a hub may ask for
PIECE_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 30.0  # without a byte

_TRANSIENT: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_NOTHING_LEFT: Final = 416


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch. `part` is where its beginning is kept, and outlives what breaks the fetch off; `to` is where it
    lies once it is whole and checked."""

    file: File
    url: str
    part: Path
    to: Path

    @property
    def is_there(self) -> bool:
        """Whether it was fetched before."""
        return self.to.is_file() and self.to.stat().st_size == self.file.size_bytes

    @property
    def begun_bytes(self) -> int:
        """How much of it was fetched before it was broken off."""
        return _size(self.part)


def fetch(client: httpx.Client, wanted: Wanted, on_bytes: Callable[[int], None]) -> None:
    """Fetch one file into its `part`. `on_bytes` is told how much is there. Raises Answer, WeightsError, and what the
    client and the disk raise."""
    import httpx

    file, part = wanted.file, wanted.part
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    fails = 0
    while (before := _size(part)) < file.size_bytes:
        failure: Exception | None = None
        try:
            _append(client, wanted, on_bytes)
        except httpx.TransportError as error:
            failure = error
        except Answer as answer:
            if answer.status == _NOTHING_LEFT:
                break
            if answer.status not in _TRANSIENT:
                raise
            failure = answer
        if _size(part) > before:
            fails = 0
            continue
        fails += 1
        if fails == TRIES:
            raise failure or WeightsError(f"cannot pull {file.name}: it stays incomplete (try again later)")
        time.sleep(_wait_s(failure, fails))


def keep(wanted: Wanted) -> None:
    """Check what was fetched, and put it where it is to lie. Raises WeightsError, OSError."""
    _check(wanted.file, wanted.part)
    wanted.to.parent.mkdir(parents=True, exist_ok=True)
    wanted.part.replace(wanted.to)


def _append(client: httpx.Client, wanted: Wanted, on_bytes: Callable[[int], None]) -> None:
    """One request for what is missing, as far as it goes."""
    part = wanted.part
    start = _size(part)
    asked = {"Range": f"bytes={start}-"} if start else {}
    # No compression: what arrives is what is counted.
    with client.stream("GET", wanted.url, headers={**asked, "Accept-Encoding": "identity"}) as answer:
        if answer.status_code not in (200, 206):
            headers = answer.headers
            raise Answer(answer.status_code, headers.get("X-Error-Code", ""), headers.get("Retry-After", ""))
        resumes = answer.status_code == 206
        with part.open("ab" if resumes else "wb") as out:
            done = start if resumes else 0
            for piece in answer.iter_raw(PIECE_BYTES):
                out.write(piece)
                done += len(piece)
                if done > wanted.file.size_bytes:
                    break  # it isn't what was announced, and may never end
                on_bytes(done)
            out.flush()
            os.fsync(out.fileno())  # what says that all is there must not reach the disk before it


def _wait_s(failure: Exception | None, fails: int) -> float:
    asked = failure.retry_after if isinstance(failure, Answer) else ""
    return min(float(asked), LONGEST_WAIT_S) if asked.isdigit() else WAIT_S * 2**fails


def _check(file: File, part: Path) -> None:
    """What is broken is not kept: it would never get well by resuming."""
    size = _size(part)
    if size != file.size_bytes:
        part.unlink()
        found_bytes = "more" if size > file.size_bytes else f"{size} bytes"
        says = f"it has {found_bytes} instead of the {file.size_bytes} bytes that were announced"
        raise WeightsError(f"cannot pull {file.name}: {says} (pull again)")
    if file.sha256 is None:
        return
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise WeightsError(f"cannot pull {file.name}: its content is not what the hub says (pull again)")


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0
