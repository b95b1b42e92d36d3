"""What engines launch that are programs of others (SGLang, vLLM-Omni, llama.cpp, Ollama, TGI), as whole values."""

from __future__ import annotations

import dataclasses

import pytest

from modelgrid.engines import ENGINES
from modelgrid.spec import EngineLoad, Environment, FirstRequest, Launch, ModelName, ModelSpec, Place, ReplicaId
from modelgrid.spec.weights import Shape, Weights
from places import GIB, on_cpu, on_cuda

CPU, CUDA, TWO = on_cpu(), on_cuda(), on_cuda(gpus=2)
WEIGHTS = "/models/Qwen/Qwen2.5-7B-Instruct"
GGUF = "/models/Qwen/Qwen2.5-0.5B-Instruct-GGUF--Q4_K_M/qwen.gguf"
LLAMA_1B = Weights(1_321_082_688, {"I8": 1_235_814_400}, Shape(16 * 2 * 8 * 64, 0, 131_072, 4 * 8192, 128_256))


def spec(engine: str, source: str, **fields: object) -> ModelSpec:
    made = ModelSpec(ModelName("qwen"), engine, source=source)
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]  # any field


def launched(model: ModelSpec, place: Place = CUDA, weights: str | None = WEIGHTS) -> Launch:
    return ENGINES[model.engine].launch(model, ReplicaId("qwen-1"), place, weights, "secret")


def chat(served: str = "qwen") -> FirstRequest:
    body = f'{{"model": "{served}", "messages": [{{"role": "user", "content": "Hello"}}], "max_tokens": 1}}'
    return FirstRequest("/v1/chat/completions", body.encode())


def value(argv: tuple[str, ...], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv else None


def test_sglang() -> None:
    model = spec("sglang", "Qwen/Qwen2.5-7B-Instruct", args=("--context-length", "8192"), memory_bytes=80 * GIB)
    assert launched(model) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=(
            *("{bin}/sglang", "serve", "--model-path", WEIGHTS, "--host", "127.0.0.1", "--port", "{port}"),
            *("--served-model-name", "qwen", "--enable-metrics", "--allowed-media-domains", "data-urls-only.invalid"),
            *("--mem-fraction-static", "0.875", "--context-length", "8192"),
        ),
        env={
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
            "HF_HUB_OFFLINE": "1",
        },
        environment=Environment("sglang", requirements=("sglang==0.5.23",), links_modelgrid=True),
        first_request=chat(),
        memory_bytes=80 * GIB,
        load=EngineLoad("/metrics", "sglang:num_running_reqs", "sglang:num_queue_reqs", "sglang:token_usage"),
    )


def test_sglang_takes_a_part_of_what_was_planned_and_spreads_over_the_gpus_that_it_got() -> None:
    model = spec("sglang", "a/b")
    assert value(launched(model, on_cuda(20 * GIB)).argv, "--mem-fraction-static") == "0.219"  # 7/8 of a quarter
    assert value(launched(model, TWO).argv, "--tp-size") == "2"
    told = spec("sglang", "a/b", args=("--mem-fraction-static=0.5", "--tp", "1"))
    argv = launched(told, TWO).argv
    assert argv[-3:] == ("--mem-fraction-static=0.5", "--tp", "1")
    assert "--tp-size" not in argv
    assert "--mem-fraction-static" not in argv


def test_sglang_embeds_and_reranks_when_it_is_told_so() -> None:
    for kind in ("embedding", "rerank"):
        assert "--is-embedding" in launched(spec("sglang", "a/b", type=kind)).argv
    told = launched(spec("sglang", "a/b", type="embedding", args=("--is-embedding",)))
    assert told.argv.count("--is-embedding") == 1
    assert "--is-embedding" not in launched(spec("sglang", "a/b")).argv


def test_what_sglang_leaves_beside_weights_and_cache_is_in_its_estimate() -> None:
    large = Weights(140 * GIB, {"BF16": 70 * GIB}, Shape(327_680, 0, 8192, 1, 128_256))
    estimate = ENGINES["sglang"].estimate(spec("sglang", "a/b"), large, "cuda")
    static = sum(part.memory_bytes for part in estimate.parts if part.what in ("weights", "KV cache"))
    assert static <= estimate.memory_bytes * 7 / 8 < static + GIB


def test_vllm_omni() -> None:
    model = spec("vllm-omni", "Qwen/Qwen3-Omni-30B-A3B-Instruct", trust_remote_code=True)
    assert launched(model) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=(
            *("{bin}/vllm-omni", "serve", WEIGHTS, "--omni", "--host", "127.0.0.1", "--port", "{port}"),
            *("--served-model-name", "qwen", "--allowed-media-domains", "data-urls-only.invalid"),
            "--trust-remote-code",
        ),
        env={
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
            "HF_HUB_OFFLINE": "1",
            "VLLM_API_KEY": "secret",
        },
        environment=Environment("vllm-omni", requirements=("vllm==0.30.0", "vllm-omni==0.30.0"), links_modelgrid=True),
        key="secret",
        first_request=chat(),
        load=EngineLoad(
            "/metrics",
            "vllm_omni:num_requests_running",
            "vllm_omni:num_requests_waiting",
            "vllm:kv_cache_usage_perc",
        ),
    )


