"""`modelgrid why` explains a small hour of a real modelgrid: every event is told, and needs no glossary."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.daemon import Daemon, faulty, free_port, until

SLOW = {"x-faulty": '{"delay": 2}'}

MODELS = {
    "qwen": faulty("--health-delay", "0.5", memory="200MiB", scaling={"max": 2, "target": 2}),
    "mistral": faulty(memory="400MiB", scaling={"idle": "1s"}),
    "broken": faulty("--exit-at-start", "3", memory="100MiB"),
    "huge": faulty(memory="2GiB"),
}


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A modelgrid to which all that there is to explain has happened."""
    config = {"gateway": {"port": free_port()}, "machine": {"memory": "500MiB"}, "models": MODELS}
    daemon = Daemon(tmp_path_factory.mktemp("why") / "home", config)
    try:
        daemon.start()
        live_through(daemon)
        yield daemon
    finally:
        daemon.end()


def live_through(daemon: Daemon) -> None:
    with ThreadPoolExecutor(8) as callers:
        for answer in [callers.submit(slow_chat, daemon, "qwen") for _ in range(4)]:  # a start, and one more
            assert answer.result() == 200
    assert daemon.chat("mistral").status_code == 200  # both make room
    assert daemon.chat("broken").status_code == 503  # tried until it is given up
    assert daemon.chat("huge").status_code == 503
    daemon.until_state("mistral", "cold")  # idle
    assert daemon.run("model", "load", "qwen").returncode == 0
    daemon.until_state("qwen", "ready")
    (controller,) = daemon.controllers()
    controller.kill()
    controller.wait(10)
    until("another controller goes on", lambda: "found" in whats(daemon, "qwen"))
    assert daemon.run("model", "unload", "qwen").returncode == 0
    until("the last replica is gone", lambda: not daemon.replicas("qwen") and whats(daemon, "qwen")[-1] == "gone")


