"""What starts or wakes, and who makes room for it: one model after the other, the most urgent first."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from modelgrid.planner import backoff
from modelgrid.planner.end import LEAVING, by_model, let_go, told_to_leave
from modelgrid.planner.evict import Reach, Victim, Victims, asleep_shares, is_patient, less
from modelgrid.planner.place import At, Room, needs_text, why_impossible
from modelgrid.planner.scale import floor, scale
from modelgrid.spec import (
    Action,
    Drain,
    Fleet,
    Model,
    ModelName,
    ModelSpec,
    Need,
    Refuse,
    Replica,
    ReplicaId,
    Share,
    Sleep,
    Start,
    State,
    Stop,
    Unknown,
    Wake,
    Wish,
)
from modelgrid.spec.reason import Because, Cause
from modelgrid.spec.units import format_bytes

RETRY_AFTER_FULL_S = 30.0
LEVEL_S = 180.0  # who waits for so long counts for one priority more
AHEAD_S = 4.0  # each request that waits counts for so much waiting of the oldest
MOST_AHEAD_S = 60.0  # all of them together


@dataclass(slots=True)
class _Growth:
    """What is free while starts are planned: `now`, and `soon`, when what is on its way out has gone, or sleeps."""

    fleet: Fleet
    models: Mapping[ModelName, Model]
    now: Room
    soon: Room
    staying: Mapping[ModelName, Sequence[Replica]]
    falling: Mapping[ModelName, int]  # replicas on their way to sleep
    next: int
    ids: frozenset[ReplicaId]
    fetching: frozenset[At]  # where a start has no process yet
    actions: list[Action] = field(default_factory=list)
    claims: list[tuple[int, str, tuple[Share, ...]]] = field(default_factory=list)  # priority, machine, what is held
    _victims: Victims | None = None

    @property
    def victims(self) -> Victims:
        """Who may make room. In most laps nobody has to, and to look for them is half of a lap."""
        if self._victims is None:
            self._victims = Victims(self.models, chain.from_iterable(self.staying.values()), self.soon, self.fleet.now)
        return self._victims


def grow(fleet: Fleet, models: Mapping[ModelName, Model], before: Sequence[Action]) -> list[Action]:
    """Starts, and the drains that make room for them, for who waits longest first."""
    leaving = told_to_leave(before)
    staying = [replica for replica in fleet.replicas if replica.id not in leaving and replica.state not in LEAVING]
    drops = {action.replica for action in before if not isinstance(action, Sleep | Refuse)}
    falling = [replica for replica in fleet.replicas if replica.is_falling_asleep and replica.id not in drops]
    drained = [replica.soon for replica in falling if replica.state is State.DRAINING]
    soon = Room(fleet.machines, [*(replica.soon for replica in staying), *drained])
    growth = _Growth(
        fleet=fleet,
        models=models,
        now=Room(fleet.machines, fleet.replicas),
        soon=soon,
        staying=by_model(staying),
        falling=Counter(r.model for r in falling if r.turning is not None or r.in_flight == 0),
        next=fleet.next,
        ids=frozenset(replica.id for replica in fleet.replicas),
        fetching=frozenset(
            (replica.machine, share.device)
            for replica in staying
            if replica.state is State.STARTING and replica.spawned is None
            for share in replica.shares
        ),
    )
    up = Counter(replica.model for replica in staying if replica.state is not State.ASLEEP)
    for model in sorted(fleet.models, key=lambda model: _urgency(model, up[model.spec.name], fleet.now)):
        lower = [claim[1:] for claim in growth.claims if claim[0] < model.spec.priority]
        for machine, shares in lower:
            growth.soon.give(machine, shares)
        _grow_model(model, growth)
        for machine, shares in lower:
            growth.soon.take(machine, shares)
    return growth.actions


def _grow_model(model: Model, growth: _Growth) -> None:
    fleet = growth.fleet
    own = growth.staying.get(model.spec.name, ())
    refusal = None if own else _refusal(model, fleet)
    if refusal is not None:
        growth.actions.append(refusal)
        return
    up = [replica for replica in own if replica.state is not State.ASLEEP or replica.turning == "awake"]
    there = len(up)
    missing = scale(model, up, fleet.now).count - there
    if isinstance(model.need, Unknown):
        return  # what runs goes on; nobody knows whether another one fits
    if missing <= 0 or fleet.now < backoff.retry_at(model.failures) or model.runtime in fleet.blind:
        return
    asleep = [replica for replica in own if replica.state is State.ASLEEP and replica.turning is None]
    asleep = [replica for replica in asleep if not growth.victims.has_dropped(replica)]
    asleep.sort(key=lambda replica: not growth.now.holds(replica.machine, _to_wake(replica)))
    for replica in asleep[:missing]:
        growth.victims.keep(replica)
        if not _wake_one(model, model.need, replica, growth, there, is_first=there == 0):
            if not up:
                return
            break  # nobody makes room for one more, but another one may be started where there is room
        missing -= 1
        there += 1
    missing -= growth.falling.get(model.spec.name, 0)  # they are sooner woken than others started
    if (places := _places_left(model.spec, fleet)) is not None:
        missing = min(missing, places)
    for index in range(missing):
        if not _start_one(model, model.need, growth, there + index, is_first=not own and index == 0):
            return


def _places_left(spec: ModelSpec, fleet: Fleet) -> int | None:
    """How many more replicas can have a port or a server of their own; None: as many as there is room for. It is a
    replica's until that is gone."""
    if spec.port is None and not spec.urls:
        return None
    own = [replica for replica in fleet.replicas if replica.model == spec.name]
    if spec.port is not None:
        return 0 if own else 1
    # Replicas of an older revision speak to servers as that one named them.
    return max(0, len(spec.urls) - sum(replica.revision == spec.revision for replica in own))


