"""One file from a hub, resumed where it was broken off. (The hub's library begins a broken file anew.)"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from modelgrid.weights.choose import File
from modelgrid.weights.explain import HubAnswer
from modelgrid.weights.source import WeightsError

if TYPE_CHECKING:
    import httpx

TRIES = 5  # in a row without a byte
WAIT_S = 0.5  # before the second try; doubles
PIECE_BYTES = 1 << 20
TIMEOUT_S = 30.0  # without a byte


def fetch_file(
    client: httpx.Client, url: str, file: File, part: Path, to: Path, on_bytes: Callable[[int], None]
) -> None:
    """Fetch `file` from `url` by way of `part`, which outlives what breaks the fetch off, and move it to `to`.

    `on_bytes` is told how much is there. Raises HubAnswer, WeightsError, and what the client and the disk raise.
    """
    import httpx

    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    fails = 0
    while (before := _size(part)) < file.size_bytes:
        failure: Exception | None = None
        try:
            _append(client, url, part, on_bytes)
        except httpx.TransportError as error:
            failure = error
        if _size(part) > before:
            fails = 0
            continue
        fails += 1
        if fails == TRIES:
            raise failure or WeightsError(f"cannot pull {file.name}: the hub sends nothing (try again later)")
        time.sleep(WAIT_S * 2**fails)
    _check(file, part)
    to.parent.mkdir(parents=True, exist_ok=True)
    part.replace(to)


def _append(client: httpx.Client, url: str, part: Path, on_bytes: Callable[[int], None]) -> None:
    """One request for what is missing, as far as it goes."""
    start = _size(part)
    wanted = {"Range": f"bytes={start}-"} if start else {}
    # No compression: what arrives is what is counted.
    with client.stream("GET", url, headers={**wanted, "Accept-Encoding": "identity"}) as answer:
        if answer.status_code not in (200, 206):
            raise HubAnswer(answer.status_code, answer.headers.get("X-Error-Code", ""))
        resumes = answer.status_code == 206
        with part.open("ab" if resumes else "wb") as out:
            done = start if resumes else 0
            for piece in answer.iter_raw(PIECE_BYTES):
                out.write(piece)
                done += len(piece)
                on_bytes(done)


def _check(file: File, part: Path) -> None:
    """What is broken is not kept: it would never get well by resuming."""
    size = _size(part)
    if size != file.size_bytes:
        part.unlink()
        raise WeightsError(f"cannot pull {file.name}: it has {size} bytes instead of {file.size_bytes} (pull again)")
    if file.sha256 is None:
        return
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise WeightsError(f"cannot pull {file.name}: its content is not what the hub says (pull again)")


def _size(part: Path) -> int:
    return part.stat().st_size
