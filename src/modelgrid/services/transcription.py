"""Speech to text by faster-whisper: POST /v1/audio/transcriptions and /v1/audio/translations.

``python -m modelgrid.services.transcription --model Systran/faster-whisper-small``, a folder, or any Whisper of
transformers' (openai/whisper-small), which is converted once.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Final, Literal

from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, Field
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute

from modelgrid.services import whisper
from modelgrid.services.accelerator import parse_bytes
from modelgrid.services.forms import checked
from modelgrid.services.languages import code_of
from modelgrid.services.listening import NoSound, pieces
from modelgrid.services.service import Options, Service, ServiceError, Turn
from modelgrid.services.transcripts import (
    Format,
    Granularity,
    Segment,
    Task,
    Transcript,
    Word,
    brief,
    deltas,
    event,
    placed,
    srt,
    usage,
    verbose,
    vtt,
)

BEAMS: Final = 5
UPLOAD_BYTES: Final = 1 << 30
# Tried one after the other while what is heard seems wrong, as OpenAI has it where no temperature is asked for.
TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
CONTEXT_CHARACTERS: Final = 1000  # of what was heard before, for the next piece; the model takes 223 tokens of them
CUBLAS: Final = ("libcublasLt.so.12", "libcublas.so.12")  # what CTranslate2 looks for; the second needs the first

Decode = Callable[[BinaryIO], Generator[Any]]


def _language(asked: object) -> object:
    if not isinstance(asked, str):
        return asked
    if asked == "auto":  # as some clients write what OpenAI's leave out
        return None
    code = code_of(asked)
    if code is None:
        raise ValueError(f"{asked!r} is no language that Whisper knows: write its ISO 639-1 code, such as en, de or zh")
    return code


def _spoken(asked: object) -> object:
    if asked == "diarized_json":
        raise ValueError("diarized_json: the model can't tell who speaks (try verbose_json, which tells when)")
    return asked


class Detection(BaseModel):
    """How speech is told from silence: ``chunking_strategy``, which is "auto" or an object."""

    type: Literal["server_vad"] = "server_vad"
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    prefix_padding_ms: Annotated[int, Field(ge=0, le=10_000)] | None = None
    silence_duration_ms: Annotated[int, Field(ge=0, le=60_000)] | None = None


def _detected(asked: object) -> object:
    if asked == "auto":
        return Detection()
    if isinstance(asked, str):
        try:
            return json.loads(asked)  # as curl sends an object
        except (ValueError, RecursionError):
            raise ValueError(f"{asked[:100]!r} is neither auto nor an object of type server_vad") from None
    return asked


class Asked(BaseModel):
    """The form's fields, but for the file."""

    language: Annotated[str | None, BeforeValidator(_language)] = None
    prompt: str | None = None
    response_format: Annotated[Format, BeforeValidator(_spoken)] = Format.JSON
    temperature: float = Field(0.0, ge=0, le=1)
    timestamp_granularities: list[Granularity] = []
    chunking_strategy: Annotated[Detection | None, BeforeValidator(_detected)] = None
    stream: bool = False


