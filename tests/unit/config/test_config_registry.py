"""A registry of services (type, service_script, port, startup_time, endpoint) loads as it stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelgrid.config import Config, load_config
from modelgrid.spec import ModelName, ModelSpec

Load = Callable[..., Config]
Lines = Callable[..., list[str]]

REGISTRY = """\
models:
  qwen-2.5-7b:
    type: text
    service_script: models/vllm/server.py
    port: 8001
    startup_time: 120
    endpoint: /v1/chat/completions
  flux-schnell:
    type: image
    service_script: models/flux/server.py
    port: 8002
    startup_time: 60
    endpoint: /v1/images/generations
"""


def make_services(folder: Path) -> None:
    for name in ("vllm", "flux"):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "server.py").touch()
    (folder / "models/vllm/requirements.txt").write_text("vllm\n")


def expected(folder: Path) -> tuple[ModelSpec, ...]:
    return (
        ModelSpec(
            name=ModelName("qwen-2.5-7b"),
            engine="custom",
            script=f"{folder}/models/vllm/server.py",
            requirements=f"{folder}/models/vllm/requirements.txt",
            cwd=str(folder),
            port=8001,
            endpoint="/v1/chat/completions",
            type="text",
            start_timeout_s=120.0,
        ),
        ModelSpec(
            name=ModelName("flux-schnell"),
            engine="custom",
            script=f"{folder}/models/flux/server.py",
            cwd=str(folder),
            port=8002,
            endpoint="/v1/images/generations",
            type="image",
            start_timeout_s=60.0,
        ),
    )


def test_a_registry_beside_its_services_loads(tmp_path: Path) -> None:
    make_services(tmp_path)
    path = tmp_path / "models.yaml"
    path.write_text(REGISTRY)
    assert load_config(path, environ={}).models == expected(tmp_path)


def test_a_registry_in_a_folder_beside_its_services_loads(tmp_path: Path) -> None:
    make_services(tmp_path)
    path = tmp_path / "model-orchestrator/models.yaml"
    path.parent.mkdir()
    path.write_text(REGISTRY)
    assert load_config(path, environ={}).models == expected(tmp_path)


def test_both_shapes_stand_in_one_file(load: Load) -> None:
    config = load(REGISTRY + "  other: {engine: vllm, source: a/b}\n")
    assert [spec.engine for spec in config.models] == ["custom", "custom", "vllm"]


def test_a_path_of_its_own_is_one_model_s(problems: Lines) -> None:
    text = """\
        models:
          a: {service_script: a.py, endpoint: /v1/music}
          b: {service_script: b.py, endpoint: /v1/music/}
          c: {service_script: c.py, endpoint: /v1/chat/completions}
          d: {service_script: d.py, endpoint: /v1/chat/completions}
    """
    assert problems(text) == [
        "modelgrid.yaml:3:39: models.b.endpoint: '/v1/music/' is the path of 'a', too, and no model is named there: "
        "give each its own"
    ]


def test_a_requirements_file_that_is_named_wins_over_the_one_beside_the_script(tmp_path: Path) -> None:
    make_services(tmp_path)
    path = tmp_path / "models.yaml"
    path.write_text("models: {m: {service_script: models/vllm/server.py, requirements: other.txt}}")
    (tmp_path / "other.txt").touch()
    assert load_config(path, environ={}).models[0].requirements == f"{tmp_path}/other.txt"