def test_vllm_omni_splits_what_has_one_stage_and_leaves_the_others_to_their_configuration() -> None:
    assert value(launched(spec("vllm-omni", "a/b", type="image"), TWO).argv, "--tensor-parallel-size") == "2"
    assert "--tensor-parallel-size" not in launched(spec("vllm-omni", "a/b"), TWO).argv
    told = spec("vllm-omni", "a/b", type="image", args=("--usp", "2"))
    assert "--tensor-parallel-size" not in launched(told, TWO).argv


def test_a_picture_is_no_first_request() -> None:
    assert launched(spec("vllm-omni", "a/b", type="image")).first_request is None


@pytest.mark.parametrize("engine", ["sglang", "vllm-omni"])
def test_no_domain_is_fetched_from_unless_the_user_allows_it(engine: str) -> None:
    told = launched(spec(engine, "a/b", args=("--allowed-media-domains", "example.com"))).argv
    assert told.count("--allowed-media-domains") == 1
    assert value(told, "--allowed-media-domains") == "example.com"


@pytest.mark.parametrize("engine", ["sglang", "vllm-omni"])
def test_an_engine_for_gpus_says_so_where_it_got_none(engine: str) -> None:
    refusal = launched(spec(engine, "a/b"), CPU).refusal
    assert refusal is not None
    assert "computes on GPUs only (use" in refusal
    assert launched(spec(engine, "a/b"), CUDA).refusal is None
    assert [problem.field for problem in ENGINES[engine].problems(spec(engine, "a/b", gpus=0))] == ["needs.gpus"]


def test_llamacpp_on_a_cpu() -> None:
    model = spec("llamacpp", "Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M", args=("--parallel", "2"), memory_bytes=2 * GIB)
    assert launched(model, CPU, GGUF) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=(
            *("{python}", "-P", "-m", "modelgrid.services.llama_server", "--model", GGUF, "--alias", "qwen"),
            *("--host", "127.0.0.1", "--port", "{port}", "--metrics"),
            *("--ctx-size", "8192", "--n-gpu-layers", "0", "--parallel", "2"),
        ),
        env={"LLAMA_ARG_CACHE_RAM": "256", "LLAMA_API_KEY": "secret"},
        environment=Environment("llamacpp", requirements=("xllamacpp==2026.10.11549",), links_modelgrid=True),
        key="secret",
        first_request=chat(),
        memory_bytes=2 * GIB,
        load=EngineLoad("/metrics", "llamacpp:requests_processing", "llamacpp:requests_deferred"),
    )


def test_llamacpp_on_a_gpu_is_the_program_that_is_there_with_all_layers() -> None:
    launch = launched(spec("llamacpp", "a/b"), CUDA, GGUF)
    assert launch.environment is None
    assert value(launch.argv, "--n-gpu-layers") == "999"
    own = launched(spec("llamacpp", "a/b", requirements="/r.txt"), CUDA, GGUF)
    assert own.environment == Environment("llamacpp", requirements_file="/r.txt", links_modelgrid=True)


def test_llamacpp_takes_the_users_word_on_context_and_layers() -> None:
    argv = launched(spec("llamacpp", "a/b", args=("-c", "512", "-ngl", "10")), CUDA, GGUF).argv
    assert argv[-4:] == ("-c", "512", "-ngl", "10")
    assert "--ctx-size" not in argv
    assert "--n-gpu-layers" not in argv


@pytest.mark.parametrize(("kind", "flag"), [("embedding", "--embeddings"), ("rerank", "--reranking")])
def test_llamacpp_is_told_what_it_serves(kind: str, flag: str) -> None:
    assert flag in launched(spec("llamacpp", "a/b", type=kind)).argv
    by_args = spec("llamacpp", "a/b", args=(flag,))
    assert launched(by_args).argv.count(flag) == 1
    assert ENGINES["llamacpp"].operations(by_args)[0] == ("embeddings" if kind == "embedding" else "rerank")


def test_a_stand_in_of_llamacpp_is_made_by_what_can_write_one() -> None:
    on_a_cpu, on_a_gpu = (launched(spec("llamacpp", "stand-in"), place, None) for place in (CPU, CUDA))
    assert value(on_a_cpu.argv, "--model") == "stand-in"
    assert on_a_cpu.environment is not None
    assert on_a_gpu.environment is not None
    assert on_a_cpu.environment.requirements == ("xllamacpp==2026.10.11549", "gguf==0.19.0")
    assert on_a_gpu.environment.requirements == ("gguf==0.19.0",)


