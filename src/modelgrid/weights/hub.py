"""The model hub: pulling weights, with progress and resumption. `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` hold."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from modelgrid.spec.units import format_bytes
from modelgrid.weights.choose import File, choose_files
from modelgrid.weights.held import folder_of, mark_whole, resolve
from modelgrid.weights.source import WeightsError

ENDPOINT = "https://huggingface.co"
METADATA_TIMEOUT_S = 10.0
PROBE = "sentence-transformers/all-MiniLM-L6-v2"  # a model that every hub and mirror has
SPARE_BYTES = 64 << 20  # that a pull leaves free


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is."""

    done_bytes: int
    total_bytes: int
    file: str  # the one that comes now


@dataclass(frozen=True, slots=True)
class Listing:
    """What a hub has of a model, at one revision."""

    revision: str | None
    files: tuple[File, ...]


def pull(source: str, root: Path, on_progress: Callable[[Progress], None]) -> Path:
    """Fetch the weights of a hub's model into `root`, and return their folder.

    Blocks until all is there. What was broken off is resumed; what is there already is not fetched again.
    `on_progress` is called for every piece; what it raises breaks the pull off. Raises WeightsError.
    """
    folder = folder_of(source, root)
    if folder is None:
        raise WeightsError(f"cannot pull {source}: it is not the id of a model on a hub (write it as OWNER/NAME)")
    if (held := resolve(source, root)) is not None:
        return held
    listing = list_files(source, METADATA_TIMEOUT_S)
    missing = [file for file in listing.files if not _is_there(folder, file)]
    with _explained("pull", source, folder):
        folder.mkdir(parents=True, exist_ok=True)
        _check_disk(source, folder, missing)
        _fetch(source, folder, listing, on_progress)
        mark_whole(folder, source, listing.revision)
    return folder


def list_files(source: str, timeout_s: float) -> Listing:
    """What would be pulled, and its sizes. Raises WeightsError."""
    if is_offline():
        raise WeightsError(f"cannot ask the hub for {source}: HF_HUB_OFFLINE is set (unset it, or use a local path)")
    from huggingface_hub import HfApi

    with _explained("ask the hub for", source, None):
        api = HfApi(endpoint=endpoint(), token=os.environ.get("HF_TOKEN"))
        info = api.model_info(source, files_metadata=True, timeout=timeout_s)
    files = choose_files(File(file.rfilename, file.size or 0) for file in info.siblings or [])
    if not files:
        raise WeightsError(f"cannot pull {source}: the hub has no files of it that an engine could load")
    return Listing(info.sha, tuple(files))


def hub_answers(timeout_s: float = 3.0) -> bool:
    """Whether models can be had from the hub now: it knows one that all hubs have. A proxy's page is no answer."""
    if is_offline():
        return False
    import httpx

    try:
        answer = httpx.get(f"{endpoint()}/api/models/{PROBE}", timeout=timeout_s, follow_redirects=True)
        return answer.status_code == 200 and isinstance(answer.json(), dict)
    except (httpx.HTTPError, ValueError, OSError):
        return False


def endpoint() -> str:
    """The hub's address, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Whether the user asked that no hub be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _fetch(source: str, folder: Path, listing: Listing, on_progress: Callable[[Progress], None]) -> None:
    from huggingface_hub import hf_hub_download

    total = sum(file.size_bytes for file in listing.files)
    done = 0
    for file in listing.files:
        on_progress(Progress(done, total, file.name))
        meter = _Meter(done, total, file.name, on_progress)
        hf_hub_download(
            source,
            file.name,
            revision=listing.revision,
            local_dir=folder,
            endpoint=endpoint(),
            token=os.environ.get("HF_TOKEN"),
            etag_timeout=METADATA_TIMEOUT_S,
            tqdm_class=cast(type[Any], meter.started),  # it is called to make one, and need not be a class
        )
        done += file.size_bytes
    on_progress(Progress(total, total, ""))


class _Meter:
    """Looks like a tqdm bar to the hub's library, and reports instead of drawing."""

    def __init__(self, before: int, total: int, file: str, on_progress: Callable[[Progress], None]) -> None:
        self._before = before
        self._total = total
        self._file = file
        self._on_progress = on_progress
        self._done = 0

    def started(self, *_: Any, initial: int = 0, **__: Any) -> Self:
        """What the library calls to make a bar."""
        self._done = initial
        return self

    def update(self, count: float | None = 1) -> None:
        self._done += int(count or 0)
        self._on_progress(Progress(self._before + self._done, self._total, self._file))

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


def _is_there(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size_bytes


def _check_disk(source: str, folder: Path, missing: list[File]) -> None:
    begun = sum(part.stat().st_size for part in (folder / ".cache").rglob("*.incomplete"))
    need = sum(file.size_bytes for file in missing) - begun + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if need > free:
        raise WeightsError(
            f"cannot pull {source}: it needs {format_bytes(need)}, {folder} has {format_bytes(free)} free "
            "(free some: modelgrid model remove NAME; or set storage.models to a folder on a larger disk)"
        )


@contextmanager
def _explained(action: str, source: str, folder: Path | None) -> Iterator[None]:
    """The hub library's failures in our words."""
    from huggingface_hub import errors

    # The base class of its client's failures; which client that is differs between the library's versions.
    transport_error: type[Exception] = getattr(errors, "HTTPError", ConnectionError)
    try:
        yield
    except errors.GatedRepoError as error:
        token = "the account of HF_TOKEN has no access" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
        raise WeightsError(
            f"cannot {action} {source}: it is gated, and {token} "
            f"(accept its licence at {endpoint()}/{source}, then set HF_TOKEN to a token of that account)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"cannot {action} {source}: {endpoint()} has no such model, or it is private "
            "(check the spelling; for a private one set HF_TOKEN)"
        ) from error
    except errors.HFValidationError as error:
        raise WeightsError(f"cannot {action} {source}: {error}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise WeightsError(f"cannot {action} {source}: {endpoint()} answered {status} (try again later)") from error
    except (transport_error, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise _unreachable(action, source, error) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise WeightsError(f"cannot {action} {source}: the disk of {folder} is full (free some space)") from error
        raise WeightsError(f"cannot {action} {source}: {error}") from error


def _unreachable(action: str, source: str, error: Exception) -> WeightsError:
    why = str(error.__cause__ or error).split("\n")[0] or type(error).__name__
    return WeightsError(
        f"cannot {action} {source}: {endpoint()} can't be reached: {why} "
        "(check the network and HF_ENDPOINT; a source that is a local path needs no hub)"
    )
