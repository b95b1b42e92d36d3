"""What runs in a simulated world: machines and processes, and the calls to them that may be lost, late or doubled.

It is strict where a real runtime is forgiving: a second start under one id is recorded as a violation, not absorbed.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from modelgrid.spec import Exited, Machine, ModelName, Replica, ReplicaId, Running, Seen, Share
from sim.faults import Faults

TICK_S = 0.5
SICK_AFTER_S = 10.0
WATCHED_S = 2.0  # how often a ready engine is asked whether it sleeps
MEASURED_EVERY_S = 2.0
NEVER = float("inf")


@dataclass
class Process:
    """A process of the world, with what it will do."""

    replica: ReplicaId
    model: ModelName
    revision: str
    runtime: str
    machine: str
    shares: tuple[Share, ...]
    ready_at: float
    ignores_stop: bool
    hung_since: float | None = None
    exited: str | None = None
    children: int = 0  # outlive the main process until they are killed
    stop_at: float | None = None
    asleep_shares: tuple[Share, ...] = ()
    is_asleep: bool = False
    asleep_at: float | None = None  # it was told to sleep, and will then
    asleep_since: float = 0.0
    wakes_until: float = 0.0
    excess: int = 0  # it takes so much more of each device than was planned

    def holds(self, time: float) -> tuple[Share, ...]:
        """What was planned for it, as it is now: on its way to sleep, or back, both of what it takes then."""
        if self.is_asleep:
            return self.asleep_shares
        is_turning = self.asleep_at is not None or time < self.wakes_until
        return most_of(self.shares, self.asleep_shares) if is_turning else self.shares

    @property
    def is_up(self) -> bool:
        """Whether a request to it is answered."""
        return not self.exited and self.hung_since is None and not self.is_asleep


@dataclass
class Call:
    """A start that is under way; what it will do is decided already."""

    replica: Replica
    ends_at: float
    makes_process: bool
    error: str | None


@dataclass
class Grid:
    """Everything that modelgrid starts and stops. Times are the world's own: no clock that jumps."""

    dice: random.Random
    faults: Faults
    machines: list[Machine]
    broken: Callable[[ReplicaId], None]  # what ran there has lost its answer
    time: float = 1000.0
    processes: dict[ReplicaId, Process] = field(default_factory=dict)
    calls: dict[ReplicaId, Call] = field(default_factory=dict)
    errors: dict[ReplicaId, str] = field(default_factory=dict)
    turn_errors: dict[ReplicaId, str] = field(default_factory=dict)
    started: Counter[ReplicaId] = field(default_factory=Counter)
    away: dict[str, float] = field(default_factory=dict)  # machines, and until when
    blind: dict[str, float] = field(default_factory=dict)  # runtimes, and until when
    violations: list[str] = field(default_factory=list)
    met: set[str] = field(default_factory=set)  # faults that came true
    _lists: dict[str, dict[ReplicaId, Seen]] = field(default_factory=dict)  # what each runtime answered last
    _served: frozenset[ReplicaId] = frozenset()
    _slept: dict[ReplicaId, float] = field(default_factory=dict)  # and when that is heard

    # calls

    def start(self, replica: Replica) -> None:
        """Runtime.start."""
        id = replica.id
        self.started[id] += 1
        if self.started[id] > 1 and (id in self.processes or id in self.calls):
            self.violations.append(f"second start of {id}")
        ends = self.time + self.dice.choice([0.0, TICK_S, 4 * TICK_S])
        if self._happens("lose_start"):
            self.calls[id] = Call(replica, ends, False, "the call was lost")
        elif self._happens("lose_start_reply"):
            self.calls[id] = Call(replica, ends, True, "the answer was lost")
        else:
            self.calls[id] = Call(replica, ends, True, None)

    def stop(self, id: ReplicaId, force: bool) -> None:
        """Runtime.stop. A start that is under way is cancelled first, and may answer long after that."""
        call = self.calls.get(id)
        if call is not None:
            if call.error != "cancelled":
                late = self.dice.choice([0, 1, 3]) * TICK_S if self._happens("late_reply") else 0.0
                makes = call.makes_process and self.dice.random() < 0.3
                self.calls[id] = Call(call.replica, self.time + late, makes, "cancelled")
                if not late:
                    self._finish(id)
            return
        process = self.processes.get(id)
        if process is None or self._is_away(process) or self._happens("lose_stop"):
            return
        if process.exited and not process.children:
            del self.processes[id]
        elif force or not process.ignores_stop:
            process.stop_at = self.time + self.dice.choice([0.0, TICK_S, 3 * TICK_S])
            process.children = 0

    def turn(self, replica: Replica, *, is_new: bool) -> None:
        """Tell an engine to sleep, or to wake; told again while it is on its way, nothing more happens."""
        id = replica.id
        if is_new:
            self._slept.pop(id, None)
            self.turn_errors.pop(id, None)
        process = self.processes.get(id)
        if process is None or process.exited or process.hung_since is not None or self._is_away(process):
            return
        if self._happens("lose_turn"):
            if self.dice.random() < 0.3:
                self.turn_errors[id] = "no answer"
        elif replica.turning == "awake":
            self._wake(process)
        elif process.is_asleep:
            self._slept.setdefault(id, self.time)
        elif process.asleep_at is None:
            process.asleep_shares = replica.asleep_shares
            process.asleep_at = self.time + self.dice.choice([0.0, TICK_S, 4 * TICK_S])

    def _wake(self, process: Process) -> None:
        if process.is_asleep or process.asleep_at is not None:
            process.is_asleep, process.asleep_at = False, None
            process.ready_at = process.wakes_until = self.time + self.dice.uniform(0.1, 2.0)

    def let_go(self) -> None:
        """Whoever called has died: its calls with it, but for what they had done."""
        for id, call in list(self.calls.items()):
            if call.makes_process and self.dice.random() < 0.5:
                self._appear(call.replica)
            del self.calls[id]
        self.errors.clear()
        self.turn_errors.clear()
        self._slept.clear()
        self._lists.clear()

    # what passes by itself

    def tick(self) -> None:
        """Calls end, and things go wrong."""
        self.time += TICK_S
        for id, call in list(self.calls.items()):
            if call.ends_at <= self.time:
                self._finish(id)
        self._machines_come_and_go()
        for id, process in list(self.processes.items()):
            self._live(id, process)
        for runtime in ("process", "other"):
            if self._happens("blind"):
                self.blind[runtime] = self.time + self.dice.uniform(1, 10)
        self.blind = {runtime: until for runtime, until in self.blind.items() if until > self.time}

    def calm_down(self, faults: Faults) -> None:
        """From now on only what is in `faults` goes wrong."""
        self.faults = faults
        self.blind.clear()
        self.away.clear()

    def _live(self, id: ReplicaId, process: Process) -> None:
        if process.stop_at is not None and process.stop_at <= self.time:
            self._end(id)
        elif process.exited:
            if not process.children and self._happens("forget"):
                del self.processes[id]
        elif self._happens("crash"):
            process.exited = "exited with code 1"
            process.children = self.dice.choice([0, 0, 1])
            self.broken(id)
        elif process.hung_since is None:
            if self._happens("hang"):
                process.hung_since = self.time
            elif self._happens("grow"):
                process.excess += self.dice.randint(1, 4)
            elif process.asleep_at is not None and process.asleep_at <= self.time:
                process.is_asleep, process.asleep_at, process.asleep_since = True, None, self.time
                late_s = self.dice.choice([0, 1, 3]) * TICK_S if self._happens("late_reply") else 0.0
                self._slept[id] = self.time + late_s

    def _machines_come_and_go(self) -> None:
        for machine in self.machines:
            if machine.name in self.away:
                if self.away[machine.name] <= self.time and not self.blind:  # it is back once it was looked at
                    del self.away[machine.name]
                    self._lists.clear()
            elif len(self.machines) > 1 and self._happens("machine_goes"):
                self.away[machine.name] = self.time + self.dice.uniform(2, 60)
                if self.dice.random() < 0.5:  # it was switched off; else nobody can speak to it
                    for id in [id for id, process in self.processes.items() if self._is_away(process)]:
                        self._end(id)

    def _finish(self, id: ReplicaId) -> None:
        call = self.calls.pop(id)
        self._lists.clear()  # a start ends when the list shows it
        if self._is_away(call.replica):
            self.errors[id] = "no such machine"
            return
        if call.makes_process:
            self._appear(call.replica)
        if call.error:
            self.errors[id] = call.error

    def _appear(self, replica: Replica) -> None:
        if replica.id in self.processes or self._is_away(replica):
            return
        load_s = NEVER if self._happens("never_ready") else self.dice.uniform(0.5, 8.0)
        self.processes[replica.id] = Process(
            replica.id,
            replica.model,
            replica.revision,
            replica.runtime,
            replica.machine,
            replica.shares,
            ready_at=self.time + load_s,
            ignores_stop=self._happens("ignore_stop"),
        )

    def _is_away(self, what: Process | Replica) -> bool:
        return what.machine in self.away and what.runtime == "process"

    def _end(self, id: ReplicaId) -> None:
        del self.processes[id]
        self.broken(id)

    # what can be seen

    @property
    def present(self) -> tuple[Machine, ...]:
        """The machines that can be reached."""
        return tuple(machine for machine in self.machines if machine.name not in self.away)

    def look(self) -> dict[ReplicaId, Seen]:
        """What the runtimes that can see list, now or, where an answer comes twice, a lap ago."""
        fresh: defaultdict[str, dict[ReplicaId, Seen]] = defaultdict(dict)
        for process in self.processes.values():
            if process.runtime not in self.blind and not self._is_away(process):
                fresh[process.runtime][process.replica] = _seen(process)
        found: dict[ReplicaId, Seen] = {}
        for runtime in ("process", "other"):
            if runtime in self.blind:
                self._lists.pop(runtime, None)
                continue
            is_repeated = runtime in self._lists and not self.away and self._happens("list_twice")
            if not is_repeated:
                self._lists[runtime] = fresh[runtime]
            found |= self._lists[runtime]
            if is_repeated:
                del self._lists[runtime]
        return found

    def served(self) -> frozenset[ReplicaId]:
        """Who answers; also who did, where that is told late."""
        now = frozenset(p.replica for p in self.processes.values() if p.is_up and p.ready_at <= self.time)
        told = now | self._served if self._happens("late_reply") else now
        self._served = now
        return told

    def sick(self, ready: Collection[ReplicaId]) -> dict[ReplicaId, str]:
        """Who has not answered for long; and those of `ready` that sleep all the same: a controller that is no more had
        told them, and the store that knew of it was lost."""
        asleep = {
            id: "it sleeps, and nobody here has put it to sleep"
            for id in ready
            if (process := self.processes.get(id))
            and process.is_asleep
            and self.time - process.asleep_since >= WATCHED_S
        }
        return asleep | {
            p.replica: "no answer"
            for p in self.processes.values()
            if p.hung_since is not None and self.time - p.hung_since > SICK_AFTER_S
        }

    def slept(self) -> frozenset[ReplicaId]:
        """Whose engine said that it sleeps."""
        return frozenset(id for id, heard in self._slept.items() if heard <= self.time)

    def held(self) -> dict[ReplicaId, dict[str, int]]:
        """What was measured: seldom, and more than was planned where it has grown."""
        if self.time % MEASURED_EVERY_S:
            return {}
        return {
            id: {share.device: share.memory_bytes + process.excess for share in process.holds(self.time)}
            for id, process in self.processes.items()
            if process.excess and not process.exited
        }

    def forget(self, kept: frozenset[ReplicaId]) -> None:
        """Nobody asks for the others any more, unless their answers come late."""
        if not self._happens("late_reply"):
            self.errors = {id: why for id, why in self.errors.items() if id in kept}
            self.turn_errors = {id: why for id, why in self.turn_errors.items() if id in kept}

    def _happens(self, fault: str) -> bool:
        happens = self.faults.happens(fault, self.dice)
        if happens:
            self.met.add(fault)
        return happens


def most_of(shares: Iterable[Share], others: Iterable[Share]) -> tuple[Share, ...]:
    """Of each device the larger share."""
    most: dict[str, int] = {}
    for share in (*shares, *others):
        most[share.device] = max(most.get(share.device, 0), share.memory_bytes)
    return tuple(Share(*item) for item in most.items())


def _seen(process: Process) -> Seen:
    url = f"http://127.0.0.1/{process.replica}"
    state = Exited(process.exited, process.children) if process.exited else Running(url, url)
    devices = tuple(share.device for share in process.shares if share.device != "cpu")
    return Seen(process.replica, process.model, process.revision, state, process.machine, devices)