class Transcription(Service):
    """The service. One upload is heard at a time, a piece of minutes after the other."""

    name: ClassVar[str] = "transcription"
    needs_model: ClassVar[bool] = True
    stand_in: ClassVar[str | None] = "transcription"
    body_bytes: int = UPLOAD_BYTES

    def __init__(self, options: Options | None = None) -> None:
        super().__init__(options)
        self._model: Any = None
        self._decode: Decode = pieces
        self._detects = False
        self._beams: int | None = None
        self._compute_type: str | None = None

    @classmethod
    def arguments(cls, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--beam-size", type=int, metavar="N", help=f"guesses that are followed at once; default: {BEAMS}")
        add("--compute-type", metavar="TYPE", help="float32, int8, …; default: float16 on a GPU, int8 on a CPU")
        add("--vad", action="store_true", help="leave out silence, also where a request doesn't ask for it")
        add("--upload-limit", type=parse_bytes, default=UPLOAD_BYTES, metavar="BYTES", help="default: 1 GiB")

    def configure(self, arguments: argparse.Namespace) -> None:
        self._beams = arguments.beam_size
        self._compute_type = arguments.compute_type
        self._detects = arguments.vad
        self.body_bytes = arguments.upload_limit

    def load(self) -> None:
        """Load the weights, and listen once, so that the first request doesn't pay for it."""
        folder = whisper.loadable(_folder(self.weights()))
        _load_cublas()
        ctranslate2: Any = importlib.import_module("ctranslate2")
        library: Any = importlib.import_module("faster_whisper")
        kind, _, index = (self.options.device or "auto").partition(":")
        has_gpu = kind == "cuda" or (kind == "auto" and ctranslate2.get_cuda_device_count() > 0)
        device = "cuda" if has_gpu else "cpu"
        self.log.info("loading %s (%s)", folder, device)
        self._beams = self._beams or _usual_beams(folder)
        model = library.WhisperModel(
            str(folder),
            device=device,
            device_index=int(index or 0),
            compute_type=self._compute_type or _quickest(ctranslate2.get_supported_compute_types(device)),
            cpu_threads=0 if "OMP_NUM_THREADS" in os.environ else _cores(),  # 0: as that says
        )
        logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # it tells of every request
        self.take(model)
        numpy: Any = importlib.import_module("numpy")
        list(model.transcribe(numpy.zeros(16_000, "float32"), temperature=0.0)[0])

    def take(self, model: Any, decode: Decode = pieces) -> None:
        """Serve `model`, a WhisperModel; `decode` makes arrays of sound, as it takes them, of an upload."""
        self._model = model
        self._decode = decode

    def routes(self) -> list[BaseRoute]:
        return [
            APIRoute("/v1/audio/transcriptions", self.transcribe, methods=["POST"], response_model=None),
            APIRoute("/v1/audio/translations", self.translate, methods=["POST"], response_model=None),
        ]

    async def transcribe(self, request: Request) -> Response:
        return await self._answer(request, Task.TRANSCRIBE)

    async def translate(self, request: Request) -> Response:
        return await self._answer(request, Task.TRANSLATE)

    async def _answer(self, request: Request, task: Task) -> Response:
        file, asked = await read_form(request, task)
        self._check(asked, task)
        hearing = Hearing(self._model, asked, task, self._beams or BEAMS, detects=self._detects)
        if asked.stream:
            events = await self.stream(request, lambda turn: self._events(turn, hearing, file))
            return StreamingResponse(events, media_type="text/event-stream")
        return shaped(await self.run(request, lambda turn: self._whole(turn, hearing, file)), asked)

    def _check(self, asked: Asked, task: Task) -> None:
        """What the fields can't say by themselves. Raises ServiceError."""
        known = self._model.supported_languages
        if asked.language and asked.language not in known:
            said = f"cannot hear {asked.language!r}: {self.known_as} knows {', '.join(known)}"
            raise ServiceError(400, said, param="language", code="invalid_value")
        if task is Task.TRANSLATE and len(known) == 1:
            raise ServiceError(400, f"cannot translate: {self.known_as} knows one language only", code="invalid_value")

    def _whole(self, turn: Turn, hearing: Hearing, file: BinaryIO) -> Transcript:
        segments = tuple(self._steps(turn, hearing, file))
        return hearing.transcript(segments)

    def _events(self, turn: Turn, hearing: Hearing, file: BinaryIO) -> Iterator[bytes]:
        segments: list[Segment] = []

        def noted() -> Iterator[Segment]:
            for segment in self._steps(turn, hearing, file):
                segments.append(segment)
                yield segment

        for delta in deltas(noted()):
            yield event("transcript.text.delta", delta=delta)
        transcript = hearing.transcript(tuple(segments))
        yield event("transcript.text.done", text=transcript.text, usage=usage(transcript))

    def _steps(self, turn: Turn, hearing: Hearing, file: BinaryIO) -> Iterator[Segment]:
        """The segments as they are heard, for as long as somebody waits for them."""
        try:
            with contextlib.closing(file), contextlib.closing(self._decode(file)) as sound:
                for number, segment in enumerate(hearing.segments(sound, turn), 1):
                    turn.step(number)
                    yield segment
        except NoSound as error:
            raise ServiceError(400, str(error), param="file", code="invalid_audio") from None


class Hearing:
    """One upload, as it is heard."""

    def __init__(self, model: Any, asked: Asked, task: Task, beams: int, *, detects: bool) -> None:
        self._model = model
        self._task = task
        self._language = asked.language
        self._context = asked.prompt or ""
        self._seconds = 0.0
        self._settings = {
            "task": task.value,
            "beam_size": beams,
            "temperature": (asked.temperature,) if asked.temperature else TEMPERATURES,
            "word_timestamps": Granularity.WORD in asked.timestamp_granularities,
            **_detection(asked.chunking_strategy, detects=detects),
        }

    def segments(self, sound: Iterator[Any], turn: Turn) -> Iterator[Segment]:
        """What is heard in the pieces of `sound`, in order."""
        reached_s, rate = 0.0, self._model.feature_extractor.sampling_rate
        for piece in sound:
            turn.step(turn.done or 0)
            began_s, self._seconds = self._seconds, self._seconds + len(piece) / rate
            found, told = self._model.transcribe(
                piece, language=self._language, initial_prompt=self._context or None, **self._settings
            )
            self._language = self._language or told.language
            for heard in found:
                segment = placed(_segment(heard, began_s), reached_s, self._seconds)
                if segment.text.strip():
                    reached_s = segment.end_s
                    self._context = (self._context + segment.text)[-CONTEXT_CHARACTERS:]
                    yield segment

    def transcript(self, segments: tuple[Segment, ...]) -> Transcript:
        """All of it, once it was heard."""
        return Transcript(segments, self._seconds, self._language or "en", self._task)


async def read_form(request: Request, task: Task) -> tuple[BinaryIO, Asked]:
    """The upload and the fields. Raises ServiceError, and RequestValidationError for what pydantic refuses."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ServiceError(400, "cannot read the request: it is no form (send multipart/form-data with a file)")
    form = await request.form()
    upload = form.get("file")
    if upload is None:
        raise ServiceError(400, "'file' is missing", param="file", code="missing_required_parameter")
    if not isinstance(upload, UploadFile):
        said = "'file' is text: send the audio as a file, with a file name (curl: -F file=@speech.mp3)"
        raise ServiceError(400, said, param="file", code="invalid_value")
    fields = _fields(form)
    if task is Task.TRANSLATE:
        fields.pop("stream", None)  # OpenAI streams no translations, and ignores the wish
    asked = checked(Asked, fields)
    _check_together(asked)
    return upload.file, asked


def shaped(transcript: Transcript, asked: Asked) -> Response:
    """The answer, in the shape that was asked for."""
    match asked.response_format:
        case Format.JSON:
            return JSONResponse(brief(transcript))
        case Format.VERBOSE_JSON:
            return JSONResponse(verbose(transcript, asked.timestamp_granularities))
        case Format.TEXT:
            return PlainTextResponse(f"{transcript.text}\n")
        case Format.SRT:
            return PlainTextResponse(srt(transcript.segments))
        case Format.VTT:
            return PlainTextResponse(vtt(transcript.segments), media_type="text/vtt")


def _fields(form: FormData) -> dict[str, Any]:
    """The form as an object: ``a[]`` is a list, ``a[b]`` a field of an object. What is left empty isn't there."""
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        name, _, inner = key.removesuffix("]").partition("[")
        if value == "" or isinstance(value, UploadFile):
            continue
        if inner:
            held = fields.setdefault(name, {})
            if isinstance(held, dict):
                held[inner] = value
        elif name == "timestamp_granularities":
            held = fields.setdefault(name, [])
            if isinstance(held, list):
                held.append(value)
        else:
            fields[name] = value
    return fields


def _check_together(asked: Asked) -> None:
    """What doesn't go together. Raises ServiceError."""
    if asked.timestamp_granularities and asked.response_format is not Format.VERBOSE_JSON:
        said = f"'timestamp_granularities' goes with response_format=verbose_json, not {asked.response_format}"
        raise ServiceError(400, said, param="timestamp_granularities", code="invalid_value")
    if asked.stream and asked.response_format not in (Format.JSON, Format.TEXT):
        said = f"cannot stream {asked.response_format}: 'stream' goes with response_format=json or text"
        raise ServiceError(400, said, param="response_format", code="invalid_value")


def _detection(asked: Detection | None, *, detects: bool) -> dict[str, Any]:
    """The library's words for it."""
    if asked is None:
        return {"vad_filter": detects}
    told = {
        "threshold": asked.threshold,
        "speech_pad_ms": asked.prefix_padding_ms,
        "min_silence_duration_ms": asked.silence_duration_ms,
    }
    parameters = {name: value for name, value in told.items() if value is not None}
    return {"vad_filter": True, "vad_parameters": parameters}


def _segment(heard: Any, began_s: float) -> Segment:
    """A segment of the library's: its times are from the piece's beginning, and some numbers are numpy's."""
    return Segment(
        start_s=began_s + float(heard.start),
        end_s=began_s + float(heard.end),
        text=heard.text.rstrip(),
        words=tuple(_word(word, began_s) for word in heard.words or ()),
        tokens=tuple(heard.tokens),
        seek=heard.seek + round(began_s * 100),
        temperature=float(heard.temperature or 0.0),
        average_logprob=float(heard.avg_logprob),
        compression_ratio=float(heard.compression_ratio),
        no_speech_probability=float(heard.no_speech_prob),
    )


def _word(heard: Any, began_s: float) -> Word:
    return Word(began_s + float(heard.start), began_s + float(heard.end), heard.word)


def _folder(weights: str) -> Path:
    """Where they are on this machine; of a repository, what is needed is pulled."""
    if Path(weights).is_dir():
        return Path(weights)
    hub: Any = importlib.import_module("huggingface_hub")
    return Path(hub.snapshot_download(weights, allow_patterns=list(whisper.PATTERNS)))


def _usual_beams(folder: Path) -> int:
    """As the weights' authors have it."""
    told = folder / "generation_config.json"
    return int(json.loads(told.read_bytes()).get("num_beams") or BEAMS) if told.is_file() else BEAMS


def _quickest(supported: set[str]) -> str:
    """Of what the device can compute in: what takes little memory, and loses little by it."""
    wanted = ("float16", "float32") if "float16" in supported else ("int8", "float32")
    return next(kind for kind in wanted if kind in supported)


def _cores() -> int:
    """As many as this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_cublas() -> None:
    """CTranslate2 looks for CUDA's library where the system has its own; a package's is found once it is loaded."""
    found = importlib.util.find_spec("nvidia")
    for place in (found.submodule_search_locations or []) if found else []:
        for name in CUBLAS:
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(Path(place) / "cublas" / "lib" / name), ctypes.RTLD_GLOBAL)


if __name__ == "__main__":
    Transcription.main()
