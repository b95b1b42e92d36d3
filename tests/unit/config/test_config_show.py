"""What is shown is what holds, and no secret is in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from modelgrid.config import Config, load_text, show, starter_text

Load = Callable[..., Config]

EVERYTHING = """
gateway: {host: 0.0.0.0, port: 9001, workers: 2, body: 1000001, connections: 10, grace: 1500ms}
machine: {memory: 1.5GiB, main_memory: 8GiB, gpus: [0, 2]}
storage: {environments: /e, models: /m}
models:
  a/b:c:
    engine: vllm
    source: org/name
    aliases: [x, "null", "3", "yes"]
    args: [--a, "8192", "1.10", "true", "~", "$${NOT}", "with space", "é", "a: b", "#"]
    env: {A: "1", B: "", C: "null"}
    needs: {memory: 3GB, gpus: 2, main_memory: 1GB}
    scaling: {min: 1, max: 3, idle: 90m, target: 4, slo: {ttft: 500ms, attain: 0.9}}
    priority: -3
    sleep: 2
    limits:
      {queue: 0, wait: 0.25s, progress: true, requests_per_minute: 60, tokens_per_minute: 100000, concurrency: 8}
    parameters:
      set: {temperature: 0.2, stop: ["a", "1", null], seed: "5", tag: "$${NOT} é \u0085"}
      default: {user: nobody, deep: {a: [1e16, {}]}}
      cap: {max_tokens: 1024, temperature: 1.5}
      strip: [logit_bias]
    routing: {policy: session, session: [header:x-chat], slack: 2}
    operations: [chat, tokenize]
    served: other
    start_timeout: 20m
    stop_grace: 500ms
    trust_remote_code: true
  mine:
    engine: custom
    command: [serve, --port, "{port}"]
    cwd: /tmp
    health: /healthz
    endpoint: /v1/chat/completions
    type: text
    needs: {gpus: 0.5}
  far:
    engine: remote
    url: http://127.0.0.1:8080/v1
  several:
    engine: remote
    urls: [http://127.0.0.1:8080/v1, http://127.0.0.1:8081/v1]
    routing: prefix
virtual:
  smart:
    models: [several, {model: far, weight: 2.5, parameters: {cap: {max_tokens: 512}}}]
    choose: weight
    spill_over: 8
    fall_back: false
    aliases: [gpt-4o]
  plain: {models: [far]}
"""


@pytest.mark.parametrize("text", [EVERYTHING, starter_text(), "", "machine: {gpus: []}"])
def test_what_is_shown_loads_to_the_same(text: str) -> None:
    config = load_text(text, path=None, environ={})
    again = load_text(show(config), path=None, environ={})
    assert again == replace(config, digest=again.digest)


def test_sizes_and_durations_are_shown_as_people_write_them(load: Load) -> None:
    shown = show(load("gateway: {body: 67108864, grace: 3600}\nmachine: {memory: 1000}"))
    assert "body: 64MiB" in shown
    assert "grace: 1h" in shown
    assert "memory: '1000'" in shown


def test_no_secret_is_shown_or_in_a_repr(load: Load) -> None:
    text = """
        models:
          far: {engine: remote, url: "http://127.0.0.1/v1", key: canary-2}
          mine:
            engine: custom
            command: [serve, "{port}", --api-key, canary-3, --token=canary-4, "x${A_SECRET}x", --key, --verbose]
            env: {HF_TOKEN: canary-5, PLAIN: "${A_SECRET}", ALSO: shown}
            needs: {memory: 1GiB}
    """
    config = load(text, {"A_SECRET": "canary-6"})
    assert config.models[1].env["PLAIN"] == "canary-6"
    shown = show(config)
    assert "canary" not in shown
    assert "key: '********'" in shown
    assert "[serve, '{port}', --api-key, '********', --token=********, x********x, --key, --verbose]" in shown
    assert "ALSO: shown" in shown
    for canary in ("canary-2", "canary-5"):
        assert canary not in repr(config)
        assert canary not in config.masked(f"an engine wrote {canary}")


def test_what_only_sounds_like_a_secret_is_shown(load: Load) -> None:
    text = """
        models:
          m:
            engine: vllm
            source: "${A_TOKEN:-org}/name"
            args: [--max-tokens, "5", --tokenizer, other, --tokenizer-mode=auto]
            env: {MAX_TOKENS: "7", KEYBOARD: qwerty, HF_TOKEN: none}
    """
    config = load(text)
    shown = show(config)
    assert "source: org/name" in shown
    assert "args: [--max-tokens, '5', --tokenizer, other, --tokenizer-mode=auto]" in shown
    assert "MAX_TOKENS: '7'" in shown
    assert "KEYBOARD: qwerty" in shown
    assert "HF_TOKEN: '********'" in shown
    assert config.secrets == ()
