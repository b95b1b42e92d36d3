"""Bad input: every problem at once, each with its place and the next step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelgrid.config import Config, ConfigError, ConfigProblem, load_config, load_text
from modelgrid.engines import ENGINES

Lines = Callable[..., list[str]]
KNOWN = ", ".join(ENGINES)


def test_every_problem_is_told_at_once_with_its_place(problems: Lines) -> None:
    text = """\
        gateway: {port: abc, workerz: 1}
        machine: {memory: 16GiBB}
        modles: {}
        models:
          a:
            engine: vlm
            source: x/y
            args: --max-model-len 8192
            scaling: {min: 3, max: 2, idle: a while}
          b: {engine: vllm, source: x/y, aliases: [c, c, b, a], port: 70000}
          b: {engine: vllm, source: x/y}
          d: {source: x/y}
          e:
    """
    assert problems(text) == [
        "modelgrid.yaml:1:17: gateway.port: 'abc' is not a whole number",
        "modelgrid.yaml:1:22: gateway.workerz: 'workerz' is not a field here; did you mean 'workers'?",
        "modelgrid.yaml:2:19: machine.memory: '16GiBB' is not a size (write for example 16GiB, 500MB or a number of "
        "bytes)",
        "modelgrid.yaml:3:1: modles: 'modles' is not a field here; did you mean 'models'?",
        f"modelgrid.yaml:6:13: models.a.engine: 'vlm' is not an engine: there is {KNOWN}; did you mean 'vllm'?",
        "modelgrid.yaml:8:11: models.a.args: '--max-model-len 8192' is not a list: write [--max-model-len, 8192]",
        "modelgrid.yaml:9:20: models.a.scaling.min: 3 is more than max, which is 2: raise max",
        "modelgrid.yaml:9:37: models.a.scaling.idle: 'a while' is not a duration (write for example 90s, 15m, 1h30m)",
        "modelgrid.yaml:10:47: models.b.aliases[1]: 'c' is given twice: remove one",
        "modelgrid.yaml:10:50: models.b.aliases[2]: is this model's own name: remove or rename one",
        "modelgrid.yaml:10:53: models.b.aliases[3]: is the name of another model, 'a': remove or rename one",
        "modelgrid.yaml:10:63: models.b.port: '70000' is too large: at most 65535",
        "modelgrid.yaml:11:3: models.b: two models of one name: 'b' is on line 10 and on line 11; rename one",
        f"modelgrid.yaml:12:3: models.d: says no engine: add `engine:` with one of {KNOWN}",
        f"modelgrid.yaml:13:3: models.e: says nothing: write at least an engine ({KNOWN})",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: {m: {engine: vllm, source: a/b, memory: 1GiB}}", "did you mean 'needs.memory'?"),
        (
            "models: {m: {engine: custom, command: [x], needs: {memory: 1GiB}, port: 8001, scaling: {max: 2}}}",
            "models.m.port: 8001 can be held by one replica only: remove it, and each replica gets one of its own; or "
            "set scaling.max to 1 (it is 2)",
        ),
        ("models: {m: {engine: vllm, model: a/b}}", "did you mean 'source'?"),
        (
            "models: {m: {engine: vllm, source: a/b, needs: {vram: 1}}}",
            "'vram' is not a field here: there is memory, gpus, main_memory",
        ),
        ("models: {m: {engine: vllm, source: a/b, needs: {gpus: 1.5}}}", "'1.5' is not a number of GPUs: a share of"),
        ("models: {m: {engine: vllm, source: a/b, needs: {gpus: all}}}", "'all' is not a number of GPUs: write 0 to"),
        ("models: {m: {engine: vllm, source: a/b, needs: {gpus: 65}}}", "'65' is not a number of GPUs: write 0 to"),
        ("models: {m: {engine: vllm, source: a/b, sleep: 3}}", "'3' is not a level of sleep: "),
        ("models: {m: {engine: vllm, source: a/b, priority: high}}", "'high' is not a whole number"),
        (
            "models: {m: {engine: vllm, source: a/b, scaling: {slo: {attain: 0.9}}}}",
            "models.m.scaling.slo: names no objective: add ttft",
        ),
        ("models: {m: {engine: vllm, source: a/b, scaling: {slo: {ttft: 1s, attain: 2}}}}", "'2' is too large"),
        ("machine: {gpus: [-1]}", "machine.gpus[0]: '-1' is too small: at least 0"),
        ("models: {m: {engine: vllm, source: a/b, needs: 1GiB}}", "'1GiB' is not a mapping: write fields below it"),
        ("models: {m: 5}", "models.m: '5' is not a mapping: write fields below it"),
        ("models: [a]", "models: is a mapping of names: write `NAME: {engine: …, source: …}` below it"),
        ("gateway: 5", "gateway: '5' is not a mapping"),
        ("models: {m: {engine: vllm, source: a/b, aliases: x}}", "'x' is not a list: write [x]"),
        ("models: {m: {engine: vllm, source: a/b, args: [~]}}", "models.m.args[0]: is empty: write a value, or"),
        ("models: {m: {engine: vllm, source: a/b, scaling: {max: 0}}}", "'0' is too small: at least 1"),
        ("models: {m: {engine: vllm, source: a/b, limits: {wait: -1s}}}", "'-1s' is not a duration"),
        ("models: {m: {engine: vllm, source: a/b, start_timeout: 1000000d}}", "'1000000d' is out of bounds: at most"),
        ("models: {m: {engine: vllm, source: a/b, needs: {memory: 0}}}", "'0' is out of bounds: 1 byte to 1024.0 TiB"),
        ("models: {m: {engine: vllm, source: a/b, needs: {memory: " + "9" * 400 + "}}}", "models.m.needs.memory: "),
        ("models: {m: {engine: vllm, source: a/b, trust_remote_code: maybe}}", "'maybe' is neither true nor false"),
        ("models: {m: {engine: vllm, source: a/b, health: health}}", "'health' is not a path on a server: it starts"),
        ("models: {m: {engine: vllm, source: a/b, env: {1A: b}}}", "'1A' can't name an environment variable"),
        ("models: {m: {engine: vllm, source: a/b, env: {MODELGRID_PORT: 1}}}", "is modelgrid's own to set"),
        ('models: {m: {engine: vllm, source: a/b, args: ["\\0"]}}', "holds a NUL character"),
        ('models: {m: {engine: vllm, source: "a/\\ud800"}}', "models.m.source: holds half a character"),
        ("models: {m: {engine: vllm, source: ~nouser/x}}", "models.m.source: '~nouser/x' is below the home of nobody"),
        ("models: {m: {service_script: ~nouser/x}}", "models.m.service_script: '~nouser/x' is below the home of"),
        ("models: {m: {engine: vllm, source: " + "x" * 300 + "}}", "models.m.source: is too long for a path"),
        ("models: {m: {service_script: " + "x" * 300 + "}}", "models.m.service_script: is too long for a path"),
        ("models: {m: {service_script: " + "x/" * 2500 + "}}", "models.m.service_script: is too long for a path"),
        ("models: {m: {engine: vllm, source: a/b, requirements: ~nouser/x}}", "models.m.requirements: '~nouser/x' is"),
        ("models: {m: {engine: custom, cwd: ~nouser/x}}", "models.m.cwd: '~nouser/x' is below the home of nobody"),
        ("storage: {models: ~nouser/x, environments: " + "é" * 128 + "}", "storage.models: '~nouser/x' is below"),
        ("storage: {models: ~nouser/x, environments: " + "é" * 128 + "}", "storage.environments: is too long"),
        ("models: {m: {engine: remote, url: http://x/v1, key: 'a b'}}", "models.m.key: can't be sent: a key is print"),
        ('models: {m: {engine: remote, url: http://x/v1, key: "abc\\n"}}', "is there a line break at its end?"),
        ("models: {m: {engine: remote, url: http://x/v1, key: é}}", "models.m.key: can't be sent: a key is printable"),
        (
            'models: {m: {engine: remote, url: "http://x/\\r\\nv1"}}',
            "models.m.url: is not a URL: it is printable ASCII",
        ),
        ("models: {m: {engine: remote, url: 'http://x /v1'}}", "models.m.url: is not a URL: it is printable ASCII"),
        ("models: {m: {engine: vllm, source: a/b, health: '/a b'}}", "models.m.health: is not a URL: it is printable"),
        ('models: {" m": {engine: vllm, source: a/b}}', "' m' can't name a model"),
        ('models: {"m\\n": {engine: vllm, source: a/b}}', "can't name a model"),
        ('models: {"": {engine: vllm, source: a/b}}', "a model's name has 1 to 256 characters, not 0"),
        ("models: {" + "m" * 257 + ": {engine: vllm, source: a/b}}", "a model's name has 1 to 256 characters, not 257"),
        ("models: {m: {service_script: a.py, script: b.py}}", "models.m.script: says the same as service_script"),
        ("models: {[a]: {engine: vllm}}", "models: a name here is a plain word or text"),
        ("gateway:\n\tport: 1", "modelgrid.yaml:2:1: this is not YAML"),
        ("gateway:\n\tport: 1", "indent with spaces, not with tabs"),
        ("gateway: {port: 1", "modelgrid.yaml:1:18: this is not YAML"),
        ("- a", "modelgrid.yaml:1:1: a configuration is a mapping: it starts with a field such as `models:`"),
        ("gateway: {}\n---\nmodels: {}", "modelgrid.yaml:2:1: this is not YAML: expected a single document"),
        ("gateway: {host: a\x01}", "modelgrid.yaml:1:18: the character U+0001 can't stand here"),
        ("gateway: &a {host: *a}", "gateway.host: refers to itself"),
        ("gateway: &a {<<: *a}", "gateway: refers to itself"),
        ("gateway: !!python/object:os.system {}", "YAML tags such as 'python/object:os.system' have no meaning here"),
        ("gateway: {port: 1}\ngateway: {port: 2}", "gateway: is given twice: on line 1 and on line 2; remove one"),
        ("[" * 5000, "is nested too deep"),
        ("# " + "x" * 2**20, "is longer than 1048576 characters"),
    ],
)
def test_a_mistake_says_what_is_wrong_and_the_next_step(problems: Lines, text: str, expected: str) -> None:
    assert any(expected in line for line in problems(text)), problems(text)


def test_files_that_are_named_have_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "modelgrid.yaml"
    path.write_text("""\
