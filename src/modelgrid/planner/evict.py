"""Who makes room: the replicas that are missed least, and no more of them than needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelgrid.planner.place import At, Room, Spot, is_possible, on_each, shares_on
from modelgrid.planner.scale import floor
from modelgrid.spec import MAIN, Model, ModelName, Need, Replica, Share, State, shares_of, sum_of

PATIENCE_S = 5.0  # a request waits so long before a replica that is busy is drained for it
TURN = 1.0  # a replica that was loaded stays at least so many times as long as that took, while it is busy
UNSEEN_LOAD_S = 30.0  # what a start is taken to cost where nobody has seen one


@dataclass(frozen=True, slots=True)
class Victim:
    """A replica that may make room, and how much it is missed."""

    replica: Replica
    is_busy: bool
    priority: int
    loss: float  # seconds of waiting that its absence will cost, for each second
    frees: tuple[Share, ...]
    sleeps: bool = False  # it is put to sleep; else it is stopped

    @property
    def order(self) -> tuple[object, ...]:
        """The ones that are missed least first."""
        replica = self.replica
        return (self.is_busy, self.priority, self.loss, replica.last_used, replica.created, replica.id)


class Victims:
    """All who may make room, by device. What is on its way out is not among `replicas`."""

    def __init__(self, models: Mapping[ModelName, Model], replicas: Iterable[Replica], soon: Room, now: float) -> None:
        self._models = models
        self._soon = soon
        self._now = now
        self._spare: dict[ModelName, int] = {name: -floor(model) for name, model in models.items()}
        self._at: defaultdict[At, list[Victim]] = defaultdict(list)
        known = [replica for replica in replicas if replica.model in models]
        for replica in known:
            self._spare[replica.model] += 1
        for replica in known:
            if self._spare[replica.model] > 0 and replica.counted and replica.turning is None:
                victim = self._victim(replica)
                for share in victim.frees:
                    self._at[replica.machine, share.device].append(victim)
        for victims in self._at.values():
            victims.sort(key=lambda victim: victim.order)

    def for_need(self, asking: Model, need: Need, *, in_turn: bool = True) -> tuple[Spot, list[Victim]] | None:
        """The place for one replica of `asking` that costs least, and who has to go for it; None where even all who
        may go are not enough. `in_turn` False: also those who have not had their turn."""
        count = self._soon.count(need)
        found = [
            choice
            for machine in self._soon.machines.values()
            if is_possible(need, count, machine)
            for choice in self._on(machine.name, asking, need, count, in_turn)
        ]
        return min(found, key=lambda choice: _cost(choice[1]), default=None)

    def for_shares(
        self, asking: Model, machine: str, shares: Iterable[Share], *, in_turn: bool = True
    ) -> list[Victim] | None:
        """Who has to go so that these shares are free; None where even all who may are not enough."""
        chosen: dict[str, Victim] = {}
        for share in shares:
            found = self._make(asking, (machine, share.device), share.memory_bytes, in_turn, chosen)
            if found is None:
                return None
            chosen |= {victim.replica.id: victim for victim in found}
        return list(chosen.values())

    def drop(self, victims: Iterable[Victim]) -> None:
        """These leave now, for somebody else."""
        for victim in victims:
            self._spare[victim.replica.model] -= 1
            for share in victim.frees:
                self._at[victim.replica.machine, share.device].remove(victim)

    def _victim(self, replica: Replica) -> Victim:
        model = self._models[replica.model]
        sleeps, frees, back_s = False, replica.counted, model.load_s or UNSEEN_LOAD_S
        can_sleep = model.sleep is not None and replica.state is State.READY
        if model.sleep and can_sleep and self._soon.holds(replica.machine, shares_of(model.sleep.main_bytes)):
            kept = asleep_shares(model, replica)
            sleeps, frees, back_s = True, less(replica.shares, kept), model.sleep.wake_s
        is_busy = not _is_unused(model, replica)
        return Victim(replica, is_busy, model.spec.priority, model.rate * back_s, frees, sleeps)

    def _on(
        self, machine: str, asking: Model, need: Need, count: int, in_turn: bool
    ) -> Iterable[tuple[Spot, list[Victim]]]:
        """The choices on one machine: one for each device, or one for the cheapest of several."""
        here = self._soon.machines[machine]
        devices = [device for device in here.devices if device.is_gpu == (count > 0)]
        choices = []
        for device in devices:
            takes = on_each(need, count, device)
            if takes > device.memory_bytes:
                continue
            found = self._make(asking, (machine, device.name), takes, in_turn, {})
            if found is not None:
                choices.append((device.name, takes, found))
        if count <= 1:
            return [(Spot(machine, shares_on(need, here, {name: takes})), found) for name, takes, found in choices]
        if len(choices) < count:
            return []
        choices.sort(key=lambda choice: _cost(choice[2]))
        cheapest = choices[:count]
        victims = {victim.replica.id: victim for _, _, found in cheapest for victim in found}
        if not self._spares(victims.values()):
            return []
        spot = Spot(machine, shares_on(need, here, {name: takes for name, takes, _ in cheapest}))
        return [(spot, [*victims.values()])]

    def _make(
        self, asking: Model, at: At, bytes: int, in_turn: bool, chosen: Mapping[str, Victim]
    ) -> list[Victim] | None:
        """Who has to go beside `chosen` for `bytes` on one device."""
        short = bytes - self._soon.free.get(at, 0) - sum(_on_device(victim, at) for victim in chosen.values())
        going: list[Victim] = []
        gone: defaultdict[ModelName, int] = defaultdict(int)
        for victim in chosen.values():
            gone[victim.replica.model] += 1
        for victim in self._at.get(at, ()):
            if short <= 0:
                break
            name = victim.replica.model
            is_spare = victim.replica.id not in chosen and gone[name] < self._spare[name]
            if not is_spare or not self._may_go(asking, victim, in_turn):
                continue
            going.append(victim)
            gone[name] += 1
            short -= _on_device(victim, at)
        if short > 0:
            return None
        for victim in reversed(tuple(going)):  # who is missed most is spared first
            if short + _on_device(victim, at) <= 0:
                going.remove(victim)
                short += _on_device(victim, at)
        return going

    def _may_go(self, asking: Model, victim: Victim, in_turn: bool) -> bool:
        if victim.replica.model == asking.spec.name:
            return False
        if not victim.is_busy:
            return True
        if is_patient(asking, self._now):
            return False
        return not in_turn or _has_had_its_turn(victim.replica, self._now)

    def _spares(self, victims: Iterable[Victim]) -> bool:
        gone: defaultdict[ModelName, int] = defaultdict(int)
        for victim in victims:
            gone[victim.replica.model] += 1
        return all(count <= self._spare[name] for name, count in gone.items())


def is_patient(asking: Model, now: float) -> bool:
    """Whether nobody has waited long enough for `asking` that others should be disturbed."""
    return asking.waiting_since is None or now - asking.waiting_since < PATIENCE_S


def asleep_shares(model: Model, replica: Replica) -> tuple[Share, ...]:
    """What `replica` will take when it sleeps."""
    assert model.sleep is not None
    gpus = [share for share in replica.shares if share.device != MAIN]
    kept = [Share(share.device, int(share.memory_bytes * model.sleep.share)) for share in gpus]
    main = sum_of(share for share in replica.shares if share.device == MAIN) + model.sleep.main_bytes
    return (*kept, *shares_of(main))


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


def _has_had_its_turn(replica: Replica, now: float) -> bool:
    if replica.state is not State.READY or replica.ready_at is None:
        return False
    return now - replica.ready_at >= max(PATIENCE_S, TURN * (replica.ready_at - replica.created))
