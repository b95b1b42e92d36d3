"""What comes out of models of pictures and films, looked at; and a look into their services."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import psutil

from e2e.daemon import LOOPBACK, Daemon, free_port, until

# Engines' environments take gigabytes: they are made once for all tests, and stay for the next run.
ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "environments"
FIRST_START_S = 900.0

PINS = Path(__file__).parent / "ffprobe"
PROBE = Path(__file__).parents[2] / ".cache" / "ffprobe"  # installed once, and used without a network afterwards
INSTALL_S = 240.0

# The library is in the service's environment, and its interpreter tells what it sees.
_LOOK = """
import io, json, sys
from PIL import Image
picture = Image.open(io.BytesIO(sys.stdin.buffer.read()))
picture.load()
colours = picture.convert("RGB")
sides = [list(colours.crop(box).tobytes()) for box in (
    (0, 0, picture.width // 2, picture.height), (picture.width // 2, 0, picture.width, picture.height))]
print(json.dumps({"format": picture.format, "width": picture.width, "height": picture.height, "halves": sides}))
"""


@dataclass(frozen=True)
class Look:
    """A picture, as a viewer takes it. `halves`: the bytes of its colours, left and right."""

    format: str
    width: int
    height: int
    halves: tuple[list[int], list[int]]


def started(folder: Path, models: dict[str, Any]) -> Daemon:
    """A modelgrid with these models."""
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "4GiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": models,
    }
    return Daemon(folder, config).start()


def look(daemon: Daemon, model: str, picture: bytes) -> Look:
    """Decode it whole."""
    python = psutil.Process(daemon.replicas(model)[0].pid).cmdline()[0]
    ran = subprocess.run([python, "-c", _LOOK], input=picture, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    return Look(**json.loads(ran.stdout))


def size_of_png(picture: bytes) -> tuple[int, int]:
    """What its head says."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def png(width: int, height: int, *, clear_left: bool = False) -> bytes:
    """A picture with colours that run across it; its left half may be transparent."""
    rows = b"".join(
        b"\0" + b"".join(bytes((4 * x % 256, 4 * y % 256, 99, _alpha(x, width, clear_left))) for x in range(width))
        for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def probe(film: Path) -> Any:
    """What ffprobe says of a film: its container, and its one stream, with every picture in it counted."""
    command = [
        str(_ffprobe()),
        "-v",
        "error",
        "-count_frames",
        "-show_format",
        "-show_streams",
        "-of",
        "json",
        str(film),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = json.loads(ran.stdout)
    (stream,) = told["streams"]
    return {**told["format"], **stream}


def metric(daemon: Daemon, model: str, name: str) -> float:
    """A number that the service tells of itself."""
    replica = daemon.replicas(model)[0]
    key = psutil.Process(replica.pid).environ()["MODELGRID_ENGINE_KEY"]
    url = f"{(replica.url or '').removesuffix('/v1')}/metrics"
    page = httpx.get(url, headers={"authorization": f"Bearer {key}"}, trust_env=False).text
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"{name} "))


def until_logged(daemon: Daemon, model: str, said: str) -> re.Match[str]:
    """Where the pattern `said` stands in the service's log, once it does."""
    return until(f"{model} logs {said!r}", lambda: re.search(said, daemon.run("logs", model).stdout))


def leaving(daemon: Daemon, path: str, body: dict[str, Any]) -> Iterator[None]:
    """Ask, and leave when the caller goes on."""
    caller = HTTPConnection(LOOPBACK, daemon.port)
    caller.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    yield
    caller.close()


def _alpha(x: int, width: int, clear_left: bool) -> int:
    return 0 if clear_left and x < width // 2 else 255


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _ffprobe() -> Path:
    """The pinned program, by npm, which has one for each system."""
    pins = ("package.json", "package-lock.json")
    if not all(_same(PINS / pin, PROBE / pin) for pin in pins) or not (PROBE / "done").exists():
        npm = shutil.which("npm")
        assert npm, "cannot install ffprobe: npm is not there (install Node 20 or later)"
        shutil.rmtree(PROBE, ignore_errors=True)
        PROBE.mkdir(parents=True)
        for pin in pins:
            shutil.copy(PINS / pin, PROBE / pin)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=PROBE, check=True, timeout=INSTALL_S)
        (PROBE / "done").touch()
    (program,) = (PROBE / "node_modules" / "@ffprobe-installer").glob("*/ffprobe")
    program.chmod(0o755)
    return program


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()
