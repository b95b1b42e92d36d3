"""Where a model would go: the planner's own answer, for one model that nobody has asked for yet. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from modelgrid.controller.needs import MARGIN, Peak, Sized, accelerator, sized
from modelgrid.engines import ENGINES
from modelgrid.engines.memory import context_tokens
from modelgrid.planner.end import LEAVING
from modelgrid.planner.evict import PATIENCE_S, Reach, Victim, Victims
from modelgrid.planner.place import Room, Spot, needs_text, why_impossible
from modelgrid.planner.scale import floor
from modelgrid.spec import MAIN, Fleet, Machine, Model, ModelName, ModelSpec, Need, Replica, Share, Unknown, sum_of
from modelgrid.spec.fit import Alternative, Asked, Fit, Space, User, Verdict
from modelgrid.spec.units import format_bytes
from modelgrid.spec.weights import Weights

_LEAST_TOKENS = 2_048  # shorter contexts are of little use
_COUNTS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: Verdict
    why: str
    spot: Spot | None = None
    victims: Sequence[Victim] = ()


def spec_of(asked: Asked, models: Sequence[ModelSpec], machine: Machine) -> ModelSpec:
    """The configured model with what was asked, else one that would be configured so. Raises ValueError where its
    engine finds something wrong with it."""
    known = next((spec for spec in models if asked.model in (spec.name, *spec.aliases)), None)
    engine = asked.engine or ("vllm" if machine.gpus else "transformers")
    spec = known or ModelSpec(ModelName(asked.model), engine, source=asked.model)
    spec = replace(
        spec,
        engine=asked.engine or spec.engine,
        args=spec.args if asked.args is None else asked.args,
        memory_bytes=asked.memory_bytes or spec.memory_bytes,
        gpus=spec.gpus if asked.gpus is None else asked.gpus,
    )
    problems = [] if known is not None and asked == Asked(asked.model) else ENGINES[spec.engine].problems(spec)
    if problems:
        why = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        raise ValueError(f"cannot fit {asked.model} with engine {spec.engine}: {why}")
    return spec


def fit(fleet: Fleet, spec: ModelSpec, weights: Weights | Unknown, peak: Peak | None) -> Fit:
    """One more replica of `spec`. The first machine's kind is what its need is estimated for."""
    machine = fleet.machines[0]
    known = sized(spec, machine, weights, peak)
    running = tuple(r.id for r in fleet.replicas if r.model == spec.name and r.state not in LEAVING)
    if isinstance(known, Unknown):
        found = _Found("unknown", known.why)
        estimated = Sized(Need(None), "estimated")
    else:
        found, estimated = _find(fleet, spec, known.need), known
    is_known = found.verdict != "unknown"
    return Fit(
        model=spec.name,
        engine=spec.engine,
        verdict=found.verdict,
        why=found.why,
        machine=found.spot.machine if found.spot else None,
        shares=found.spot.shares if found.spot else (),
        spaces=tuple(_spaces(fleet, found)),
        needs=needs_text(estimated.need, fleet.machines) if is_known else "?",
        memory_bytes=estimated.need.memory_bytes,
        main_bytes=estimated.need.main_bytes,
        basis=estimated.basis if is_known else "",
        parts=estimated.estimate.parts if estimated.estimate else (),
        peak_bytes=estimated.peak.memory_bytes if estimated.peak else None,
        margin=MARGIN,
        alternatives=() if found.verdict == "fits" or not is_known else tuple(_alternatives(fleet, spec, weights)),
        running=running,
    )


def _find(fleet: Fleet, spec: ModelSpec, need: Need) -> _Found:
    if (why := why_impossible(need, fleet.machines)) is not None:
        return _Found("impossible", why)
    if (spot := Room(fleet.machines, fleet.replicas).best(need)) is not None:
        return _Found("fits", f"there is room for it {_where(spot)}", spot)
    models = {model.spec.name: model for model in fleet.models}
    staying = [replica for replica in fleet.replicas if replica.state not in LEAVING]
    soon = Room(fleet.machines, staying)
    if (spot := soon.best(need)) is not None:
        leaving = ", ".join(replica.id for replica in fleet.replicas if replica.state in LEAVING)
        return _Found("soon", f"there is room for it {_where(spot)} once {leaving} has gone", spot)
    asking = Model(spec, need)
    if (choice := Victims(models, staying, soon, fleet.now).for_need(asking, need)) is not None:
        return _Found("makes_room", _make_room(*choice), *choice)
    # As it will be asked for when it has waited, and those who are there have had their turn.
    asking = replace(asking, waiting=1, waiting_since=fleet.now - PATIENCE_S)
    choice = Victims(models, staying, soon, fleet.now).for_need(asking, need, reach=Reach.ALL)
    if choice is not None:
        why = f"{_make_room(*choice)}; requests wait until it has had its turn"
        return _Found("waits", why, *choice)
    return _Found("blocked", _blocked(spec, models, staying))


def _blocked(spec: ModelSpec, models: Mapping[ModelName, Model], staying: Sequence[Replica]) -> str:
    """Who stands in the way for good: what is kept loaded, and replicas of the model itself."""
    own_bytes = sum(replica.memory_bytes for replica in staying if replica.model == spec.name)
    kept_bytes = 0
    for name, model in models.items():
        if name != spec.name:
            sizes = sorted((replica.memory_bytes for replica in staying if replica.model == name), reverse=True)
            kept_bytes += sum(sizes[: floor(model)])
    own = f"its own replicas hold {format_bytes(own_bytes)}"
    kept = f"models that are kept loaded hold {format_bytes(kept_bytes)}"
    advice = " (try: modelgrid model unload, or scaling.min: 0 for one of them)" if kept_bytes else ""
    told = " and ".join([text for text, count in ((kept, kept_bytes), (own, own_bytes)) if count])
    return (told or "those that are there can't make room") + advice


