"""The gateway's own answers. Errors have OpenAI's shape and say who failed: the request, modelgrid, or the engine."""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import msgspec

from modelgrid.gateway.endpoints import ENDPOINTS, Act, Found
from modelgrid.gateway.quota import Limit, Refusal
from modelgrid.gateway.wishes import TIMEOUT
from modelgrid.spec import Route
from modelgrid.spec.units import format_bytes

REQUEST: Final = "invalid_request_error"
SERVER: Final = "server_error"
ENGINE: Final = "engine_error"

_NAMED: Final = 5  # models that an error names
_NONE_SERVES: Final = "no model that you may use serves it"
_ECHOED: Final = 200  # characters of what was sent that an error repeats
_JSON: Final = "application/json"
_TEXT: Final = "text/plain; charset=utf-8"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer. `message` is an error's text."""

    status: int
    body: bytes
    type: str = _JSON
    message: str = ""
    kind: str = ""
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _Envelope(msgspec.Struct):
    error: _Error


def error_body(kind: str, message: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error as OpenAI's clients read it."""
    return msgspec.json.encode(_Envelope(_Error(message, kind, param, code)))


def error(
    status: int,
    kind: str,
    message: str,
    code: str | None = None,
    *,
    param: str | None = None,
    retry_after_s: float | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """An error; `retry_after_s` is rounded up to whole seconds, as the header wants them."""
    if retry_after_s is not None:
        headers += (("retry-after", str(max(1, math.ceil(retry_after_s)))),)
    body = error_body(kind, message, code, param)
    return Answer(status=status, body=body, message=message, kind=kind, code=code or "", headers=headers)


def in_shape(answer: Answer, found: Found) -> Answer:
    """An error as callers of an endpoint read it."""
    if found.act is Act.PLAIN:
        return as_text(answer)
    return as_anthropic(answer) if found.is_anthropic else answer


def as_anthropic(answer: Answer) -> Answer:
    """The same error for a caller who speaks with Anthropic's client."""
    return msgspec.structs.replace(answer, body=_anthropic_body(answer.status, answer.message))


def _anthropic_body(status: int, message: str) -> bytes:
    kind = _ANTHROPIC_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


_ANTHROPIC_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def as_text(answer: Answer) -> Answer:
    """The same error for a caller who reads plain text."""
    return msgspec.structs.replace(answer, body=answer.message.encode() + b"\n", type=_TEXT)


def ok(body: bytes) -> Answer:
    """A JSON answer."""
    return Answer(status=200, body=body)


def render(answer: Answer, *, request_id: bytes, connection: bytes, head_only: bool) -> bytes:
    """The answer as bytes; `connection` is the line that says what becomes of the connection, or empty."""
    lines = [status_line(answer.status)]
    headers: tuple[tuple[str, str], ...] = (("x-request-id", request_id.decode("latin-1")), *answer.headers)
    if answer.status != 204:  # which has no body, and no length
        headers = (("content-type", answer.type), ("content-length", str(len(answer.body))), *headers)
    lines += [f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in headers]
    lines += [connection, b"\r\n"]
    if not head_only:
        lines.append(answer.body)
    return b"".join(lines)


def status_line(status: int) -> bytes:
    """HTTP/1.1 and the usual words for a status."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


# The request failed.


def unknown_path(method: str, path: str) -> Answer:
    """No such endpoint."""
    message = f"cannot answer {method} {path[:_ECHOED]}: there is no such path (GET / lists those there are)"
    return error(404, REQUEST, message, "not_found")


def wrong_method(method: str, path: str, allow: tuple[str, ...]) -> Answer:
    """The endpoint wants another method."""
    allowed = ", ".join(allow)
    message = f"cannot answer {method} {path[:_ECHOED]}: this path takes {allowed}"
    return error(405, REQUEST, message, "method_not_allowed", headers=(("allow", allowed),))


def no_access(was_sent: bool) -> Answer:
    """No key, or none of ours."""
    why = "the key that was sent is not known here, or was revoked" if was_sent else "no key was sent"
    message = (
        f"cannot let this request in: {why} (send 'Authorization: Bearer KEY'; modelgrid key create NAME makes one)"
    )
    return error(401, REQUEST, message, "invalid_api_key", headers=(("www-authenticate", "Bearer"),))


def key_is_over(key: str) -> Answer:
    """A key that has ended by itself, or a secret of it from before it was rotated."""
    message = (
        f"cannot let this request in: the key {key!r} has expired, or was rotated and this is its former secret"
        f" (send its newest; or modelgrid key rotate {key} --expires 30d makes one)"
    )
    return error(401, REQUEST, message, "key_expired", headers=(("www-authenticate", "Bearer"),))


def key_in_url() -> Answer:
    """What looks like a key of ours, where everybody can read it."""
    message = (
        "cannot let this request in: a key in the URL is never read, as URLs stand in logs and histories"
        " (rotate that key: modelgrid key rotate NAME; and send it as 'Authorization: Bearer KEY')"
    )
    return error(401, REQUEST, message, "key_in_url", headers=(("www-authenticate", "Bearer"),))


def missing_scope(key: str, scopes: Iterable[str], needed: Iterable[str]) -> Answer:
    """A key that is for something else."""
    wanted = sorted(needed)
    message = (
        f"cannot let this request in: it needs a key of the scope {' or '.join(wanted)}, and the key {key!r} has"
        f" {' and '.join(sorted(scopes))} (make one: modelgrid key create NAME --scope {wanted[-1]})"
    )
    return error(403, REQUEST, message, "missing_scope")


def operation_not_allowed(key: str, asked_for: str, operations: Iterable[str]) -> Answer:
    """A key that is for other operations."""
    message = f"cannot use {asked_for}: the key {key!r} is for {', '.join(sorted(operations))} only (send another key)"
    return error(403, REQUEST, message, "operation_not_allowed")


def not_ours(why: str) -> Answer:
    """The control API without keys, asked by what may be a page or a proxy."""
    message = (
        f"cannot let this request in: without keys only programs of this machine may use the control API, and {why}"
        " (make a key and send it: modelgrid key create NAME --scope admin)"
    )
    return error(403, REQUEST, message, "not_nearby")


def control_body_too_large(limit_bytes: int) -> Answer:
    """More than the control API takes."""
    message = f"cannot take the request's body: the control API takes {format_bytes(limit_bytes)} (send less)"
    return error(413, REQUEST, message, "body_too_large")


def not_nearby(why: str) -> Answer:
    """No key is asked for, and it may come from elsewhere: from a page in a browser, above all."""
    message = (
        f"cannot let this request in: without keys only programs of this machine may come, and {why}"
        " (make a key and send it: modelgrid key create NAME; or call localhost or 127.0.0.1)"
    )
    return error(403, REQUEST, message, "not_nearby")


def bad_request(why: str, param: str | None = None, code: str | None = None) -> Answer:
    """What was sent can't be used."""
    return error(400, REQUEST, why, code, param=param)


def wrong_version(version: str) -> Answer:
    """Another HTTP, or none that is named."""
    message = f"cannot answer HTTP/{version} here: this is HTTP/1.1 (send 'METHOD /path HTTP/1.1')"
    return error(505, REQUEST, message, "http_version_not_supported")


def unknown_coding(coding: str) -> Answer:
    """A Transfer-Encoding other than chunked."""
    message = f"cannot read the request's body: its Transfer-Encoding is {coding[:_ECHOED]!r} (send it chunked)"
    return error(501, REQUEST, message, "unknown_transfer_encoding")


def unmet_expectation(expectation: str) -> Answer:
    """An Expect other than 100-continue."""
    message = f"cannot meet what the request expects: {expectation[:_ECHOED]!r} (only 100-continue is known)"
    return error(417, REQUEST, message, "expectation_failed")


def head_too_slow(limit_s: float) -> Answer:
    """The request's head didn't arrive in time."""
    message = f"cannot read the request: its head did not arrive within {limit_s:g} s"
    return error(408, REQUEST, message, "request_timeout")


def body_too_slow(limit_bytes_per_s: int) -> Answer:
    """The request's body, or its end, doesn't arrive in time."""
    message = f"cannot read the request: its body arrives at less than {limit_bytes_per_s} bytes a second"
    return error(408, REQUEST, message, "request_timeout")


def body_too_large(limit_bytes: int) -> Answer:
    """More than one body may have."""
    limit = format_bytes(limit_bytes)
    message = f"cannot take the request's body: it is larger than {limit} (send less, or raise gateway.body)"
    return error(413, REQUEST, message, "body_too_large")


def upload_too_large(limit_bytes: int) -> Answer:
    """More than one upload may have."""
    limit = format_bytes(limit_bytes)
    message = f"cannot take the upload: it is larger than {limit} (send less, or raise gateway.upload)"
    return error(413, REQUEST, message, "body_too_large")


def encoded_body(encoding: str) -> Answer:
    """A compressed body, in which no model can be found."""
    message = f"cannot read the request's body: its encoding is {encoding!r} (send it without Content-Encoding)"
    return error(415, REQUEST, message, "unsupported_encoding")


def head_too_large(limit_bytes: int) -> Answer:
    """More than a request's line and headers may have."""
    message = f"cannot read the request: its line and headers are larger than {limit_bytes} bytes (send less)"
    return error(431, REQUEST, message, "headers_too_large")


def too_many_headers(limit: int) -> Answer:
    """More lines than a request's head and trailers may have."""
    message = f"cannot read the request: it has more than {limit} headers (send fewer)"
    return error(431, REQUEST, message, "headers_too_large")


def too_much_framing(limit_bytes: int) -> Answer:
    """A body in chunks that are nearly all size and extension, or trailers without end."""
    message = f"cannot read the request's body: chunk sizes, extensions and trailers fill {limit_bytes} bytes"
    return error(400, REQUEST, f"{message} (send larger chunks)", "too_much_framing")


def no_model_in_body() -> Answer:
    """JSON that names no model."""
    message = 'cannot tell which model is asked for: the body names none (send {"model": "NAME", …})'
    return error(400, REQUEST, message, param="model")


def unknown_model(model: str, routes: Iterable[Route]) -> Answer:
    """No such model. Here and below, `routes` are those that the caller may know of."""
    there_are = _some([route.model for route in routes])
    message = f"cannot find the model {model[:_ECHOED]!r}: {there_are} (GET /v1/models lists them)"
    return error(404, REQUEST, message, "model_not_found", param="model")


def unnamed_model(operation: str, routes: Iterable[Route]) -> Answer:
    """Nothing says which model is meant, where more than one may be."""
    able = _some([route.model for route in routes if operation in route.operations], _NONE_SERVES)
    message = f"cannot tell which model is asked for {operation}: {able} (send ?model=NAME)"
    return error(400, REQUEST, message, "model_required", param="model")


def not_allowed(key: str, asked_for: str) -> Answer:
    """A key that is for other models; it learns no other name of what it `asked_for`."""
    message = f"cannot use {asked_for}: the key {key!r} is not for it (GET /v1/models lists those that it is for)"
    return error(403, REQUEST, message, "model_not_allowed", param="model")


def over_quota(whose: str, refusal: Refusal) -> Answer:
    """As much as a key or a model may have."""
    message = f"cannot take the request: {whose} may have {refusal.value} {_LIMITS[refusal.limit]} (try again later)"
    return error(429, REQUEST, message, "rate_limit_exceeded", retry_after_s=refusal.retry_after_s)


_LIMITS: Final = {
    Limit.REQUESTS: "requests a minute",
    Limit.TOKENS: "tokens a minute",
    Limit.CONCURRENCY: "requests at once",
}


def bad_form(message: str) -> Answer:
    """A form that can't be read."""
    return error(400, REQUEST, message, "invalid_form")


def no_model_in_form() -> Answer:
    """A form that names no model."""
    message = "cannot tell which model is asked for: the form has no field named model (send one, before the file)"
    return error(400, REQUEST, message, param="model")


def cannot_hold(why: str) -> Answer:
    """An upload whose model isn't known yet."""
    message = f"cannot hold the upload until its model is known: {why} (send the model before the file)"
    return error(507, SERVER, message, "insufficient_storage")


def not_a_form(why: str) -> Answer:
    """An upload that can't be read."""
    return error(400, REQUEST, f"cannot read the upload: {why}", "invalid_form")


def not_a_socket(path: str) -> Answer:
    """A request where a WebSocket is wanted."""
    message = f"cannot answer {path} without a WebSocket (connect to it with ws:// and ?model=NAME)"
    return error(426, REQUEST, message, "upgrade_required", headers=(("upgrade", "websocket"),))


def unknown_object(path: str) -> Answer:
    """No engine knows an id."""
    message = f"cannot find {path[:_ECHOED]}: no replica that is ready can know it (?model=NAME says whose it is)"
    return error(404, REQUEST, message, "not_found")


def wrong_operation(route: Route, operation: str, routes: Iterable[Route]) -> Answer:
    """The model's engine does something else."""
    able = _some([other.model for other in routes if operation in other.operations], _NONE_SERVES)
    serves = ", ".join(route.operations) or "nothing"
    message = f"cannot ask {route.model!r} for {operation}: its engine serves {serves} (for {operation}, {able})"
    return error(400, REQUEST, message, "unsupported_operation", param="model")


# modelgrid failed.


def too_many_connections(limit: int) -> Answer:
    """The worker holds as many as it may."""
    message = f"cannot take another connection: {limit} are open (try again soon, or raise gateway.connections)"
    return error(503, SERVER, message, "too_many_connections", retry_after_s=1)


def too_many_bodies(limit_bytes: int) -> Answer:
    """The worker holds as much as it may."""
    message = f"cannot take the request's body now: those in hand fill {format_bytes(limit_bytes)} (try again soon)"
    return error(503, SERVER, message, "too_many_bodies", retry_after_s=1)


def controller_away() -> Answer:
    """What only the controller knows."""
    message = "cannot answer now: the controller is away (models are served; try again soon)"
    return error(503, SERVER, message, "controller_away", retry_after_s=1)


def object_unknown_now(path: str, why: str) -> Answer:
    """The engine that knows an id may be one that can't say so."""
    message = f"cannot find {path[:_ECHOED]} now: no other replica knows it, and {why} (try again soon)"
    return error(503, SERVER, message, "object_unknown_now", retry_after_s=2)


def no_table() -> Answer:
    """Nothing is known yet."""
    message = "cannot route the request: modelgrid has only just started and knows no model yet (try again soon)"
    return error(503, SERVER, message, "starting", retry_after_s=1)


def unavailable(route: Route) -> Answer:
    """The controller said that it can't be served."""
    assert route.unavailable is not None
    message = f"cannot serve {route.model}: {route.unavailable.why} (try: modelgrid why {route.model})"
    return error(503, SERVER, message, "model_unavailable", retry_after_s=route.unavailable.retry_after_s)


def nothing_behind(route: Route, operation: str) -> Answer:
    """A virtual model without a model that can answer."""
    choices = route.virtual.choices if route.virtual is not None else ()
    behind = ", ".join(choice.model for choice in choices)
    message = f"cannot serve {route.model}: of {behind} none can be asked for {operation} now"
    return error(503, SERVER, f"{message} (try: modelgrid why {route.model})", "model_unavailable", retry_after_s=5)


def queue_full(route: Route) -> Answer:
    """As many wait for a replica as may."""
    message = (
        f"cannot queue the request for {route.model}: {route.queue} requests wait for it already{_because(route)}"
        " (try again soon, or raise limits.queue)"
    )
    return error(503, SERVER, message, "queue_full", retry_after_s=5)


def outranked(route: Route) -> Answer:
    """As many wait for a replica as may, and one that came is ahead of the last of them."""
    message = (
        f"cannot go on waiting for {route.model}: {route.queue} requests wait for it, and one of a higher priority"
        f" came{_because(route)} (try again soon, or raise limits.queue)"
    )
    return error(503, SERVER, message, "queue_full", retry_after_s=5)


def waited_out(route: Route, waited_s: float, *, is_hurried: bool = False) -> Answer:
    """No replica in time; one that is hurried has said itself what that is."""
    starts = "" if route.starts_s is None else f"; a start takes about {route.starts_s:.0f} s"
    setting = f"send a longer {TIMEOUT}" if is_hurried else "raise limits.wait"
    message = (
        f"cannot serve {route.model}: no replica of it was ready within {waited_s:.1f} s{_because(route)}{starts}"
        f" (try: modelgrid why {route.model}, or {setting})"
    )
    return error(503, SERVER, message, "not_ready_in_time", retry_after_s=5)


def stopping() -> Answer:
    """The grace time at shutdown is over."""
    return error(503, SERVER, "cannot finish the request: modelgrid is stopping", "stopping", retry_after_s=5)


def internal() -> Answer:
    """A defect of ours."""
    message = "cannot answer the request: modelgrid has a defect (the log of the gateway has more)"
    return error(500, SERVER, message, "internal_error")


# The engine failed.


def engine_failed(model: str, replica: str, why: str, setting: str, tries: int) -> Answer:
    """It was tried as often as may be."""
    times = "once" if tries == 1 else f"{tries} times"
    why = f"{replica} {why}; tried {times}"
    message = f"cannot get an answer from the engine of {model}: {why} {steps(model, setting)}"
    return error(502, ENGINE, message, "engine_lost", retry_after_s=5)


def engine_timed_out(model: str, replica: str, why: str, setting: str) -> Answer:
    """It didn't begin to answer, or not go on."""
    message = f"cannot get an answer from the engine of {model}: {replica} {why} {steps(model, setting)}"
    return error(504, ENGINE, message, "engine_timed_out")


def engine_trouble(model: str, why: str) -> Answer:
    """It answered with what can't be used."""
    message = f"cannot use the answer of the engine of {model}: it {why} {steps(model)}"
    return error(502, ENGINE, message, "engine_trouble")


def steps(model: str, setting: str = "") -> str:
    """What can be done about an engine; `setting` is one that would have helped."""
    return f"(try: modelgrid logs {model}{', or raise ' if setting else ''}{setting})"


def last_event(kind: str, code: str, why: str, *, is_anthropic: bool = False) -> bytes:
    """The end of a stream that has no other; `why` says who ended it."""
    message = f"the stream ends early: {why}"
    body = _anthropic_body(500, message) if is_anthropic else error_body(kind, message, code)
    return event(body, is_anthropic=is_anthropic)


def as_event(answer: Answer, *, is_anthropic: bool = False) -> bytes:
    """An error for a caller whose answer's head was sent already."""
    return event((as_anthropic(answer) if is_anthropic else answer).body, is_anthropic=is_anthropic)


def event(body: bytes, *, is_anthropic: bool = False) -> bytes:
    """An error's JSON, in one line, as an event of a stream."""
    return b"%bdata: %b\n\n" % (b"event: error\n" if is_anthropic else b"", body)


def root() -> Answer:
    """What there is."""
    rows = [f"{row.method} {row.path}" for row in ENDPOINTS]
    return ok(msgspec.json.encode({"name": "modelgrid", "endpoints": rows}))


def _because(route: Route) -> str:
    return f": {route.why}" if route.why else ""


def _some(models: list[str], none: str = "there is none that you may use") -> str:
    if not models:
        return none
    named = ", ".join(models[:_NAMED])
    return f"there are {named}" + (f" and {len(models) - _NAMED} more" if len(models) > _NAMED else "")