def test_llamacpp_needs_its_file_the_cache_that_it_is_told_and_little_more() -> None:
    estimate = ENGINES["llamacpp"].estimate(spec("llamacpp", "a/b"), LLAMA_1B, "cpu")
    parts = {part.what: part.memory_bytes for part in estimate.parts}
    assert (parts["weights"], parts["KV cache"]) == (1_321_082_688, 2 * 16_384 * 8192)
    longer = ENGINES["llamacpp"].estimate(spec("llamacpp", "a/b", args=("--ctx-size=16384",)), LLAMA_1B, "cpu")
    assert longer.memory_bytes - estimate.memory_bytes == parts["KV cache"]


def test_ollama() -> None:
    model = spec("ollama", "ollama:llama3.2:1b", memory_bytes=2 * GIB, env={"OLLAMA_CONTEXT_LENGTH": "4096"})
    assert launched(model, CPU, "/models/ollama") == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="llama3.2:1b",
        argv=("ollama", "serve"),
        env={
            "OLLAMA_HOST": "127.0.0.1:{port}",
            "OLLAMA_KEEP_ALIVE": "-1",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "OLLAMA_NOPRUNE": "1",
            "OLLAMA_NO_CLOUD": "1",
            "OLLAMA_CONTEXT_LENGTH": "4096",
            "OLLAMA_MODELS": "/models/ollama",
        },
        health="/api/version",
        first_request=chat("llama3.2:1b"),
        memory_bytes=2 * GIB,
        install="install Ollama, see ollama.com/download; engine: llamacpp serves GGUF files without it",
    )


def test_ollama_takes_tags_only() -> None:
    def fields(source: str) -> list[str]:
        return [problem.field for problem in ENGINES["ollama"].problems(spec("ollama", source))]

    assert fields("llama3.2:1b") == fields("ollama:llama3.2") == []
    assert fields("Qwen/Qwen2.5-7B-Instruct") == fields("/models/x:y.gguf") == fields("ollama:") == ["source"]


def test_ollama_needs_more_for_a_longer_context() -> None:
    def bytes_for(tokens: str) -> int:
        model = spec("ollama", "ollama:llama3.2:1b", env={"OLLAMA_CONTEXT_LENGTH": tokens})
        return ENGINES["ollama"].estimate(model, LLAMA_1B, "cpu").memory_bytes

    assert bytes_for("16384") - bytes_for("8192") == 2 * 16_384 * 8192
    assert bytes_for("many") == bytes_for("8192")


def test_tgi() -> None:
    model = spec("tgi", "Qwen/Qwen2.5-7B-Instruct", args=("--max-total-tokens", "4096"))
    assert launched(model, on_cuda(20 * GIB)) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="tgi",
        argv=(
            *("text-generation-launcher", "--model-id", WEIGHTS, "--hostname", "127.0.0.1", "--port", "{port}"),
            *("--prometheus-port", "0", "--shard-uds-path", "/tmp/modelgrid-tgi-{port}", "--usage-stats", "off"),
            *("--cuda-memory-fraction", "0.250", "--max-total-tokens", "4096"),
        ),
        env={"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"},
        first_request=chat("tgi"),
        load=EngineLoad("/metrics", "tgi_batch_current_size", "tgi_queue_size"),
        install=(
            "install text-generation-inference, or add its folder to PATH by env; engine: vllm serves the same models"
        ),
    )


def test_tgi_shards_over_the_gpus_that_it_got() -> None:
    assert value(launched(spec("tgi", "a/b"), TWO).argv, "--num-shard") == "2"
    assert "--num-shard" not in launched(spec("tgi", "a/b"), CUDA).argv
    assert "--cuda-memory-fraction" not in launched(spec("tgi", "a/b"), CPU).argv


@pytest.mark.parametrize("engine", ["sglang", "vllm-omni", "llamacpp", "tgi"])
def test_what_modelgrid_sets_is_not_set_twice(engine: str) -> None:
    for option in ("--port", "--api-key"):
        problems = ENGINES[engine].problems(spec(engine, "a/b", args=(f"{option}=1",)))
        assert [problem.field for problem in problems] == ["args"]
        assert option in problems[0].message


@pytest.mark.parametrize("engine", ["sglang", "vllm-omni", "llamacpp", "ollama", "tgi"])
def test_none_of_them_is_put_to_sleep(engine: str) -> None:
    model = spec(engine, "ollama:a:b" if engine == "ollama" else "a/b", sleep=1)
    assert [problem.field for problem in ENGINES[engine].problems(model)] == ["sleep"]
    assert launched(dataclasses.replace(model, sleep=None)).sleep is None
