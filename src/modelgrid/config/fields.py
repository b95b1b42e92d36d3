"""The one schema of modelgrid.yaml: every field, its type, its default and its meaning.

The JSON schema for editors and the reference page are made from it.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from modelgrid.config.config import CorsConfig, GatewayConfig, TlsConfig
from modelgrid.engines import ENGINES
from modelgrid.spec import Limits, Routing, Scaling
from modelgrid.spec.operations import OPERATIONS
from modelgrid.spec.units import format_bytes, format_seconds, parse_bytes, parse_seconds

_GATEWAY, _SCALING, _LIMITS, _ROUTING = GatewayConfig(), Scaling(), Limits(), Routing()
_CORS, _TLS = CorsConfig(()), TlsConfig("", "")
SESSION = ("header:x-session-id", "body:prompt_cache_key", "body:user")
START_TIMEOUT_S, HEALTH_TIMEOUT_S, STOP_GRACE_S = 600.0, 60.0, 10.0
_MOST_BYTES = 2**50
_MOST_GPUS = 64
_MOST_SECONDS = 365 * 86400.0
_LONGEST_NAME = 256
_LONGEST_FILE_NAME, _LONGEST_PATH = 255, 4095  # as Linux has it, in bytes
_VARIABLE = {"type": "string", "pattern": r"\$\{.+\}"}


def _size(value: object) -> int:
    count = parse_bytes(_scalar(value, "a size: write for example 16GiB"))
    if not 1 <= count <= _MOST_BYTES:
        raise ValueError(f"{value!r} is out of bounds: 1 byte to {format_bytes(_MOST_BYTES)}")
    return count


def _duration(value: object) -> float:
    seconds = parse_seconds(_scalar(value, "a duration: write for example 90s or 15m"))
    if seconds > _MOST_SECONDS:
        raise ValueError(f"{value!r} is out of bounds: at most {format_seconds(_MOST_SECONDS)}")
    return seconds


def parse_gpus(value: object) -> float | None:
    """A number of GPUs as people write it; None for ``auto``. Raises ValueError."""
    text = _scalar(value, "a number of GPUs: write for example 1, 2 or 0.5, or auto")
    if text == "auto":
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) > _MOST_GPUS:
        raise ValueError(f"{text!r} is not a number of GPUs: write 0 to {_MOST_GPUS}, 0.5 for half of one, or auto")
    count = float(text)
    if count > 1 and not count.is_integer():
        raise ValueError(f"{text!r} is not a number of GPUs: a share of one (0.5), or whole ones (1, 2, 4)")
    return count


def _sleep(value: object) -> int | None:
    text = _scalar(value, "a level: write 1, 2 or off")
    if text == "off":
        return None
    if text not in ("1", "2"):
        raise ValueError(
            f"{text!r} is not a level of sleep: write 1 (weights wait in main memory), 2 (they don't), off"
        )
    return int(text)


def _scalar(value: object, what: str) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"is not {what}")


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no program can be given")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half a character (a surrogate), which can't be written as UTF-8")
    return text


def _file_path(text: str) -> str:
    try:
        Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text!r} is below the home of nobody here: write the whole path") from None
    written = text.encode()
    if len(written) > _LONGEST_PATH or max(map(len, written.split(b"/"))) > _LONGEST_FILE_NAME:
        raise ValueError(f"is too long for a path: at most {_LONGEST_FILE_NAME} bytes between two slashes")
    return text


def _key(text: str) -> str:
    if not _is_one_word(text):
        raise ValueError("can't be sent: a key is printable ASCII without spaces (is there a line break at its end?)")
    return text


def _url(text: str) -> str:
    if not _is_one_word(text):
        raise ValueError("is not a URL: it is printable ASCII without spaces (%20 stands for a space)")
    return text


def _is_one_word(text: str) -> bool:
    return re.fullmatch(r"[!-~]+", text) is not None


def name_problem(name: str) -> str | None:
    """Why `name` can't name a model; None where it can."""
    if not name or len(name) > _LONGEST_NAME:
        return f"a model's name has 1 to {_LONGEST_NAME} characters, not {len(name)}"
    if name != name.strip() or not name.isprintable():
        return f"{name!r} can't name a model: no control characters, no spaces at the ends"
    return None


