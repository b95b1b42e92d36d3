"""`modelgrid fit`, and the how-to that teaches it: its page is run as it is written, on GPUs that are made up."""

from __future__ import annotations

import json
import re
import shlex
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from modelgrid.api.fake import FakeControl, fake_daemon
from modelgrid.cli.tree import root
from modelgrid.config import load_text
from modelgrid.config.paths import find_paths
from modelgrid.hardware import Gpu
from modelgrid.hardware import machine as measured
from modelgrid.hardware.memory import MainMemory
from modelgrid.spec import Share, Status
from modelgrid.spec.fit import Alternative, Asked, Fit, Space, User
from modelgrid.store import MemoryStore
from unit.hardware.nvml import Driver

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "share-a-gpu.md").read_text()
GIB = 1 << 30
CONFIG_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "vocab_size": 152064,
}

Run = Callable[..., Result]


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The command, in a folder of its own, on a machine with four GPUs."""
    monkeypatch.chdir(tmp_path)
    for name in ("MODELGRID_CONFIG", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("MODELGRID_HOME", str(tmp_path / "home")), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    gpus = tuple(Gpu("NVIDIA H100", f"GPU-{index}", 80 * GIB, index) for index in range(4))
    Driver(gpus).install(monkeypatch)
    monkeypatch.setattr(measured, "main_memory", lambda **_: MainMemory(120 * GIB, False))
    (tmp_path / "modelgrid.yaml").write_text("models: {}\n")
    return lambda *words: CliRunner().invoke(root, ["fit", *words])


@pytest.fixture
def seven_b(tmp_path: Path) -> Path:
    """Weights of seven billion parameters, as far as their header goes."""
    folder = tmp_path / "qwen-7b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG_7B))
    header = json.dumps({"all": {"dtype": "BF16", "shape": [7_615_616_512], "data_offsets": [0, 15_231_233_024]}})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header.encode())
        file.truncate(8 + len(header) + 15_231_233_024)  # sparse: it takes no room
    return folder


def test_the_page_shows_what_the_command_says(fit: Run, seven_b: Path) -> None:
    (command,) = blocks("sh")
    (expected,) = blocks("text")
    words = shlex.split(command)[2:]
    result = fit(*words)
    assert result.exit_code == 0, result.output
    assert result.output == expected.replace("PATH", str(seven_b.parent))


def test_what_the_page_configures_goes_where_it_says(fit: Run, tmp_path: Path) -> None:
    shared, large, machine = blocks("yaml")
    (tmp_path / "modelgrid.yaml").write_text(shared)
    told = {name: json.loads(fit(name, "--json").output) for name in ("chat", "embed")}
    assert {name: answer["shares"][0] for name, answer in told.items()} == {
        "chat": {"device": "gpu0", "memory_bytes": 30 * GIB},
        "embed": {"device": "gpu0", "memory_bytes": int(0.1 * 76 * GIB)},
    }
    (tmp_path / "modelgrid.yaml").write_text(large)
    answer = json.loads(fit("large", "--json").output)
    assert [share["device"] for share in answer["shares"]] == ["gpu0", "gpu1", "gpu2", "gpu3", "cpu"]
    (tmp_path / "modelgrid.yaml").write_text(machine)
    answer = json.loads(fit("stand-in", "--engine", "vllm", "--json").output)
    assert [(space["device"], space["memory_bytes"] // GIB) for space in answer["spaces"]] == [
        ("cpu", 64),
        ("gpu0", 60),
        ("gpu1", 60),
    ]
    for text in blocks("yaml"):
        load_text(text, path=None, environ={})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("./qwen-7b", "--memory", "100GiB"), "fits: there is room for it on gpu0 and gpu1."),
        (("./qwen-7b", "--memory", "400GiB"), "doesn't fit: it needs 400 GiB"),
        (("./qwen-7b", "--gpus", "8"), "doesn't fit: it needs 8 GPUs, the largest machine has 4"),
        (("./qwen-7b", "--gpus", "0"), "fits: there is room for it in main memory."),
        (("./qwen-7b", "--arg", "--max-model-len", "--arg", "1k"), "16 requests of 1,000"),
        (("./nothing",), "may fit or not: nobody knows how much memory it needs"),
    ],
)
@pytest.mark.usefixtures("seven_b")
def test_what_is_tried_out_counts_and_the_exit_code_says_whether_it_fits(
    fit: Run, words: tuple[str, ...], told: str
) -> None:
    result = fit(*words)
    assert told in result.output
    assert result.exit_code == (0 if "fits" in told or "requests" in told else 1)


def test_whose_size_nobody_knows_can_be_tried_with_one(fit: Run) -> None:
    assert "modelgrid fit owner/name --memory 16GiB" in fit("owner/name").output


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("a/b", "--engine", "vlm"), 2, "there is no engine 'vlm': there are vllm, sglang"),
        (("a/b", "--engine", "remote"), 1, "source: does not belong to engine remote"),
        (("a/b", "--memory", "lots"), 2, "'lots' is not a size"),
        (("a/b", "--gpus", "1.5"), 2, "'1.5' is not a number of GPUs"),
    ],
)
def test_what_cannot_be_asked_is_told(fit: Run, words: tuple[str, ...], code: int, told: str) -> None:
    result = fit(*words)
    assert (result.exit_code, told in result.output) == (code, True), result.output


STATUS = Status(
    version="1",
    now=0.0,
    started=0.0,
    config=None,
    config_error=None,
    memory_bytes=0,
    memory_source="",
    memory_planned_bytes=0,
    table=1,
    workers=1,
    address="",
    models=(),
    replicas=(),
    problem=None,
)
ANSWER = Fit(
    model="big",
    engine="vllm",
    verdict="makes_room",
    why="there is room for it on gpu0 once a-1 is stopped",
    machine="local",
    shares=(Share("gpu0", 40 * GIB),),
    spaces=(Space("local", "gpu0", 80 * GIB, 76 * GIB, (User("a-1", "a", "ready", 50 * GIB, True),), 40 * GIB),),  # type: ignore[arg-type]  # plain texts will do
    needs="40.0 GiB",
    memory_bytes=40 * GIB,
    main_bytes=0,
    basis="measured",
    parts=(),
    peak_bytes=36 * GIB,
    margin=1.1,
    alternatives=(Alternative("over 2 GPUs", 40 * GIB, (Share("gpu1", 20 * GIB), Share("gpu2", 20 * GIB))),),
    running=(),
)


def test_the_daemon_is_asked_where_one_runs(fit: Run) -> None:
    control = FakeControl(STATUS, answer=ANSWER)
    paths = find_paths()
    paths.make()
    with fake_daemon(control, MemoryStore(), paths.api_socket):
        result = fit("big", "--gpus", "2")
        assert control.asked == Asked("big", gpus=2.0)
        told = json.loads(fit("big", "--json").output)
        control.answer = None
        refused = fit("big")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "big (vllm) fits, if others make room: there is room for it on gpu0 once a-1 is stopped.",
        "",
        "It needs 40.0 GiB (as measured when it ran):",
        "  measured  36.0 GiB  the most that its last runs held; 10 % are added",
        "",
        "DEVICE      HELD      THIS      FREE        OF  HELD BY",
        "gpu0    50.0 GiB  40.0 GiB  26.0 GiB  76.0 GiB  a-1 50.0 GiB goes",
        "",
        "Other ways:",
        "  - over 2 GPUs: 40.0 GiB on gpu1 and gpu2, fits now",
    ]
    assert (told["fits"], told["live"], told["verdict"]) == (True, True, "makes_room")
    assert (refused.exit_code, "the fake was given no answer" in refused.output) == (1, True)
