"""A real vision-language model, which tells colours, behind the gateway and the official client; and what it won't
open. vLLM's eyes are tested where vLLM is (`test_real_engines`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from e2e.daemon import LOOPBACK, Daemon, free_port
from e2e.pictures import BLUE, COLOURS, GREEN, RED, data_url, png
from e2e.test_real_engines import ENVIRONMENTS, FIRST_START_S

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)

MODEL = "eyes"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One modelgrid with a model that sees."""
    eyes = {"engine": "transformers", "type": "vision", "source": "stand-in", "needs": {"memory": "1GiB"}}
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "4GiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": {MODEL: eyes},
    }
    made = Daemon(tmp_path_factory.mktemp("vision"), config).start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    """The official client, pointed at the gateway."""
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


@pytest.fixture
def fetched() -> Iterator[tuple[str, list[str]]]:
    """A server of pictures beside the engine, as there may be one in its network; and what it was asked for."""
    asked: list[str] = []

    class Pictures(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png(RED))

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Pictures)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://{LOOPBACK}:{server.server_address[1]}/red.png", asked
    server.shutdown()
    server.server_close()


def messages(*urls: str, text: str = "Which colour is it?") -> list[Any]:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *pictures]}]


def look(client: openai.OpenAI, *urls: str) -> str | None:
    answer = client.chat.completions.create(model=MODEL, messages=messages(*urls), max_tokens=20, temperature=0)
    return answer.choices[0].message.content


@pytest.mark.parametrize("colour", COLOURS)
def test_it_sees_what_is_in_the_message(client: openai.OpenAI, colour: str) -> None:
    assert look(client, data_url(png(COLOURS[colour]))) == f"The picture is {colour}."


def test_it_streams_what_it_sees(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=messages(data_url(png(BLUE, 300, 200))), max_tokens=20, temperature=0, stream=True
    )
    said = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    assert len(said) > 2
    assert "".join(said) == "The picture is blue."


def test_responses_see_as_well(client: openai.OpenAI) -> None:
    picture = {"type": "input_image", "detail": "auto", "image_url": data_url(png(GREEN))}
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": "Which colour is it?"}, picture]}]
    answer = client.responses.create(model=MODEL, input=asked, max_output_tokens=20, temperature=0)
    assert answer.output_text == "The picture is green."


def test_it_takes_words_alone(client: openai.OpenAI) -> None:
    assert look(client)


def test_no_address_of_a_callers_is_fetched(client: openai.OpenAI, fetched: tuple[str, list[str]]) -> None:
    url, asked = fetched
    with pytest.raises(
        openai.BadRequestError, match="opens no addresses and no files: send it as a data URL"
    ) as raised:
        look(client, data_url(png(RED)), url)
    assert (raised.value.param, raised.value.code) == ("messages.0.content.2.image_url", "invalid_image_url")
    assert asked == []


def test_no_file_of_the_engines_is_read(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "private.png"
    path.write_bytes(png(RED))
    for url in (str(path), path.as_uri()):
        with pytest.raises(openai.BadRequestError, match="opens no addresses and no files"):
            look(client, url)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (data_url(b"no picture"), "invalid_image"),
        (data_url(png(RED)[:60]), "invalid_image"),
        (data_url(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "invalid_image"),
        (data_url(png(RED)) + "?", "invalid_base64_image"),
        (data_url(png(RED, 8100, 8100)), "image_too_large"),
        (data_url(b"words", "text/plain"), "invalid_image_url"),
    ],
)
def test_what_is_no_picture_is_told_and_harms_nothing(client: openai.OpenAI, url: str, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        look(client, url)
    assert raised.value.code == code
    assert look(client, data_url(png(BLUE))) == "The picture is blue."