def _model_name(name: str) -> str:
    if wrong := name_problem(name):
        raise ValueError(wrong)
    return name


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} can't name an environment variable: letters, digits and _ only")
    if name.startswith("MODELGRID_"):
        raise ValueError(f"{name!r} is modelgrid's own to set: choose another name")
    return name


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not a path on a server: it starts with /")
    return _url(text)


def _parameter(name: str) -> str:
    if name == "model":
        raise ValueError(
            "'model' says which model is asked: it is no parameter (for another name see: served, aliases)"
        )
    if name == "stream":
        raise ValueError("'stream' is the caller's to say: whoever asked for one form of answer can't read the other")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"{name!r} can't name a field of a request")
    return name


def _session(place: str) -> str:
    kind, _, name = place.partition(":")
    if kind == "header" and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        return f"header:{name.lower()}"
    if kind == "body" and name and name.isprintable():
        return place
    raise ValueError(f"{place!r} is no place in a request: write header:NAME, or body:FIELD for a field of its JSON")


def _operation(name: str) -> str:
    if name not in OPERATIONS:
        raise ValueError(f"{name!r} is not an operation: there is {', '.join(OPERATIONS)}")
    return name


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", text.lower()):
        raise ValueError(f"{text!r} is not where pages come from: write https://app.example.com, or * for all of them")
    return text.lower()


def _header(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{name!r} can't name a header: letters, digits and - only")
    return name.lower()


def _pem_path(text: str) -> str:
    if "-----BEGIN" in text:
        raise ValueError("is what should stand in a file: write it to one that only you can read, and name that here")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network: write 10.0.0.0/8, or one address") from None
    raise ValueError(f"{text!r} is an address within a network: write {network}, or the address alone")


Text: TypeAlias = Annotated[str, AfterValidator(_text)]
FilePath: TypeAlias = Annotated[Text, AfterValidator(_file_path)]
PemPath: TypeAlias = Annotated[Text, AfterValidator(_pem_path), AfterValidator(_file_path)]
Key: TypeAlias = Annotated[Text, AfterValidator(_key)]
Url: TypeAlias = Annotated[Text, AfterValidator(_url)]
Name: TypeAlias = Annotated[str, AfterValidator(_model_name)]
Variable: TypeAlias = Annotated[str, AfterValidator(_variable_name)]
UrlPath: TypeAlias = Annotated[Text, AfterValidator(_path)]
Word: TypeAlias = Annotated[Text, WithJsonSchema({"type": ["string", "number", "boolean"]})]
EnvValue: TypeAlias = Annotated[
    Text,
    BeforeValidator(lambda value: "" if value is None else value),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
Size: TypeAlias = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"type": ["string", "integer"], "format": "size", "examples": ["16GiB", "500MB"]}),
]
Duration: TypeAlias = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": ["string", "number"], "format": "duration", "examples": ["90s", "15m", "1h30m"]}),
]
Gpus: TypeAlias = Annotated[
    float | None,
    BeforeValidator(parse_gpus),
    WithJsonSchema({"type": ["number", "string"], "format": "number or `auto`", "examples": [1, 0.5, 4, "auto"]}),
]
Sleep: TypeAlias = Annotated[
    int | None,
    BeforeValidator(_sleep),
    WithJsonSchema({"type": ["integer", "string"], "format": "`1`, `2` or `off`", "enum": [1, 2, "1", "2", "off"]}),
]
Parameter: TypeAlias = Annotated[Text, AfterValidator(_parameter)]
Json: TypeAlias = Annotated[Text, WithJsonSchema({})]  # JSON, as a text: see `literal`
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Money: TypeAlias = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
SessionPlace: TypeAlias = Annotated[Text, AfterValidator(_session)]
Operation: TypeAlias = Annotated[Text, AfterValidator(_operation), WithJsonSchema({"enum": list(OPERATIONS)})]
Origin: TypeAlias = Annotated[Text, AfterValidator(_origin)]
Header: TypeAlias = Annotated[Text, AfterValidator(_header)]
Network: TypeAlias = Annotated[Text, AfterValidator(_network)]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000)]


