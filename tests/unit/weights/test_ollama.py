"""Tags of Ollama's registry: pulled as Ollama lays them out, shared, checked, removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from hubs import GGUF_LAYER, Hub
from modelgrid.spec import Unknown
from modelgrid.spec.weights import Shape, Weights
from modelgrid.weights import Progress, WeightsError, list_weights, needs_pull, pull, remove, resolve, weigh
from weight_files import gguf

MODEL = b"GGUF" + bytes(range(256)) * 4096 * 4
TEMPLATE = b"{{ .Prompt }}"
CONFIG = b'{"model_format": "gguf"}'
SOURCE = "ollama:tiny:1b"
LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.context_length": 4096,
    "tokenizer.ggml.tokens": ["a", "b"],
}


def nothing(_: Progress) -> None:
    pass


def tag_of(model: bytes, template: bytes = TEMPLATE, config: bytes = CONFIG) -> list[tuple[str, bytes]]:
    return [
        (GGUF_LAYER, model),
        ("application/vnd.ollama.image.template", template),
        ("application/vnd.docker.container.image.v1+json", config),
    ]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def registry(hub: Hub) -> Hub:
    hub.tags["library/tiny:1b"] = tag_of(MODEL)
    return hub


def test_a_tag_is_laid_out_as_ollama_expects_it(registry: Hub, tmp_path: Path) -> None:
    models = pull(SOURCE, tmp_path, nothing)
    assert models == resolve(SOURCE, tmp_path) == resolve("tiny:1b", tmp_path)
    manifest = models / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "1b"
    assert manifest.read_bytes() == registry.manifest("library/tiny:1b")
    assert {path.name: path.read_bytes() for path in (models / "blobs").iterdir()} == {
        f"sha256-{digest(data)}": data for data in (MODEL, TEMPLATE, CONFIG)
    }
    assert not needs_pull(SOURCE, tmp_path)


def test_progress_counts_all_layers(registry: Hub, tmp_path: Path) -> None:
    seen: list[Progress] = []
    pull(SOURCE, tmp_path, seen.append)
    total = len(MODEL) + len(TEMPLATE) + len(CONFIG)
    assert seen[-1] == Progress(total, total, "")
    assert [step.done_bytes for step in seen] == sorted(step.done_bytes for step in seen)


def test_a_layer_that_another_tag_has_is_not_fetched_again(registry: Hub, tmp_path: Path) -> None:
    registry.tags["library/tiny:latest"] = tag_of(MODEL, template=b"another")
    pull(SOURCE, tmp_path, nothing)
    registry.asked.clear()
    pull("ollama:tiny", tmp_path, nothing)
    assert [path for _, path, _ in registry.asked] == [
        "/v2/library/tiny/manifests/latest",
        f"/v2/library/tiny/blobs/sha256:{digest(b'another')}",
    ]


def test_a_pull_that_was_broken_off_is_resumed(registry: Hub, tmp_path: Path) -> None:
    class BrokenOff(Exception):
        pass

    def leave(progress: Progress) -> None:
        if progress.done_bytes > len(MODEL) // 2:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        pull(SOURCE, tmp_path, leave)
    assert resolve(SOURCE, tmp_path) is None
    (begun,) = list_weights(tmp_path)
    assert (begun.source, begun.is_whole, begun.size_bytes > len(MODEL) // 2) == (SOURCE, False, True)
    assert not list((tmp_path / ".ollama").glob("blobs/*"))  # where `ollama serve` would clean up
    registry.asked.clear()
    pull(SOURCE, tmp_path, nothing)
    ((_, path, asked), *_) = [one for one in registry.asked if "/blobs/" in one[1]]
    assert path.endswith(digest(MODEL))
    assert int(asked.removeprefix("bytes=").removesuffix("-")) > len(MODEL) // 2
    (held,) = list_weights(tmp_path)
    assert held.is_whole


def test_a_connection_that_breaks_is_taken_up_again(registry: Hub, tmp_path: Path) -> None:
    registry.breaks_at[f"sha256:{digest(MODEL)}"] = len(MODEL) // 2
    models = pull(SOURCE, tmp_path, nothing)
    assert (models / "blobs" / f"sha256-{digest(MODEL)}").read_bytes() == MODEL


def test_a_layer_that_is_not_what_its_digest_says_is_refused_and_not_kept(registry: Hub, tmp_path: Path) -> None:
    registry.claimed_sha256[GGUF_LAYER] = "0" * 64
    with pytest.raises(WeightsError, match=r"cannot pull sha256:0{12}: its content is not what the hub says"):
        pull(SOURCE, tmp_path, nothing)
    assert resolve(SOURCE, tmp_path) is None
    del registry.claimed_sha256[GGUF_LAYER]
    assert pull(SOURCE, tmp_path, nothing)


@pytest.mark.parametrize("claimed", [len(MODEL) + 10, len(MODEL) - 10])
def test_a_size_that_is_a_lie_is_told(registry: Hub, tmp_path: Path, claimed: int) -> None:
    registry.claimed[GGUF_LAYER] = claimed
    with pytest.raises(WeightsError, match=f"instead of the {claimed} bytes that were announced"):
        pull(SOURCE, tmp_path, nothing)
    assert resolve(SOURCE, tmp_path) is None


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(registry: Hub, tmp_path: Path) -> None:
    registry.claimed[GGUF_LAYER] = shutil.disk_usage(tmp_path).total + (1 << 40)
    with pytest.raises(WeightsError, match=r"cannot pull ollama:tiny:1b: it needs .* TiB, .* has .* free"):
        pull(SOURCE, tmp_path, nothing)
    assert not any("/blobs/" in path for _, path, _ in registry.asked)


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (401, {}, "has no such model, or it is private (for a private one: ollama pull)"),
        (412, {}, "wants a newer client for it (update Ollama, and use: ollama pull)"),
        (429, {"Retry-After": "7"}, "says that it was asked too often (try again in 7 s)"),
        (500, {}, "answered 500 (try again later)"),
    ],
)
def test_what_a_registry_refuses_is_explained(
    registry: Hub, tmp_path: Path, status: int, headers: dict[str, str], says: str
) -> None:
    registry.status, registry.headers = status, headers
    with pytest.raises(WeightsError) as failure:
        pull(SOURCE, tmp_path, nothing)
    assert str(failure.value) == f"cannot ask for {SOURCE}: {registry.url} {says}"


def test_a_tag_that_is_not_there(registry: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as failure:
        pull("ollama:tiny:7b", tmp_path, nothing)
    assert str(failure.value) == (
        f"cannot ask for ollama:tiny:7b: {registry.url} has no library/tiny:7b (check the spelling, and the tag)"
    )


@pytest.mark.parametrize(
    "manifest",
    [
        {"layers": [{"mediaType": GGUF_LAYER, "digest": "sha256:../../../planted", "size": 3}]},
        {"layers": [{"mediaType": GGUF_LAYER, "digest": "sha256:" + "a" * 64, "size": "large"}]},
        {"layers": [{"mediaType": GGUF_LAYER, "size": 3}]},
        {"layers": "none"},
        [],
    ],
)
def test_a_manifest_that_is_none_is_refused(
    registry: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, manifest: object
) -> None:
    monkeypatch.setattr(registry.__class__, "manifest", lambda *_: json.dumps(manifest).encode())
    with pytest.raises(WeightsError, match="sent no manifest"):
        pull(SOURCE, tmp_path, nothing)


def test_a_tag_without_weights_is_refused(registry: Hub, tmp_path: Path) -> None:
    registry.tags["library/far:cloud"] = [("application/vnd.docker.container.image.v1+json", CONFIG)]
    with pytest.raises(WeightsError, match="it has no weights"):
        pull("ollama:far:cloud", tmp_path, nothing)


def test_removing_a_tag_leaves_what_another_one_has(registry: Hub, tmp_path: Path) -> None:
    registry.tags["library/tiny:latest"] = tag_of(MODEL, template=b"another")
    models = pull(SOURCE, tmp_path, nothing)
    pull("ollama:tiny", tmp_path, nothing)
    assert remove(SOURCE, tmp_path) == len(TEMPLATE)
    assert resolve(SOURCE, tmp_path) is None
    assert resolve("ollama:tiny", tmp_path) == models
    assert remove("ollama:tiny", tmp_path) == len(MODEL) + len(b"another") + len(CONFIG)
    assert [path for path in models.rglob("*") if path.is_file()] == []
    with pytest.raises(WeightsError, match="it is not there"):
        remove("ollama:tiny", tmp_path)


def test_a_tag_whose_layer_somebody_deleted_is_pulled_again(registry: Hub, tmp_path: Path) -> None:
    models = pull(SOURCE, tmp_path, nothing)
    blob = models / "blobs" / f"sha256-{digest(MODEL)}"
    blob.unlink()
    assert needs_pull(SOURCE, tmp_path)
    pull(SOURCE, tmp_path, nothing)
    assert blob.read_bytes() == MODEL


def test_a_tag_is_weighed_before_and_after_it_is_pulled(registry: Hub, tmp_path: Path) -> None:
    file = gguf(LLAMA, {"a": [2]}) + b"x" * 1000
    registry.tags["library/tiny:1b"] = tag_of(file)
    expected = Weights(len(file), shape=Shape(cached=2 * 2 * 32, longest=4096, wide=2 * 128 + 4 * 64, vocabulary=2))
    assert weigh(SOURCE, tmp_path) == expected
    assert [asked for _, path, asked in registry.asked if "/blobs/" in path] == ["bytes=0-262143"]
    pull(SOURCE, tmp_path, nothing)
    registry.status = 500
    assert weigh(SOURCE, tmp_path) == expected
    assert isinstance(weigh("ollama:other", tmp_path), Unknown)


def test_a_registry_of_its_own_is_asked(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELGRID_OLLAMA_REGISTRY", "http://127.0.0.1:1")
    hub.tags["team/tiny:1b"] = tag_of(MODEL)
    host = hub.url.removeprefix("http://")
    models = pull(f"ollama:{host}/team/tiny:1b", tmp_path, nothing)
    assert (models / "manifests" / host / "team" / "tiny" / "1b").is_file()
    with pytest.raises(WeightsError, match=r"127.0.0.1:1 can't be reached: .*check the network and MODELGRID_OLLAMA"):
        pull(SOURCE, tmp_path, nothing)
