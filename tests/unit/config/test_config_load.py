"""A text becomes the configuration that it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from modelgrid.config import (
    Config,
    ConfigError,
    GatewayConfig,
    MachineConfig,
    StorageConfig,
    default_text,
    load_config,
    load_text,
    starter_text,
)
from modelgrid.spec import Limits, ModelName, ModelSpec, Scaling

Load = Callable[..., Config]


def test_everything_that_can_be_said_arrives(load: Load, tmp_path: Path) -> None:
    config = load("""
        gateway:
          {host: 0.0.0.0, port: 9001, workers: 2, body: 1MiB, upload: 1GiB, connections: 10,
           connect: 1s, first_byte: 2s, stall: 3s, grace: 1m}
        machine: {memory: 16GiB, main_memory: 32GiB, gpus: [1, 0, 1]}
        storage: {environments: big/environments, models: /models}
        models:
          qwen2.5-7b:
            engine: vllm
            source: Qwen/Qwen2.5-7B-Instruct
            aliases: [gpt-4o-mini, "a/b:c"]
            args: [--max-model-len, 8192, --rope-theta, 1.10, --enable, yes]
            env: {VLLM_LOGGING_LEVEL: WARNING, OMP_NUM_THREADS: 08, EMPTY: }
            needs: {memory: 18GiB, gpus: 2, main_memory: 4GiB}
            scaling: {min: 1, max: 3, idle: 1h30m, target: 4, slo: {ttft: 500ms, attain: 0.99}}
            priority: 10
            sleep: 1
            limits: {queue: 7, wait: 90}
            served: other
            start_timeout: 20m
            stop_grace: 500ms
            trust_remote_code: true
    """)
    assert config.gateway == GatewayConfig("0.0.0.0", 9001, 2, 2**20, 2**30, 10, 1.0, 2.0, 3.0, 60.0)
    assert config.machine == MachineConfig(16 * 2**30, 32 * 2**30, (1, 0))
    assert config.storage == StorageConfig(tmp_path / "big/environments", Path("/models"))
    assert config.models == (
        ModelSpec(
            name=ModelName("qwen2.5-7b"),
            engine="vllm",
            source="Qwen/Qwen2.5-7B-Instruct",
            aliases=("gpt-4o-mini", "a/b:c"),
            args=("--max-model-len", "8192", "--rope-theta", "1.10", "--enable", "yes"),
            env={"VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "08", "EMPTY": ""},
            memory_bytes=18 * 2**30,
            gpus=2.0,
            main_bytes=4 * 2**30,
            priority=10,
            sleep=1,
            scaling=Scaling(1, 3, 5400.0, 4, 0.5, 0.99),
            limits=Limits(7, 90.0),
            served="other",
            start_timeout_s=1200.0,
            stop_grace_s=0.5,
            trust_remote_code=True,
        ),
    )


def test_what_is_not_said_has_the_defaults_of_the_nouns(load: Load) -> None:
    config = load("models: {m: {engine: vllm, source: org/name}}")
    assert config.gateway == GatewayConfig()
    assert config.machine == MachineConfig()
    assert config.storage == StorageConfig()
    assert config.models == (ModelSpec(name=ModelName("m"), engine="vllm", source="org/name"),)


@pytest.mark.parametrize(("written", "gpus"), [("auto", None), ("0", 0.0), ("0.25", 0.25), ("1", 1.0), ("8", 8.0)])
def test_gpus_are_a_number_a_share_or_auto(load: Load, written: str, gpus: float | None) -> None:
    config = load(f"models: {{m: {{engine: vllm, source: a/b, needs: {{gpus: {written}}}}}}}")
    assert config.models[0].gpus == gpus


def test_no_sleep_is_off(load: Load) -> None:
    assert load("models: {m: {engine: vllm, source: a/b, sleep: off}}").models[0].sleep is None


def test_no_gpus_is_not_the_same_as_nothing_said(load: Load) -> None:
    assert load("machine: {gpus: []}").machine == MachineConfig(gpus=())
    assert load("machine: {gpus: }").machine == MachineConfig(gpus=None)


def test_a_command_that_takes_gpus_need_not_say_how_much_memory(load: Load) -> None:
    config = load("models: {m: {engine: custom, command: [./serve, '{port}'], needs: {gpus: 1}}}")
    assert config.models[0].memory_bytes is None


def test_more_replicas_at_least_than_the_default_maximum_raise_it(load: Load) -> None:
    for written in ("{min: 3}", "{min: 3, max: 3}"):
        config = load(f"models: {{m: {{engine: vllm, source: a/b, scaling: {written}}}}}")
        assert config.models[0].scaling == Scaling(min=3, max=3)


def test_an_empty_file_is_a_configuration_without_models(load: Load) -> None:
    assert load("").models == ()
    assert load("# nothing yet\nmodels:\ngateway:\n").gateway == GatewayConfig()


def test_anchors_and_merges_share_fields(load: Load) -> None:
    config = load("""
        models:
          a: &shared {engine: vllm, source: org/a, scaling: {min: 1}}
          b:
            <<: *shared
            source: org/b
    """)
    assert [(spec.source, spec.scaling.min) for spec in config.models] == [("org/a", 1), ("org/b", 1)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("/abs/dir", "/abs/dir"),
        ("./dir", "{here}/dir"),
        ("../dir", "{above}/dir"),
        ("there", "{here}/there"),
        ("org/there", "org/there"),
        ("~/dir", "{home}/dir"),
        ("package:there", "package:there"),
        ("stand-in", "stand-in"),
    ],
)
def test_a_source_is_a_path_where_it_looks_like_one_or_exists(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for folder in ("there", "stand-in", "package:there"):
        (tmp_path / folder).mkdir()
    engine = "embeddings" if written.startswith("package:") else "vllm"
    config = load(f"models: {{m: {{engine: {engine}, source: '{written}'}}}}")
    assert config.models[0].source == expected.format(here=tmp_path, above=tmp_path.parent, home="/home/somebody")


def test_a_path_that_is_too_long_only_below_its_folder_is_not_there(load: Load) -> None:
    long = "x/" * 2047
    custom = "engine: custom, command: [x, '{port}'], needs: {memory: 1GiB}"
    config = load(f"models: {{m: {{{custom}, source: {long}}}, n: {{service_script: {long}}}}}")
    assert config.models[0].source == long
    assert config.models[1].requirements is None


def test_a_custom_command_runs_in_the_folder_of_the_file(load: Load, tmp_path: Path) -> None:
    config = load("models: {m: {engine: custom, command: [./serve, '{port}'], needs: {memory: 1GiB}}}")
    assert (config.models[0].command, config.models[0].cwd) == (("./serve", "{port}"), str(tmp_path))


def test_names_of_models_may_be_paths_addresses_and_numbers(load: Load) -> None:
    model = "{engine: vllm, source: a/b}"
    config = load(f"models: {{org/name:7b-q4.0: {model}, 42: {model}, é: {model}}}")
    assert [spec.name for spec in config.models] == ["org/name:7b-q4.0", "42", "é"]


@pytest.mark.parametrize("hub", [True, False])
def test_the_embedded_default_loads_and_keeps_a_text_and_an_embedding_model(hub: bool) -> None:
    config = load_config(None, environ={}, hub=hub)
    assert config.path is None
    assert [(spec.engine, spec.scaling.min) for spec in config.models] == [("transformers", 1), ("embeddings", 1)]


@pytest.mark.parametrize("hub", [True, False])
def test_the_embedded_default_fits_into_the_memory_that_there_is(hub: bool) -> None:
    def kept(config: Config) -> list[int]:
        return [spec.scaling.min for spec in config.models]

    full = load_config(None, environ={}, hub=hub)
    both_bytes = sum(spec.memory_bytes or 0 for spec in full.models)
    assert kept(load_config(None, environ={}, hub=hub, memory_bytes=both_bytes)) == [1, 1]
    assert kept(load_config(None, environ={}, hub=hub, memory_bytes=both_bytes - 1)) == [0, 0]
    said = {"machine.memory": str(both_bytes - 1)}
    assert kept(load_config(None, environ={}, overrides=said, hub=hub, memory_bytes=1 << 40)) == [0, 0]
    said = {"machine.memory": str(both_bytes)}
    assert kept(load_config(None, environ={}, overrides=said, hub=hub, memory_bytes=1)) == [1, 1]


@pytest.mark.parametrize("hub", [True, False])
def test_what_the_readme_asks_for_is_there_without_any_configuration(hub: bool) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text().split("## Your own models")[0]
    asked = re.findall(r'"?model"?[:=] ?"([^"]+)"|/v1/chat/([a-z-]+) -d', readme)
    names = {name for pair in asked for name in pair if name}
    config = load_config(None, environ={}, hub=hub)
    known = {name for spec in config.models for name in (spec.name, *spec.aliases)}
    assert names == {"chat", "embed"}
    assert names <= known


def test_the_default_without_a_hub_says_that_its_text_model_speaks_nonsense() -> None:
    text = default_text(hub=False)
    assert "STAND-IN" in text
    assert "nonsense" in text


def test_the_starter_loads_also_with_its_examples_taken_in() -> None:
    lines = starter_text().splitlines()
    config = load_text(starter_text(), path=None, environ={})
    assert len(config.models) == 2
    start = lines.index("  # A larger model on vLLM:")
    examples = [line.replace("  # ", "  ", 1) for line in lines[start:] if not re.match(r"  # [A-Z]", line)]
    taken_in = "\n".join([*lines[:start], *examples])
    config = load_text(taken_in, path=None, environ={"HF_TOKEN": "hf", "ELSEWHERE_KEY": "else"})
    assert [spec.engine for spec in config.models] == ["transformers", "embeddings", "vllm", "custom", "remote"]


def test_the_digest_tells_other_words_and_other_overrides_apart(load: Load) -> None:
    text = "gateway: {port: 1}"
    digests = {
        load(text).digest,
        load(text + " ").digest,
        load(text, {"MODELGRID_GATEWAY__PORT": "2"}).digest,
        load(text, {}, {"gateway.port": "2"}).digest,
    }
    assert len(digests) == 4
    assert load(text).digest == load(text, {"HOME": "/", "MODELGRID_HOME": "/"}).digest


def test_a_file_is_read_and_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "modelgrid.yaml"
    path.write_text("gateway: {port: 9002}", encoding="utf-8-sig")
    config = load_config(path, environ={})
    assert (config.gateway.port, config.path) == (9002, path)


def test_a_file_that_cannot_be_read_says_why_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot read the configuration: Is a directory \(name another with --config"
    ):
        load_config(tmp_path, environ={})


def test_bytes_that_are_no_text_are_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "modelgrid.yaml"
    path.write_bytes(b"gateway:\n  host: \xff\n")
    with pytest.raises(ConfigError, match=r"modelgrid.yaml:2:9: is not UTF-8 text"):
        load_config(path, environ={})