def _make_room(spot: Spot, victims: Sequence[Victim]) -> str:
    return f"there is room for it {_where(spot)} once {' and '.join(map(_goes, victims))}"


def _goes(victim: Victim) -> str:
    who = f"{victim.replica.id}, which is busy," if victim.is_busy else victim.replica.id
    return f"{who} {'sleeps' if victim.sleeps else 'is stopped'}"


def _where(spot: Spot) -> str:
    gpus = [share.device for share in spot.shares if share.device != MAIN]
    return f"on {' and '.join(gpus)}" if gpus else "in main memory"


def _spaces(fleet: Fleet, found: _Found) -> Iterator[Space]:
    leaving = {victim.replica.id for victim in found.victims}
    taken = {share.device: share.memory_bytes for share in found.spot.shares} if found.spot else {}
    for machine in fleet.machines:
        is_here = found.spot is not None and found.spot.machine == machine.name
        for device in machine.devices:
            users = tuple(
                User(replica.id, replica.model, replica.state.value, share.memory_bytes, replica.id in leaving)
                for replica in fleet.replicas
                for share in _counted(replica, machine.name, device.name)
            )
            takes_bytes = taken.get(device.name, 0) if is_here else 0
            yield Space(machine.name, device.name, device.total_bytes, device.memory_bytes, users, takes_bytes)


def _counted(replica: Replica, machine: str, device: str) -> Iterator[Share]:
    return (s for s in replica.counted if replica.machine == machine and s.device == device and s.memory_bytes)


def _alternatives(fleet: Fleet, spec: ModelSpec, weights: Weights | Unknown) -> Iterator[Alternative]:
    """Other ways, each tried: as things are now, else as if nothing else were there. What was measured says nothing
    of a replica of another kind, and nothing can be estimated where there is no source."""
    now, empty = Room(fleet.machines, fleet.replicas), Room(fleet.machines, ())
    for variants in (_configured, _shorter, _spread, _in_main_memory):
        fits_now = [
            one for change, other in variants(now, spec, weights) if (one := _tried(now, change, other, weights))
        ]
        yield from fits_now
        if not fits_now:
            for change, other in variants(empty, spec, weights):
                if one := _tried(empty, change, other, weights):
                    yield replace(one, fits_now=False)


def _tried(room: Room, change: str, spec: ModelSpec, weights: Weights | Unknown) -> Alternative | None:
    spot = _spot(room, spec, weights)
    if spot is None or not spot.shares:
        return None
    mostly = [share for share in spot.shares if share.device != MAIN] or spot.shares
    return Alternative(change, sum_of(mostly), spot.shares)


_Variants = Iterator[tuple[str, ModelSpec]]


def _configured(_room: Room, spec: ModelSpec, _weights: Weights | Unknown) -> _Variants:
    if spec.source is not None and (spec.memory_bytes is not None or spec.gpus):
        yield "as it is estimated, instead of configured", replace(spec, memory_bytes=None, gpus=None)


def _spread(room: Room, spec: ModelSpec, weights: Weights | Unknown) -> _Variants:
    """The fewest GPUs on which it fits."""
    if spec.engine != "vllm" or accelerator(spec, _first(room)) == "cpu":
        return
    known = sized(replace(spec, gpus=None), _first(room), weights, None)
    if isinstance(known, Unknown):
        return
    for count in _COUNTS:
        spread = replace(spec, gpus=count, memory_bytes=known.need.memory_bytes)
        if (spec.gpus or room.count(known.need)) < count and _spot(room, spread, weights) is not None:
            yield f"over {count} GPUs (needs.gpus: {count}, needs.memory as above)", spread
            return


def _in_main_memory(room: Room, spec: ModelSpec, _weights: Weights | Unknown) -> _Variants:
    if spec.source is not None and accelerator(spec, _first(room)) != "cpu":
        yield "in main memory, which is slow (needs.gpus: 0)", replace(spec, gpus=0.0, memory_bytes=None)


def _shorter(room: Room, spec: ModelSpec, weights: Weights | Unknown) -> _Variants:
    """The longest context with which it fits, by halves."""
    if spec.engine != "vllm" or accelerator(spec, _first(room)) == "cpu":
        return
    if spec.gpus or isinstance(weights, Unknown) or weights.shape is None or not weights.shape.cached:
        return  # whole GPUs are as many with less
    tokens = (context_tokens(spec.args, weights.shape) or 0) // 2
    while tokens >= _LEAST_TOKENS:
        shorter = replace(spec, memory_bytes=None, args=(*spec.args, "--max-model-len", str(tokens)))
        if _spot(room, shorter, weights) is not None:
            yield f"at most {tokens:,} tokens of context (args: [--max-model-len, {tokens}])", shorter
            return
        tokens //= 2


def _spot(room: Room, spec: ModelSpec, weights: Weights | Unknown) -> Spot | None:
    known = sized(spec, _first(room), weights, None)
    return None if isinstance(known, Unknown) else room.best(known.need)


def _first(room: Room) -> Machine:
    return next(iter(room.machines.values()))
