"""The reference page of the endpoints, made from their table."""

from __future__ import annotations

import sys
import textwrap
from typing import Final

from modelgrid.gateway.endpoints import ENDPOINTS, Act, Endpoint, Found
from modelgrid.gateway.request import CREDENTIALS, HOP_BY_HOP, NOT_FORWARDED
from modelgrid.spec import Scope

_INTRODUCTION: Final = """\
# Endpoints

What the gateway answers, on one port: paths as OpenAI, Anthropic and the engines of the field have them. `GET /` lists
them, too. HEAD works where GET does.

A caller sends its key as `Authorization: Bearer KEY`, or in the header `x-api-key` or `api-key`. While there are no
keys, none is asked for, and only programs of this machine are let in. See also [errors](errors.md) and
[limits](limits.md).

<!-- made by `python -m modelgrid.gateway.endpoints_page`, which prints this page -->
"""

_TAIL: Final = """\

Everything else is answered with 404, but for the paths that models have of their own: a model with `endpoint: /my/path`
is asked by `POST /my/path`, whatever the body is.

## What is changed on the way

A body arrives at the engine byte for byte as it was sent, but for two things: the model's name, where the engine knows
the model by another one (an alias, a virtual model, `served`), and the fields that the model's `parameters` set,
default, cap or strip. In a form only the model's name is changed. The query goes on as it is, but for the model's name
in that of a realtime connection. A body in chunks gets a `Content-Length`, unless it is an upload.

Of the headers, all go on but these:

{headers}

`x-request-id` is added where the caller sends none, and stands in each answer: it tells which request a line in an
engine's log is about. Status, headers and body of the engine's answer come back as they are, framed anew for the
caller's connection.

A compressed body (`Content-Encoding`) is refused with 415, since the model can't be read in it. Answers may be
compressed: `Accept-Encoding` goes on.

`POST /v1/chat/{{model}}` is the exception: the body is the prompt as plain text, the engine is asked for a chat that
streams, and the answer is its text.

## Objects by id

An id names no model, and nothing is remembered of who made it: the ready replicas that serve the operation are asked in
turn until one knows it. `?model=NAME` says whose it is, and spares the others the question. `GET /v1/videos`, a list,
needs it unless just one model that is ready serves videos. What an engine kept in its memory is gone when it ends.

## Realtime

`ws://HOST/v1/realtime?model=NAME`. The key is sent as `Authorization`, or, by browsers, which can't set that header, as
the subprotocol `openai-insecure-api-key.KEY`, which the engine doesn't get to see. After the handshake, bytes go both
ways as they come. A connection on which nothing is said for `gateway.stall` ends.

## Uploads

A form (`multipart/form-data`) is relayed while it comes, up to `gateway.upload`, whatever its size in bounded memory.
Send the field `model` before the file: until it has come, nobody knows where the file goes, and the file is held, on
disk from 1 MiB on. When its engine fails, an upload of up to 1 MiB is sent to another replica; a larger one of which
something was passed on isn't. JSON at the same paths is read as at any other, up to `gateway.body`.

## Connections

- **HTTP/1.1**, kept open between requests. Requests may be pipelined, up to 64 KiB ahead, and are answered in order.
- **HTTP/1.0** works: without `Connection: keep-alive` each answer ends its connection, and a stream always does.
- **HTTP/2** is not spoken; an offer to upgrade is passed over. Put a proxy in front that ends it, and TLS.
- A caller that leaves ends its request at the engine, too. One that only closes its sending side (half-close) while it
  waits gets its answer: to tell it from one who left, it is sent `100 Continue`, which an HTTP client passes over, and
  in a stream what changes nothing of it. HTTP/1.0 has no such sign: there, who half-closes before its answer has begun
  has left.
"""

_PLACES: Final = {
    Act.RELAY: "`model` in the body",
    Act.OBJECT: "none: the id tells, or `?model=NAME`",
    Act.SOCKET: "`?model=NAME`",
    Act.PLAIN: "in the path",
    Act.MODEL: "in the path",
}

_ANSWERS: Final = {
    Act.MODELS: "the models that the caller may use, and their state",
    Act.MODEL: "one of them",
    Act.CONTROL: "[metrics](metrics.md) of all workers",
    Act.ADMIN: "the [control API](../how-to/keys.md#the-control-api)",
    Act.HEALTH: "200 while the worker serves",
    Act.ROOT: "this list",
}


def reference() -> str:
    """``docs/reference/endpoints.md``."""
    models = [row for row in ENDPOINTS if row.operation]
    own = [row for row in ENDPOINTS if not row.operation]
    return (
        f"{_INTRODUCTION}\n## Of models\n\n"
        "A model is asked only for operations that it serves: `operations` in `GET /v1/models` says which.\n\n"
        "| method | path | operation | where the model stands | streams | uploads |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{''.join(map(_row, models))}"
        "\n## Of modelgrid\n\n| method | path | answers | asks for a key of scope |\n| --- | --- | --- | --- |\n"
        + "".join(map(_own, own))
        + _TAIL.format(headers=_headers())
    )


def _row(row: Endpoint) -> str:
    place = _PLACES[row.act]
    if row.uploads:
        place += ", JSON or a form"
    if row.act is Act.OBJECT and "{" not in row.path:
        place = "`?model=NAME`, where several could be meant"
    return f"| {row.method} | `{row.path}` | {row.operation} | {place} | {_yes(row.streams)} | {_yes(row.uploads)} |\n"


def _own(row: Endpoint) -> str:
    scopes = "" if row.open else " or ".join(f"`{scope}`" for scope in Scope if scope in Found(row, row.path).scopes)
    return f"| {row.method} | `{row.path}` | {_ANSWERS[row.act]} | {scopes} |\n"


def _yes(value: bool) -> str:
    return "yes" if value else ""


def _headers() -> str:
    others = NOT_FORWARDED - HOP_BY_HOP - CREDENTIALS - {b"host", b"content-length"}
    items = (
        f"what is about one connection: {_names(HOP_BY_HOP)}, and those that `Connection` names;",
        f"the caller's key: {_names(CREDENTIALS)}. The engine gets its own key, where it asks for one;",
        f"{_names(others)}. The gateway itself answers `Expect: 100-continue`. `Host` and `Content-Length` are written "
        "anew.",
    )
    return "\n".join(
        textwrap.fill(item, 120, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False) for item in items
    )


def _names(headers: frozenset[bytes]) -> str:
    return ", ".join(f"`{name.decode()}`" for name in sorted(headers))


if __name__ == "__main__":
    sys.stdout.write(reference())
