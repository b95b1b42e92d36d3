"""What `GET /metrics` shows, as Prometheus' own parser reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from modelgrid.controller.metrics import render
from modelgrid.controller.metrics_page import reference
from modelgrid.controller.totals import Counts, Totals
from modelgrid.spec import ModelStatus, ReplicaStatus, Status, metrics
from modelgrid.spec.messages import Series
from modelgrid.spec.metrics import METRICS, Metric
from unit.controller.stage import Play, Stage, spec, until

ODD = 'a/b "c"\n\\ü'

MODEL = ModelStatus(
    name="m",
    engine="custom",
    source=None,
    aliases=(),
    state="ready",
    why="",
    memory_bytes=100,
    waiting=2,
    in_flight=3,
    last_used=0.0,
    min=0,
    max=1,
    wish=None,
    retry_at=None,
)
REPLICA = ReplicaStatus(
    id="m-1",
    model="m",
    state="ready",
    since=0.0,
    why="",
    memory_bytes=100,
    resident_bytes=80,
    in_flight=3,
    url=None,
    pid=None,
    step=None,
    phases={},
    engine_running=3,
    engine_waiting=1,
    cache_usage=0.25,
)
STATUS = Status(
    version="1.2.3",
    now=20.0,
    started=10.0,
    config=None,
    config_error=None,
    memory_bytes=1000,
    memory_source="measured",
    memory_planned_bytes=200,
    table=1,
    workers=2,
    address="http://127.0.0.1:9000",
    models=(MODEL, replace(MODEL, name=ODD, state="cold", waiting=0, in_flight=None)),
    replicas=(REPLICA, replace(REPLICA, id="m-2", state="starting", resident_bytes=None, cache_usage=0.5)),
)


class Page:
    """A page as it was read."""

    def __init__(self, text: bytes) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text.decode())}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def value(self, metric: Metric, *labels: str) -> float | None:
        return self.sample(metric.name, **dict(zip(metric.labels, labels, strict=True)))

    def sample(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))


def page(*parts: Counts, status: Status = STATUS) -> Page:
    return Page(render(status, parts))


def test_every_metric_has_its_kind_and_meaning_also_before_anything_is_counted() -> None:
    found = page().families
    assert {(family.name, family.type, family.documentation) for family in found.values()} == {
        (metric.name.removesuffix("_total"), metric.kind.value, metric.help) for metric in METRICS
    }


def test_the_reference_page_is_current() -> None:
    file = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
    step = "run: .venv/bin/python -m modelgrid.controller.metrics_page > docs/reference/metrics.md"
    assert file.read_text(encoding="utf-8") == reference(), step


def test_gauges_show_the_last_lap() -> None:
    found = page()
    assert found.value(metrics.REQUESTS_IN_FLIGHT, "m") == 3
    assert found.value(metrics.REQUESTS_IN_FLIGHT, ODD) is None, "unknown is not none"
    assert found.value(metrics.REQUESTS_WAITING, "m") == 2
    assert found.value(metrics.MODEL_STATE, "m", "ready") == 1
    assert found.value(metrics.MODEL_STATE, "m", "cold") == 0
    assert found.value(metrics.MODEL_STATE, ODD, "cold") == 1
    assert found.value(metrics.REPLICAS, "m", "ready") == 1
    assert found.value(metrics.REPLICAS, "m", "starting") == 1
    assert found.value(metrics.REPLICAS, "m", "failed") == 0
    assert found.value(metrics.REPLICAS, ODD, "ready") == 0
    assert found.value(metrics.MEMORY_BUDGET) == 1000
    assert found.value(metrics.MEMORY_PLANNED, "m") == 200
    assert found.value(metrics.MEMORY_PLANNED, ODD) == 0
    assert found.value(metrics.MEMORY_RESIDENT, "m") == 80
    assert found.value(metrics.MEMORY_RESIDENT, ODD) is None
    assert found.value(metrics.ENGINE_RUNNING, "m") == 6
    assert found.value(metrics.ENGINE_WAITING, "m") == 2
    assert found.value(metrics.ENGINE_CACHE_USAGE, "m") == 0.5
    assert found.value(metrics.ENGINE_RUNNING, ODD) is None
    assert found.value(metrics.GATEWAY_WORKERS) == 2
    assert found.value(metrics.CONTROLLER_START) == 10
    assert found.value(metrics.BUILD_INFO, "1.2.3") == 1


def test_trouble_can_be_alerted_on() -> None:
    assert (page().value(metrics.CONTROLLER_ACTS), page().value(metrics.CONFIG_IN_FORCE)) == (1, 1)
    troubled = page(status=replace(STATUS, problem="the disk is full", config_error="line 3"))
    assert (troubled.value(metrics.CONTROLLER_ACTS), troubled.value(metrics.CONFIG_IN_FORCE)) == (0, 0)


def test_the_replicas_of_a_model_that_was_taken_out_are_shown_until_they_are_gone() -> None:
    found = page(status=replace(STATUS, models=()))
    assert found.value(metrics.REPLICAS, "m", "ready") == 1
    assert found.value(metrics.MEMORY_PLANNED, "m") == 200


def test_counters_and_labels_of_any_text_come_over_as_they_are() -> None:
    labels = (ODD, "chat", "alice", "200")
    found = page({(metrics.REQUESTS.name, labels): (7,)})
    assert found.value(metrics.REQUESTS, *labels) == 7


def test_a_histograms_buckets_are_cumulative() -> None:
    totals = Totals()
    for seconds in (0.5, 1.0, 700.0, 5000.0):
        totals.observe(metrics.COLD_START, ("m",), seconds)
    found = page(*totals.parts())
    name = metrics.COLD_START.name
    assert {end: found.sample(f"{name}_bucket", model="m", le=end) for end in ("1.0", "600.0", "1200.0", "+Inf")} == {
        "1.0": 2,
        "600.0": 2,
        "1200.0": 3,
        "+Inf": 4,
    }
    assert found.sample(f"{name}_count", model="m") == 4
    assert found.sample(f"{name}_sum", model="m") == 5701.5


def test_a_controller_shows_what_its_workers_counted_and_what_it_did(play: Play) -> None:
    async def scene(stage: Stage) -> None:
        engine = await stage.engine()
        stage.configure(spec("a", engine))
        controller = await stage.begin()
        worker = await stage.worker()
        worker.demand("a", 1, oldest_s=2.0)
        await stage.routed(worker, "a")
        requests = Series(metrics.REQUESTS.name, ("a", "chat", "", "200"), (5,))
        worker.load({"a": 5}, (requests, Series(metrics.GATEWAY_CONNECTIONS.name, ("w1",), (1,))))
        await until(lambda: stage.model().last_used)
        found = Page(await controller.metrics())
        assert found.value(metrics.REQUESTS, "a", "chat", "", "200") == 5
        assert found.value(metrics.GATEWAY_CONNECTIONS, "w1") == 1
        assert found.value(metrics.MODEL_STATE, "a", "ready") == 1
        assert [found.value(metrics.EVENTS, "a", event) for event in ("start", "ready", "failed")] == [1, 1, None]
        assert found.sample(f"{metrics.COLD_START.name}_count", model="a") == 1
        whole = found.sample(f"{metrics.COLD_START.name}_sum", model="a")
        assert whole is not None
        assert whole >= 2.0, "it began when the first request came"
        phases = [value for (name, _), value in found.samples.items() if name == metrics.START_PHASE.name]
        assert sum(phases) == whole
        await worker.close()
        await until(lambda: stage.controller.status().workers == 0)
        gone = Page(await controller.metrics())
        assert gone.value(metrics.REQUESTS, "a", "chat", "", "200") == 5
        assert gone.value(metrics.GATEWAY_CONNECTIONS, "w1") is None

    play(scene)