def _urgency(model: Model, up: int, now: float) -> tuple[bool, float, float, str]:
    """Who waits goes first, by priority, and then who has gone without for longest, or is many. That adds to a
    priority, so that none starves; and it begins anew for who was just served, or a backlog would bring a model back
    for ever. What is to be kept loaded and isn't comes before all: it has no request that could grow old."""
    if up < floor(model):
        return (False, -math.inf, -model.spec.priority, model.spec.name)
    if model.waiting_since is None:
        return (True, -model.spec.priority, 0.0, model.spec.name)
    since = max(model.waiting_since, model.last_used)
    level = model.spec.priority + (now - since) // LEVEL_S
    return (False, -level, since - min(MOST_AHEAD_S, AHEAD_S * model.waiting), model.spec.name)


def _refusal(model: Model, fleet: Fleet) -> Refuse | None:
    """Why nobody should wait for this model; None when waiting makes sense."""
    name = model.spec.name
    if isinstance(model.need, Unknown):
        if model.need.is_coming:
            return None
        unknown = f"cannot place {name}: {model.need.why}"
        return Refuse(name, unknown, RETRY_AFTER_FULL_S, Because(Cause.UNKNOWN_SIZE))
    if (why := why_impossible(model.need, fleet.machines)) is not None:
        return Refuse(name, f"cannot place {name}: {why}", RETRY_AFTER_FULL_S, Because(Cause.TOO_LARGE))
    wait_s = backoff.retry_at(model.failures) - fleet.now
    if backoff.has_given_up(model.failures) and wait_s > 0:
        why = f"{name} failed {_times(model.failures.count)}: {model.failures.why}"
        return Refuse(name, why, wait_s, Because(Cause.FAILING))
    return None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times in a row"


