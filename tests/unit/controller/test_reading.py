"""An engine's load, as its page of metrics tells it."""

from __future__ import annotations

import pytest

from modelgrid.controller.reading import Reading, read_load
from modelgrid.spec import EngineLoad

LOAD = EngineLoad("/metrics", "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_running_total 99
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting 4.0 1700000000000
vllm:kv_cache_usage_perc{engine="0",model_name="a}b c"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a}b c"} 0.5
"""


def test_ranks_add_up_and_the_fullest_cache_counts() -> None:
    assert read_load(PAGE, LOAD) == Reading(5, 4, 0.5)


def test_an_engine_may_have_no_cache_to_tell_of() -> None:
    assert read_load(PAGE, EngineLoad("/metrics", LOAD.running, LOAD.waiting)) == Reading(5, 4)
    assert read_load(PAGE.partition("vllm:kv")[0], LOAD) == Reading(5, 4)


@pytest.mark.parametrize(
    "page", ["", "<html>", PAGE.replace("waiting", "queued"), PAGE.replace(" 4.0 1700", " x 1700")]
)
def test_a_page_that_does_not_tell_it_tells_nothing(page: str) -> None:
    assert read_load(page, LOAD) is None
