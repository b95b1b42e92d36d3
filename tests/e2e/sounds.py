"""What comes out of a model of sounds, heard with FFmpeg's libraries; and a look into its service."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from e2e.daemon import Daemon, free_port, until

# Engines' environments take gigabytes: they are made once for all tests, and stay for the next run.
ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "environments"
FIRST_START_S = 900.0

# The libraries are in the service's environment, and its interpreter tells what they hear.
_LISTEN = """
import av, io, json, sys
container = av.open(io.BytesIO(sys.stdin.buffer.read()))
track, frames, peak = container.streams.audio[0], 0, 0.0
resampler = av.AudioResampler(format="flt")
for frame in container.decode(track):
    frames, rate = frames + frame.samples, frame.sample_rate
    peak = max([peak, *(abs(part.to_ndarray()).max() for part in resampler.resample(frame))])
print(json.dumps({
    "codec": track.codec_context.name, "rate": rate, "channels": track.codec_context.channels,
    "seconds": frames / rate, "peak": float(peak),
}))
"""


@dataclass(frozen=True)
class Heard:
    """A sound, as a player takes it."""

    codec: str
    rate: int
    channels: int
    seconds: float
    peak: float  # 1.0 is as loud as it can be


def started(folder: Path, models: dict[str, Any]) -> Daemon:
    """A modelgrid with these models."""
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "4GiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": models,
    }
    return Daemon(folder, config).start()


def hear(daemon: Daemon, model: str, sound: bytes) -> Heard:
    """Decode it whole."""
    return Heard(**json.loads(run_beside(daemon, model, _LISTEN, sound)))


def run_beside(daemon: Daemon, model: str, program: str, given: bytes = b"") -> bytes:
    """What a program prints that has the service's libraries."""
    python = psutil.Process(daemon.replicas(model)[0].pid).cmdline()[0]
    ran = subprocess.run([python, "-c", program], input=given, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


def running(daemon: Daemon, model: str) -> float:
    """How many requests the service computes now, as it says itself."""
    replica = daemon.replicas(model)[0]
    key = psutil.Process(replica.pid).environ()["MODELGRID_ENGINE_KEY"]
    url = f"{(replica.url or '').removesuffix('/v1')}/metrics"
    page = httpx.get(url, headers={"authorization": f"Bearer {key}"}, trust_env=False).text
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{_RUNNING} "))


def until_logged(daemon: Daemon, model: str, said: str) -> str:
    """The service's line that has `said` in it, once it is there."""

    def look() -> str | None:
        lines = daemon.run("logs", model).stdout.splitlines()
        return next((line for line in lines if said in line), None)

    return until(f"{model} logs {said!r}", look)


_RUNNING = "modelgrid_service_requests_running"
