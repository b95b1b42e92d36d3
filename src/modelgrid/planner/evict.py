"""Who makes room: the replicas that are missed least, and no more of them than needed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from modelgrid.planner.place import At, Room, Spot, is_possible, on_each, shares_on
from modelgrid.planner.scale import floor
from modelgrid.spec import MAIN, Device, Machine, Model, ModelName, Need, Replica, ReplicaId, Share, State, sum_of

PATIENCE_S = 5.0  # a request waits so long before a replica that is busy is drained for it
TURN = 3.0  # a replica that was loaded stays at least so many times as long as that took, while it is busy
UNSEEN_LOAD_S = 30.0  # what a start is taken to cost where nobody has seen one
WEIGHT = 8.0  # a request counts for so many of the next lower priority
LONGEST_WAIT_S = 30.0  # a request waits so long, or for two swaps, before it no longer matters who is missed more


class Reach(StrEnum):
    """How far to go for one more replica: whom to make leave for it."""

    UNMISSED = "unmissed"  # only those that nobody is expected to ask for while they are brought back
    IN_TURN = "in turn"  # also those that are missed, once they have had their turn
    ALL = "all"  # also those that have not: to know where room will be


@dataclass(slots=True, eq=False)  # not frozen: a lap of a large fleet makes thousands
class Victim:
    """A replica that may make room, and how much it is missed."""

    replica: Replica
    is_busy: bool
    priority: int
    expected: float  # requests a second that would miss it
    back_s: float  # what it takes to have it back
    frees: tuple[Share, ...]
    sleeps: bool = False  # it is put to sleep; else it is stopped

    @property
    def order(self) -> tuple[object, ...]:
        """The ones that are missed least first."""
        replica = self.replica
        return (self.is_busy, self.priority, self.loss, replica.last_used, replica.created, replica.id)

    @property
    def loss(self) -> float:
        """How many requests would come while it is brought back."""
        return self.expected * self.back_s

    @property
    def is_awake(self) -> bool:
        """Whether it counts as one that is kept loaded."""
        return self.replica.state is not State.ASLEEP

    @property
    def stopped(self) -> Victim:
        """The same one, stopped: for who needs what it would keep asleep."""
        return replace(self, frees=self.replica.counted, sleeps=False)


class Victims:
    """All who may make room, by device. What is on its way out is not among `replicas`."""

    def __init__(self, models: Mapping[ModelName, Model], replicas: Iterable[Replica], soon: Room, now: float) -> None:
        self._models = models
        self._soon = soon
        self._now = now
        self._spare: dict[ModelName, int] = {name: -floor(model) for name, model in models.items()}
        self._at: defaultdict[At, list[Victim]] = defaultdict(list)
        self._kept: set[ReplicaId] = set()
        self._dropped: set[ReplicaId] = set()
        known = [replica for replica in replicas if replica.model in models]
        for replica in known:
            self._spare[replica.model] += replica.state is not State.ASLEEP  # one that sleeps keeps nothing loaded
        for replica in known:
            is_spare = replica.state is State.ASLEEP or self._spare[replica.model] > 0
            if is_spare and replica.counted and replica.turning is None:
                victim = self._victim(replica)
                for share in replica.counted:  # where it frees nothing by sleeping, it may be stopped
                    self._at[replica.machine, share.device].append(victim)
        for victims in self._at.values():
            victims.sort(key=lambda victim: victim.order)
        self._cheapest = sorted((victims[0].order, at) for at, victims in self._at.items())
        self._hopeless: dict[
            tuple[int, int, int, bool, Reach], int
        ] = {}  # what was too much, for who asked in this way

    def for_need(self, asking: Model, need: Need, *, reach: Reach = Reach.IN_TURN) -> tuple[Spot, list[Victim]] | None:
        """The place for one replica of `asking` that costs least, and who has to go for it; None where even all who
        may go are not enough. `reach` says how far to go for it."""
        count = self._soon.count(need)
        asks = (count, need.main_bytes, asking.spec.priority, is_patient(asking, self._now), reach)
        if need.memory_bytes is not None and need.memory_bytes >= self._hopeless.get(asks, need.memory_bytes + 1):
            return None
        best: tuple[tuple[object, ...], Spot, list[Victim]] | None = None
        seen: set[str] = set()
        for order, (name, device) in self._cheapest:
            if best is not None and order[:4] > best[0][:4]:
                break  # no set of victims is cheaper than the cheapest of them
            if name in seen or (name, device) not in self._soon.devices:
                continue  # or it is on a device that is gone
            machine = self._soon.machines[name]
            if not is_possible(need, count, machine):
                continue
            is_one = count == 0 or (count == 1 and device != MAIN)
            devices = [machine.device(device)] if is_one else machine.devices
            if not is_one:
                seen.add(name)
            found = self._on(asking, need, count, machine, devices, reach)
            if found is not None and (best is None or _cost(found[1]) < best[0]):
                best = (_cost(found[1]), *found)
        if best is None and need.memory_bytes is not None:
            self._hopeless[asks] = need.memory_bytes
        return None if best is None else best[1:]

    def for_shares(
        self, asking: Model, machine: str, shares: Iterable[Share], *, reach: Reach = Reach.IN_TURN
    ) -> list[Victim] | None:
        """Who has to go so that these shares are free; None where even all who may are not enough."""
        chosen: dict[str, Victim] = {}
        for share in shares:
            found = self._make(asking, (machine, share.device), share.memory_bytes, reach, chosen)
            if found is None:
                return None
            chosen |= {victim.replica.id: victim for victim in found}
        return list(chosen.values())

    def are_worth(self, asking: Model, victims: Sequence[Victim]) -> bool:
        """Whether `asking` should have their memory now: at least as many requests wait for it as would have to wait
        for them while they are swapped out and back; or one has waited for so long that this no longer counts."""
        if asking.waiting_since is None:
            return True  # nobody waits: it is to be kept loaded
        load_s = asking.load_s or UNSEEN_LOAD_S
        missed = sum(victim.expected * (load_s + victim.back_s) for victim in victims)
        above = asking.spec.priority - max((victim.priority for victim in victims), default=0)
        if asking.waiting * WEIGHT ** max(-3, min(3, above)) >= missed:
            return True
        swaps_s = 2 * (load_s + max((victim.back_s for victim in victims), default=0.0))
        return self._now - asking.waiting_since >= max(LONGEST_WAIT_S, swaps_s)

    def keep(self, replica: Replica) -> None:
        """It is to wake, and so makes no room for anybody later."""
        self._kept.add(replica.id)

    def has_dropped(self, replica: Replica) -> bool:
        """Whether it leaves for somebody else."""
        return replica.id in self._dropped

    def drop(self, victims: Iterable[Victim]) -> None:
        """These leave now, for somebody else."""
        for victim in victims:
            self._dropped.add(victim.replica.id)
            self._spare[victim.replica.model] -= victim.is_awake
            for share in victim.replica.counted:
                at = (victim.replica.machine, share.device)
                there = self._at.get(at, [])
                found = next(index for index, one in enumerate(there) if one.replica is victim.replica)
                del self._cheapest[bisect_left(self._cheapest, (there[0].order, at))]
                del there[found]
                if there:
                    insort(self._cheapest, (there[0].order, at))

    def _victim(self, replica: Replica) -> Victim:
        model = self._models[replica.model]
        sleeps, frees, back_s = False, replica.counted, model.load_s or UNSEEN_LOAD_S
        if model.sleep and replica.state is State.READY and model.sleep.wake_s < back_s:
            kept = asleep_shares(model, replica)
            given = less(replica.shares, kept)
            if given and self._soon.holds(replica.machine, less(kept, replica.shares)):
                sleeps, frees, back_s = True, given, model.sleep.wake_s
        expected = model.rate.expected(self._now)
        # One that is asked for all the time is busy, though at this moment it may have nothing to do.
        is_busy = not _is_unused(model, replica) or expected * PATIENCE_S >= 1
        return Victim(replica, is_busy, model.spec.priority, expected, back_s, frees, sleeps)

    def _on(
        self, asking: Model, need: Need, count: int, machine: Machine, devices: Sequence[Device], reach: Reach
    ) -> tuple[Spot, list[Victim]] | None:
        """The cheapest of `devices` of one machine, and main memory beside GPUs."""
        choices = [
            (_cost(found), device.name, takes)
            for device in devices
            if device.is_gpu == (count > 0)
            and (takes := on_each(need, count, device)) <= device.memory_bytes
            and (found := self._make(asking, (machine.name, device.name), takes, reach, {})) is not None
        ]
        return self._together(asking, need, max(1, count), machine, sorted(choices), reach)

    def _together(
        self,
        asking: Model,
        need: Need,
        count: int,
        machine: Machine,
        choices: Sequence[tuple[object, str, int]],
        reach: Reach,
    ) -> tuple[Spot, list[Victim]] | None:
        """The first `count` of `choices` that can be had at once: who goes for one of them may be what another one's
        model has to keep."""
        chosen: dict[str, Victim] = {}
        takes_of: dict[str, int] = {}
        for _, name, takes in choices:
            if len(takes_of) == count:
                break
            found = self._make(asking, (machine.name, name), takes, reach, chosen)
            if found is not None:
                chosen |= {victim.replica.id: victim for victim in found}
                takes_of[name] = takes
        if len(takes_of) < count:
            return None
        shares = shares_on(need, machine, takes_of)
        for share in shares:
            if share.device == MAIN:
                found = self._make(asking, (machine.name, MAIN), share.memory_bytes, reach, chosen)
                if found is None:
                    return None
                chosen |= {victim.replica.id: victim for victim in found}
        return Spot(machine.name, shares), [*chosen.values()]

    def _make(
        self, asking: Model, at: At, bytes: int, reach: Reach, chosen: Mapping[str, Victim]
    ) -> list[Victim] | None:
        """Who has to go beside `chosen` for `bytes` on one device; also those of `chosen` who may not sleep then."""
        short = bytes - self._soon.free.get(at, 0) - sum(_on_device(victim, at) for victim in chosen.values())
        going: list[Victim] = []
        gone: defaultdict[ModelName, int] = defaultdict(int)
        for victim in chosen.values():
            gone[victim.replica.model] += victim.is_awake
        for victim in self._at.get(at, ()):
            if short <= 0:
                break
            name = victim.replica.model
            is_taken = victim.replica.id in chosen or victim.replica.id in self._kept
            is_spare = not victim.is_awake or gone[name] < self._spare[name]
            if is_taken or not is_spare or not self._may_go(asking, victim, reach):
                continue
            going.append(victim)
            gone[name] += victim.is_awake
            short -= _on_device(victim, at)
        for index, victim in enumerate(going):  # who is missed least is the first to be stopped, if sleep is not enough
            if short <= 0:
                break
            going[index] = victim.stopped
            short -= _on_device(victim.stopped, at) - _on_device(victim, at)
        stopped: list[Victim] = []
        for victim in chosen.values():
            if short > 0 and victim.sleeps:
                stopped.append(victim.stopped)
                short -= _on_device(victim.stopped, at) - _on_device(victim, at)
        if short > 0:
            return None
        for victim in reversed(tuple(going)):  # who is missed most is spared first
            if short + _on_device(victim, at) <= 0:
                going.remove(victim)
                short += _on_device(victim, at)
        return [*stopped, *going]

    def _may_go(self, asking: Model, victim: Victim, reach: Reach) -> bool:
        if victim.replica.model == asking.spec.name:
            return False
        if reach is Reach.UNMISSED:
            return not victim.is_busy and victim.loss < 1 and victim.priority <= asking.spec.priority
        if not victim.is_busy:
            return True
        is_above = asking.spec.priority > victim.priority
        if is_patient(asking, self._now) and not is_above:
            return False
        return reach is Reach.ALL or _has_had_its_turn(victim.replica, self._now, 0.0 if is_above else TURN)


def is_patient(asking: Model, now: float) -> bool:
    """Whether nobody has waited long enough for `asking` that others should be disturbed. Who wants a model to be kept
    loaded has waited since it isn't."""
    if asking.waiting_since is None:
        return floor(asking) == 0
    return now - asking.waiting_since < PATIENCE_S


