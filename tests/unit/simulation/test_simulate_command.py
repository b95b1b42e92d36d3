"""`modelgrid simulate`, and the how-to that teaches it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "plan-capacity.md"
CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02}.6805900,{100 + second},20\n" for second in range(40)
)


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_how_to_works_as_it_is_written(tmp_path: Path, simulate: Run) -> None:
    (tmp_path / "trace.jsonl").write_text(blocks("json")[0])
    (tmp_path / "cluster.yaml").write_text(blocks("yaml")[0])
    for block in blocks("sh"):
        program, command, *words = shlex.split(block)
        assert (program, command) == ("modelgrid", "simulate")
        done = simulate(*words)
        assert done.returncode == 0, done.stderr
        assert "answered in time" in done.stdout
    assert "for the machines" in done.stdout  # the last one has prices
    assert ET.fromstring((tmp_path / "plan.svg").read_text()).tag.endswith("svg")


def test_a_recorded_trace_is_spread_over_models(tmp_path: Path, simulate: Run) -> None:
    (tmp_path / "azure.csv").write_text(CSV)
    words = ["azure.csv", "--models", "zipf:1.1:7", "--made-up", "3x16GB", "--machines", "2xL40S", "--json"]
    done = simulate(*words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["all"]["requests"] == 40
    assert sum(model["requests"] for model in told["models"].values()) == 40
    assert told["all"]["completed"] == 40
    assert told["usage"]["starts"] >= 3
    assert set(told["all"]["ttft_s"]) == {"p50", "p95", "p99"}
    assert simulate(*words).stdout == done.stdout  # the same every time


def test_the_models_of_the_configuration_are_simulated(tmp_path: Path, simulate: Run) -> None:
    (tmp_path / "modelgrid.yaml").write_text(
        "models:\n  mine: {engine: custom, command: [true, '{port}'], needs: {memory: 2GiB}}\nmachine: {memory: 4GiB}\n"
    )
    (tmp_path / "azure.csv").write_text(CSV)
    done = simulate("azure.csv", "--model", "mine", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"]["mine"]["requests"] == 40


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "name a TRACE, or make one with --synthetic KIND"),
        (["--synthetic", "zigzag", "--made-up", "2x1GB", "--machines", "L4"], 2, "there are turns, zipf, bursts"),
        (["none.csv", "--made-up", "2x1GB", "--machines", "L4"], 1, "cannot read the trace none.csv"),
        (["--synthetic", "zipf", "--made-up", "2x1GB", "--machines", "8xH1000"], 1, "did you mean H100?"),
        (["--synthetic", "zipf", "--made-up", "two", "--machines", "L4"], 1, "write for example 20x16GB"),
        (
            ["--synthetic", "zipf", "--duration", "soon", "--made-up", "2x1GB", "--machines", "L4"],
            2,
            "is not a duration",
        ),
        (
            ["--synthetic", "zipf", "--rate", "1e6", "--made-up", "2x1GB", "--machines", "L4"],
            2,
            "cannot make a trace of 1,800,000,000 requests: --rate times --duration is at most 1,000,000",
        ),
        (["--synthetic", "zipf", "--rate", "inf", "--made-up", "2x1GB", "--machines", "L4"], 2, "is at most"),
        (["--synthetic", "zipf", "--rate", "nan", "--made-up", "2x1GB", "--machines", "L4"], 2, "are above 0"),
        (["--synthetic", "zipf", "--model", "m1", "--made-up", "2x1GB", "--machines", "L4"], 2, "are for a TRACE"),
        (["azure.csv", "--made-up", "2x1GB", "--machines", "L4"], 1, "line 2 names no model (add --model NAME"),
        (
            ["azure.csv", "--model", "x", "--made-up", "2x1GB", "--machines", "L4"],
            1,
            "cannot simulate x: there are m1, m2",
        ),
    ],
)
def test_what_cannot_be_simulated_is_told(
    tmp_path: Path, simulate: Run, words: list[str], code: int, told: str
) -> None:
    (tmp_path / "azure.csv").write_text(CSV)
    done = simulate(*words)
    assert done.returncode == code, done.stderr
    assert told in " ".join(done.stderr.split()), done.stderr


@pytest.mark.parametrize(("words", "is_shown"), [([], True), (["--json"], False)])
def test_progress_is_shown_on_a_terminal_but_not_beside_json(tmp_path: Path, words: list[str], is_shown: bool) -> None:
    shown = on_terminal(
        tmp_path, "--synthetic", "zipf", "--made-up", "4x20GB", "--machines", "L4", "--duration", "1m", *words
    )
    assert ("simulating requests" in shown) == is_shown, shown


def on_terminal(tmp_path: Path, *words: str) -> str:
    """What standard error shows where it is a terminal."""
    own, theirs = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "120"}
    with (
        (tmp_path / "stdout").open("w") as stdout,
        subprocess.Popen(
            [sys.executable, "-m", "modelgrid", "simulate", *words], stdout=stdout, stderr=theirs, env=environ
        ) as process,
    ):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # on Linux that is how a terminal ends
            while part := os.read(own, 4096):
                shown += part
        os.close(own)
        assert process.wait(60) == 0, shown
    assert (tmp_path / "stdout").read_text()
    return shown.decode()


def test_models_that_fit_nowhere_are_told_as_turned_away(simulate: Run) -> None:
    done = simulate("--synthetic", "steady", "--made-up", "1x90GB", "--machines", "L4", "--duration", "1m")
    assert done.returncode == 0, done.stderr
    assert "turned away: cannot place m1" in done.stdout
