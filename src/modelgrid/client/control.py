"""Asks the running daemon, over its Unix socket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from msgspec import structs

from modelgrid.spec import Deed, GroupStatus, KeyStatus, LogLines, NewKey, Quota, Scope, Status, Why
from modelgrid.spec.fit import Asked, Fit
from modelgrid.spec.status import History

T = TypeVar("T")


class NotRunning(Exception):
    """Nothing answers at the socket."""


class ControlError(Exception):
    """The daemon answered that it can't; the text is its own. `code` is for programs: "model_not_found"."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ControlClient:
    """The control API as methods. Each may raise NotRunning or ControlError, and takes `timeout_s` at most."""

    def __init__(self, socket: Path, *, timeout_s: float = 10.0) -> None:
        self.socket = socket
        self._timeout_s = timeout_s
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://modelgrid/control/v1", timeout=timeout_s
        )

    def status(self) -> Status:
        return self._ask("GET", "/status", Status)

    def why(self, model: str, limit: int = 20, since_s: float | None = None) -> Why:
        """A model as it is, and its last events: `limit` at most, of the last `since_s` seconds."""
        return self._ask("GET", f"{_path(model)}/why", Why, params=_window(limit, since_s))

    def history(self, limit: int = 1000, since_s: float | None = None) -> History:
        """The last events of all models: `limit` at most, of the last `since_s` seconds."""
        return self._ask("GET", "/why", History, params=_window(limit, since_s))

    def logs(self, model: str, lines: int = 100) -> list[LogLines]:
        return self._ask("GET", f"{_path(model)}/logs", list[LogLines], params={"lines": lines})

    def fit(self, asked: Asked) -> Fit:
        """Where a replica of a model would go now."""
        return self._ask("POST", "/fit", Fit, json=msgspec.to_builtins(asked))

    def load(self, model: str) -> Why:
        """Wish that `model` is loaded and stays so. Answers at once."""
        return self._ask("POST", f"{_path(model)}/load", Why)

    def unload(self, model: str) -> Why:
        """Wish that `model` is unloaded, which ends a wish that it is loaded. Answers at once."""
        return self._ask("POST", f"{_path(model)}/unload", Why)

    def keys(self) -> list[KeyStatus]:
        return self._ask("GET", "/keys", list[KeyStatus])

    def create_key(
        self,
        name: str,
        *,
        quota: Quota | None = None,
        models: Sequence[str] | None = None,
        operations: Sequence[str] | None = None,
        scopes: Sequence[Scope] = (Scope.CALLER,),
        group: str | None = None,
        expires: float | None = None,
    ) -> NewKey:
        asked = {
            "name": name,
            **({} if quota is None else structs.asdict(quota)),
            "models": None if models is None else list(models),
            "operations": None if operations is None else list(operations),
            "scopes": list(scopes),
            "group": group,
            "expires": expires,
        }
        return self._ask("POST", "/keys", NewKey, json=asked)

    def rotate_key(self, id_or_name: str, *, grace_s: float = 0.0, expires: float | None = None) -> NewKey:
        """Another secret for a key; the one before opens for `grace_s` more."""
        return self._ask("POST", f"/keys/{_quoted(id_or_name)}/rotate", NewKey, json=_rotation(grace_s, expires))

    def revoke_key(self, id_or_name: str) -> KeyStatus:
        return self._ask("DELETE", f"/keys/{_quoted(id_or_name)}", KeyStatus)

    def groups(self) -> list[GroupStatus]:
        return self._ask("GET", "/groups", list[GroupStatus])

    def set_group(self, name: str, quota: Quota) -> GroupStatus:
        """Make a group of keys, or change what it may use."""
        return self._ask("PUT", f"/groups/{_quoted(name)}", GroupStatus, json=structs.asdict(quota))

    def remove_group(self, name: str) -> None:
        self._send("DELETE", f"/groups/{_quoted(name)}")

    def audit(self, limit: int = 100, since_s: float | None = None) -> list[Deed]:
        """Who did what, the newest last: `limit` at most, of the last `since_s` seconds."""
        return self._ask("GET", "/audit", list[Deed], params=_window(limit, since_s))

    def config(self) -> str:
        """The configuration in force, as YAML with secrets masked."""
        return self._send("GET", "/config").text

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, method: str, path: str, answer: type[T], **request: Any) -> T:
        response = self._send(method, path, **request)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.DecodeError as error:
            raise ControlError(
                f"cannot read the daemon's answer to {method} {path}: {error} "
                "(is it of another version? restart it: modelgrid stop, modelgrid serve)"
            ) from error

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._unreachable(error) from error
        except httpx.TimeoutException as error:
            raise ControlError(
                f"cannot ask the daemon at {self.socket}: no answer in {self._timeout_s:g} s (see its log)"
            ) from error
        except httpx.TransportError as error:
            raise NotRunning(f"modelgrid went away while it was asked, at {self.socket}") from error
        if response.is_success:
            return response
        raise _problem(response)

    def _unreachable(self, error: httpx.TransportError) -> NotRunning | ControlError:
        """No socket and a dead one mean that nobody is there; one that can't be opened doesn't."""
        cause = _os_error(error)
        if cause is None or isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return NotRunning(f"modelgrid is not running: nothing answers at {self.socket}")
        return ControlError(
            f"cannot open modelgrid's socket {self.socket}: {cause.strerror or cause} "
            "(ask as the user who serves, or check $MODELGRID_HOME)"
        )


def _os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _window(limit: int, since_s: float | None) -> dict[str, float]:
    return {"limit": limit} if since_s is None else {"limit": limit, "since_s": since_s}


def _path(model: str) -> str:
    return f"/models/{_quoted(model)}"


def _quoted(name: str) -> str:
    # Dots too: a name that is "." or ".." would be resolved away as a step in the path.
    return quote(name, safe="").replace(".", "%2E")


def _rotation(grace_s: float, expires: float | None) -> dict[str, float]:
    return {"grace_s": grace_s} if expires is None else {"grace_s": grace_s, "expires": expires}


class _Error(msgspec.Struct):
    message: str
    code: str = ""


class _Answer(msgspec.Struct):
    error: _Error


def _problem(response: httpx.Response) -> ControlError:
    try:
        error = msgspec.json.decode(response.content, type=_Answer).error
    except msgspec.DecodeError:
        return ControlError(f"cannot ask the daemon: it answered {response.status_code}", status=response.status_code)
    return ControlError(error.message, status=response.status_code, code=error.code)
