"""Virtual models, and what a model says of its requests: from the text to the values."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelgrid.config import Config, load_text, show
from modelgrid.spec import Choice, Limits, ModelName, Parameters, Quota, Routing, Scaling, Virtual, VirtualSpec

Load = Callable[..., Config]
Lines = Callable[..., list[str]]

MODELS = """\
models:
  big: {engine: remote, url: "http://127.0.0.1:1/v1"}
  small: {engine: remote, url: "http://127.0.0.1:2/v1", aliases: [tiny]}
"""


def model(fields: str) -> str:
    return f'models: {{m: {{engine: remote, url: "http://127.0.0.1:1/v1", {fields}}}}}'


def parameters(load: Load, fields: str) -> Parameters:
    found = load(model(f"parameters: {fields}")).models[0].parameters
    assert found is not None
    return found


def test_a_virtual_model_is_models_in_order_each_with_its_own_say(load: Load) -> None:
    text = """
virtual:
  smart:
    models: [big, {model: small, weight: 2, parameters: {cap: {max_tokens: 512}, set: {seed: 1}}}]
    choose: weight
    spill_over: 8
    fall_back: false
    aliases: [gpt-4o, "3"]
  plain: {models: [small]}
"""
    assert load(MODELS + text).virtual == (
        VirtualSpec(
            ModelName("smart"),
            Virtual(
                choices=(
                    Choice(model="big"),
                    Choice(
                        model="small", weight=2.0, parameters=Parameters(cap={"max_tokens": 512.0}, set={"seed": "1"})
                    ),
                ),
                choose="weight",
                spill_over=8,
                fall_back=False,
            ),
            aliases=("gpt-4o", "3"),
        ),
        VirtualSpec(ModelName("plain"), Virtual(choices=(Choice(model="small"),))),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "smart: {models: [bigg]}",
            "4:28: virtual.smart.models[0]: 'bigg' is not a model: there is big, small; did you",
        ),
        ("smart: {models: [{model: no}]}", "virtual.smart.models[0].model: 'no' is not a model: there is big, small"),
        ("smart: {models: [tiny]}", "virtual.smart.models[0]: 'tiny' is an alias: write the model's name, 'small'"),
        (
            "a: {models: [b]}, b: {models: [big]}",
            "virtual.a.models[0]: 'b' is virtual itself: name the models behind it",
        ),
        ("smart: {models: [smart]}", "virtual.smart.models[0]: 'smart' is virtual itself: name the models behind it"),
        ("smart: {models: [big, big]}", "virtual.smart.models[1]: 'big' is given twice: remove one"),
        ("smart: {models: []}", "virtual.smart.models: names no model: write at least one"),
        ("smart: {}", "virtual.smart.models: says no models: add `models:`"),
        ("smart:", "virtual.smart.models: says no models: add `models:`"),
        ("smart: {models: big}", "virtual.smart.models: 'big' is not a list: write [big]"),
        ("smart: {models: [{weight: 1}]}", "virtual.smart.models[0].model: says no model: add `model:`"),
        (
            "smart: {models: [{model: big, wait: 1}]}",
            "virtual.smart.models[0].wait: 'wait' is not a field here; did you",
        ),
        (
            "smart: {models: [{model: big, weight: -1}]}",
            "virtual.smart.models[0].weight: '-1' is too small: at least 0",
        ),
        ("smart: {models: [{model: big, weight: much}]}", "virtual.smart.models[0].weight: 'much' is not a number"),
        ("smart: {models: [{model: big, weight: 0}], choose: weight}", "virtual.smart.models: no model has a weight"),
        ("smart: {models: [big], choose: best}", "virtual.smart.choose: 'best' is not one of 'first' or 'weight'"),
        ("smart: {models: [big], spill_over: 0}", "virtual.smart.spill_over: '0' is too small: at least 1"),
        ("smart: {models: [big], spil_over: 1}", "'spil_over' is not a field here; did you mean 'spill_over'?"),
        (
            "smart: {models: [big, small], needs: {memory: 1GiB}}",
            "virtual.smart.needs: belongs to the models behind it (big, small): nothing is started for a virtual one",
        ),
        ("big: {models: [small]}", "virtual.big: is the name of a model, 'big': rename one"),
        (
            "tiny: {models: [big]}",
            "models.small.aliases[0]: is the name of another model, 'tiny': remove or rename one",
        ),
        (
            "smart: {models: [big], aliases: [tiny]}",
            "virtual.smart.aliases[0]: 'tiny' is an alias of 'small' too: remove",
        ),
        ("smart: {models: [big], aliases: [smart]}", "virtual.smart.aliases[0]: is this model's own name: remove or"),
        ("smart: {models: [big], aliases: [small]}", "is the name of another model, 'small': remove or rename one"),
        ('" s": {models: [big]}', "virtual. s: ' s' can't name a model: no control characters, no spaces at the ends"),
    ],
)
def test_a_mistake_in_a_virtual_model_says_the_next_step(problems: Lines, text: str, expected: str) -> None:
    lines = problems(f"{MODELS}virtual: {{{text}}}")
    assert any(expected in line for line in lines), lines


def test_virtual_models_are_a_mapping(problems: Lines) -> None:
    assert problems("virtual: [a]") == [
        "modelgrid.yaml:1:10: virtual: is a mapping of names: write `NAME: {models: […]}` below it"
    ]


def test_parameters_are_json_with_the_types_that_they_look_like(load: Load) -> None:
    fields = """{
        set: {a: 0.20, b: 3, c: "3", d: true, e: ~, f: [x, 1, "1", {g: null}], h: 1e3, i: a b, j: "null", k: -.5},
        default: {user: "é", big: 12345678901234567890, empty: {}}, cap: {max_tokens: 1024, n: .5}, strip: [x, y, x]}"""
    assert parameters(load, fields) == Parameters(
        strip=("x", "y"),
        default={"user": '"é"', "big": "12345678901234567890", "empty": "{}"},
        set={
            **{"a": "0.2", "b": "3", "c": '"3"', "d": "true", "e": "null", "f": '["x", 1, "1", {"g": null}]'},
            **{"h": "1000.0", "i": '"a b"', "j": '"null"', "k": "-0.5"},
        },
        cap={"max_tokens": 1024.0, "n": 0.5},
    )


def test_a_variable_has_the_type_that_its_value_looks_like_unless_it_is_quoted(load: Load) -> None:
    text = """
        models:
          m:
            engine: remote
            url: http://127.0.0.1:1/v1
            parameters:
              set:
                a: "${N}"
                b: ${N}
                c: "1"
    """
    found = load(text, {"N": "7", "MODELGRID_MODELS__M__PARAMETERS__SET__C": "8"}).models[0].parameters
    assert found == Parameters(set={"a": '"7"', "b": "7", "c": "8"})


def test_without_parameters_nothing_is_done(load: Load) -> None:
    for fields in ("parameters: {}", "parameters: {set: {}, strip: []}", "parameters: ~", "aliases: []"):
        assert load(model(fields)).models[0].parameters is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("set: {model: x}", "models.m.parameters.set.model: 'model' says which model is asked: it is no parameter"),
        ("default: {model: x}", "models.m.parameters.default.model: 'model' says"),
        ("cap: {model: 1}", "models.m.parameters.cap.model: 'model' says"),
        ("strip: [model]", "models.m.parameters.strip[0]: 'model' says"),
        ("set: {stream: true}", "models.m.parameters.set.stream: 'stream' is the caller's to say"),
        ("default: {stream: true}", "models.m.parameters.default.stream: 'stream' is the caller's to say"),
        ("strip: [stream]", "models.m.parameters.strip[0]: 'stream' is the caller's to say"),
        ("cap: {n: many}", "models.m.parameters.cap.n: 'many' is not a number"),
        ("cap: {n: .inf}", "models.m.parameters.cap.n: '.inf' is not a number"),
        ("cap: {n: inf}", "models.m.parameters.cap.n: 'inf' is not a number"),
        ("set: {n: 1e999}", "models.m.parameters.set.n: is too large for a number: write a smaller one, or put it in"),
        ("set: {n: [" + "9" * 1001 + "]}", "models.m.parameters.set.n[0]: is too large for a number"),
        ('set: {n: "\\ud800"}', "models.m.parameters.set.n: holds half a character"),
        ('set: {"": 1}', "'' can't name a field of a request"),
        ("set: 5", "models.m.parameters.set: '5' is not a mapping"),
        ("caps: {n: 1}", "'caps' is not a field here; did you mean 'cap'?"),
    ],
)
def test_a_mistake_in_parameters_says_what_is_wrong(problems: Lines, fields: str, expected: str) -> None:
    lines = problems(model(f"parameters: {{{fields}}}"))
    assert any(expected in line for line in lines), lines


def test_a_quota_is_what_is_limited_at_all(load: Load) -> None:
    limits = load(model("limits: {queue: 3, requests_per_minute: 60, tokens_per_minute: 100000}")).models[0].limits
    assert limits == Limits(3, 600.0, Quota(requests_per_minute=60, tokens_per_minute=100_000))
    assert load(model("limits: {concurrency: 2}")).models[0].limits.quota == Quota(concurrency=2)
    assert load(model("limits: {queue: 3}")).models[0].limits.quota is None


def test_a_model_may_tell_its_callers_that_they_wait(load: Load) -> None:
    assert load(model("limits: {progress: true}")).models[0].limits.progress
    assert not load(model("limits: {queue: 3}")).models[0].limits.progress


def test_routing_is_a_policy_or_fields(load: Load) -> None:
    expected = {
        "routing: prefix": Routing(policy="prefix"),
        "routing: {policy: prefix, slack: 2}": Routing(policy="prefix", slack=2.0),
        "routing: session": Routing(
            policy="session", session=("header:x-session-id", "body:prompt_cache_key", "body:user")
        ),
        "routing: {policy: session, session: [header:X-Chat, body:user]}": Routing(
            policy="session", session=("header:x-chat", "body:user")
        ),
        "routing: least_outstanding": Routing(),
        "routing: {}": Routing(),
    }
    assert {fields: load(model(fields)).models[0].routing for fields in expected} == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            "routing: nearest",
            "1:60: models.m.routing.policy: 'nearest' is not one of 'least_outstanding', 'session' or",
        ),
        ("routing: {session: [body:user]}", "models.m.routing.session: does not belong to policy least_outstanding"),
        (
            "routing: {policy: prefix, session: [body:user]}",
            "does not belong to policy prefix: remove it, or set policy",
        ),
        ("routing: {slack: 2}", "set policy: session or prefix"),
        ("routing: {policy: prefix, slack: 0.5}", "models.m.routing.slack: '0.5' is too small: at least 1"),
        (
            "routing: {policy: session, session: [cookie:a]}",
            "'cookie:a' is no place in a request: write header:NAME, or",
        ),
        ("routing: {policy: session, session: ['header:a b']}", "'header:a b' is no place in a request"),
        ("operations: [chatt]", "models.m.operations[0]: 'chatt' is not an operation: there is chat, completions"),
        ("limits: {concurrency: 0}", "models.m.limits.concurrency: '0' is too small: at least 1"),
    ],
)
def test_a_mistake_in_routing_says_the_next_step(problems: Lines, fields: str, expected: str) -> None:
    lines = problems(model(fields))
    assert any(expected in line for line in lines), lines


def test_operations_are_listed_once_each(load: Load) -> None:
    assert load(model("operations: [rerank, chat, rerank]")).models[0].operations == ("rerank", "chat")


def test_nothing_that_is_said_of_requests_starts_a_replica_anew(load: Load) -> None:
    plain = load(model("aliases: []")).models[0]
    fields = "parameters: {strip: [x]}, routing: prefix, limits: {concurrency: 1}, operations: [chat]"
    assert load(model(fields)).models[0].revision == plain.revision


SERVERS = 'engine: remote, urls: ["http://127.0.0.1:1/v1", "http://127.0.0.1:2", "http://127.0.0.1:3/v1"]'


def test_servers_of_one_model_are_a_replica_each_and_all_used(load: Load) -> None:
    for scaling, expected in (
        ("", Scaling(3, 3)),
        ("scaling: {min: 0}", Scaling(0, 3)),
        ("scaling: {max: 2}", Scaling(2, 2)),
        ("scaling: {min: 1, max: 2}", Scaling(1, 2)),
    ):
        [found] = load(f"models: {{m: {{{SERVERS}, {scaling}}}}}").models
        assert (found.scaling, found.url, len(found.urls)) == (expected, None, 3)
    for field, expected in (
        ('url: "http://127.0.0.1:1"', Scaling(0, 1)),
        ('urls: ["http://127.0.0.1:1"]', Scaling(1, 1)),
    ):
        [one] = load(f"models: {{m: {{engine: remote, {field}}}}}").models
        assert one.scaling == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SERVERS}, url: 'http://127.0.0.1:1'", "models.m.urls: is there beside url: remove one"),
        (f"{SERVERS}, scaling: {{max: 4}}", "models.m.scaling.max: 4 is more than there are servers, which is 3: name"),
        (
            "engine: remote, urls: [ftp://x]",
            "models.m.urls: 'ftp://x' is not a URL that starts with http:// or https://",
        ),
        ("engine: remote, urls: ['a b']", "models.m.urls[0]: is not a URL: it is printable ASCII without spaces"),
        ("engine: remote, urls: []", "models.m.url: is missing: write the OpenAI base URL"),
        ("engine: vllm, source: a/b, urls: ['http://x']", "models.m.urls: does not belong to engine vllm: it names"),
    ],
)
def test_a_mistake_in_servers_says_the_next_step(problems: Lines, text: str, expected: str) -> None:
    lines = problems(f"models: {{m: {{{text}}}}}")
    assert any(expected in line for line in lines), lines


def test_an_override_reaches_a_virtual_model(load: Load) -> None:
    environ = {"MODELGRID_VIRTUAL__SMART_ONE__SPILL_OVER": "3", "MODELGRID_VIRTUAL__SMART_ONE__MODELS": "[small, big]"}
    [found] = load(MODELS + "virtual: {smart-one: {models: [big]}}", environ).virtual
    assert (found.virtual.spill_over, found.models) == (3, ("small", "big"))


def test_a_parameter_that_is_called_a_secret_is_not_shown(load: Load) -> None:
    shown = show(
        load(model("parameters: {set: {api_key: canary-1}, default: {x: '${A_TOKEN}'}}"), {"A_TOKEN": "canary-2"})
    )
    assert "canary" not in shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(JSON)
@example({"${": "${NAME}"})
def test_whatever_a_parameter_is_set_to_is_shown_so_that_it_loads_to_the_same(value: object) -> None:
    config = load_text(model("parameters: {set: {x: 1}}"), path=None, environ={})
    spec = replace(config.models[0], parameters=Parameters(set={"x": json.dumps(value, ensure_ascii=False)}))
    again = load_text(show(replace(config, models=(spec,))), path=None, environ={})
    found = again.models[0].parameters
    assert found is not None
    assert json.loads(found.set["x"]) == value
    assert type(json.loads(found.set["x"])) is type(value) or isinstance(value, int | float)