class _Section(BaseModel):
    """What all sections share: no unknown fields, no changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}


class TlsSection(_Section):
    """TLS 1.2 and 1.3, by files in PEM. They are read anew when they change."""

    certificate: PemPath = Field(description="The certificate, followed by those between it and the authority's.")
    key: PemPath = Field(description="Its private key, without a password.")
    hsts: Duration = Field(
        default=_TLS.hsts_s,
        description="How long a browser that was here comes by TLS only, to any port of this host "
        "(Strict-Transport-Security). `0` says nothing of it.",
    )


class CorsSection(_Section):
    """Which pages of other sites a browser lets call the gateway, with a key of theirs."""

    origins: list[Origin] = Field(
        min_length=1, description="Where the pages come from: `https://app.example.com`; `*` for all of them."
    )
    headers: list[Header] = Field(
        default=[],
        description="Headers that they may send, beside those that OpenAI's and Anthropic's clients send. `*`: any.",
    )
    credentials: bool = Field(
        default=_CORS.credentials,
        description="They may send cookies and the like, which a proxy in front may ask for; not with origin `*`.",
    )
    max_age: Duration = Field(
        default=_CORS.max_age_s, description="How long a browser remembers what it was told, and asks no more."
    )

    @model_validator(mode="after")
    def _credentials_are_for_named_pages(self) -> CorsSection:
        if self.credentials and "*" in self.origins:
            raise ValueError(
                "lets pages of every site act as whoever looks at them: name the origins, or remove credentials"
            )
        return self


class LogSection(_Section):
    """A line for each request, in `state/logs/requests-N.log`. `requests` alone may be written as `log: all`."""

    requests: Literal["off", "errors", "all"] = Field(
        default=_GATEWAY.log_requests,
        description="Which requests: `off` none, `errors` those answered with 400 or more, or cut off, `all` each.",
    )
    format: Literal["text", "json"] = Field(
        default=_GATEWAY.log_format, description="`text`: `name=value`, as in the other logs; `json`: an object a line."
    )

    @model_validator(mode="before")
    @classmethod
    def _requests_alone(cls, values: Any) -> Any:
        return {"requests": values} if isinstance(values, str) else values


class GatewaySection(_Section):
    """Where callers are served, and what they may use at most."""

    host: Text = Field(
        default=_GATEWAY.host,
        description="Address to listen on. Without access keys (`modelgrid key create`) only a loopback address.",
    )
    port: Port = Field(default=_GATEWAY.port, description="Port to listen on.")
    workers: int = Field(
        default=_GATEWAY.workers, ge=1, le=256, description="Gateway processes; one for each core at most."
    )
    body: Size = Field(default=_GATEWAY.body_bytes, description="The longest request body that is taken.")
    upload: Size = Field(
        default=_GATEWAY.upload_bytes,
        description="The longest upload (audio, images, video) that is taken. Uploads are relayed while they come.",
    )
    connections: Count = Field(default=_GATEWAY.connections, description="Connections open at once, in each worker.")
    connect: Duration = Field(
        default=_GATEWAY.connect_s, description="How long an engine may take to accept a connection."
    )
    first_byte: Duration = Field(
        default=_GATEWAY.first_byte_s,
        description="How long an engine may take to begin its answer. An answer that doesn't stream begins when all of "
        "it has been made.",
    )
    stall: Duration = Field(
        default=_GATEWAY.stall_s,
        description="How long an engine may pause in the middle of its answer, and a caller in the middle of reading "
        "it; a realtime connection on which nothing is said for so long ends.",
    )
    grace: Duration = Field(
        default=_GATEWAY.grace_s, description="How long requests in flight may go on when modelgrid is told to stop."
    )
    tls: TlsSection | None = Field(default=None, description="Serve by TLS (https). When absent: without.")
    cors: CorsSection | None = Field(
        default=None, description="Let pages of other sites call it. When absent: browsers let none of them."
    )
    trusted_proxies: list[Network] = Field(
        default=[],
        description="Networks of proxies in front, such as `10.0.0.0/8`: what they say in `Forwarded` or "
        "`X-Forwarded-For` is taken for the caller's address. From others those headers count for nothing.",
    )
    log: LogSection = Field(default=LogSection(), description="A line for each request.")


class MachineSection(_Section):
    """What models may take of this machine."""

    memory: Size | None = Field(
        default=None,
        description="Memory that all models together may take: of each GPU, and on a machine without GPUs of main "
        "memory. When absent: 95 % of each GPU, or 80 % of main memory.",
    )
    main_memory: Size | None = Field(
        default=None,
        description="On a machine with GPUs: main memory that all models together may take beside them. When absent: "
        "80 % of it.",
    )
    gpus: list[Annotated[int, Field(ge=0, le=1023)]] | None = Field(
        default=None,
        description="The GPUs that models may use, as `nvidia-smi` numbers them: `[0, 1]`; `[]` for none. When absent: "
        "all, or those that `CUDA_VISIBLE_DEVICES` names.",
    )


class StorageSection(_Section):
    """Where large things lie. Relative paths are relative to this file."""

    environments: FilePath | None = Field(default=None, description="Folder of the engines' Python environments.")
    models: FilePath | None = Field(
        default=None, description="Folder of the weights that `modelgrid model pull` fetches."
    )


class NeedsSection(_Section):
    """What one replica needs."""

    memory: Size | None = Field(
        default=None,
        description="Memory that one replica takes at its peak, over all its GPUs, or of main memory where it has "
        "none. When absent it is measured once the model has run, and until then estimated from its weights.",
    )
    gpus: Gpus = Field(
        default=None,
        description="GPUs that one replica takes: `2` whole ones, `0.5` that share of one, `0` none (it lives in main "
        "memory). With `memory` as well, so much of them together. `auto`, as when absent: one GPU where there are "
        "some, or as many as the model needs where its engine can spread it (vllm: 1, 2, 4, 8).",
    )
    main_memory: Size | None = Field(
        default=None, description="Main memory that one replica takes beside its GPUs. When absent its engine knows."
    )


class SloSection(_Section):
    """A service-level objective: replicas are added until it is met, up to `max`."""

    ttft: Duration | None = Field(
        default=None, description="Time to first token: an answer begins within so long (`500ms`)."
    )
    attain: float = Field(
        default=_SCALING.attain,
        ge=0.01,
        le=1,
        allow_inf_nan=False,
        description="The share of requests for which it should hold.",
    )


class ScalingSection(_Section):
    """How many replicas there are, and when the last one goes."""

    min: int = Field(
        default=_SCALING.min, ge=0, le=1000, description="Replicas that are always kept. 0: started on demand."
    )
    max: int | None = Field(
        default=None, ge=1, le=1000, description="Replicas at most. When absent: 1, or `min` if more."
    )
    idle: Duration = Field(
        default=_SCALING.idle_s, description="A replica that had no request for so long is stopped, down to `min`."
    )
    target: Count = Field(
        default=_SCALING.target,
        description="Requests in flight for each replica, above which another replica is started.",
    )
    slo: SloSection = Field(default=SloSection(), description="An objective that decides instead of `target`.")


class LimitsSection(_Section):
    """What a model's callers may use at most."""

    queue: int = Field(
        default=_LIMITS.queue,
        ge=0,
        le=1_000_000,
        description="Requests that wait for a replica, in each gateway worker.",
    )
    wait: Duration = Field(default=_LIMITS.wait_s, description="How long one of them waits before it is told so.")
    progress: bool = Field(
        default=_LIMITS.progress,
        description="Callers of streams who wait get comments in the stream that say so, where their requests don't"
        " say otherwise with the header `x-modelgrid-progress`.",
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, le=10**9, description="Requests a minute, over all callers and workers."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, le=10**12, description="Tokens a minute, of prompts and answers together, over all of them."
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Requests in flight at once, over all of them."
    )