def slow_chat(daemon: Daemon, model: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    with daemon.client() as client:
        return client.post("/v1/chat/completions", json=body, headers=SLOW).status_code


def whats(daemon: Daemon, model: str) -> list[str]:
    from modelgrid.client import ControlError, NotRunning

    try:
        return [event.what for event in daemon.events(model)]
    except (NotRunning, ControlError):
        return [""]


def story(daemon: Daemon, model: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(daemon.run("why", model, "--json", "-n", "1000").stdout)
    return told


def said(daemon: Daemon, *words: str) -> str:
    """What a screen says, in one line."""
    return re.sub(r"\s+", " ", daemon.run("why", *words).stdout)


@pytest.mark.parametrize("model", MODELS)
def test_every_event_is_told_and_none_twice(hour: Daemon, model: str) -> None:
    told = story(hour, model)
    assert told["events"]
    assert sum(line["events"] for chapter in told["story"] for line in chapter["lines"]) == len(told["events"])
    starts = Counter(event["replica"] for event in told["events"] if event["what"] == "start")
    folded = sum(chapter["folded"] for chapter in told["story"])
    assert sum(1 for chapter in told["story"] if chapter["replica"]) + folded == len(starts)


@pytest.mark.parametrize("model", MODELS)
def test_every_sentence_is_whole_and_made_from_facts(hour: Daemon, model: str) -> None:
    told = story(hour, model)
    lines = [line["text"] for chapter in told["story"] for line in chapter["lines"]]
    for text in [told["headline"], *told["next"], *lines]:
        assert re.match(r"[A-Z]|modelgrid|" + model, text), text
        assert text.endswith((".", ":")), text
        # No replica is named by an id alone, and nothing of the code's own words shows through.
        assert not re.search(r"None|drain|lap\b|in_flight|table|\b\d{6,}\b", text), text
    decisions = [event for event in told["events"] if event["what"] in ("start", "drain", "stop", "refuse")]
    assert all(event["reason"] for event in decisions)


def test_a_life_is_told_from_its_start_to_the_memory_that_is_free_again(hour: Daemon) -> None:
    text = said(hour, "qwen")
    for part in (
        "modelgrid started it in main memory, because",
        "It needed 200 MiB of memory, and 500 MiB were free there.",
        "It was ready for requests after",
        "loading the model",
        "to make room for mistral, for which 1 request had waited up to",
        "so it was stopped.",
        "later, and its memory (200 MiB) was free again.",
        "Somebody asked by hand that it be loaded and stay so (modelgrid model load).",
        "modelgrid's controller was started again and found it still running",
        "because somebody asked for it by hand (modelgrid model unload)",
    ):
        assert part in text


def test_a_second_replica_is_explained_with_the_numbers_that_asked_for_it(hour: Daemon) -> None:
    assert re.search(
        r"because there were (\d requests? in progress( and \d waiting)?) for 1 replica, where each should have 2 at "
        r"most \(scaling\.target\)",
        said(hour, "qwen"),
    )


def test_an_idle_end_says_how_long_it_was_idle(hour: Daemon) -> None:
    text = said(hour, "mistral")
    assert re.search(r"because it had had no request for 1(\.\d)? s, where 1 s are allowed \(scaling\.idle\)", text)
    assert text.startswith("mistral is cold (not loaded): it was stopped at ")
    assert "The next request for it starts it. Its last start took " in text


def test_failures_are_told_with_what_the_engine_wrote_and_when_it_is_tried_again(hour: Daemon) -> None:
    text = said(hour, "broken")
    for part in (
        "failed in the same way",
        "It had failed twice before.",
        "exited with code 3. The next try may be made at ",
        "It was failure 3 in a row, and each one makes the wait longer.",
        "The last lines that its engine wrote:",
        "RuntimeError: told to exit at the start with code 3",
        "As it had failed 3 times in a row, requests for it were answered with an error until the next try at ",
        "What its engine wrote: modelgrid logs broken",
    ):
        assert part in text


def test_a_refusal_says_what_is_missing_and_what_to_do(hour: Daemon) -> None:
    text = said(hour, "huge")
    assert text.startswith("huge is unavailable: cannot place huge: it needs 2.0 GiB, models may take 500 MiB")
    assert "From then on requests for it were answered with an error: cannot place huge" in text


def test_without_a_model_it_is_an_account_of_all_of_them(hour: Daemon) -> None:
    lines = hour.run("why").stdout.splitlines()
    assert lines[0] == "What happened in the last hour:"
    moments = [line.split()[0] for line in lines[2:-2]]
    assert moments == sorted(moments)
    text = "\n".join(lines)
    assert {line.split()[1] for line in lines[2:-2]} == set(MODELS)
    assert re.search(r"qwen +It was stopped, to make room for mistral", text)
    assert re.search(r"broken +It was started .*, and failed: exited with code 3\. This happened 3 times", text)


def test_a_misspelt_name_is_guessed(hour: Daemon) -> None:
    done = hour.run("why", "qwne")
    assert (done.returncode, "did you mean 'qwen'?" in done.stderr) == (1, True)


PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "understand-what-happened.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^\$ modelgrid (.*)$", PAGE, re.MULTILINE))
def test_the_commands_of_the_how_to_work(hour: Daemon, line: str) -> None:
    assert hour.run(*line.split()).returncode == 0


def test_the_how_to_shows_the_sentences_as_they_are(hour: Daemon) -> None:
    """Moments, numbers and places differ; the words don't."""
    page, real = plain(PAGE), plain(" ".join(said(hour, model) for model in MODELS) + said(hour))
    for sentence in (
        "modelgrid started it #, because a request came for it while no replica was running.",
        "It needed # of memory, and # were free there.",
        "Its process was gone # later, and its memory (#) was free again.",
        "modelgrid sent it no more requests, to make room for mistral, for which # had waited up to #.",
        "What happened in the last hour. A replica is one running copy of the model.",
        "The next request for it starts it. Its last start took #.",
    ):
        assert sentence in page
        assert sentence in real


def plain(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"on gpu\d|in main memory", "#", text)
    return re.sub(r"\d+(\.\d+)? (s|min|[GM]iB|requests?)\b", "#", text)
