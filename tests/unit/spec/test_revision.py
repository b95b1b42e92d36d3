"""A revision changes when a running replica is no longer what the specification says."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from modelgrid.spec import Environment, Limits, ModelName, ModelSpec, Parameters, Routing, Scaling
from modelgrid.spec.usage import Price

SPEC = ModelSpec(name=ModelName("m"), engine="vllm")

RUNNING_REPLICAS_DIFFER: dict[str, Any] = {
    "name": "n",
    "engine": "custom",
    "source": "a/b",
    "args": ("--x",),
    "env": {"A": "b"},
    "command": ("serve",),
    "script": "/s.py",
    "requirements": "/r.txt",
    "cwd": "/c",
    "port": 1,
    "health": "/h",
    "endpoint": "/v1/x",
    "type": "text",
    "url": "http://x/v1",
    "urls": ("http://x/v1", "http://y/v1"),
    "key": "k",
    "served": "s",
    "trust_remote_code": True,
    "gpus": 2,
    "sleep": 1,
}
RUNNING_REPLICAS_STAY: dict[str, Any] = {
    "aliases": ("a",),
    "memory_bytes": 5,
    "main_bytes": 5,
    "price": Price(input=1.0),
    "priority": 1,
    "scaling": Scaling(min=1),
    "limits": Limits(queue=1),
    "parameters": Parameters(strip=("x",)),
    "routing": Routing(policy="prefix"),
    "operations": ("chat",),
    "start_timeout_s": 1.0,
    "health_timeout_s": 1.0,
    "stop_grace_s": 1.0,
}


@pytest.mark.parametrize("name", RUNNING_REPLICAS_DIFFER)
def test_what_a_replica_runs_with_changes_the_revision(name: str) -> None:
    assert dataclasses.replace(SPEC, **{name: RUNNING_REPLICAS_DIFFER[name]}).revision != SPEC.revision


@pytest.mark.parametrize("name", RUNNING_REPLICAS_STAY)
def test_what_only_the_plan_reads_keeps_the_revision(name: str) -> None:
    assert dataclasses.replace(SPEC, **{name: RUNNING_REPLICAS_STAY[name]}).revision == SPEC.revision


def test_every_field_is_one_or_the_other() -> None:
    decided = RUNNING_REPLICAS_DIFFER.keys() | RUNNING_REPLICAS_STAY.keys()
    assert {field.name for field in dataclasses.fields(ModelSpec) if field.init} == decided


def test_a_revision_is_the_same_in_another_process() -> None:
    spec = dataclasses.replace(SPEC, env={"B": "1", "A": "2"})
    made = "ModelSpec(name=ModelName('m'), engine='vllm', env={'A': '2', 'B': '1'})"
    code = f"from modelgrid.spec import ModelName, ModelSpec; print({made}.revision)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == (
        spec.revision
    )


def test_environments_are_shared_by_what_needs_the_same() -> None:
    one = Environment("vllm", requirements=("vllm==1",), torch="torch==2")
    assert one.key() == dataclasses.replace(one).key()
    assert one.key("a") != one.key("b")
    assert one.key() != dataclasses.replace(one, torch=None).key()
    assert one.key().startswith("vllm-")


def test_secrets_are_not_in_a_repr() -> None:
    spec = dataclasses.replace(SPEC, key="CANARY", env={"TOKEN": "CANARY"})
    assert "CANARY" not in repr(spec)
