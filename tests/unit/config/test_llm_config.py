"""An ``llm_config.json`` loads as it stands: its model runs here, and what it asks to rent is checked and told of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelgrid.config import Config, ConfigError, find_config, load_config, load_text, show
from modelgrid.config.config import Rent
from modelgrid.config.paths import Paths, find_paths
from modelgrid.spec import ModelName, ModelSpec, Scaling
from modelgrid.spec.secret import MASK

Load = Callable[..., Config]
Lines = Callable[..., list[str]]

POD = """\
{
\t"mode": "pod",
\t"model": {
\t\t"name": "facebook/opt-125m"
\t},
\t"compute": {"gpu_type_id": "NVIDIA RTX 4090", "gpu_count": 1, "cloud": "any"},
\t"pod": {"template_id": "vllm", "container_disk_gb": 20, "name": "my-llm-pod"}
}
"""
MODEL = '{"model": {"name": "facebook/opt-125m", "path": %s}}'


def the_model(config: Config) -> ModelSpec:
    (spec,) = config.models
    return spec


def test_a_pod_s_model_runs_here_and_is_kept_loaded(load: Load) -> None:
    config = load(POD)
    assert the_model(config) == ModelSpec(
        name=ModelName("facebook/opt-125m"),
        engine="vllm",
        source="facebook/opt-125m",
        scaling=Scaling(min=1),
        start_timeout_s=the_model(config).start_timeout_s,
    )


def test_what_is_to_be_rented_is_kept_as_it_was_written_and_told(load: Load) -> None:
    config = load(POD)
    assert config.rent == Rent(
        "pod",
        {"gpu_type_id": "NVIDIA RTX 4090", "gpu_count": "1", "cloud": "any"},
        {"template_id": "vllm", "container_disk_gb": "20", "name": "my-llm-pod"},
    )
    (note,) = config.notes
    assert note.startswith("mode: pod asks for a pod with 1 of NVIDIA RTX 4090, and nothing is rented")
    assert "RunPod runtime" in note


def test_a_serverless_model_goes_when_it_is_idle(load: Load) -> None:
    config = load(POD.replace('"pod"', '"serverless"'))
    assert the_model(config).scaling == Scaling(min=0)
    assert config.rent is not None
    assert config.rent.mode == "serverless"
    assert config.rent.place["name"] == "my-llm-pod"


def test_the_template_names_the_engine(load: Load) -> None:
    spec = the_model(load(POD.replace('"vllm"', '"ollama"').replace("facebook/opt-125m", "llama3.2:1b")))
    assert (spec.name, spec.engine, spec.source) == ("llama3.2:1b", "ollama", "ollama:llama3.2:1b")


def test_without_a_mode_nothing_is_asked_for(load: Load) -> None:
    config = load(MODEL % "null")
    assert (config.rent, config.notes) == (None, ())
    assert the_model(config).scaling.min == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ('"/srv/opt"', "/srv/opt"),
        ('"weights/opt"', "{folder}/weights/opt"),
        ('"../opt"', "{parent}/opt"),
        ('""', "facebook/opt-125m"),
    ],
)
def test_a_path_is_a_path_below_the_file_s_folder_whether_it_is_there_or_not(
    load: Load, tmp_path: Path, path: str, source: str
) -> None:
    expected = source.format(folder=tmp_path, parent=tmp_path.parent)
    assert the_model(load(MODEL % path)).source == expected


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(load: Load) -> None:
    environ = {
        "MODELGRID_MODELS__FACEBOOK_OPT_125M__SOURCE": "/from/environment",
        "MODELGRID_GATEWAY__PORT": "9100",
    }
    config = load(POD, environ, {"gateway.port": "9200"})
    assert the_model(config).source == "/from/environment"
    assert config.gateway.port == 9200


def test_everything_that_is_wrong_is_told_at_once_at_its_place(problems: Lines) -> None:
    text = """\
        {
          "mode": "pod|serverless",
          "model": {"name": " opt", "quantized": true},
          "compute": {"gpu_count": "two"},
          "pod": {"container_disk_gb": -20, "name": ["a"]},
          "serverless": [],
          "pods": {}
        }
    """
    assert problems(text, {"MODELGRID_GATEWAY__PORT": "x"}) == [
        "modelgrid.yaml:2:11: mode: 'pod|serverless' is not one of 'pod' or 'serverless'",
        "modelgrid.yaml:3:21: model.name: ' opt' can't name a model: no control characters, no spaces at the ends",
        "modelgrid.yaml:3:29: model.quantized: 'quantized' is not a field here: there is name, path",
        "modelgrid.yaml:4:28: compute.gpu_count: 'two' is not a whole number",
        "modelgrid.yaml:5:32: pod.container_disk_gb: Input should be greater than 0",
        "modelgrid.yaml:5:45: pod.name: a list is not a text",
        "modelgrid.yaml:6:17: serverless: a list is not a mapping: write fields below it, as `name: value`",
        "modelgrid.yaml:7:3: pods: 'pods' is not a field here; did you mean 'pod'?",
        "environment MODELGRID_GATEWAY__PORT: 'x' is not a whole number",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"mode": "pod"}', "modelgrid.yaml:1:1: model: says no model: add `model:`"),
        ('{"model": {}}', "modelgrid.yaml:1:2: model.name: says no name: add `name:`"),
        (
            '{"model": {"name": ""}}',
            "modelgrid.yaml:1:20: model.name: "
            "is empty: write what the hub calls the model, for example facebook/opt-125m",
        ),
        (
            '{"model": "opt"}',
            "modelgrid.yaml:1:11: model: 'opt' is not a mapping: write fields below it, as `name: value`",
        ),
    ],
)
def test_a_file_without_a_model_says_what_is_missing(problems: Lines, text: str, line: str) -> None:
    assert problems(text) == [line]


def test_a_configuration_that_is_written_as_json_is_one_still(load: Load) -> None:
    config = load('{\n\t"models": {"m": {"engine": "vllm", "source": "a/b"}}\n}')
    assert [spec.name for spec in config.models] == ["m"]


def test_a_file_of_both_shapes_is_a_configuration_with_a_mistake(problems: Lines) -> None:
    text = '{"models": {"m": {"engine": "vllm", "source": "a/b"}}, "mode": "pod"}'
    assert problems(text) == ["modelgrid.yaml:1:56: mode: 'mode' is not a field here; did you mean 'models'?"]


def test_a_yaml_file_that_misspells_models_is_not_taken_for_one(problems: Lines) -> None:
    assert problems("model: {name: a/b}") == [
        "modelgrid.yaml:1:1: model: 'model' is not a field here; did you mean 'models'?"
    ]


def test_secrets_of_the_environment_are_masked_and_not_needed(load: Load) -> None:
    environ = {"RUNPOD_API_KEY": "rp-secret-1", "DOCKER_TOKEN": "dk-secret-2", "CACHE_DIR": "/tmp/answers"}
    config = load(POD, environ)
    assert config.masked("rp-secret-1 dk-secret-2") == f"{MASK} {MASK}"
    shown = repr(config) + show(config)
    assert not [value for value in environ.values() if value in shown]
    assert config.notes[1] == "CACHE_DIR is set, and not used: answers aren't kept in files"


def test_what_is_shown_of_it_loads_to_the_same_models(load: Load) -> None:
    config = load(POD)
    assert load_text(show(config), path=None, environ={}).models == config.models


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return find_paths({"MODELGRID_HOME": str(tmp_path / "home")})


def test_it_is_found_after_modelgrid_yaml(paths: Paths, tmp_path: Path) -> None:
    here = tmp_path / "work/llm_config.json"
    here.write_text(POD)
    assert find_config(paths, {}, None) == here

    variable = tmp_path / "other.json"
    variable.touch()
    environ = {"CONFIG_PATH": str(variable)}
    assert find_config(paths, environ, None) == variable

    ours = tmp_path / "work/modelgrid.yaml"
    ours.touch()
    assert find_config(paths, environ, None) == ours
    assert load_config(find_config(paths, environ, here), environ={}).models[0].name == "facebook/opt-125m"


def test_a_config_path_of_another_program_is_left_alone(paths: Paths, tmp_path: Path) -> None:
    assert find_config(paths, {"CONFIG_PATH": str(tmp_path)}, None) is None
    assert find_config(paths, {"CONFIG_PATH": ""}, None) is None
    with pytest.raises(ConfigError, match=r"^environment CONFIG_PATH: there is no file /gone.json"):
        find_config(paths, {"CONFIG_PATH": "/gone.json"}, None)
