"""The reference page of the errors, made from a table of what callers are told."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

from modelgrid.gateway.answers import ENGINE, REQUEST, SERVER

_INTRODUCTION: Final = """\
# Errors

Each error says what could not be done, why, and what to do next; `type` says who failed:

```json
{"error": {"message": "cannot find the model 'gpt-5': there are chat, embed (GET /v1/models lists them)",
           "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
```

| `type` | who failed | another try |
| --- | --- | --- |
| `invalid_request_error` | the caller | with another request; after 429, the same one after `Retry-After` |
| `server_error` | modelgrid | later, after `Retry-After` where there is one |
| `engine_error` | the model's engine | later; modelgrid has tried already where it could |

Callers of `/v1/messages` get the same message in Anthropic's shape, callers of `POST /v1/chat/{model}` as plain text.
What an engine answers itself, errors too, comes back as it is, in the engine's words.

A request is sent again by the gateway while none of its answer has reached the caller: to another replica, and, for a
virtual model, to another model. A caller is told only when that didn't help.

The engine got the request with the `x-request-id` that stands in the answer. `modelgrid_errors_total` of the
[metrics](metrics.md) counts errors by model, code and who failed.

<!-- made by `python -m modelgrid.gateway.errors_page`, which prints this page -->
"""

_STREAMS: Final = """\

## In a stream

Once an answer has begun, its status is sent. When it can't go on, a stream of events ends with one more event, an error
of the same shape, and without `data: [DONE]`; any other answer is broken off, which HTTP clients report. Besides these,
an upload that goes wrong while its answer streams ends it with its own error from above. So does any error, the
engine's too, for a caller that was told [while it waited](../how-to/serve-many-callers.md#4-who-waits).

