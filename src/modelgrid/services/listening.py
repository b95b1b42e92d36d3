"""Sound as it is uploaded, decoded by ffmpeg (PyAV) piece by piece, so that an hour takes no more memory than minutes.

A piece ends where it is quiet, so that no word is cut. ffmpeg is told which formats it may open: among those it knows
are playlists, which would have it read this machine's files and its network on behalf of whoever uploads one.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, Final

RATE: Final = 16_000  # samples a second, as Whisper takes them
PIECE_S: Final = 300
QUIET_S: Final = 20  # how far back from a piece's end its quietest moment is looked for
MOMENT_S: Final = 0.1
FRAME_S: Final = 60  # of one frame; a codec's hold less than a second, but a file may claim one sample a second
LIMIT_S: Final = 24 * 3600  # of one upload; a few megabytes can hold a year of silence

FORMATS: Final = (
    *("aac", "ac3", "aiff", "amr", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "matroska,webm"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpeg", "mpegts", "ogg", "tta", "w64", "wav", "wv"),
)


class NoSound(ValueError):
    """An upload that nothing can be heard in. The message is for whoever sent it."""


def pieces(file: BinaryIO) -> Generator[Any]:
    """The sound of an audio or video file, as arrays of float32 with RATE samples a second, PIECE_S long at most.
    Raises NoSound. Blocks to decode, as each is asked for."""
    numpy: Any = importlib.import_module("numpy")
    size, held, total = PIECE_S * RATE, [], 0
    for chunk in _chunks(file):
        held.append(chunk)
        total += len(chunk)
        while total >= size:
            joined = numpy.concatenate(held)
            end = _quietest(numpy, joined[:size])
            yield joined[:end]
            held = [joined[end:]]
            total = len(joined) - end
    if total:
        yield numpy.concatenate(held)


def _quietest(numpy: Any, samples: Any) -> int:
    """Where to cut: amidst the quietest moment near the end."""
    moment = int(MOMENT_S * RATE)
    start = max(0, len(samples) - QUIET_S * RATE)
    moments = samples[start : start + (len(samples) - start) // moment * moment].reshape(-1, moment)
    return start + int(numpy.argmin((moments**2).mean(axis=1))) * moment + moment // 2


def _chunks(file: BinaryIO) -> Iterator[Any]:
    """Decoded frame by frame. What is broken within a file is left out, as players do."""
    av: Any = importlib.import_module("av")
    if not file.read(1):
        raise NoSound("cannot hear the file: it is empty")
    file.seek(0)
    try:
        allowed = {"format_whitelist": ",".join(FORMATS)}
        container = av.open(file, "r", container_options=allowed, metadata_errors="ignore")
    except av.error.FFmpegError:
        known = "flac, m4a, mp3, mp4, mpeg, ogg, wav, webm"
        raise NoSound(f"cannot hear the file: it is no audio or video that can be read (send one of {known})") from None
    with container:
        stream = container.streams.best("audio")
        if stream is None:
            raise NoSound("cannot hear the file: there is no sound in it, only pictures")
        seconds = 0.0
        for chunk in _resampled(av, container, stream):
            seconds += len(chunk) / RATE
            if seconds > LIMIT_S:
                raise NoSound(f"cannot hear the file: it is longer than {LIMIT_S // 3600} hours (send parts of it)")
            yield chunk
        if not seconds:
            raise NoSound("cannot hear the file: its sound can't be decoded, or there is none in it")


def _resampled(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Files that were put together of several change their rate and channels on the way: each has its resampler."""
    resampler, shape = None, None
    for frame in _frames(av, container, stream):
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if now != shape:
            yield from _passed(av, resampler, None)
            resampler, shape = av.AudioResampler(format="flt", layout="mono", rate=RATE), now
        frame.pts = None  # times in files are often broken, and nobody asks for them
        yield from _passed(av, resampler, frame)
    yield from _passed(av, resampler, None)


def _frames(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """What can be decoded of the file, up to where no packet can be found any more."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, IndexError):  # IndexError: PyAV's, of a stream that begins amidst the file
            return
        if packet is None:
            return
        with contextlib.suppress(av.error.FFmpegError):
            yield from [frame for frame in packet.decode() if 0 < frame.samples <= FRAME_S * frame.sample_rate]


def _passed(av: Any, resampler: Any, frame: Any) -> Iterator[Any]:
    """`frame` through `resampler`, or what is left in it; nothing of a frame of which no sound can be made."""
    if resampler is not None:
        with contextlib.suppress(av.error.FFmpegError):
            yield from [found.to_ndarray()[0] for found in resampler.resample(frame)]
