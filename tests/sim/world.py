"""A world of faults for the planner: runtimes that lose calls, processes that hang and die, callers that come and go.

It is strict where a real runtime is forgiving: a second start under one id is recorded as a violation, not absorbed.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace

from modelgrid.planner import Facts, apply, observe, plan, retry_at
from modelgrid.planner.plan import DRAIN_LIMIT_S
from modelgrid.spec import (
    Drain,
    Exited,
    Failures,
    Fleet,
    Limits,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Refuse,
    Replica,
    ReplicaId,
    Running,
    Scaling,
    Seen,
    Start,
    State,
    Stop,
    Wish,
    cpu_machine,
    sum_of,
)

TICK_S = 0.5
SICK_AFTER_S = 10.0
FAIR_WAIT_S = 40.0  # for each model that wants its turn


@dataclass
class Process:
    """A process of the world, with what it will do."""

    replica: ReplicaId
    model: ModelName
    revision: str
    memory: int
    ready_at: float  # never: infinity
    ignores_stop: bool
    hung_since: float | None = None
    exited: str | None = None
    children: int = 0  # outlive the main process until they are killed
    stop_at: float | None = None


@dataclass
class Call:
    """A start that is under way; what it will do is decided already."""

    ends_at: float
    makes_process: bool
    error: str | None


@dataclass
class Faults:
    """How often what goes wrong, by call or by tick and process."""

    lose_start: float = 0.0  # error, nothing there
    lose_start_reply: float = 0.0  # error, but the process is there
    lose_stop: float = 0.0
    ignore_stop: float = 0.0
    crash: float = 0.0
    hang: float = 0.0
    never_ready: float = 0.0
    forget: float = 0.0  # an exited process is no longer listed
    blind: float = 0.0  # list() answers Unknown for a while
    controller_dies: float = 0.0
    store_lost: float = 0.0
    workers_unheard: float = 0.0
    edit: float = 0.0  # somebody changes the configuration
    wish: float = 0.0


@dataclass
class World:
    """Everything outside the planner, and the thin loop around it, tick by tick."""

    dice: random.Random
    faults: Faults
    budget: int
    specs: dict[ModelName, ModelSpec]
    sizes: dict[ModelName, int]
    now: float = 1000.0
    processes: dict[ReplicaId, Process] = field(default_factory=dict)
    calls: dict[ReplicaId, Call] = field(default_factory=dict)
    errors: dict[ReplicaId, str] = field(default_factory=dict)
    started: Counter[ReplicaId] = field(default_factory=Counter)
    blind_until: float = 0.0
    # What the controller remembers.
    replicas: tuple[Replica, ...] = ()
    failures: dict[ModelName, Failures] = field(default_factory=dict)
    next: int = 1
    wishes: dict[ModelName, Wish] = field(default_factory=dict)
    # Callers: when each waiting request came; when each running one ends.
    is_calm: bool = False  # a world without faults from the start
    waiting: dict[ModelName, list[float]] = field(default_factory=dict)
    running: dict[ReplicaId, list[float]] = field(default_factory=dict)
    last_used: dict[ModelName, float] = field(default_factory=dict)
    arrivals: float = 0.15  # by tick and model
    request_s: float = 6.0  # the longest
    answered: Counter[ModelName] = field(default_factory=Counter)
    refused: Counter[ModelName] = field(default_factory=Counter)
    broken: Counter[ModelName] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def tick(self) -> None:
        """One step of the world, then one lap of the controller."""
        self.now += TICK_S
        self._finish_calls()
        self._misbehave()
        self._callers()
        self._lap()
        self._check()

    def calm_down(self) -> None:
        """No more faults and no new callers; what is there has to be served and put in order."""
        self.faults = Faults()
        self.wishes.clear()
        self.arrivals = 0.0
        self.blind_until = 0.0

    # the controller's loop, as thin as the real one

    def _lap(self) -> None:
        if self._happens(self.faults.store_lost):
            self._restart_controller()
            self.replicas, self.failures = (), {}
            self.next = max(1, self.next - self.dice.choice([2, 5, 1000]))  # an older copy of it was put back
        starting = frozenset(self.calls)
        is_blind = self.now < self.blind_until
        facts = Facts(
            now=self.now,
            seen={} if is_blind else {process.replica: self._seen(process) for process in self.processes.values()},
            blind=frozenset({"process"}) if is_blind else frozenset(),
            starting=starting,
            start_errors=dict(self.errors),
            served=frozenset(p.replica for p in self.processes.values() if self._is_served(p)),
            sick={p.replica: "no answer" for p in self.processes.values() if self._is_sick(p)},
            in_flight={} if self._happens(self.faults.workers_unheard) else self._in_flight(),
        )
        lap = observe(self._fleet(facts.blind), facts)
        if is_blind and any(event.what == "failed" for event in lap.events):
            self.violations.append(f"{self.now}: a failure where nobody could see: {lap.events}")
        self.replicas, self.failures = lap.replicas, lap.failures
        fleet = self._fleet(facts.blind)
        actions = plan(fleet)
        self.replicas = apply(fleet, actions)
        for action in actions:
            if isinstance(action, Start):
                self.next = max(self.next, int(action.replica.rsplit("-", 1)[1]) + 1)
        # Saved; a controller that dies here has ordered what it never did.
        if self._happens(self.faults.controller_dies):
            self._restart_controller()
            return
        self.errors = {id: why for id, why in self.errors.items() if any(r.id == id for r in self.replicas)}
        for action in actions:
            match action:
                case Start(replica=id, model=name, shares=shares):
                    self._start(id, name, sum_of(shares))
                case Stop(replica=id, force=force):
                    self._check_drained(next(replica for replica in fleet.replicas if replica.id == id))
                    self._stop(id, force)
                case Drain(replica=id, why=why):
                    self._check_idle(next(replica for replica in fleet.replicas if replica.id == id), why)
                case Refuse(model=name):
                    self.refused[name] += len(self.waiting.get(name, []))
                    self.waiting[name] = []

    def _fleet(self, blind: frozenset[str]) -> Fleet:
        return Fleet(
            now=self.now,
            machines=(cpu_machine(self.budget),),
            models=tuple(self._model(spec) for spec in self.specs.values()),
            replicas=self.replicas,
            next=self.next,
            blind=blind,
        )

    def _model(self, spec: ModelSpec) -> Model:
        waiting = self.waiting.get(spec.name, [])
        return Model(
            spec=spec,
            need=Need(self.sizes[spec.name]),
            waiting=len(waiting),
            waiting_since=min(waiting) if waiting else None,
            last_used=self.last_used.get(spec.name, 0.0),
            failures=self.failures.get(spec.name, Failures()),
            wish=self.wishes.get(spec.name),
        )

    def _restart_controller(self) -> None:
        """Calls under way die with it; what they had done stays."""
        for id, call in list(self.calls.items()):
            if call.makes_process and self.dice.random() < 0.5:
                self._appear(id)
        self.calls.clear()
        self.errors.clear()

    # runtimes

    def _start(self, id: ReplicaId, name: ModelName, memory: int) -> None:
        self.started[id] += 1
        if self.now < retry_at(self.failures.get(name, Failures())):
            self.violations.append(f"{self.now}: {id} started within its back-off: {self.failures[name]}")
        if self.started[id] > 1 and (id in self.processes or id in self.calls):
            self.violations.append(f"{self.now}: second start of {id}")
        roll = self.dice.random()
        ends = self.now + self.dice.choice([0.0, TICK_S, 4 * TICK_S])
        if roll < self.faults.lose_start:
            self.calls[id] = Call(ends, False, "the call was lost")
        elif roll < self.faults.lose_start + self.faults.lose_start_reply:
            self.calls[id] = Call(ends, True, "the answer was lost")
        else:
            self.calls[id] = Call(ends, True, None)

    def _finish_calls(self) -> None:
        for id, call in list(self.calls.items()):
            if call.ends_at <= self.now:
                del self.calls[id]
                if call.makes_process:
                    self._appear(id)
                if call.error:
                    self.errors[id] = call.error

    def _appear(self, id: ReplicaId) -> None:
        replica = next((replica for replica in self.replicas if replica.id == id), None)
        if replica is None:
            return
        load_s = float("inf") if self._happens(self.faults.never_ready) else self.dice.uniform(0.5, 8.0)
        self.processes[id] = Process(
            id,
            replica.model,
            replica.revision,
            replica.memory_bytes,
            ready_at=self.now + load_s,
            ignores_stop=self._happens(self.faults.ignore_stop),
            children=self.dice.choice([0, 0, 1]),
        )

    def _stop(self, id: ReplicaId, force: bool) -> None:
        call = self.calls.pop(id, None)  # the controller cancels its own call
        if call is not None and call.makes_process and self.dice.random() < 0.3:
            self._appear(id)
        process = self.processes.get(id)
        if process is None or self._happens(self.faults.lose_stop):
            return
        if process.exited and not process.children:
            del self.processes[id]
        elif force or not process.ignores_stop:
            process.stop_at = self.now + self.dice.choice([0.0, TICK_S, 3 * TICK_S])
            process.children = 0

    def _misbehave(self) -> None:
        if self._happens(self.faults.blind):
            self.blind_until = self.now + self.dice.uniform(1, 10)
        for id, process in list(self.processes.items()):
            if process.stop_at is not None and process.stop_at <= self.now:
                del self.processes[id]
                self._break(id)
            elif process.exited and not process.children and self._happens(self.faults.forget):
                del self.processes[id]
            elif not process.exited and self._happens(self.faults.crash):
                process.exited = "exited with code 1"
                self._break(id)
            elif not process.exited and process.hung_since is None and self._happens(self.faults.hang):
                process.hung_since = self.now
        if self._happens(self.faults.edit):
            name = self.dice.choice(sorted(self.specs))
            self.specs[name] = replace(self.specs[name], args=(str(self.now),))
        if self._happens(self.faults.wish):
            name = self.dice.choice(sorted(self.specs))
            self.wishes[name] = self.dice.choice([Wish.LOADED, Wish.UNLOADED])
            self.wishes.pop(self.dice.choice(sorted(self.specs)), None)

    def _seen(self, process: Process) -> Seen:
        url = f"http://127.0.0.1/{process.replica}"
        state = Exited(process.exited, process.children) if process.exited else Running(url, url)
        return Seen(process.replica, process.model, process.revision, state)

    def _is_served(self, process: Process) -> bool:
        return not process.exited and process.hung_since is None and process.ready_at <= self.now

    def _is_sick(self, process: Process) -> bool:
        return process.hung_since is not None and self.now - process.hung_since > SICK_AFTER_S

    # callers

    def _callers(self) -> None:
        for name in self.specs:
            queue = self.waiting.setdefault(name, [])
            if self.dice.random() < self.arrivals:
                queue.append(self.now)
            for id in self._ready(name):
                running = self.running.setdefault(id, [])
                process = self.processes[id]
                if process.hung_since is None:
                    done = [end for end in running if end <= self.now]
                    self.answered[name] += len(done)
                    self.running[id] = running = [end for end in running if end > self.now]
                while queue and len(running) < 8:
                    queue.pop(0)
                    self.last_used[name] = self.now
                    running.append(self.now + self.dice.uniform(0.1, self.request_s))
        for id in list(self.running):
            draining = any(r.id == id and r.state is State.DRAINING for r in self.replicas)
            host = self.processes.get(id)
            if draining and host and host.hung_since is None:
                self.answered[host.model] += sum(end <= self.now for end in self.running[id])
                self.running[id] = [end for end in self.running[id] if end > self.now]

    def _ready(self, name: ModelName) -> list[ReplicaId]:
        return [
            replica.id
            for replica in self.replicas
            if replica.model == name
            and replica.state is State.READY
            and replica.id in self.processes
            and not self.processes[replica.id].exited
        ]

    def _in_flight(self) -> dict[ReplicaId, int]:
        return {replica.id: len(self.running.get(replica.id, [])) for replica in self.replicas}

    def _break(self, id: ReplicaId) -> None:
        """What ran there has not sent a byte yet: it waits again, as the gateway does it."""
        ends = self.running.pop(id, [])
        model = next((replica.model for replica in self.replicas if replica.id == id), None)
        if model is not None and ends:
            self.broken[model] += len(ends)
            self.waiting.setdefault(model, [])[:0] = [self.now] * len(ends)

    # what must hold at every tick

    def _check(self) -> None:
        held = sum(process.memory for process in self.processes.values())
        if held > self.budget:
            self.violations.append(f"{self.now}: processes hold {held} of {self.budget}")
        planned = sum(replica.memory_bytes for replica in self.replicas)
        if planned > self.budget:
            self.violations.append(f"{self.now}: {planned} of {self.budget} planned")
        ids = [replica.id for replica in self.replicas]
        if len(ids) != len(set(ids)):
            self.violations.append(f"{self.now}: an id twice in {ids}")

        if self.is_calm and any(failures.count for failures in self.failures.values()):
            self.violations.append(f"{self.now}: a failure where nothing fails: {self.failures}")
        for name, queue in self.waiting.items():
            if self.is_calm and queue and self.now - min(queue) > FAIR_WAIT_S * len(self.specs):
                self.violations.append(f"{self.now}: {name} starves, its oldest request came at {min(queue)}")

    def _check_drained(self, replica: Replica) -> None:
        is_early = self.now - replica.since < DRAIN_LIMIT_S
        if replica.state is State.DRAINING and is_early and self.running.get(replica.id):
            self.violations.append(f"{self.now}: {replica.id} stopped with {len(self.running[replica.id])} in flight")

    def _check_idle(self, replica: Replica, why: str) -> None:
        if why.startswith("no request") and (replica.in_flight is None or self.running.get(replica.id)):
            self.violations.append(
                f"{self.now}: {replica.id} drained as idle with {replica.in_flight} in flight: {why}"
            )

    def _happens(self, chance: float) -> bool:
        return self.dice.random() < chance


def make_world(seed: int) -> World:
    """A world whose models, sizes and faults follow from `seed`."""
    dice = random.Random(seed)
    budget = dice.choice([10, 16, 24])
    specs: dict[ModelName, ModelSpec] = {}
    sizes: dict[ModelName, int] = {}
    kept = 0
    for index in range(dice.randint(2, 6)):
        name = ModelName(f"m{index}")
        size = dice.randint(1, budget)
        most = dice.choice([1, 1, 1, 2, 3])
        least = 1 if kept + size <= budget // 3 and dice.random() < 0.5 else 0
        kept += size * least
        sizes[name] = size
        specs[name] = ModelSpec(
            name,
            "custom",
            scaling=Scaling(min=least, max=most, idle_s=dice.choice([5.0, 30.0, 900.0]), target=4),
            limits=Limits(),
            start_timeout_s=20.0,
            stop_grace_s=3.0,
        )
    sizes = {name: min(size, budget - kept) if not specs[name].scaling.min else size for name, size in sizes.items()}
    harsh = dice.choice([0.0, 0.3, 1.0, 3.0])
    faults = Faults(
        lose_start=0.1 * harsh,
        lose_start_reply=0.1 * harsh,
        lose_stop=0.1 * harsh,
        ignore_stop=0.1 * harsh,
        crash=0.005 * harsh,
        hang=0.005 * harsh,
        never_ready=0.05 * harsh,
        forget=0.1 * harsh,
        blind=0.01 * harsh,
        controller_dies=0.02 * harsh,
        store_lost=0.005 * harsh,
        workers_unheard=0.1 * harsh,
        edit=0.005 * harsh,
        wish=0.01 * harsh,
    )
    return World(dice, faults, budget, specs, sizes, is_calm=not harsh)
