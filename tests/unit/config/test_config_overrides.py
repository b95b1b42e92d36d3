"""Environment over file, command line over environment; and variables in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelgrid.config import Config

Load = Callable[..., Config]
Lines = Callable[..., list[str]]

MODELS = """\
gateway: {port: 1000, workers: 3}
models:
  qwen2.5-7b: {engine: vllm, source: a/b, scaling: {min: 0}, args: [--one]}
  Org/Name: {engine: vllm, source: a/b}
"""


def test_environment_wins_over_the_file_and_the_command_line_over_both(load: Load) -> None:
    environ = {"MODELGRID_GATEWAY__PORT": "2000", "MODELGRID_GATEWAY__HOST": "::1"}
    gateway = load(MODELS, environ, {"gateway.port": "3000"}).gateway
    assert (gateway.host, gateway.port, gateway.workers) == ("::1", 3000, 3)


def test_a_section_that_the_file_lacks_can_be_overridden(load: Load) -> None:
    assert load("", {"MODELGRID_MACHINE__MEMORY": "2GiB"}).machine.memory_bytes == 2 * 2**30


def test_models_are_matched_without_case_and_punctuation(load: Load) -> None:
    environ = {
        "MODELGRID_MODELS__QWEN2_5_7B__SCALING__MIN": "1",
        "MODELGRID_MODELS__QWEN2_5_7B__ARGS": "[--two, 2]",
        "MODELGRID_MODELS__ORG_NAME__ENV__VLLM__Mixed": "${not a variable}",
        "MODELGRID_MODELS__org_name__SOURCE": "c/d",
    }
    qwen, other = load(MODELS, environ).models
    assert (qwen.scaling.min, qwen.args) == (1, ("--two", "2"))
    assert (other.env, other.source) == ({"VLLM__Mixed": "${not a variable}"}, "c/d")


def test_names_that_are_no_fields_are_left_alone(load: Load) -> None:
    environ = {"MODELGRID_HOME": "/x", "MODELGRID_CONFIG": "/y", "MODELGRID_WHATEVER": "z", "OTHER__THING": "1"}
    assert load(MODELS, environ).gateway.port == 1000


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MODELGRID_GATEWAY__PROT", "1", "'prot' is not a field here; did you mean 'port'?"),
        ("MODELGRID_GATEWAYS__PORT", "1", "'gateways' is not a field here; did you mean 'gateway'?"),
        ("MODELGRID_GATEWAY__PORT", "many", "'many' is not a whole number"),
        ("MODELGRID_GATEWAY__PORT__X", "1", "a mapping is not a whole number"),
        ("MODELGRID_MODELS__QWEN__ENGINE", "vllm", "names no model: there is 'qwen2.5-7b', 'Org/Name'"),
        ("MODELGRID_MODELS__ORG_NAME__SCALING__MIN", "-1", "'-1' is too small: at least 0"),
        ("MODELGRID_MODELS__ORG_NAME__ENGINE", "vlm", "did you mean 'vllm'?"),
    ],
)
def test_a_problem_names_the_variable(problems: Lines, name: str, value: str, expected: str) -> None:
    lines = problems("gateway: {}\n" + MODELS.split("\n", 1)[1], {name: value})
    assert len(lines) == 1
    assert lines[0].startswith(f"environment {name}: ")
    assert expected in lines[0]


def test_a_variable_that_goes_too_deep_is_told(problems: Lines) -> None:
    assert problems(MODELS, {"MODELGRID_GATEWAY__PORT__X": "1"}) == [
        "environment MODELGRID_GATEWAY__PORT__X: there are no fields below gateway.port"
    ]


def test_a_problem_within_an_overridden_list_names_the_variable(problems: Lines) -> None:
    text = "models: {m: {engine: vllm, source: x/y, aliases: [fine, fine]}}"
    assert problems(text, {"MODELGRID_MODELS__M__ALIASES": '[" a"]'}) == [
        "environment MODELGRID_MODELS__M__ALIASES: ' a' can't name a model: no control characters, no spaces at the "
        "ends"
    ]


def test_a_variable_that_fits_two_models_is_refused(problems: Lines) -> None:
    text = "models: {a-b: {engine: vllm, source: x/y}, a.b: {engine: vllm, source: x/y}}"
    assert problems(text, {"MODELGRID_MODELS__A_B__PORT": "1"}) == [
        "environment MODELGRID_MODELS__A_B__PORT: names more than one model: 'a-b', 'a.b'"
    ]


def test_a_problem_names_the_option(problems: Lines) -> None:
    assert problems("", {}, {"gateway.port": "0"}) == ["--port: '0' is too small: at least 1"]


def test_what_is_overridden_need_not_be_right_in_the_file(load: Load) -> None:
    text = "gateway: {port: '${NOT_SET}', host: [a, b]}"
    gateway = load(text, {"MODELGRID_GATEWAY__HOST": "h"}, {"gateway.port": "5"}).gateway
    assert (gateway.host, gateway.port) == ("h", 5)


def test_variables_are_filled_in_wherever_a_value_stands(load: Load, tmp_path: Path) -> None:
    text = """
        gateway: {port: "${PORT}", host: "${HOST:-127.0.0.2}"}
        models:
          m:
            engine: vllm
            source: ${WHERE:-org}/${NAME}
            args: ["$${kept}", "$plain", "{port}", "${EMPTY:-default}", "${NAME:-unused}"]
            env: {TOKEN: "${SECRET_TOKEN}"}
    """
    environ = {"PORT": "81", "NAME": "n", "SECRET_TOKEN": "canary", "EMPTY": ""}
    config = load(text, environ)
    assert (config.gateway.port, config.gateway.host) == (81, "127.0.0.2")
    assert config.models[0].source == "org/n"
    assert config.models[0].args == ("${kept}", "$plain", "{port}", "default", "n")
    assert config.models[0].env == {"TOKEN": "canary"}
    assert config.secrets == ("canary",)
    assert config.variables == {"PORT", "NAME", "SECRET_TOKEN"}  # the others gave no value


def test_a_missing_variable_and_a_broken_reference_say_the_next_step(problems: Lines) -> None:
    assert problems('gateway: {host: "${GONE}", port: "${9X}", body: "${OPEN"}') == [
        "modelgrid.yaml:1:17: gateway.host: the environment variable GONE is not set: set it, or write "
        "${GONE:-a default}",
        "modelgrid.yaml:1:34: gateway.port: '${9X}' is not a variable: write ${NAME}, or $${ for the characters ${ "
        "themselves",
        "modelgrid.yaml:1:49: gateway.body: '${OPEN' is not a variable: write ${NAME}, or $${ for the characters ${ "
        "themselves",
    ]


def test_a_variable_is_not_read_twice(load: Load) -> None:
    assert load('gateway: {host: "${A}"}', {"A": "${B}", "B": "no"}).gateway.host == "${B}"