def _start_one(model: Model, need: Need, growth: _Growth, there: int, *, is_first: bool) -> bool:
    """Whether one more than `there` are could be started at once; where not, room is made or kept for the first one."""
    spot = growth.now.best(need)
    if spot is not None:
        growth.now.take(spot.machine, spot.shares)
        growth.soon.take(spot.machine, spot.shares)
        id = _next_id(model, growth)
        why, because = _why_start(model, there, is_first), _cause_of_start(model, there, is_first)
        growth.actions.append(Start(id, model.spec.name, spot.shares, why, spot.machine, because))
        return True
    if not is_first and there >= floor(model):
        _make_spare_room(model, need, growth)
        return False
    spot = growth.soon.best(need)
    if spot is not None:
        _reserve(growth, spot.machine, spot.shares)
        return False
    choice = growth.victims.for_need(model, need)
    if choice is not None:
        spot, victims = choice
        if growth.victims.are_worth(model, victims):
            _make_room(growth, model, victims)
            _reserve(growth, spot.machine, spot.shares)
        return False
    refusal = _no_room(model, need, growth)
    if refusal is not None:
        growth.actions.append(refusal)
    elif not is_patient(model, growth.fleet.now):
        choice = growth.victims.for_need(model, need, reach=Reach.ALL)
        if choice is not None:
            _claim(growth, model, choice[0].machine, choice[0].shares)
    return False


def _make_spare_room(model: Model, need: Need, growth: _Growth) -> None:
    """For one more of those that are there: only who is missed by nobody leaves for it, and nobody is held up."""
    if growth.soon.best(need) is not None:
        return
    choice = growth.victims.for_need(model, need, reach=Reach.UNMISSED)
    if choice is not None:
        _make_room(growth, model, choice[1])
        _reserve(growth, choice[0].machine, choice[0].shares)


def _wake_one(model: Model, need: Need, replica: Replica, growth: _Growth, there: int, *, is_first: bool) -> bool:
    """Whether `replica` could be told to wake at once; where not, room is made or kept for it. Where none can be made,
    another one is started, if there is room elsewhere, or if none can ever be made here."""
    shares = _to_wake(replica)
    if growth.now.holds(replica.machine, shares):
        growth.now.take(replica.machine, shares)
        growth.soon.take(replica.machine, shares)
        why, because = _why_start(model, there, is_first), _cause_of_start(model, there, is_first)
        growth.actions.append(Wake(replica.id, why, because))
        return True
    if not is_first and there >= floor(model):
        return False
    if not growth.soon.holds(replica.machine, shares):
        victims = growth.victims.for_shares(model, replica.machine, shares)
        if victims is None:
            may_start = _places_left(model.spec, growth.fleet) is None
            if may_start and (growth.now.best(need) is not None or _is_shut_in(model, replica, shares, growth)):
                has_started = _start_one(model, need, growth, there, is_first=is_first)
                if has_started:  # else a model would leave a sleeper on every device that it was ever on
                    why = "another one was started where there was room"
                    growth.actions.append(Stop(replica.id, False, why, Because(Cause.SPARE)))
                return has_started
            if (refusal := _no_room(model, need, growth)) is not None:
                growth.actions.append(refusal)
            elif not is_patient(model, growth.fleet.now):
                _claim(growth, model, replica.machine, shares)
            return False
        if not growth.victims.are_worth(model, victims):
            return False
        _make_room(growth, model, victims)
    _reserve(growth, replica.machine, shares)
    return False


def _to_wake(replica: Replica) -> tuple[Share, ...]:
    """What it takes awake, beyond what it takes asleep."""
    return less(replica.shares, replica.asleep_shares)


def _is_shut_in(model: Model, replica: Replica, shares: Sequence[Share], growth: _Growth) -> bool:
    """Whether it can't be woken even once those beside it have had their turn: they are kept, or its device is gone."""
    if is_patient(model, growth.fleet.now):
        return False
    return growth.victims.for_shares(model, replica.machine, shares, reach=Reach.ALL) is None


