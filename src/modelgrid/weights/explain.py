"""Failures of a hub or a registry, in our words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

ENDPOINT: Final = "https://huggingface.co"
_TOO_MANY: Final = 429


class WeightsError(Exception):
    """Weights could not be had; the text says what, why, and what to do."""


class Answer(Exception):
    """An answer to a request for a file, which is not the file."""

    def __init__(self, status: int, code: str = "", retry_after: str = "") -> None:
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code  # of the hub's header X-Error-Code
        self.retry_after = retry_after


class Origin(Protocol):
    """Where weights come from."""

    @property
    def address(self) -> str:
        """What is asked, as it may be shown: without a password, and without a slash at its end."""
        ...

    @property
    def setting(self) -> str:
        """The name of the variable that sets the address."""
        ...

    def meaning(self, answer: Answer) -> str:
        """What an answer means that isn't what was asked for, and what to do; nothing of a secret."""
        ...


class Hub:
    """The model hub, asked for one repository."""

    setting = "HF_ENDPOINT"

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self.address = shown(endpoint())

    def meaning(self, answer: Answer) -> str:
        has_token = bool(os.environ.get("HF_TOKEN"))
        if answer.code == "GatedRepo" or (answer.status == 403 and not answer.code):
            token = "the account of HF_TOKEN has no access" if has_token else "HF_TOKEN is not set"
            return (
                f"it is gated, and {token} (accept its licence at {self.address}/{self.repository}, "
                "then set HF_TOKEN to a token of that account)"
            )
        if answer.code == "RepoNotFound" or answer.status in (401, 404):
            refused = " (HF_TOKEN is set: is it still valid?)" if has_token and answer.status == 401 else ""
            return (
                f"{self.address} has no such model, or it is private{refused} "
                "(check the spelling; for a private one set HF_TOKEN)"
            )
        if answer.status == _TOO_MANY:
            more = "" if has_token else "; with HF_TOKEN set it allows more"
            return f"{self.address} says that it was asked too often ({_again(answer)}{more})"
        return f"{self.address} answered {answer.status or 'with an error'} (try again later)"


def too_many(answer: Answer, address: str) -> str:
    """What 429 means anywhere."""
    return f"{address} says that it was asked too often ({_again(answer)})"


def endpoint() -> str:
    """The hub's address, without a slash at its end. Raises WeightsError."""
    import httpx

    address = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    try:
        httpx.URL(address)
    except httpx.InvalidURL:
        raise WeightsError(f"cannot ask {shown(address)}: it is no address (write HF_ENDPOINT=https://HOST)") from None
    return address


def shown(address: str) -> str:
    """An address without the name and the password that it may have."""
    scheme, mark, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def explained(action: str, origin: Origin) -> Iterator[None]:
    """Turn what a hub, its library, the network and the disk raise into WeightsError: ``cannot {action}: …``."""
    import httpx
    from huggingface_hub import errors

    # The base class of its client's failures; which client that is differs between the library's versions.
    transport_error: type[Exception] = getattr(errors, "HTTPError", ConnectionError)
    try:
        yield
    except Answer as answer:
        raise WeightsError(f"cannot {action}: {origin.meaning(answer)}") from answer
    except errors.HfHubHTTPError as error:
        raise WeightsError(f"cannot {action}: {origin.meaning(_answer(error))}") from error
    except errors.HFValidationError as error:
        raise WeightsError(f"cannot {action}: {error}") from error
    except (transport_error, httpx.HTTPError, httpx.InvalidURL, ConnectionError, TimeoutError) as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise WeightsError(
            f"cannot {action}: {origin.address} can't be reached: {why} "
            f"(check the network and {origin.setting}; a source that is a local path needs neither)"
        ) from error
    except OSError as error:
        full = (
            "the disk is full (free some space; what is there is kept)" if error.errno == errno.ENOSPC else str(error)
        )
        raise WeightsError(f"cannot {action}: {full}") from error


def _answer(error: Exception) -> Answer:
    from huggingface_hub import errors

    response = getattr(error, "response", None)
    headers = {} if response is None else response.headers
    kinds = {errors.GatedRepoError: "GatedRepo", errors.RepositoryNotFoundError: "RepoNotFound"}
    code = next((code for kind, code in kinds.items() if isinstance(error, kind)), headers.get("X-Error-Code", ""))
    return Answer(0 if response is None else response.status_code, code, headers.get("Retry-After", ""))


def _again(answer: Answer) -> str:
    return f"try again in {answer.retry_after} s" if answer.retry_after.isdigit() else "try again in some minutes"