class PriceSection(_Section):
    """What a model costs its callers, in `usage.currency`. A change holds for what is used from then on."""

    input: Money = Field(default=0.0, description="A million tokens of prompts.")
    output: Money = Field(default=0.0, description="A million tokens of answers.")
    cached: Money | None = Field(
        default=None, description="A million tokens of prompts that the engine's cache held. When absent: as `input`."
    )
    request: Money = Field(default=0.0, description="A request, however it ends.")
    image: Money = Field(default=0.0, description="A picture.")
    second: Money = Field(default=0.0, description="A second of sound or film, where the engine tells its length.")


class UsageSection(_Section):
    """How `modelgrid usage` tells what callers have used."""

    currency: Annotated[Text, Field(max_length=12)] = Field(
        default="", description="What prices are in: a label for reports (`USD`)."
    )


class ParametersSection(_Section):
    """What is done to the top-level fields of JSON requests, in this order: `strip`, `default`, `set`, `cap`. Values in
    quotes are texts; others are numbers, `true`, `false` or `null` where they look like it."""

    set: dict[Parameter, Json] = Field(default={}, description="Fields with the value that they get, whoever asks.")
    default: dict[Parameter, Json] = Field(
        default={}, description="Fields with the value that they get where the caller sends none."
    )
    cap: dict[Parameter, Number] = Field(
        default={}, description="Fields with the largest number that they may have: a larger one becomes this one."
    )
    strip: list[Parameter] = Field(default=[], description="Fields that are taken out.")