models:
  a: {service_script: a.py, requirements: a.txt}
  b: {script: b.py}
  c: {engine: custom, command: [serve], port: 8001, needs: {memory: 1GiB}, cwd: folder}
""")
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ={})
    step = "make it, or correct the path"
    assert [(problem.line, problem.where, problem.message) for problem in caught.value.problems] == [
        (2, "models.a.service_script", f"there is no file {tmp_path}/a.py: {step}"),
        (2, "models.a.requirements", f"there is no file {tmp_path}/a.txt: {step}"),
        (3, "models.b.script", f"there is no file {tmp_path}/b.py: {step}"),
        (4, "models.c.cwd", f"there is no folder {tmp_path}/folder: {step}"),
    ]
    for name in ("a.py", "a.txt", "b.py"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    assert len(load_config(path, environ={}).models) == 3


def test_a_model_can_not_have_the_port_that_callers_use(problems: Lines) -> None:
    model = "{engine: custom, command: [serve], port: 9000, needs: {memory: 1GiB}}"
    (line,) = problems(f"models: {{m: {model}}}")
    assert line.startswith(
        "modelgrid.yaml:1:54: models.m.port: 9000 is where callers are served (gateway.port): choose"
    )
    (line,) = problems(f"models: {{m: {model.replace('9000', '9001')}}}", {}, {"gateway.port": "9001"})
    assert line.startswith("modelgrid.yaml:1:54: models.m.port: 9001 is where callers are served")


def test_models_that_take_turns_may_share_a_port(load: Callable[..., Config]) -> None:
    model = "{engine: custom, command: [serve], port: 8001, needs: {memory: 1GiB}}"
    assert [spec.port for spec in load(f"models: {{a: {model}, b: {model}}}").models] == [8001, 8001]


def test_a_long_value_does_not_fill_the_screen(problems: Lines) -> None:
    (line,) = problems("machine: {memory: " + "x" * 10_000 + "}")
    assert len(line) < 600


def test_an_alias_belongs_to_one_model(problems: Lines) -> None:
    text = """\
        models:
          a: {engine: vllm, source: x/y, aliases: [gpt-4o]}
          b: {engine: vllm, source: x/y, aliases: [gpt-4o]}
    """
    assert problems(text) == ["modelgrid.yaml:3:44: models.b.aliases[0]: 'gpt-4o' is an alias of 'a' too: remove one"]


def test_anchors_that_multiply_without_end_are_refused_soon(problems: Lines) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert any("has more than 100000 values" in line for line in problems("\n".join(levels)))


def test_what_an_engine_finds_wrong_has_its_place(problems: Lines) -> None:
    lines = problems("models:\n  m:\n    engine: vllm\n")
    assert len(lines) == 1
    assert lines[0].startswith("modelgrid.yaml:2:3: models.m.source: ")


def test_problems_are_values_for_programs_too(tmp_path: Path) -> None:
    path = tmp_path / "modelgrid.yaml"
    with pytest.raises(ConfigError) as caught:
        load_text("gateway: {port: x}", path=path, environ={})
    assert caught.value.problems == (ConfigProblem(1, 17, "gateway.port", "'x' is not a whole number"),)
    assert caught.value.path == path


def test_problems_of_the_embedded_default_say_so() -> None:
    with pytest.raises(ConfigError, match=r"^the embedded default:1:1: a configuration is a mapping"):
        load_text("- a", path=None, environ={})


def test_a_word_about_tokens_is_shown_in_a_problem(problems: Lines) -> None:
    (line,) = problems("models: {m: {engine: vllm, source: a/b, args: --max-tokens 5 --tokenizer t}}")
    assert line.endswith("'--max-tokens 5 --tokenizer t' is not a list: write [--max-tokens, 5, --tokenizer, t]")


def test_a_secret_is_never_in_a_problem(problems: Lines) -> None:
    text = """\
        gateway: {port: "${CANARY_TOKEN}", host: [a]}
        models:
          m: {engine: remote, url: http://x/v1, key: [canary-literal], env: {A: {x: canary-env}}}
          n: {engine: "${CANARY_TOKEN}", source: a/b}
          o: {engine: vllm, source: a/b, env: HUGGING=canary-text, args: --api-key canary-argument}
          p: {engine: remote, url: http://x/v1, key: canary-spaced word, served: {x: canary-spaced word}}
          q: {engine: canary-literal-2, key: canary-literal-2}
    """
    said = "\n".join(problems(text, {"CANARY_TOKEN": "canary-value"}))
    assert "gateway.port: '********' is not a whole number" in said
    assert "models.m.key" in said
    assert "canary-" not in said