def _next_id(model: Model, growth: _Growth) -> ReplicaId:
    while True:  # a lost store counts from the start again, among replicas that were adopted
        id = ReplicaId(f"{_slug(model.spec.name)}-{growth.next}")
        growth.next += 1
        if id not in growth.ids:
            return id


def _make_room(growth: _Growth, model: Model, victims: Sequence[Victim]) -> None:
    growth.victims.drop(victims)
    why, because = f"its memory is needed for {model.spec.name}", Because(Cause.ROOM, model.spec.name)
    for victim in victims:
        if victim.sleeps and _bed(growth, victim):
            growth.soon.give(victim.replica.machine, victim.frees)
            growth.actions.append(Drain(victim.replica.id, why, "sleep", because))
        else:
            growth.soon.give(victim.replica.machine, victim.stopped.frees)
            growth.actions.append(let_go(victim.replica, why, because))


def _bed(growth: _Growth, victim: Victim) -> bool:
    """Take what it needs asleep and does not have awake, where that is free: main memory, for its weights."""
    replica = victim.replica
    more = less(asleep_shares(growth.models[replica.model], replica), replica.shares)
    if not growth.now.holds(replica.machine, more):
        return False
    growth.now.take(replica.machine, more)
    growth.soon.take(replica.machine, more)
    return True


def _reserve(growth: _Growth, machine: str, shares: Sequence[Share]) -> None:
    """Keep what comes free for who was first, so that smaller models can't starve a large one. Of what is free
    already only the rest is kept: others may have it at once."""
    growth.soon.take(machine, shares)
    for share in shares:
        growth.now.cap((machine, share.device), growth.soon.free[machine, share.device])


def _claim(growth: _Growth, model: Model, machine: str, shares: Sequence[Share]) -> None:
    """Let nobody after who asks make room here, unless it is more important, while it waits for several replicas to
    have had their turn: else small models that take turns would never leave it enough at one moment. What is free they
    may take. A start that has no process yet may be a download of an hour, and nobody is held up for that."""
    if not any((machine, share.device) in growth.fetching for share in shares):
        growth.soon.take(machine, shares)
        growth.claims.append((model.spec.priority, machine, tuple(shares)))


def _no_room(model: Model, need: Need, growth: _Growth) -> Refuse | None:
    """Wait while others are busy; refuse when what stands in the way is kept for good."""
    kept: list[Replica] = []
    for name, own in growth.staying.items():
        if name != model.spec.name and (count := floor(growth.models[name])):
            kept += sorted(own, key=lambda replica: -replica.memory_bytes)[:count]
    machines = growth.fleet.machines
    if not kept or Room(machines, kept).best(need) is not None:
        return None
    name = model.spec.name
    why = (
        f"cannot place {name}: it needs {needs_text(need, machines)}, and models that are kept loaded hold "
        f"{format_bytes(sum(r.memory_bytes for r in kept))} of {format_bytes(sum(m.memory_bytes for m in machines))} "
        "(try: modelgrid model unload, or scaling.min: 0 for one of them)"
    )
    return Refuse(name, why, RETRY_AFTER_FULL_S, Because(Cause.ALL_KEPT))


def _why_start(model: Model, there: int, is_first: bool) -> str:
    again = f", again after: {model.failures.why.splitlines()[0]}" if model.failures.count else ""
    if model.waiting:
        return ("requests waited for it" if is_first else "its replicas were busy and requests waited") + again
    if is_first or there < floor(model):
        return ("loaded by hand" if model.wish is Wish.LOADED else "kept loaded (scaling.min)") + again
    return "its replicas were busy" + again


def _cause_of_start(model: Model, there: int, is_first: bool) -> Because:
    if model.waiting:
        return Because(Cause.REQUEST if is_first else Cause.LOAD)
    if is_first or there < floor(model):
        return Because(Cause.BY_HAND if model.wish is Wish.LOADED else Cause.KEPT)
    return Because(Cause.LOAD)


def _slug(name: str) -> str:
    """A model's name as part of an id: file names, process titles and container names take it."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "model"
