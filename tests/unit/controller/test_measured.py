"""What replicas took is what the next one is planned with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelgrid.controller.measured import PEAKS_OF, Measured
from modelgrid.controller.needs import Peak, Sized, sized
from modelgrid.spec import (
    MAIN,
    Device,
    Exited,
    Machine,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Share,
    State,
    Unknown,
    cpu_machine,
)
from modelgrid.spec.weights import Shape, Weights
from modelgrid.store import Run

GIB = 1 << 30
A = ModelName("a")
SPEC = ModelSpec(A, "transformers", source="/w")
BOX = Machine((Device(MAIN, 64 * GIB, 80 * GIB), Device("gpu0", 76 * GIB, 80 * GIB, 0)), accelerator="cuda")
WEIGHTS = Weights(4 * GIB, {"BF16": 2 * GIB}, Shape(1024, 0, 8192, 4096, 1000))


def replica(number: int = 1, *, served: bool = True, device: str = MAIN, planned: int = 8 * GIB) -> Replica:
    """One that was made at 100, seen at 102, ready at 112."""
    return Replica(
        id=ReplicaId(f"a-{number}"),
        model=A,
        revision=SPEC.revision,
        state=State.READY,
        shares=(Share(device, planned),),
        since=112.0,
        created=100.0,
        why="",
        spawned=102.0,
        ready_at=112.0,
        last_used=130.0 if served else 112.0,
    )


def holding(memory_bytes: int | None, **on_gpus: int) -> Running:
    return Running("http://h/v1", "http://h", memory_bytes, 1, on_gpus)


def look(measured: Measured, machine: Machine, *pairs: tuple[Replica, Running | Exited]) -> None:
    """A lap in which these are there."""
    seen = {one.id: Seen(one.id, A, one.revision, state) for one, state in pairs}
    measured.learn({A: Model(SPEC, Need(1))}, [one for one, _ in pairs], seen, {machine.name: machine})


def lived(measured: Measured, machine: Machine, one: Replica, *held: Running) -> None:
    for state in held:
        look(measured, machine, (one, state))
    look(measured, machine)


def test_the_peak_of_a_run_counts_once_it_is_over() -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)
    look(measured, main, (replica(), holding(3)))
    look(measured, main, (replica(), holding(5)))
    look(measured, main, (replica(), holding(4)))
    assert measured.peak(SPEC, "cpu") is None
    look(measured, main)
    assert measured.peak(SPEC, "cpu") == Peak(5)
    assert measured.peak(SPEC, "cuda") is None
    assert measured.peak(replace(SPEC, args=("--more",)), "cpu") is None


def test_one_that_served_nobody_tells_nothing_unless_it_holds_more_than_was_planned() -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)
    lived(measured, main, replica(1, served=False), holding(3))
    assert measured.peak(SPEC, "cpu") is None
    lived(measured, main, replica(2, served=False), holding(9 * GIB))
    assert measured.peak(SPEC, "cpu") == Peak(9 * GIB)


def test_what_sleeps_or_turns_is_not_measured() -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)
    asleep = replace(replica(), state=State.ASLEEP)
    lived(measured, main, asleep, holding(3))
    lived(measured, main, replace(asleep, id=ReplicaId("a-2"), turning="awake"), holding(3))
    assert measured.peak(SPEC, "cpu") is None


def test_on_gpus_both_memories_are_measured() -> None:
    measured = Measured(())
    lived(measured, BOX, replica(device="gpu0"), holding(2 * GIB, gpu0=7 * GIB), holding(3 * GIB))
    assert measured.peak(SPEC, "cuda") == Peak(7 * GIB, 2 * GIB)
    assert measured.peak(SPEC, "cpu") is None


def test_the_last_runs_count_and_older_ones_are_forgotten() -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)
    lived(measured, main, replica(1), holding(50))
    for number in range(2, 2 + PEAKS_OF):
        assert measured.peak(SPEC, "cpu") == Peak(50)
        lived(measured, main, replace(replica(number), created=100.0 + number), holding(number))
    assert measured.peak(SPEC, "cpu") == Peak(PEAKS_OF + 1)


def test_what_a_start_takes_is_the_median_and_does_not_count_what_came_before_its_process() -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)
    assert measured.load_s(A) is None
    for number, ready_at in enumerate((112.0, 105.0, 190.0), start=1):
        lived(measured, main, replace(replica(number), ready_at=ready_at), holding(None))
    assert measured.load_s(A) == 10.0


@pytest.mark.parametrize("spawned", [None, 100.0, 113.0], ids=["not seen", "adopted", "woken"])
def test_a_start_that_was_not_seen_from_its_beginning_is_not_timed(spawned: float | None) -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)
    lived(measured, main, replace(replica(), spawned=spawned), holding(None))
    assert measured.load_s(A) is None


def test_news_are_what_is_worth_writing_down() -> None:
    measured, main = Measured(()), cpu_machine(64 * GIB)

    def news(held: int) -> list[int | None]:
        look(measured, main, (replica(), holding(held)))
        found = measured.news()
        measured.written(found)
        return [run.memory_bytes for run in found]

    assert [news(held) for held in (1000, 1000, 1040, 1060, 900)] == [[1000], [], [], [1060], []]


def test_what_was_written_is_known_to_the_next_but_not_while_its_replica_lives() -> None:
    known = Run(ReplicaId("a-1"), A, SPEC.revision, "cpu", 100.0, 7.0, 3 * GIB)
    measured, main = Measured([known]), cpu_machine(64 * GIB)
    look(measured, main, (replica(), holding(GIB)))
    assert (measured.peak(SPEC, "cpu"), measured.load_s(A)) == (None, 7.0)
    look(measured, main)
    assert measured.peak(SPEC, "cpu") == Peak(3 * GIB)


def need(spec: ModelSpec, machine: Machine, weights: Weights | Unknown, peak: Peak | None) -> tuple[Need, str]:
    found = sized(spec, machine, weights, peak)
    assert isinstance(found, Sized)
    return found.need, found.basis


def test_what_was_measured_comes_before_the_estimate_with_a_margin() -> None:
    main = cpu_machine(64 * GIB)
    estimated, basis = need(SPEC, main, WEIGHTS, None)
    assert basis == "estimated"
    assert estimated.memory_bytes is not None
    assert need(SPEC, main, WEIGHTS, Peak(1000)) == (Need(1100), "measured")
    assert need(SPEC, main, Unknown("the hub is away"), Peak(1000)) == (Need(1100), "measured")


def test_what_is_configured_comes_before_what_was_measured() -> None:
    said = replace(SPEC, memory_bytes=5, main_bytes=6)
    assert need(said, BOX, WEIGHTS, Peak(1000, 1000)) == (Need(5, None, 6), "configured")
    assert need(replace(SPEC, gpus=0.5), BOX, WEIGHTS, Peak(9, 1000)) == (Need(None, 0.5, 1100), "configured")


def test_one_that_has_eaten_everything_once_may_try_again() -> None:
    assert need(SPEC, cpu_machine(8 * GIB), WEIGHTS, Peak(8 * GIB)) == (Need(8 * GIB), "measured")


def test_what_an_engine_was_given_to_fill_is_not_what_it_needs() -> None:
    vllm = replace(SPEC, engine="vllm")
    estimated, _ = need(vllm, BOX, WEIGHTS, None)
    assert estimated.memory_bytes is not None
    assert need(vllm, BOX, WEIGHTS, Peak(estimated.memory_bytes, 10))[0].memory_bytes == estimated.memory_bytes
    more = estimated.memory_bytes + GIB
    assert need(vllm, BOX, WEIGHTS, Peak(more)) == (replace(estimated, memory_bytes=more), "measured")


def test_main_memory_beside_gpus_is_of_gpus_only() -> None:
    assert need(replace(SPEC, engine="vllm"), BOX, WEIGHTS, None)[0].main_bytes > 0
    assert need(replace(SPEC, engine="vllm", gpus=0.0), BOX, WEIGHTS, None)[0].main_bytes == 0
    assert need(replace(SPEC, memory_bytes=5, main_bytes=6), cpu_machine(GIB), WEIGHTS, None)[0] == Need(5)


def test_only_vllm_spreads() -> None:
    assert need(replace(SPEC, engine="vllm"), BOX, WEIGHTS, None)[0].spreads
    assert not need(SPEC, BOX, WEIGHTS, None)[0].spreads


def test_what_nobody_knows_is_said_with_the_next_step() -> None:
    found = sized(SPEC, BOX, Unknown("the hub is away"), None)
    assert found == Unknown("nobody knows how much memory it needs: the hub is away (try: set needs.memory)")
    coming = Unknown("its size is being looked up", is_coming=True)
    assert sized(SPEC, BOX, coming, None) == coming
