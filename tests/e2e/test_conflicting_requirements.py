"""Two services whose requirements exclude each other serve side by side: transformers 4 and transformers 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.daemon import Daemon, free_port

FIRST_START_S = 300.0

pytestmark = pytest.mark.timeout(FIRST_START_S + 60)

# What can't be in one environment: each wants a huggingface_hub that the other refuses.
REQUIREMENTS = {"old": "transformers==4.57.6\n", "new": "transformers==5.23.0\n"}

SERVICE = '''
"""Counts words as the transformers library does that is installed here."""

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute

from modelgrid.services.service import Service


class Asked(BaseModel):
    model: str
    prompt: str


class Words(Service):
    name = "words"

    def load(self) -> None:
        import huggingface_hub
        import tokenizers
        import transformers

        model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "hello": 1, "model": 2}, "[UNK]"))
        model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]")
        self.versions = [transformers.__version__, huggingface_hub.__version__]

    def routes(self) -> list[BaseRoute]:
        return [APIRoute("/tokenize", self.tokenize, methods=["POST"])]

    async def tokenize(self, asked: Asked) -> dict[str, object]:
        tokens = await self.compute(self.tokenizer.encode, asked.prompt)
        return {"tokens": tokens, "versions": self.versions}


if __name__ == "__main__":
    Words.main()
'''


def test_services_whose_requirements_exclude_each_other_serve_side_by_side(tmp_path: Path) -> None:
    models = {name: written(tmp_path, name, requirements) for name, requirements in REQUIREMENTS.items()}
    config = {
        "gateway": {"port": free_port()},
        "machine": {"memory": "2GiB"},
        "models": models,
    }
    daemon = Daemon(tmp_path / "home", config)
    try:
        daemon.start()
        answers = {name: asked(daemon, name) for name in models}
        assert {name: answer["tokens"] for name, answer in answers.items()} == {"old": [1, 2, 0], "new": [1, 2, 0]}
        old, new = ([int(version.split(".")[0]) for version in answers[name]["versions"]] for name in ("old", "new"))
        assert (old[0], new[0]) == (4, 5)
        assert old[1] < 1 <= new[1]
        assert {replica.model: replica.state for replica in daemon.replicas()} == {"old": "ready", "new": "ready"}
        assert asked(daemon, "old") == answers["old"]  # the other one has come, and changed nothing
    finally:
        daemon.end()


def written(folder: Path, name: str, requirements: str) -> dict[str, Any]:
    """A model that is a service and its requirements."""
    (folder / name).mkdir()
    (folder / name / "server.py").write_text(SERVICE)
    (folder / name / "requirements.txt").write_text(requirements)
    script = str(folder / name / "server.py")
    return {"service_script": script, "endpoint": "/tokenize", "needs": {"memory": "600MiB"}}


def asked(daemon: Daemon, model: str) -> dict[str, Any]:
    with httpx.Client(base_url=daemon.url, timeout=FIRST_START_S, trust_env=False) as client:
        answer = client.post("/tokenize", json={"model": model, "prompt": "hello model there"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
