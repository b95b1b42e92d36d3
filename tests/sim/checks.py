"""What must hold in a simulated world: at every tick, after every move, before every deed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from modelgrid.planner import Facts, Lap, retry_at
from modelgrid.planner.backoff import FIRST_DELAY_S
from modelgrid.planner.end import DRAIN_LIMIT_S
from modelgrid.planner.evict import PATIENCE_S, TURN
from modelgrid.planner.grow import LEVEL_S
from modelgrid.planner.scale import floor
from modelgrid.spec import (
    MOVES,
    Action,
    Drain,
    Failures,
    Fleet,
    ModelName,
    Refuse,
    Replica,
    ReplicaId,
    Share,
    Sleep,
    Start,
    State,
    Stop,
    Wake,
    Wish,
)

if TYPE_CHECKING:
    from sim.world import World

FAIR_WAIT_S = 60.0  # for each model that wants its turn


class Checks:
    """The rules. They know more than the planner: what really runs, and who really calls."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.violations: list[str] = []
        self._failed_at: dict[str, float] = {}
        self._may_take = {
            (machine.name, device.name): device.memory_bytes
            for machine in world.grid.machines
            for device in machine.devices
        }

    def fail(self, what: str) -> None:
        """Note what must not be."""
        self.violations.append(f"{self._world.grid.time:.1f}: {what}")

    def every_tick(self) -> None:
        """What holds whatever has happened."""
        world = self._world
        time = world.grid.time
        held = self._held((process.machine, process.holds(time)) for process in world.grid.processes.values())
        for at, held_bytes in held.items():
            if held_bytes > self._may_take[at]:
                self.fail(f"processes hold {held_bytes} of {self._may_take[at]} on {at}")
        if not world.is_calm:
            return
        if any(failures.count for failures in world.failures.values()):
            self.fail(f"a failure where nothing fails: {world.failures}")
        # Also where they ask for more than there is room for, each model is served now and then.
        highest = max(spec.priority for spec in world.specs.values())
        for name, queue in world.callers.waiting.items():
            if queue:
                unserved_s = world.grid.time - max(min(queue), world.callers.last_used.get(name, 0.0))
                above = highest - world.specs[name].priority
                if unserved_s > FAIR_WAIT_S * len(world.specs) + LEVEL_S * above:
                    self.fail(f"{name} starves, nobody was served for {unserved_s:.0f} s")

    def observed(self, before: Sequence[Replica], lap: Lap, facts: Facts) -> None:
        """What a lap may make of the facts."""
        after = {replica.id: replica for replica in lap.replicas}
        if len(after) != len(lap.replicas):
            self.fail(f"an id twice in {[replica.id for replica in lap.replicas]}")
        for replica in before:
            self._check_move(replica, after.get(replica.id))
            if replica.runtime in facts.blind and not _is_as_it_was(replica, after.get(replica.id)):
                self.fail(f"{replica.id} became {after.get(replica.id)} where nobody could see")
            if replica.id not in after and self._lives_unlisted(replica.id, facts):
                self.fail(f"{replica.id} is taken for gone, and was listed")

    def saved(self, lap: Lap, now: float) -> None:
        """What has become known for good. A clock that was put back counts back-offs from then on, where they were not
        over: after one that was put forward they may have been."""
        failures = self._world.failures
        self._failed_at = {
            name: min(at, now)
            for name, at in self._failed_at.items()
            if at <= now or failures.get(ModelName(name), Failures()).count
        }
        for event in lap.events:
            if event.what == State.FAILED.value:
                self._failed_at[event.model] = now

    def forgotten(self) -> None:
        """The store was lost."""
        self._failed_at.clear()

    def planned(self, fleet: Fleet, actions: Sequence[Action], after: Sequence[Replica]) -> None:
        """What a plan may say."""
        known = {replica.id: replica for replica in after}
        for replica in fleet.replicas:
            self._check_move(replica, known.get(replica.id))
        told = Counter(action.replica for action in actions if not isinstance(action, Refuse))
        if twice := [id for id, count in told.items() if count > 1]:
            self.fail(f"{twice} are told two things at once")
        counted = self._held((replica.machine, replica.counted) for replica in after)
        for at, planned_bytes in counted.items():
            present = any(machine.name == at[0] for machine in fleet.machines)
            has_new = any(isinstance(action, Start | Wake) for action in actions)
            if present and has_new and planned_bytes > self._may_take[at]:
                new = [a for a in actions if isinstance(a, Start | Wake) and at in self._on(a, known)]
                if new:
                    self.fail(f"{new} where {planned_bytes} of {self._may_take[at]} are planned on {at}")
        if self._world.is_calm and any(isinstance(action, Refuse) for action in actions):
            self.fail(f"a refusal where there is room for all in turn: {actions}")

    def before(self, action: Action, fleet: Fleet) -> None:
        """What may be done now."""
        if isinstance(action, Refuse):
            return
        replica = next((replica for replica in fleet.replicas if replica.id == action.replica), None)
        kept = next((replica for replica in self._world.kept.replicas if replica.id == action.replica), None)
        if kept is None or (replica is not None and not _is_told(kept, action)):
            self.fail(f"{action} is done and was not saved")
        match action:
            case Start():
                self._check_start(action, fleet)
            case Drain():
                assert replica is not None
                self._check_drain(replica, action, fleet)
            case Stop() | Sleep():
                assert replica is not None
                self._check_drained(replica, fleet.now)
            case Wake():
                assert replica is not None
                if replica.state is not State.ASLEEP or replica.turning:
                    self.fail(f"{replica.id} is woken as {replica.state}, {replica.turning}")

    def _check_start(self, action: Start, fleet: Fleet) -> None:
        world = self._world
        model = next(model for model in fleet.models if model.spec.name == action.model)
        failures = world.failures.get(action.model, Failures())
        since_failure_s = fleet.now - self._failed_at.get(action.model, float("-inf"))
        if fleet.now < retry_at(failures) or 0 <= since_failure_s < FIRST_DELAY_S:
            self.fail(f"{action.replica} started {since_failure_s} s after a failure: {failures}")
        if model.runtime in fleet.blind:
            self.fail(f"{action.replica} started where nobody can see")
        if model.wish is Wish.UNLOADED and not model.waiting:
            self.fail(f"{action.replica} started, and nobody wants it")
        alive = [r for r in world.replicas if r.model == action.model and r.state in (State.STARTING, State.READY)]
        most = max(model.spec.scaling.max, floor(model))
        if len(alive) > most:
            self.fail(f"{action.replica} is one more than {most} of {action.model}")

    def _turns(self, action: Drain, replica: Replica, fleet: Fleet) -> float:
        """How many times its start a busy replica stays: a higher priority need not wait for that."""
        priorities = {model.spec.name: model.spec.priority for model in fleet.models}
        other = action.because.other if action.because else None
        is_above = other is not None and priorities[ModelName(other)] > priorities[replica.model]
        return 0.0 if is_above else TURN

    def _check_drain(self, replica: Replica, action: Drain, fleet: Fleet) -> None:
        running = self._world.callers.running.get(replica.id)
        if action.why.startswith("no request") and (replica.in_flight is None or running):
            self.fail(f"{replica.id} drained as idle with {running} in flight: {action.why}")
        if running and action.why.startswith("its memory is needed"):
            assert replica.ready_at is not None
            stayed_s = fleet.now - replica.ready_at
            took_s = replica.ready_at - replica.created if replica.took_s is None else replica.took_s
            if stayed_s < max(PATIENCE_S, self._turns(action, replica, fleet) * took_s):
                self.fail(f"{replica.id} drained {stayed_s:.1f} s after it was ready, with {len(running)} in flight")

    def _check_drained(self, replica: Replica, now: float) -> None:
        running = self._world.callers.running.get(replica.id)
        if replica.state is State.DRAINING and running and now - replica.since < DRAIN_LIMIT_S:
            self.fail(f"{replica.id} ended with {len(running)} in flight")
        if replica.state is State.READY:
            self.fail(f"{replica.id} ended, and was not drained")

    def _check_move(self, before: Replica, after: Replica | None) -> None:
        if after is None:
            if before.state not in (State.STOPPING, State.FAILED):
                self.fail(f"{before.id} was {before.state} and is gone")
        elif after.state is not before.state and after.state not in MOVES[before.state]:
            self.fail(f"{before.id} went from {before.state} to {after.state}")

    def _lives_unlisted(self, id: ReplicaId, facts: Facts) -> bool:
        return id in facts.seen or id in facts.starting

    def _on(self, action: Start | Wake, known: Mapping[ReplicaId, Replica]) -> set[tuple[str, str]]:
        replica = known[action.replica]
        return {(replica.machine, share.device) for share in replica.counted}

    def _held(self, takers: Iterable[tuple[str, tuple[Share, ...]]]) -> Counter[tuple[str, str]]:
        held: Counter[tuple[str, str]] = Counter()
        for machine, shares in takers:
            for share in shares:
                held[machine, share.device] += share.memory_bytes
        return held


def _is_as_it_was(before: Replica, after: Replica | None) -> bool:
    """But for one that was seen to take too much before."""
    return after is not None and (after.state is before.state or after.why.startswith("it holds"))


def _is_told(kept: Replica, action: Action) -> bool:
    """Whether the store knows of what a replica is told."""
    match action:
        case Drain():
            return kept.state is State.DRAINING
        case Stop():
            return kept.state in (State.STOPPING, State.FAILED) and kept.stops > 0
        case Sleep():
            return kept.state is State.ASLEEP and kept.turning == "asleep"
        case Wake():
            return kept.state is State.ASLEEP and kept.turning == "awake"
    return True