def asleep_shares(model: Model, replica: Replica) -> tuple[Share, ...]:
    """What `replica` will take when it sleeps."""
    assert model.sleep is not None
    gpus = [share for share in replica.shares if share.device != MAIN]
    kept = [Share(share.device, int(share.memory_bytes * model.sleep.share)) for share in gpus or replica.shares]
    main = [share for share in replica.shares if share.device == MAIN] if gpus else []
    if not model.sleep.main_bytes:
        return (*kept, *main)
    beside = [share for share in kept if share.device == MAIN] or main
    return (*(share for share in kept if share.device != MAIN), Share(MAIN, sum_of(beside) + model.sleep.main_bytes))


def less(shares: Sequence[Share], others: Iterable[Share]) -> tuple[Share, ...]:
    """What is left of `shares` without `others`."""
    kept = {share.device: share.memory_bytes for share in others}
    rest = [Share(share.device, share.memory_bytes - kept.get(share.device, 0)) for share in shares]
    return tuple(share for share in rest if share.memory_bytes > 0)


def _on_device(victim: Victim, at: At) -> int:
    if victim.replica.machine != at[0]:
        return 0
    return sum(share.memory_bytes for share in victim.frees if share.device == at[1])


def _cost(victims: Sequence[Victim]) -> tuple[object, ...]:
    busiest = any(victim.is_busy for victim in victims)
    priority = max((victim.priority for victim in victims), default=-(10**9))
    newest = max((victim.replica.last_used for victim in victims), default=0.0)
    return (busiest, priority, sum(victim.loss for victim in victims), newest, len(victims))


def _is_unused(model: Model, replica: Replica) -> bool:
    if model.waiting:
        return False
    return replica.state in (State.STARTING, State.ASLEEP) or replica.in_flight == 0


def _has_had_its_turn(replica: Replica, now: float, turns: float) -> bool:
    if replica.state is State.ASLEEP:
        return True  # else two that wait for each other's memory, one of them asleep, would do so for ever
    if replica.state is not State.READY or replica.ready_at is None:
        return False
    took_s = replica.ready_at - (replica.spawned or replica.created) if replica.took_s is None else replica.took_s
    return now - replica.ready_at >= max(PATIENCE_S, turns * took_s)
