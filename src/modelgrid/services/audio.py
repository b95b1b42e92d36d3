"""Sound: samples become a file or a stream in the usual formats, by FFmpeg's libraries (PyAV).

Samples are a numpy array of 32-bit floats from -1 to 1, of the shape ``(channels, frames)``.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeAlias

Samples: TypeAlias = Any  # numpy is in the environments of services only


class Format(StrEnum):
    """What a sound can be written as."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"

    @property
    def media_type(self) -> str:
        """For the head of an answer."""
        return _WRITTEN[self].media_type


@dataclass(frozen=True, slots=True)
class _Written:
    """How FFmpeg writes a format."""

    container: str
    codec: str
    media_type: str
    bit_rate: int | None = None  # of one channel; None: nothing is lost
    rate: int | None = None  # where it has one of its own; else the sound's, or the next that the codec takes


_WRITTEN: Final = {
    Format.MP3: _Written("mp3", "libmp3lame", "audio/mpeg", 96_000),
    Format.OPUS: _Written("ogg", "libopus", "audio/ogg", 64_000, 48_000),
    Format.AAC: _Written("adts", "aac", "audio/aac", 96_000),
    Format.FLAC: _Written("flac", "flac", "audio/flac"),
    Format.WAV: _Written("wav", "pcm_s16le", "audio/wav"),
    Format.PCM: _Written("s16le", "pcm_s16le", "audio/pcm", rate=24_000),  # OpenAI's: there is no head to tell
}

_AT_ONCE: Final = {"flush_packets": "1"}  # what is made is passed on, not gathered
# Microseconds. Ogg would gather a second of sound otherwise, and players take a file of one page for longer than it is.
_SHORT_PAGES: Final = {"page_duration": "50000"}


class Encoding(Protocol):
    """A sound that is being written, for whoever streams it."""

    def feed(self, samples: Samples) -> bytes:
        """Write more of it: what is ready to be sent, if only in part."""
        ...

    def finish(self) -> bytes:
        """The rest. The last call."""
        ...


class Encoder:
    """Writes a stream. Its head can't tell how long it will be: a wav's says "unknown", as FFmpeg's and OpenAI's do."""

    def __init__(self, form: Format, rate: int, channels: int = 1) -> None:
        self._sink = _Sink()
        self._writer = _Writer(self._sink, form, rate, channels, _AT_ONCE)

    def feed(self, samples: Samples) -> bytes:
        self._writer.write(samples)
        return self._sink.take()

    def finish(self) -> bytes:
        self._writer.close()
        return self._sink.take()


def encode(samples: Samples, form: Format, rate: int) -> bytes:
    """A whole file, whose head says how long it is."""
    file = io.BytesIO()
    writer = _Writer(file, form, rate, len(samples), {})
    writer.write(samples)
    writer.close()
    return file.getvalue()


def stretch(samples: Samples, rate: int, speed: float) -> Samples:
    """The same sound `speed` times as fast, at its pitch."""
    if speed == 1 or not samples.size:
        return samples
    av: Any = importlib.import_module("av")
    numpy: Any = importlib.import_module("numpy")
    graph = av.filter.Graph()
    nodes = [graph.add_abuffer(sample_rate=rate, format="fltp", layout=_layout(len(samples)), time_base=f"1/{rate}")]
    nodes += [graph.add("atempo", f"{tempo:.6f}") for tempo in _tempos(speed)]
    nodes += [graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    graph.push(_frame(av, samples, rate))
    graph.push(None)
    return numpy.concatenate([frame.to_ndarray() for frame in _pulled(av, graph)], axis=1)


def _tempos(speed: float) -> list[float]:
    """Steps of half speed at the slowest: that is as far as the filter goes in one."""
    return [0.5, *_tempos(speed * 2)] if speed < 0.5 else [speed]


def _pulled(av: Any, graph: Any) -> Iterator[Any]:
    while True:
        try:
            yield graph.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            return


class _Sink:
    """A file that can't be gone back in, as a connection is."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class _Writer:
    """Samples into a file of FFmpeg's."""

    def __init__(self, file: Any, form: Format, rate: int, channels: int, options: dict[str, str]) -> None:
        self._av: Any = importlib.import_module("av")
        written, self._rate = _WRITTEN[form], rate
        layout = _layout(channels)
        options = options | (_SHORT_PAGES if form is Format.OPUS else {})
        self._container = self._av.open(file, "w", format=written.container, options=options)
        at = written.rate or _nearest(self._av, written.codec, rate)
        self._track = self._container.add_stream(written.codec, rate=at, layout=layout)
        if written.bit_rate is not None:
            self._track.bit_rate = written.bit_rate * channels
        self._resampler = self._av.AudioResampler(self._track.codec_context.format, layout, at)

    def write(self, samples: Samples) -> None:
        if samples.size:  # FFmpeg takes no empty frame
            self._pass_on(self._resampler.resample(_frame(self._av, samples, self._rate)))

    def close(self) -> None:
        self._pass_on(self._resampler.resample(None))
        self._container.mux(self._track.encode(None))
        self._container.close()

    def _pass_on(self, frames: list[Any]) -> None:
        for frame in frames:
            self._container.mux(self._track.encode(frame))


def _nearest(av: Any, codec: str, rate: int) -> int:
    """The rate itself where the codec takes it, else the next higher one: resampling upwards loses nothing."""
    rates: list[int] | None = av.codec.Codec(codec, "w").audio_rates
    if not rates or rate in rates:
        return rate
    return min((higher for higher in rates if higher > rate), default=max(rates))


def _frame(av: Any, samples: Samples, rate: int) -> Any:
    numpy: Any = importlib.import_module("numpy")
    planes = numpy.ascontiguousarray(samples, dtype=numpy.float32)
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=_layout(len(planes)))
    frame.sample_rate = rate
    return frame


def _layout(channels: int) -> str:
    return {1: "mono", 2: "stereo"}[channels]
