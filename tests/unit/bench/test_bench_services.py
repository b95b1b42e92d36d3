"""The services' figures: what makes them works in small, and the page says what was kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from bench.services import callers
from bench.services.page import PAGE, page, table
from bench.services.run import Measured
from bench.services.subjects import SUBJECTS, sentence

from modelgrid.engines import ENGINES


@pytest.fixture
def server() -> Iterator[tuple[int, list[Any]]]:
    """A service that answers at once, and what it was asked."""
    asked: list[Any] = []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.headers["authorization"], self.path, body))
            self.send_response(400 if body["number"] < 0 else 200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made.server_address[1], asked
    made.shutdown()
    made.server_close()


def test_the_page_is_what_was_kept() -> None:
    assert PAGE.read_text() == page(), "run: python -m bench.services.page"


def test_callers_ask_for_different_things_and_every_answer_counts(server: tuple[int, list[Any]]) -> None:
    port, asked = server
    rate = callers.rate(port, "key", "/v1/x", lambda number: {"number": number}, 4, 0.2)
    assert rate > 0
    assert {(key, path) for key, path, _ in asked} == {("Bearer key", "/v1/x")}
    assert sorted(body["number"] for _, _, body in asked) == list(range(len(asked)))
    assert len(asked) >= 4


def test_an_answer_that_is_none_ends_it(server: tuple[int, list[Any]]) -> None:
    with pytest.raises(SystemExit, match="cannot measure /v1/x: it answered 400"):
        callers.rate(server[0], "key", "/v1/x", lambda number: {"number": -1}, 2, 5.0)


def test_every_subject_is_a_model_that_its_engine_takes() -> None:
    for name, subject in SUBJECTS.items():
        engine = ENGINES[subject.model.engine]
        assert engine.problems(subject.model) == []
        assert subject.model.name == name
        json.dumps(subject.body(7))


def test_sentences_have_sixteen_words_and_differ() -> None:
    sentences = {sentence(number) for number in range(30)}
    assert len(sentences) == 30
    assert {len(text.split()) for text in sentences} == {16}


def test_the_ratios_are_of_what_they_say() -> None:
    row = Measured("embeddings", bare_one=100.0, bare_batch=500.0, one_caller=80.0, many_callers=400.0)
    assert (row.overhead, row.gain, row.share) == (0.8, 5.0, 0.8)
    assert list(table([row]))[-1] == ("| embeddings: vectors | 100.0 | 500.0 | 80.0 | 400.0 | 0.80 | 5.00 | 0.80 |")
