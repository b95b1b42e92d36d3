"""Every kind of model in one file, on a machine with memory for three: its how-to, taken from the page and followed."""

from __future__ import annotations

import base64
import io
import json
import logging
import math
import random
import re
import shlex
import struct
import subprocess
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from e2e.daemon import Daemon, free_port, until
from e2e.test_real_engines import ENVIRONMENTS, FIRST_START_S
from e2e.watching import watched
from modelgrid.config import load_text

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "serve-every-modality.md").read_text()
(FILE,) = (yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))
COMMANDS = [block.replace("\\\n", " ").strip() for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)]
MIB = 1 << 20
EACH_MIB, BUDGET_MIB, ROUNDS = 1200, 3700, 2

_log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)


def test_what_the_page_shows_is_a_configuration() -> None:
    assert len(load_text(yaml.safe_dump(FILE), path=None, environ={}).models) == 7


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The page's models as stand-ins, in less memory."""
    models = {
        name: {**model, "source": "stand-in", "needs": {"memory": f"{EACH_MIB}MiB"}}
        for name, model in FILE["models"].items()
    }
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": f"{BUDGET_MIB}MiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": models,
    }
    made = Daemon(tmp_path_factory.mktemp("every"), config).start()
    yield made
    made.end()


def test_requests_of_all_kinds_in_random_order_are_all_answered_within_the_budget(
    daemon: Daemon, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    _log.warning("the seed is %d", seed)  # pytest shows it where the test fails
    asked = [command for command in COMMANDS if "VIDEO_ID" not in command] * ROUNDS
    random.Random(seed).shuffle(asked)
    with watched(daemon.home) as seen, ThreadPoolExecutor(7) as callers:
        folders = list(callers.map(lambda one: follow(daemon, tmp_path / str(one[0]), one[1]), enumerate(asked)))
    for folder in folders:
        (made,) = (file for file in folder.iterdir() if file.name != "meeting.wav")
        CHECKS[made.name](made.read_bytes())
    _log.warning("%s", seen)
    assert 0 < seen["most_bytes"] <= BUDGET_MIB * MIB, seen["most"]
    assert seen["together"] >= 2


def follow(daemon: Daemon, folder: Path, command: str) -> Path:
    """Run one of the page's commands in a folder of its own; a film is waited for."""
    folder.mkdir()
    (folder / "meeting.wav").write_bytes(tone())
    run(daemon, folder, command)
    if (folder / "wan.json").exists():
        id = json.loads((folder / "wan.json").read_text())["id"]
        status, content = (command.replace("VIDEO_ID", id) for command in COMMANDS if "VIDEO_ID" in command)
        until("the film is made", lambda: json.loads(run(daemon, folder, status))["status"] == "completed", 300.0)
        run(daemon, folder, content)
        (folder / "wan.json").unlink()
    return folder


def run(daemon: Daemon, folder: Path, command: str) -> bytes:
    words = shlex.split(command.replace("http://127.0.0.1:9000", daemon.url))
    assert words[0] == "curl"
    flags = ["-sS", "--noproxy", "*", "--max-time", str(FIRST_START_S), "--fail-with-body"]
    done = subprocess.run([words[0], *flags, *words[1:]], cwd=folder, capture_output=True, check=False)
    told = [file.read_bytes()[:500] for file in folder.iterdir() if file.suffix == ".json"]
    assert done.returncode == 0, (command, done.stderr, done.stdout, told)
    return done.stdout


def is_chat(answer: bytes) -> None:
    assert json.loads(answer)["choices"][0]["message"]["content"]


def is_vector(answer: bytes) -> None:
    (item,) = json.loads(answer)["data"]
    assert math.hypot(*item["embedding"]) == pytest.approx(1.0, abs=1e-3)


def is_picture(answer: bytes) -> None:

    (item,) = json.loads(answer)["data"]
    png = base64.b64decode(item["b64_json"])
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (512, 256)


def is_mp3(answer: bytes) -> None:
    assert answer[:3] == b"ID3" or answer[0] == 0xFF


def is_srt(answer: bytes) -> None:
    assert re.match(rb"1\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n\S", answer)


def is_wave(answer: bytes) -> None:
    with wave.open(io.BytesIO(answer)) as sound:
        assert sound.getnframes() / sound.getframerate() == pytest.approx(2.0, abs=0.05)


def is_film(answer: bytes) -> None:
    assert answer[4:8] == b"ftyp"


CHECKS = {
    "chat.json": is_chat,
    "embed.json": is_vector,
    "flux.json": is_picture,
    "speech.mp3": is_mp3,
    "meeting.srt": is_srt,
    "waltz.wav": is_wave,
    "waves.mp4": is_film,
}


def tone() -> bytes:
    """A wav of three seconds."""
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(n / 6))) for n in range(48_000)))
    return made.getvalue()
