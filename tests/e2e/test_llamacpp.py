"""Real llama.cpp behind the official OpenAI client, on a GGUF file that is made on the spot."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from e2e.daemon import Daemon, free_port, until

ENVIRONMENTS = Path(__file__).parents[2] / ".cache" / "environments"
FIRST_START_S = 300.0

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One modelgrid whose llama.cpp is started by the first request."""
    models = {"tiny": {"engine": "llamacpp", "source": "stand-in", "needs": {"memory": "512MiB"}}}
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "2GiB"},
        "storage": {"environments": str(ENVIRONMENTS)},
        "models": models,
    }
    made = Daemon(tmp_path_factory.mktemp("llamacpp"), config).start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{daemon.url}/v1", api_key="none", timeout=FIRST_START_S, max_retries=0) as made:
        yield made


def test_it_chats_plain_and_streaming(daemon: Daemon, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hello"}], max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 8
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hello"}], max_tokens=8, stream=True
        )
    )
    assert len(chunks) > 1
    assert any(choice.finish_reason for chunk in chunks for choice in chunk.choices)
    (replica,) = daemon.replicas("tiny")
    assert replica.state == "ready"
    assert replica.resident_bytes is not None
    assert replica.resident_bytes < replica.memory_bytes


def test_it_completes_and_counts_words_by_its_own_name(daemon: Daemon, client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="the model", max_tokens=4)
    assert (answer.model, bool(answer.choices[0].text)) == ("tiny", True)
    with daemon.client() as http:
        words = http.post("/tokenize", json={"model": "tiny", "content": "the model"}).json()["tokens"]
        back = http.post("/detokenize", json={"model": "tiny", "tokens": words}).json()["content"]
    assert back == "the model"


def test_it_is_reached_through_the_gateway_only_and_its_key_is_not_shown(daemon: Daemon, client: openai.OpenAI) -> None:
    client.completions.create(model="tiny", prompt="warm", max_tokens=1)
    (replica,) = daemon.replicas("tiny")
    with (
        openai.OpenAI(base_url=replica.url, api_key="guess", max_retries=0) as direct,
        pytest.raises(openai.AuthenticationError),
    ):
        direct.completions.create(model="tiny", prompt="x", max_tokens=1)
    process = psutil.Process(replica.pid)
    assert process.environ()["LLAMA_API_KEY"] not in " ".join(process.cmdline())


def test_the_gauges_that_its_engine_names_are_there(daemon: Daemon, client: openai.OpenAI) -> None:
    client.completions.create(model="tiny", prompt="warm", max_tokens=1)
    (replica,) = daemon.replicas("tiny")
    key = psutil.Process(replica.pid).environ()["LLAMA_API_KEY"]
    root = (replica.url or "").removesuffix("/v1")
    page = httpx.get(f"{root}/metrics", headers={"authorization": f"Bearer {key}"}, trust_env=False).text
    assert "\nllamacpp:requests_processing 0\n" in page
    assert "\nllamacpp:requests_deferred 0\n" in page


def test_a_gguf_file_or_its_folder_is_a_source_and_can_embed(daemon: Daemon, client: openai.OpenAI) -> None:
    client.completions.create(model="tiny", prompt="warm", max_tokens=1)
    interpreter = Path(psutil.Process(daemon.replicas("tiny")[0].pid).cmdline()[0])
    made = interpreter.parents[1] / "share" / "modelgrid" / "stand-in-gguf" / "model.gguf"
    folder = daemon.home / "kept"
    folder.mkdir()
    shutil.copy(made, folder / "kept.gguf")
    common = {"engine": "llamacpp", "needs": {"memory": "512MiB"}}
    more = {"file": common | {"source": str(folder / "kept.gguf")}, "folder": common | {"source": str(folder)}}
    more["vectors"] = more["file"] | {"type": "embedding", "args": ["--pooling", "mean"]}
    daemon.write({**daemon.config, "models": daemon.config["models"] | more})
    until("the models are known", lambda: set(more) <= {model.name for model in daemon.status().models})
    for name in ("file", "folder"):
        assert client.completions.create(model=name, prompt="the", max_tokens=2).model == name
    vector = client.embeddings.create(model="vectors", input="the model").data[0].embedding
    assert math.isclose(sum(number**2 for number in vector), 1.0, rel_tol=1e-3)


def test_it_ends_when_it_is_asked_to(daemon: Daemon, client: openai.OpenAI) -> None:
    client.completions.create(model="tiny", prompt="warm", max_tokens=1)
    process = psutil.Process(daemon.replicas("tiny")[0].pid)
    assert daemon.run("model", "unload", "tiny").returncode == 0
    until("its process is gone", lambda: not process.is_running())
    assert not any(event.what == "failed" for event in daemon.events("tiny"))
