"""Failures of a hub, in our words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from modelgrid.weights.source import WeightsError

ENDPOINT = "https://huggingface.co"


class HubAnswer(Exception):
    """An answer of the hub to a request for a file, which is not the file."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code  # of the header X-Error-Code


def endpoint() -> str:
    """The hub's address, without a slash at its end."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


@contextmanager
def explained(action: str, source: str) -> Iterator[None]:
    """Turn what the hub, its library, the network and the disk raise into WeightsError: ``cannot {action}: …``."""
    import httpx
    from huggingface_hub import errors

    # The base class of its client's failures; which client that is differs between the library's versions.
    transport_error: type[Exception] = getattr(errors, "HTTPError", ConnectionError)
    try:
        yield
    except HubAnswer as answer:
        raise WeightsError(f"cannot {action}: {_meaning(answer.status, answer.code, source)}") from answer
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        kinds = {errors.GatedRepoError: "GatedRepo", errors.RepositoryNotFoundError: "RepoNotFound"}
        code = next((code for kind, code in kinds.items() if isinstance(error, kind)), "")
        raise WeightsError(f"cannot {action}: {_meaning(status, code, source)}") from error
    except errors.HFValidationError as error:
        raise WeightsError(f"cannot {action}: {error}") from error
    except (transport_error, httpx.HTTPError, ConnectionError, TimeoutError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise WeightsError(
            f"cannot {action}: {endpoint()} can't be reached: {why} "
            "(check the network and HF_ENDPOINT; a source that is a local path needs no hub)"
        ) from error
    except OSError as error:
        full = (
            "the disk is full (free some space; what is there is kept)" if error.errno == errno.ENOSPC else str(error)
        )
        raise WeightsError(f"cannot {action}: {full}") from error


def _meaning(status: int, code: str, source: str) -> str:
    """What an answer of the hub means, and what to do."""
    if code == "GatedRepo":
        token = "the account of HF_TOKEN has no access" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
        return (
            f"it is gated, and {token} "
            f"(accept its licence at {endpoint()}/{source}, then set HF_TOKEN to a token of that account)"
        )
    if code == "RepoNotFound" or status in (401, 404):
        return f"{endpoint()} has no such model, or it is private (check the spelling; for a private one set HF_TOKEN)"
    return f"{endpoint()} answered {status or 'with an error'} (try again later)"