| code | who failed | when |
| --- | --- | --- |
"""

_WHO: Final = {REQUEST: "request", SERVER: "modelgrid", ENGINE: "engine"}


@dataclass(frozen=True, slots=True)
class Row:
    """One error. `kind` is its type, `code` may be empty."""

    status: int
    code: str
    kind: str
    when: str
    step: str


ROWS: Final = (
    Row(
        400,
        "",
        REQUEST,
        "The request, its JSON, or one of its `x-modelgrid` headers can't be read; or it names no model.",
        "The message says where.",
    ),
    Row(400, "invalid_form", REQUEST, "The upload is no form that can be read.", "Send `multipart/form-data`."),
    Row(400, "model_required", REQUEST, "Several models could be meant.", "Send `?model=NAME`."),
    Row(
        400,
        "too_much_framing",
        REQUEST,
        "A body in chunks is nearly all chunk sizes, extensions or trailers.",
        "Send larger chunks.",
    ),
    Row(
        400,
        "unsupported_operation",
        REQUEST,
        "The model's engine doesn't serve what is asked for.",
        "Ask a model that does: the message names some. `operations` corrects what a model is believed to serve.",
    ),
    Row(401, "invalid_api_key", REQUEST, "No key was sent, or one that is not known.", "`modelgrid key create NAME`"),
    Row(401, "key_expired", REQUEST, "The key has ended, or was rotated.", "Send its newest secret, or another key."),
    Row(
        401, "key_in_url", REQUEST, "A key stands in the URL, and none in a header.", "Rotate it; send it as a header."
    ),
    Row(403, "missing_scope", REQUEST, "The key is for something else.", "The message names the scope that is needed."),
    Row(403, "operation_not_allowed", REQUEST, "The key is for other operations.", "The message names them."),
    Row(403, "model_not_allowed", REQUEST, "The key is for other models.", "`GET /v1/models` lists those."),
    Row(
        403,
        "not_nearby",
        REQUEST,
        "There are no keys, and the request's `Host` or `Origin` is not this machine.",
        "Call `localhost` or `127.0.0.1`, or make a key and send it.",
    ),
    Row(404, "model_not_found", REQUEST, "There is no such model.", "`GET /v1/models` lists those there are."),
    Row(
        404,
        "not_found",
        REQUEST,
        "There is no such path; or no ready replica knows the id in it.",
        "`GET /` lists the paths; `?model=NAME` says whose an id is.",
    ),
    Row(405, "method_not_allowed", REQUEST, "The path takes other methods.", "`Allow` lists them."),
    Row(
        408,
        "request_timeout",
        REQUEST,
        "The request arrives too slowly.",
        "Send it faster than the [limits](limits.md) `header_timeout_s` and `body_bytes_per_s`.",
    ),
    Row(
        413,
        "body_too_large",
        REQUEST,
        "The body is too large.",
        "Raise `gateway.body`, or `gateway.upload` for uploads.",
    ),
    Row(415, "unsupported_encoding", REQUEST, "The body is compressed.", "Send it without `Content-Encoding`."),
    Row(417, "expectation_failed", REQUEST, "`Expect` is not `100-continue`.", "Leave it out."),
    Row(426, "upgrade_required", REQUEST, "The path is a WebSocket's.", "Connect with `ws://`."),
    Row(
        429,
        "rate_limit_exceeded",
        REQUEST,
        "A key, or a model, has used up what it may have: the message says of what.",
        "Wait for `Retry-After`; or raise the model's `limits`, or make a key that may have more.",
    ),
    Row(431, "headers_too_large", REQUEST, "Too many headers, or too long ones.", "Send fewer; no cookies."),
    Row(501, "unknown_transfer_encoding", REQUEST, "`Transfer-Encoding` is not `chunked`.", "Send it chunked."),
    Row(505, "http_version_not_supported", REQUEST, "It is not HTTP/1.1 or 1.0.", "Use an HTTP client."),
    Row(500, "internal_error", SERVER, "modelgrid has a defect.", "Report it with what the gateway's log says."),
    Row(503, "controller_away", SERVER, "Only the controller knows, and it restarts.", "Try again in a second."),
    Row(
        503,
        "model_unavailable",
        SERVER,
        "The model can't be started: its starts fail, or it doesn't fit.",
        "`modelgrid why NAME` says why.",
    ),
    Row(
        503,
        "not_ready_in_time",
        SERVER,
        "No replica was ready within the model's `limits.wait`, or within the request's own `x-modelgrid-timeout`.",
        "`modelgrid why NAME` says what it waits for; a larger one of the two waits longer.",
    ),
    Row(
        503,
        "object_unknown_now",
        SERVER,
        "No replica that can be asked knows the id, and one that may know it can't be asked.",
        "Try again soon.",
    ),
    Row(
        503,
        "queue_full",
        SERVER,
        "As many requests wait as `limits.queue` allows; for one that waited, another of a higher priority came.",
        "Try later, or raise it.",
    ),
    Row(503, "starting", SERVER, "modelgrid has only just started.", "Try again in a second."),
    Row(503, "stopping", SERVER, "modelgrid is stopping, and `gateway.grace` is over.", "Try again once it is back."),
    Row(
        503,
        "too_many_bodies",
        SERVER,
        "The bodies that the worker holds fill the [limit](limits.md) `bodies_bytes`.",
        "Try again soon; more `gateway.workers` hold more.",
    ),
    Row(
        503,
        "too_many_connections",
        SERVER,
        "The worker has `gateway.connections` open.",
        "Keep connections and use them again, or raise it.",
    ),
    Row(
        507,
        "insufficient_storage",
        SERVER,
        "There is no room to hold the upload until its model is known.",
        "Send the field `model` before the file; make room in the folder for temporary files.",
    ),
    Row(
        502,
        "engine_lost",
        ENGINE,
        "The engine can't be reached, or broke off, each time that it was tried.",
        "Try again; `modelgrid logs NAME` shows its last words.",
    ),
    Row(
        502,
        "engine_trouble",
        ENGINE,
        "The engine's answer can't be used.",
        "`modelgrid logs NAME`; see that the engine speaks OpenAI's API.",
    ),
    Row(
        504,
        "engine_timed_out",
        ENGINE,
        "The engine was silent for `gateway.first_byte`, or for `gateway.stall`. No other is asked: it may be at work.",
        "Stream, or raise these two.",
    ),
)

# What ends a stream that has begun: code, type, when.
IN_STREAMS: Final = (
    ("engine_lost", ENGINE, "The engine broke off, or was silent for `gateway.stall`."),
    ("engine_trouble", ENGINE, "The engine sent what can't be used."),
    ("stopping", SERVER, "modelgrid is stopping, and `gateway.grace` is over."),
)


def reference() -> str:
    """``docs/reference/errors.md``."""
    streams = "".join(f"| `{code}` | {_WHO[kind]} | {when} |\n" for code, kind, when in IN_STREAMS)
    return f"{_INTRODUCTION}{''.join(_section(*section) for section in _SECTIONS)}{_STREAMS}{streams}"


_SECTIONS: Final = (
    ("The request failed", REQUEST),
    ("modelgrid failed", SERVER),
    ("The engine failed", ENGINE),
)


def _section(heading: str, kind: str) -> str:
    rows = "".join(_row(row) for row in sorted(ROWS, key=lambda row: (row.status, row.code)) if row.kind == kind)
    return f"\n## {heading}\n\n| status | code | when | what to do |\n| --- | --- | --- | --- |\n{rows}"


def _row(row: Row) -> str:
    code = f"`{row.code}`" if row.code else ""
    return f"| {row.status} | {code} | {row.when} | {row.step} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