class RoutingSection(_Section):
    """How a model's replicas are chosen among. A policy alone may be written as `routing: prefix`."""

    policy: Literal["least_outstanding", "session", "prefix"] = Field(
        default=_ROUTING.policy,
        description="`least_outstanding`: the one with the fewest requests in flight. `session`: the one that has "
        "served the session before. `prefix`: the one that has served the beginning of the conversation before.",
    )
    session: list[SessionPlace] = Field(
        default=[],
        description="Policy session: where a request's session is looked for, the first that it has: `header:NAME` or "
        f"`body:FIELD`. When absent: {', '.join(f'`{place}`' for place in SESSION)}.",
    )
    slack: float = Field(
        default=_ROUTING.slack,
        ge=1,
        le=1000,
        allow_inf_nan=False,
        description="Policies session and prefix: a replica may have this many times the mean in flight before another "
        "one takes over.",
    )

    @model_validator(mode="before")
    @classmethod
    def _policy_alone(cls, values: Any) -> Any:
        return {"policy": values} if isinstance(values, str) else values


class ModelSection(_Section):
    """One model. Which fields an engine uses is the engine's to say; one that it doesn't use is an error."""

    engine: Text | None = Field(
        default=None, description="What serves the model. Needed, but where `service_script` is given: then `custom`."
    )
    source: FilePath | None = Field(
        default=None,
        description="Where the weights come from: a hub id (`Qwen/Qwen2.5-7B-Instruct`), one of its GGUF files "
        "(`OWNER/NAME:Q4_K_M`, `OWNER/NAME:FILE.gguf`), a tag of Ollama's (`ollama:llama3.2:1b`), or a local path "
        "(starts with `/`, `./`, `../` or `~`, or exists relative to this file).",
    )
    aliases: list[Name] = Field(default=[], description="Further names that callers may use in `model`.")
    args: list[Word] = Field(
        default=[],
        description="Arguments for the engine, handed over as they are written (engine custom: as `command` is).",
    )
    env: dict[Variable, EnvValue] = Field(
        default={},
        description="Environment variables of the engine, handed over in the same way. Those that are called `…KEY`, "
        "`…TOKEN`, `…SECRET` or `…PASSWORD` are never shown.",
    )
    needs: NeedsSection = Field(default=NeedsSection(), description="What one replica takes.")
    scaling: ScalingSection = Field(
        default=ScalingSection(), description="How many replicas, and when the last one goes."
    )
    price: PriceSection = Field(default=PriceSection(), description="What it costs its callers, for reports of usage.")
    priority: int = Field(
        default=0,
        ge=-1000,
        le=1000,
        description="A model of higher priority gets memory first, and is the last that has to make room.",
    )
    sleep: Sleep = Field(
        default=None,
        description="Whether a replica may sleep instead of being stopped, where room is needed (vllm, custom): `1` "
        "keeps its weights in main memory, `2` reads them again; `off`, as when absent, stops it.",
    )
    limits: LimitsSection = Field(default=LimitsSection(), description="What its callers may use at most.")
    parameters: ParametersSection = Field(
        default=ParametersSection(), description="What is done to the parameters of its requests."
    )
    routing: RoutingSection = Field(
        default=RoutingSection(), description="How its replicas are chosen among: a policy, or fields below it."
    )
    operations: list[Operation] = Field(
        default=[],
        description="What it serves (`chat`, `embeddings`, …), where it is not what its engine and `type` say. What "
        "isn't among it is refused.",
    )
    command: list[Word] = Field(
        default=[],
        description="Engine custom: the program and its arguments. `{port}`, `{host}`, `{python}` and `{bin}` are "
        "filled in; `{{` stands for a brace, so `{{port}` is the text `{port}`. Runs in this file's folder.",
    )
    service_script: FilePath | None = Field(
        default=None,
        description="Engine custom: a Python program instead of a command, relative to this file or to the folder "
        "above it. Runs in an environment of its own, made from the `requirements.txt` beside it.",
    )
    script: FilePath | None = Field(default=None, description="The same as `service_script`.")
    requirements: FilePath | None = Field(
        default=None, description="A requirements file to make the engine's Python environment from."
    )
    cwd: FilePath | None = Field(default=None, description="Engine custom: the folder to run in.")
    port: Port | None = Field(default=None, description="Engine custom: a fixed port. When absent, one that is free.")
    health: UrlPath | None = Field(default=None, description="Path that answers 200 once the engine is up.")
    endpoint: UrlPath | None = Field(
        default=None,
        description="Engine custom: the path that it serves, where it serves one only (`/v1/chat/completions`).",
    )
    type: Text | None = Field(
        default=None,
        description="What kind of model it is: `text`, `vision`, `embedding`, `rerank`, `classify`, `image`, `audio`, "
        "`speech`, `transcription`, `music`, `video`, … It tells what it is asked, where its engine can't know.",
    )
    url: Url | None = Field(
        default=None, description="Engine remote: base URL of an OpenAI-compatible server (`http://127.0.0.1:8080/v1`)."
    )
    urls: list[Url] = Field(
        default=[],
        description="Engine remote: base URLs of several servers of the same model. Each is a replica, and all of them "
        "are used, unless `scaling` says otherwise.",
    )
    key: Key | None = Field(
        default=None,
        description="Engine remote: the key that the server asks for. Write `${NAME}`, not the key itself.",
    )
    served: Text | None = Field(
        default=None, description="The name that the engine knows the model by, where it is not this model's name."
    )
    start_timeout: Duration | None = Field(
        default=None, description=f"How long a start may take. When absent: {START_TIMEOUT_S:g} s."
    )
    startup_time: Duration | None = Field(default=None, description="The same as `start_timeout`.")
    health_timeout: Duration = Field(
        default=HEALTH_TIMEOUT_S,
        description="How long a ready replica's health check may fail, in a row, before the replica is replaced. "
        "Longer for an engine that can't answer it while it computes.",
    )
    stop_grace: Duration = Field(
        default=STOP_GRACE_S,
        description="How long a replica that was asked to stop may take before it is made to.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Let the model's own Python code run. Only where you trust it."
    )


