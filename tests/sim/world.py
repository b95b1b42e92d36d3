"""A world of faults for the planner: what runs, who calls, and the controller's loop between them, as thin as the real
one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelgrid.planner import Facts, Lap, apply, observe, plan
from modelgrid.spec import (
    Action,
    Asleep,
    Drain,
    Failures,
    Fleet,
    IllegalMove,
    Machine,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Refuse,
    Replica,
    ReplicaId,
    Sleep,
    Start,
    State,
    Stop,
    Wake,
    Wish,
)
from modelgrid.spec.rate import Rate
from sim.callers import Callers
from sim.checks import Checks
from sim.faults import Faults
from sim.grid import Grid

AWAY_S = 4.0  # a controller that died is back within so long
LONGEST_JUMP_S = 8 * 3600.0


@dataclass(frozen=True)
class Kept:
    """What the store holds."""

    replicas: tuple[Replica, ...] = ()
    failures: Mapping[ModelName, Failures] = field(default_factory=dict)
    next: int = 1


class World:
    """Everything, tick by tick. `violations` tells what went wrong."""

    def __init__(
        self,
        dice: random.Random,
        faults: Faults,
        machines: Sequence[Machine],
        specs: Mapping[ModelName, ModelSpec],
        needs: Mapping[ModelName, Need],
        *,
        sleeps: Mapping[ModelName, Asleep] | None = None,
        arrivals: float = 0.15,
        request_s: float = 6.0,
        is_calm: bool = False,
        is_moody: bool = False,
    ) -> None:
        self.dice = dice
        self.faults = faults
        self.specs = dict(specs)
        self.needs = dict(needs)
        self.sleeps = dict(sleeps or {})
        self.is_calm = is_calm  # nothing goes wrong, from the start
        self.callers = Callers(dice, tuple(specs), arrivals, request_s, is_moody)
        self.grid = Grid(dice, faults, list(machines), lambda id: self.callers.break_off(id, self.grid.time))
        self.wishes: dict[ModelName, Wish] = {}
        self.skew_s = 1e6  # how far the controller's clock is from the world's
        # What the controller remembers, and what of it would survive its death.
        self.replicas: tuple[Replica, ...] = ()
        self.failures: dict[ModelName, Failures] = {}
        self.next = 1
        self.kept = Kept()
        self._unwritable_until = 0.0
        self._away_until = 0.0
        self._inherited: frozenset[ReplicaId] = frozenset()
        self._is_routed = True  # gateways act on the table of this controller
        self._table: dict[ModelName, list[ReplicaId]] = {}
        self.checks = Checks(self)

    @property
    def now(self) -> float:
        """The controller's clock."""
        return self.grid.time + self.skew_s

    @property
    def violations(self) -> list[str]:
        """What must never be, and was."""
        return self.checks.violations + self.grid.violations + self.callers.violations

    def tick(self) -> None:
        """One step of the world, then one lap of the controller."""
        self.grid.tick()
        self._meddle()
        self.callers.tick(self.grid.time, self._table, self.grid.processes)
        if self.grid.time >= self._away_until:
            try:
                self._lap()
            except IllegalMove as error:
                self.checks.fail(str(error))
        self.checks.every_tick()

    def calm_down(self) -> None:
        """No more faults and no new callers; what is there has to be served and put in order."""
        self.faults = Faults()
        self.grid.calm_down(self.faults)
        self.wishes.clear()
        self.callers.arrivals = 0.0
        self._unwritable_until = self._away_until = 0.0

    # the controller's loop

    def _lap(self) -> None:
        if self._happens("store_lost"):
            self.kept = Kept(next=self._older_next())
            self.checks.forgotten()
            self._restart()
        before = (self.replicas, self.failures)
        facts = self._facts()
        picture = self._fleet(facts.blind)
        lap = self.observe(picture, facts)
        self.checks.observed(before[0], lap, facts)
        self.replicas, self.failures = lap.replicas, lap.failures
        if lap.failures == before[1]:
            fleet = replace(picture, replicas=lap.replicas)
        else:
            fleet = replace(picture, replicas=lap.replicas, models=self._models())
        actions = self.plan(fleet)
        self.replicas = apply(fleet, actions)
        self.checks.planned(fleet, actions, self.replicas)
        self._count(actions)
        death = self._death(actions)
        if death == 0:
            self._die()
            return
        if not self.save(lap):
            self.replicas, self.failures = before
            return
        self._inherited = frozenset()
        self.checks.saved(lap, self.now)
        self.publish()
        told = {action.replica for action in actions if isinstance(action, Sleep | Wake)}
        for replica in self.replicas:
            if replica.turning is not None and replica.id not in told:
                self.grid.turn(replica, is_new=False)
        for done, action in enumerate(actions, 1):
            if done == death:
                break
            self.checks.before(action, fleet)
            self._do(action)
        if death is not None:
            self._die()
        self.grid.forget(frozenset(replica.id for replica in self.replicas))

    def observe(self, fleet: Fleet, facts: Facts) -> Lap:
        """The other half of the planner."""
        return observe(fleet, facts)

    def plan(self, fleet: Fleet) -> list[Action]:
        """The planner."""
        return plan(fleet)

    def save(self, lap: Lap) -> bool:
        """Whether the store took it."""
        if self.grid.time < self._unwritable_until:
            return False
        self.kept = Kept(self.replicas, self.failures, self.next)
        return True

    def publish(self) -> None:
        """The routing table, by which callers go from now on."""
        self._table = {}
        for replica in self.replicas:
            if replica.state is State.READY:
                self._table.setdefault(replica.model, []).append(replica.id)
        self._is_routed = True

    def _do(self, action: Action) -> None:
        self.grid.met.add(type(action).__name__)
        match action:
            case Start(replica=id):
                self.grid.start(self._replica(id))
            case Stop(replica=id, force=force):
                self.grid.stop(id, force)
            case Sleep(replica=id) | Wake(replica=id):
                self.grid.turn(self._replica(id), is_new=True)
            case Refuse(model=name):
                self.callers.refuse(name)
            case Drain():
                pass  # the table has it

    def _death(self, actions: Sequence[Action]) -> int | None:
        """At which action this controller dies: before the save at 0, before the first at 1, after the last at one
        more than there are; None: not in this lap."""
        return self.dice.randint(0, len(actions) + 1) if self._happens("controller_dies") else None

    def _die(self) -> None:
        self._away_until = self.grid.time + self.dice.choice([0.0, 0.0, AWAY_S])
        self._restart()

    def _restart(self) -> None:
        """Another controller, with what is kept. Who used a replica last, and when it was first seen, is not."""
        self.grid.let_go()
        self.replicas = tuple(taken_over(replica, self.now) for replica in self.kept.replicas)
        self.failures = dict(self.kept.failures)
        self.next = self.kept.next
        self._inherited = frozenset(replica.id for replica in self.replicas)
        self._is_routed = False

    def _older_next(self) -> int:
        """A copy of long ago was put back. Where machines are away nobody could tell which numbers were given."""
        back = self.dice.choice([2, 5, 1000]) if len(self.grid.machines) == 1 else 0
        return max(1, self.kept.next - back)

    def _count(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self.next = max(self.next, int(action.replica.rsplit("-", 1)[1]) + 1)

    # the picture

    def _facts(self) -> Facts:
        grid = self.grid
        served = grid.served()
        in_flight = {} if not self._is_routed or self._happens("workers_unheard") else self._in_flight()
        return Facts(
            now=self.now,
            starting=frozenset(grid.calls),
            inherited=self._inherited,
            seen=grid.look(),
            blind=frozenset(grid.blind),
            start_errors=dict(grid.errors),
            served=served,
            sick=grid.sick([replica.id for replica in self.replicas if replica.state is State.READY]),
            slept=grid.slept(),
            turn_errors=dict(grid.turn_errors),
            woken=served & {replica.id for replica in self.replicas if replica.turning == "awake"},
            in_flight=in_flight,
            seen_on={id: process.runtime for id, process in grid.processes.items()},
        )

    def _in_flight(self) -> dict[ReplicaId, int]:
        return {replica.id: len(self.callers.running.get(replica.id, ())) for replica in self.replicas}

    def _fleet(self, blind: frozenset[str]) -> Fleet:
        return Fleet(
            now=self.now,
            machines=self.grid.present,
            models=self._models(),
            replicas=self.replicas,
            next=self.next,
            blind=blind,
            held=self.grid.held() if self.faults.grow else {},
        )

    def _models(self) -> tuple[Model, ...]:
        return tuple(self.model(spec) for spec in self.specs.values())

    def model(self, spec: ModelSpec) -> Model:
        """A model as the planner sees it."""
        name = spec.name
        waiting, rate = self.callers.waiting.get(name, ()), self.callers.rates.get(name, Rate())
        return Model(
            spec=spec,
            need=self.needs[name],
            runtime="other" if self.needs[name].memory_bytes == 0 else "process",
            waiting=len(waiting),
            waiting_since=min(waiting) + self.skew_s if waiting else None,
            last_used=self.callers.last_used.get(name, -self.skew_s) + self.skew_s,
            failures=self.failures.get(name, Failures()),
            wish=self.wishes.get(name),
            rate=Rate(rate.per_s, rate.at + self.skew_s),
            sleep=self.sleeps.get(name),
        )

    def _replica(self, id: ReplicaId) -> Replica:
        return next(replica for replica in self.replicas if replica.id == id)

    # what people and clocks do

    def _meddle(self) -> None:
        if self._happens("store_fails"):
            self._unwritable_until = self.grid.time + self.dice.uniform(0.5, 5.0)
        if self._happens("clock_jumps"):
            far_s = self.dice.choice([2.0, 60.0, 3600.0, LONGEST_JUMP_S])
            self.skew_s += self.dice.uniform(-far_s, far_s)
        if self._happens("edit"):
            name = self.dice.choice(sorted(self.specs))
            self.specs[name] = replace(self.specs[name], args=(str(self.grid.time),))
        if self._happens("wish"):
            name = self.dice.choice(sorted(self.specs))
            self.wishes[name] = self.dice.choice([Wish.LOADED, Wish.UNLOADED])
            self.wishes.pop(self.dice.choice(sorted(self.specs)), None)

    def _happens(self, fault: str) -> bool:
        happens = self.faults.happens(fault, self.dice)
        if happens:
            self.grid.met.add(fault)
        return happens


def taken_over(replica: Replica, now: float) -> Replica:
    """As the controller takes over what an earlier one has left."""
    spawned = None if replica.state is State.STARTING else replica.spawned
    return replace(replica, last_used=now, in_flight=None, spawned=spawned, stops=min(1, replica.stops))