class ChoiceSection(_Section):
    """One of the models behind a virtual one. A name alone may be written as `models: [NAME]`."""

    model: Name = Field(description="The model's name, as it is under `models`.")
    weight: float = Field(
        default=1.0, ge=0, le=1_000_000, allow_inf_nan=False, description="Its share, where `choose` is `weight`."
    )
    parameters: ParametersSection = Field(
        default=ParametersSection(), description="What is done to the parameters of requests that it gets in this way."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        return {"model": values} if isinstance(values, str) else values


class VirtualSection(_Section):
    """One name over several models: nothing is started for it, requests are served by the models behind it."""

    models: list[ChoiceSection] = Field(
        description="The models behind it, in order of preference: names, or fields as below."
    )
    choose: Literal["first", "weight"] = Field(
        default="first",
        description="`first`: the first one that is warm and has room. `weight`: by lot, each with its `weight`.",
    )
    spill_over: Count | None = Field(
        default=None,
        description="A model with so many requests waiting or in flight, for each ready replica, is full, and the next "
        "one is taken. When absent: never.",
    )
    fall_back: bool = Field(
        default=True, description="Whether the next one is taken when a model fails before its answer has begun."
    )
    aliases: list[Name] = Field(default=[], description="Further names that callers may use in `model`.")


class ConfigFile(_Section):
    """modelgrid.yaml: which models there are, and where they are served."""

    gateway: GatewaySection = Field(default=GatewaySection(), description="Where callers are served.")
    machine: MachineSection = Field(default=MachineSection(), description="What models may take.")
    storage: StorageSection = Field(default=StorageSection(), description="Where large things lie.")
    usage: UsageSection = Field(default=UsageSection(), description="How what callers use is reported.")
    models: dict[Name, ModelSection] = Field(
        default={},
        description="The models by name. A name is what callers write in `model`; it may hold `/`, `:` and `.`.",
    )
    virtual: dict[Name, VirtualSection] = Field(
        default={}, description="Further names, each over several of the models."
    )


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of modelgrid.yaml, for editors."""
    made = _for_editors(ConfigFile.model_json_schema(mode="validation"))
    engine = made["$defs"]["ModelSection"]["properties"]["engine"]
    engine["anyOf"] = [{"type": "string", "enum": list(ENGINES)}, _VARIABLE]
    # A word may stand for a section that has nothing else.
    policies = made["$defs"]["RoutingSection"]["properties"]["policy"]["enum"]
    routing = made["$defs"]["ModelSection"]["properties"]["routing"]
    routing["anyOf"] = [{"$ref": routing.pop("$ref")}, {"type": "string", "enum": policies}]
    log = made["$defs"]["GatewaySection"]["properties"]["log"]
    which = made["$defs"]["LogSection"]["properties"]["requests"]["enum"]
    log["anyOf"] = [{"$ref": log.pop("$ref")}, {"type": "string", "enum": which}]
    choices = made["$defs"]["VirtualSection"]["properties"]["models"]
    choices["items"] = {"anyOf": [choices["items"], {"type": "string"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _for_editors(node: Any) -> Any:
    """Without pydantic's titles; ``${NAME}`` may stand where a number or a truth value is asked for."""
    if isinstance(node, list):
        return [_for_editors(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _for_editors(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    if made.get("type") in ("integer", "number", "boolean"):
        bounds = {key: made.pop(key) for key in ("type", "minimum", "maximum") if key in made}
        made["anyOf"] = [bounds, _VARIABLE]
    return made
