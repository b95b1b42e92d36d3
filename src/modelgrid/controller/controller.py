"""The controller: observes, plans, acts. The deciding is the planner's; this is the thin part that does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from modelgrid.config import show
from modelgrid.config.paths import Paths
from modelgrid.controller.accounting import Accounting
from modelgrid.controller.calls import Calls
from modelgrid.controller.fit import fit, spec_of
from modelgrid.controller.keys import access_keys, key_groups
from modelgrid.controller.launches import Launches
from modelgrid.controller.link import Link
from modelgrid.controller.measured import Measured
from modelgrid.controller.metrics import render
from modelgrid.controller.naps import Naps
from modelgrid.controller.needs import accelerator
from modelgrid.controller.probes import Probes, phases_in_ms
from modelgrid.controller.publishing import Known, Publishing
from modelgrid.controller.pulse import Pulses
from modelgrid.controller.settings import Settings
from modelgrid.controller.sizes import Sizes
from modelgrid.controller.totals import Totals
from modelgrid.controller.traffic import Traffic
from modelgrid.controller.turns import Turns
from modelgrid.controller.view import Surroundings, picture
from modelgrid.engines import ENGINES
from modelgrid.planner import (
    BUSY_LAP_S,
    Facts,
    Lap,
    Reasons,
    apply,
    observe,
    pause_s,
    plan,
    wind_down,
    with_reasons,
)
from modelgrid.runtimes.runtime import Runtime
from modelgrid.spec import (
    MAIN,
    AccessKey,
    Action,
    Demand,
    Drain,
    Event,
    Failures,
    Fleet,
    Hello,
    KeyGroup,
    Launch,
    Load,
    LogLines,
    Machine,
    Model,
    ModelName,
    ModelSpec,
    Outcome,
    Rate,
    Refuse,
    Replica,
    ReplicaId,
    Running,
    Seen,
    Sleep,
    Start,
    State,
    Status,
    Stop,
    Unknown,
    Wake,
    Wish,
    metrics,
)
from modelgrid.spec.fit import Asked, Fit
from modelgrid.spec.messages import FromWorker
from modelgrid.spec.usage import Tariff
from modelgrid.store import Saved, Store, StoreError
from modelgrid.telemetry import redacted

LIST_TIMEOUT_S = 10.0
SETTINGS_EVERY_S = 1.0
TAIL_LINES = 12  # of a replica's log, in the reason of its failure
TAIL_CHARACTERS = 300  # of each of them

_PROBED = (State.STARTING, State.READY, State.DRAINING)

log = structlog.get_logger()


class Controller:
    """Owns the replicas and the routing table. It satisfies `modelgrid.api.Control`."""

    def __init__(
        self,
        *,
        paths: Paths,
        settings: Settings,
        store: Store,
        runtimes: Mapping[str, Runtime],
        launches: Launches,
        measure: Callable[[], Machine],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._store = store
        self._runtimes = runtimes
        self._launches = launches
        self._measure = measure
        self._clock = clock
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._started = clock()
        self._link = Link(self._heard, self._lost)
        self._traffic = Traffic(settings.config.gateway.workers, clock())
        self._totals = Totals()
        self._accounting = Accounting(store, paths.table.parent, self._tariff, clock)
        self._pulses = Pulses()
        self._measured = Measured(store.runs())
        self._sizes = Sizes(launches.models, self.wake, clock, lambda: launches.machine, self._measured)
        self._calls = Calls(runtimes, launches, self.wake, clock)
        self._probes = Probes(self.wake, clock)
        self._turns = Turns(self.wake)
        self._naps = Naps()
        saved = store.saved()
        self._replicas = tuple(_taken_over(replica, clock()) for replica in saved.replicas)
        self._inherited = frozenset(replica.id for replica in saved.replicas)  # until the first lap is over
        self._failures: dict[ModelName, Failures] = dict(saved.failures)
        self._next = saved.next
        self._saved = saved
        self._publishing = Publishing(paths.table, self._link.publish, saved.table, clock())
        self._launched: dict[ReplicaId, Launch] = {}
        self._seen: dict[ReplicaId, Seen] = {}
        self._seen_on: dict[ReplicaId, str] = {}
        self._refusals: dict[ModelName, Refuse] = {}
        self._ended: dict[ModelName, str] = {}  # why a model's last replica went
        self._wishes: dict[ModelName, Wish] = {}
        self._keys: tuple[AccessKey, ...] = ()
        self._groups: tuple[KeyGroup, ...] = ()
        self._version: int | None = None
        self._problem: str | None = None
        self._settings_read = 0.0
        self._fleet = Fleet(clock(), (launches.machine,))

    # what the api asks for

    def status(self) -> Status:
        """The picture of the last lap."""
        config = self._settings.config
        around = Surroundings(
            started=self._started,
            config=str(config.path) if config.path else None,
            config_error=self._settings.error or self._settings.note,
            table=self._publishing.number,
            workers=self._traffic.connected,
            address=config.gateway.address,
            problem=self._problem,
        )
        return picture(
            self._fleet,
            self._refusals,
            self._seen,
            self._calls.phases,
            self._ended,
            around,
            config.virtual,
            self._probes.loads,
        )

    async def logs(self, model: str, lines: int) -> Sequence[LogLines]:
        """The last lines of each replica of `model`, and of the last one that has gone. Raises LookupError."""
        spec = self._spec(model)
        ids = [replica.id for replica in self._replicas if replica.model == model]
        ended = [event.replica for event in self._store.events(model, 50) if event.what in ("failed", "gone")]
        if ended and ended[-1] is not None and ended[-1] not in ids:
            ids.insert(0, ReplicaId(ended[-1]))
        runtime = self._runtimes[self._runtime_of(spec)]
        return [LogLines(id, tuple(map(self._shown, await runtime.logs(id, lines)))) for id in ids]

    async def fit(self, asked: Asked) -> Fit:
        """Where one more replica would go, by the last lap. Raises ValueError."""
        machine = self._launches.machine
        spec = spec_of(asked, self._settings.config.models, machine)
        found = await self._sizes.ask(spec)
        return fit(self._fleet, spec, found, self._measured.peak(spec, accelerator(spec, machine)))

    async def metrics(self) -> bytes:
        """What `GET /metrics` shows, by the last lap and what workers have told."""
        return await asyncio.to_thread(render, self.status(), self._totals.parts())

    def wake(self) -> None:
        """Look again now."""
        self._woken.set()

    def config(self) -> str:
        """The configuration in force, with secrets masked."""
        return show(self._settings.config)

    def names(self) -> Mapping[str, str]:
        """Every name that callers may use."""
        names: dict[str, str] = {}
        for spec in self._settings.config.models:
            names |= dict.fromkeys((spec.name, *spec.aliases), spec.name)
        for virtual in self._settings.config.virtual:
            names |= dict.fromkeys((virtual.name, *virtual.aliases), virtual.name)
        return names

    # the loop

    def stop(self) -> None:
        """Stop every replica, then end `run`."""
        self._stopping.set()
        self.wake()

    async def run(self) -> None:
        """Lap after lap, until `stop` has been called and the last replica is gone. Cancelled, it leaves replicas
        as they are."""
        accounting = asyncio.create_task(self._accounting.run())
        try:
            async with self._link.listen(self._paths.link_socket):
                while True:
                    await self._lap()  # one at least: a controller that has not looked can't know that nothing runs
                    if self._stopping.is_set() and self._is_over():
                        break
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pause_s()):  # wait_for may lose a cancellation
                            await self._woken.wait()
        finally:
            accounting.cancel()
            await asyncio.wait([accounting])
            self._accounting.close()
            await self._calls.close()
            await self._probes.close()
            await self._turns.close()
            await self._sizes.close()

    def _is_over(self) -> bool:
        return not self._replicas and not self._seen and not self._fleet.blind and not self._calls.starting()

    def _pause_s(self) -> float:
        is_wanted = any(model.waiting for model in self._fleet.models)
        pause = pause_s(self._replicas, self._clock(), is_wanted=is_wanted)
        return min(BUSY_LAP_S, pause) if self._stopping.is_set() else pause

    async def _lap(self) -> None:
        self._woken.clear()
        before = (self._replicas, self._failures, self._fleet)
        try:
            if not self._stopping.is_set():
                self._read_wishes()
            await self._refresh()
            starting = self._calls.starting()  # before the runtimes are asked: see Facts
            slept = self._slept()
            seen, blind = await self._look()
            facts = replace(self._facts(starting, seen, blind), slept=slept)
            before_lap = self._picture(facts.now, blind)
            lap = await self._explain(observe(before_lap, facts))
            self._naps.learn(before_lap, lap.replicas)
            self._learn(before_lap, lap.replicas)
            self._replicas, self._failures = lap.replicas, lap.failures
            self._beat(facts.now)
            self._fleet = self._picture(facts.now, blind)
            actions = wind_down(self._fleet) if self._stopping.is_set() else plan(self._fleet)
            self._replicas = apply(self._fleet, actions)
            self._fleet = replace(self._fleet, replicas=self._replicas)
            self._count(actions)
            self._save(lap, actions)
            self._inherited = frozenset()
        except StoreError as error:
            # Without a store nothing may be started or stopped: it could not be remembered.
            self._replicas, self._failures, self._fleet = before
            self._fleet = replace(self._fleet, now=self._clock())
            if self._problem != str(error):
                self._problem = str(error)
                log.error("controller.waits", why=self._problem)
            return
        if self._problem is not None:
            self._problem = None
            log.info("controller.goes_on")
        self._refusals = {action.model: action for action in actions if isinstance(action, Refuse)}
        self._ended |= {ModelName(event.model): event.why for event in lap.events if event.what == "gone"}
        self._probe()
        self._turn()
        self._publish()
        self._act(actions)
        self._tell(lap.events)

    # observe

    def _read_wishes(self) -> None:
        version = self._store.version()
        if version == self._version:
            return
        self._wishes = self._store.wishes()
        # Beyond this machine, once the last one was revoked nobody may come, rather than anybody.
        self._keys = access_keys(self._store.keys(), must_have_one=not self._settings.config.gateway.is_loopback)
        self._groups = key_groups(self._store.groups(), self._keys)
        self._version = version

    async def _refresh(self) -> None:
        now = self._clock()
        if 0 <= now - self._settings_read < SETTINGS_EVERY_S:  # a clock that was put back must not delay it
            return
        self._settings_read = now
        before = self._settings.config.machine
        if await asyncio.to_thread(self._settings.refresh) and self._settings.config.machine != before:
            self._launches.machine = await asyncio.to_thread(self._measure)

    def _slept(self) -> frozenset[ReplicaId]:
        """Before the runtimes are asked: what these are then seen to hold, they hold asleep."""
        slept = frozenset(self._turns.slept)
        for replica in self._replicas:
            if replica.id in slept:
                self._runtimes[replica.runtime].look_again(replica.id)
        return slept

    async def _look(self) -> tuple[dict[ReplicaId, Seen], frozenset[str]]:
        names = list(self._runtimes)
        answers = await asyncio.gather(*(self._list(name) for name in names))
        seen: dict[ReplicaId, Seen] = {}
        blind: set[str] = set()
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, Unknown):
                blind.add(name)
                if name not in self._fleet.blind:
                    log.warning("runtime.blind", runtime=name, why=answer.why)
                known = {replica.id for replica in self._replicas if replica.runtime == name}
                seen |= {id: last for id, last in self._seen.items() if id in known}
            else:
                seen |= {one.replica: one for one in answer}
                self._seen_on |= {one.replica: name for one in answer}
        self._seen = seen
        self._seen_on = {id: name for id, name in self._seen_on.items() if id in seen}
        return seen, frozenset(blind)

    async def _list(self, name: str) -> Sequence[Seen] | Unknown:
        try:
            return await asyncio.wait_for(self._runtimes[name].list(), LIST_TIMEOUT_S)
        except TimeoutError:
            return Unknown(f"no answer within {LIST_TIMEOUT_S:.0f}s")
        except Exception as error:
            log.exception("runtime.broke", runtime=name)
            return Unknown(f"{type(error).__name__}: {error}")

    def _facts(self, starting: frozenset[ReplicaId], seen: Mapping[ReplicaId, Seen], blind: frozenset[str]) -> Facts:
        now = self._clock()
        in_flight: dict[ReplicaId, int] = {}
        for replica in self._replicas:
            count = self._traffic.in_flight(replica.id, self._publishing.routed_in(replica.id), now)
            count = self._with_jobs(replica, count)
            if self._stopping.is_set():
                count = 0  # the gateway has had its grace: what is still in flight is cut off
            if count is not None:
                in_flight[replica.id] = count
        return Facts(
            now=now,
            seen=seen,
            blind=blind,
            starting=starting,
            inherited=self._inherited,
            start_errors=dict(self._calls.errors),
            served=frozenset(self._probes.served),
            sick=dict(self._probes.sick),
            unready={**self._probes.unready, **self._turns.unready},
            woken=frozenset(self._turns.woken),
            turn_errors={id: self._shown(why) for id, why in self._turns.errors.items()},
            in_flight=in_flight,
            seen_on=self._seen_on,
        )

    def _with_jobs(self, replica: Replica, count: int | None) -> int | None:
        """`count`, and what its engine is at work on for nobody who waits. Where it can't say so, nobody knows."""
        launch = self._launched.get(replica.id)
        if not count and launch is not None and _outlives(launch) and replica.state in (State.READY, State.DRAINING):
            load = self._probes.loads.get(replica.id)
            return None if count is None or load is None else load.running + load.waiting
        return count

    def _picture(self, now: float, blind: frozenset[str]) -> Fleet:
        running = {id: seen.state for id, seen in self._seen.items() if isinstance(seen.state, Running)}
        held = {
            id: {**({} if state.memory_bytes is None else {MAIN: state.memory_bytes}), **state.gpu_bytes}
            for id, state in running.items()
        }
        models = [self._model(spec) for spec in self._settings.config.models]
        return Fleet(now, (self._launches.machine,), tuple(models), self._replicas, self._next, blind, held)

    def _beat(self, now: float) -> None:
        """What was told since the last lap goes into the models' pulses."""
        own: defaultdict[ModelName, list[Replica]] = defaultdict(list)
        for replica in self._replicas:
            own[replica.model].append(replica)
        models = self._settings.config.models
        for spec in models:
            waiting, load_s = self._traffic.waiting(spec.name)[0], self._measured.load_s(spec.name)
            self._pulses.beat(spec, own[spec.name], waiting, now, load_s)
        self._pulses.keep(spec.name for spec in models)

    def _learn(self, fleet: Fleet, replicas: Iterable[Replica]) -> None:
        models = {model.spec.name: model for model in fleet.models}
        self._measured.learn(models, replicas, self._seen, {machine.name: machine for machine in fleet.machines})

    def _model(self, spec: ModelSpec) -> Model:
        waiting, since = self._traffic.waiting(spec.name)
        need, weights_bytes = self._sizes.need(spec), self._sizes.weights_bytes(spec)
        return Model(
            spec=spec,
            need=need,
            sleep=self._naps.sleep(spec, need, weights_bytes, self._launches.machine, self._clock()),
            runtime=self._runtime_of(spec),
            waiting=waiting,
            waiting_since=since,
            last_used=self._traffic.used(spec.name, self._clock()),
            failures=self._failures.get(spec.name, Failures()),
            wish=self._wish(spec.name, waiting),
            load_s=self._measured.load_s(spec.name),
            rate=self._traffic.rates.get(spec.name, Rate()),
            pulse=self._pulses.last(spec.name),
        )

    def _wish(self, name: ModelName, waiting: int) -> Wish | None:
        """A request loads a model that was unloaded by hand, and with that the wish is over."""
        wish = self._wishes.get(name)
        if wish is Wish.UNLOADED and waiting:
            self._store.set_wish(name, None)
            del self._wishes[name]
            return None
        return wish

    async def _explain(self, lap: Lap) -> Lap:
        """Failures get the last lines of the replica's log: engines tell their reasons there. Every event gets the
        facts behind it."""
        logs: dict[ReplicaId, tuple[str, ...]] = {}
        whys: dict[str, str] = {}
        for event in lap.events:
            if event.what == State.FAILED.value and event.replica is not None:
                id = ReplicaId(event.replica)
                runtime = next(r.runtime for r in lap.replicas if r.id == id)
                lines = await self._runtimes[runtime].logs(id, TAIL_LINES)
                logs[id] = tuple(self._shown(line)[:TAIL_CHARACTERS] for line in lines)
                why = self._shown(event.why)
                tail = "\n".join(f"  {line}" for line in logs[id])
                whys[id] = f"{why}\nthe last lines of its log:\n{tail}" if lines else why
        failures = dict(lap.failures)
        for replica in lap.replicas:
            if replica.id in whys and replica.model in failures:
                failures[replica.model] = replace(failures[replica.model], why=whys[replica.id])
        now = self._clock()
        phases = {id: known.seconds(now) for id, known in self._calls.phases.items()} if lap.events else {}
        events = with_reasons(lap, self._replicas, phases, logs)
        return Lap(
            tuple(replace(r, why=whys[r.id]) if r.id in whys else r for r in lap.replicas),
            failures,
            (*self._found(now), *(replace(e, why=whys.get(e.replica or "", e.why)) for e in events)),
        )

    def _found(self, now: float) -> Iterable[Event]:
        """What an earlier controller left, and is still there."""
        for replica in self._replicas:
            if replica.id in self._inherited and replica.id in self._seen:
                yield Event(now, replica.model, replica.id, "found", "the controller was started again")

    # act

    def _count(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Start):
                self._next = max(self._next, int(action.replica.rsplit("-", 1)[1]) + 1)

    def _save(self, lap: Lap, actions: Iterable[Action]) -> None:
        """Before anything is done: what was done and not remembered would be done twice. At the end all is stopped
        also where it can't be remembered: who comes next will look."""
        try:
            self._remember(lap, actions)
        except StoreError as error:
            if not self._stopping.is_set():
                raise
            log.warning("controller.forgets", why=str(error))

    def _remember(self, lap: Lap, actions: Iterable[Action]) -> None:
        saved = Saved(
            self._replicas, {n: f for n, f in self._failures.items() if f.count}, self._next, self._publishing.number
        )
        if _lasting(saved) != _lasting(self._saved):
            self._store.save(saved)
            self._saved = saved
        if runs := self._measured.news():
            self._store.remember(runs)
            self._measured.written(runs)
        before = {replica.id: replica.state for replica in lap.replicas}
        news = list(lap.events)
        now = self._clock()
        reasons = Reasons(replace(self._fleet, replicas=lap.replicas))
        for action in actions:
            match action:
                case Start(replica=id, model=model, why=why):
                    news.append(Event(now, model, id, "start", why, reasons.of(action)))
                case Stop(replica=id, why=why) if before[id] is not State.STOPPING and before[id] is not State.FAILED:
                    news.append(Event(now, self._model_of(id), id, "stop", why, reasons.of(action)))
                case Refuse(model=model, why=why) if model not in self._refusals:
                    news.append(Event(now, model, None, "refuse", why, reasons.of(action)))
                case Drain(replica=id, why=why):
                    news.append(Event(now, self._model_of(id), id, "drain", why, reasons.of(action)))
                case Sleep(replica=id, why=why):
                    news.append(Event(now, self._model_of(id), id, "sleep", why, reasons.of(action)))
                case Wake(replica=id, why=why):
                    news.append(Event(now, self._model_of(id), id, "wake", why, reasons.of(action)))
        if news:
            self._store.record(news)
        for event in news:
            self._totals.add(metrics.EVENTS, (event.model, event.what))
            if event not in lap.events:
                log.info(f"plan.{event.what}", model=event.model, replica=event.replica, why=event.why)

    def _probe(self) -> None:
        probed = set()
        for replica in self._replicas:
            seen = self._seen.get(replica.id)
            alive = replica.state in _PROBED and replica.id not in self._calls.starting()
            if not alive or seen is None or not isinstance(seen.state, Running):
                continue
            launch = self._launch_of(replica)
            if launch is not None and (replica.state is not State.DRAINING or _outlives(launch)):
                probed.add(replica.id)
                limit_s = self._spec(replica.model).health_timeout_s
                if replica.state is not State.STARTING:
                    self._probes.watch(replica.id, seen.state, launch, limit_s)
                else:
                    self._probes.probe(replica.id, seen.state, launch, limit_s, self._calls.phases.get(replica.id))
        self._probes.keep(frozenset(probed))

    def _turn(self) -> None:
        """Whoever was told to sleep or to wake is told by HTTP, also what an earlier controller had ordered."""
        turning = {}
        for replica in self._replicas:
            seen = self._seen.get(replica.id)
            if replica.state is not State.ASLEEP or seen is None or not isinstance(seen.state, Running):
                continue
            if replica.turning is not None and (launch := self._launch_of(replica)) is not None:
                turning[replica.id] = replica.turning
                tell = self._turns.put_to_sleep if replica.turning == "asleep" else self._turns.wake
                tell(replica.id, seen.state, launch)
        self._turns.keep(turning)

    def _publish(self) -> None:
        known = Known(
            config=self._settings.config,
            keys=self._keys,
            groups=self._groups,
            names=self.names(),
            seen=self._seen,
            launched=self._launched,
            refusals=self._refusals,
            ended=self._ended,
        )
        self._publishing.publish(self._fleet, known)

    def _act(self, actions: Iterable[Action]) -> None:
        models = {model.spec.name: model for model in self._fleet.models}
        replicas = {replica.id: replica for replica in self._replicas}
        for action in actions:
            match action:
                case Start(replica=id, model=name):
                    self._calls.start(replicas[id], models[name].spec, models[name].waiting_since)
                case Wake(replica=id):
                    self._calls.wakes(id, models[replicas[id].model].waiting_since)
                case Stop(replica=id, force=force):
                    self._calls.stop(id, replicas[id].runtime, force=force)
        kept = frozenset(replicas)
        self._calls.forget(kept)
        self._launched = {id: launch for id, launch in self._launched.items() if id in kept}

    def _tell(self, events: Iterable[Event]) -> None:
        for event in events:
            facts: dict[str, object] = {"replica": event.replica, "model": event.model, "why": event.why}
            phases = self._calls.phases.get(ReplicaId(event.replica or ""))
            if event.what == State.READY.value and phases is not None:
                if phases.ended is None:  # a waking: nobody else knows when it is over
                    phases.end(self._clock())
                facts |= phases_in_ms(phases, self._clock())
                self._count_start(event.model, phases.seconds(self._clock()))
            (log.error if event.what == State.FAILED.value else log.info)(f"replica.{event.what}", **facts)

    def _count_start(self, model: str, phases: Mapping[str, float]) -> None:
        if "wake" in phases:
            self._totals.observe(metrics.WAKE, (model,), sum(phases.values()))
            return
        self._totals.observe(metrics.COLD_START, (model,), sum(phases.values()))
        for phase, seconds in phases.items():
            self._totals.add(metrics.START_PHASE, (model, phase), seconds)

    # messages

    def _heard(self, worker: str, message: FromWorker) -> None:
        now = self._clock()
        match message:
            case Hello():
                self._traffic.join(worker, now)
                self._totals.join(worker)
                self._accounting.join(worker, message.incarnation)
                log.info("worker.joined", worker=worker)
            case Demand():
                if self._traffic.demand(worker, message, now):
                    self.wake()
            case Load():
                self._traffic.load(worker, message, now)
                self._pulses.load(message)
                self._totals.take(worker, message.meters)
                self._accounting.take(worker, message.used)
                if any(replica.state is State.DRAINING for replica in self._replicas):
                    self.wake()
            case Outcome():
                log.warning("replica.odd", replica=message.replica, outcome=message.outcome, why=message.why)
                self._probes.nudge(ReplicaId(message.replica))
                self.wake()

    def _lost(self, worker: str) -> None:
        self._traffic.leave(worker)
        self._totals.leave(worker)
        self._accounting.leave(worker)
        log.info("worker.left", worker=worker)

    # lookups

    def _tariff(self) -> Tariff:
        config = self._settings.config
        prices = {str(spec.name): spec.price for spec in config.models if spec.price is not None}
        return Tariff(prices, config.currency)

    def _spec(self, model: str) -> ModelSpec:
        for spec in self._settings.config.models:
            if spec.name == model:
                return spec
        raise LookupError(model)

    def _shown(self, text: str) -> str:
        """What an engine wrote, as callers and people may see it."""
        return redacted(self._settings.config.masked(text))

    def _runtime_of(self, spec: ModelSpec) -> str:
        return ENGINES[spec.engine].runtime

    def _model_of(self, id: ReplicaId) -> ModelName:
        return next(replica.model for replica in self._replicas if replica.id == id)

    def _launch_of(self, replica: Replica) -> Launch | None:
        """What a replica was launched as; worked out again for one that was adopted."""
        if replica.id not in self._launched:
            spec = next((spec for spec in self._settings.config.models if spec.name == replica.model), None)
            if spec is None or spec.revision != replica.revision:
                return None
            self._launched[replica.id] = self._launches.launch(spec, replica)
        return self._launched[replica.id]


def _outlives(launch: Launch) -> bool:
    return launch.load is not None and launch.load.outlives


def _taken_over(replica: Replica, now: float) -> Replica:
    """A replica of an earlier controller. Who used it last is not saved, and nobody may look idle for that; while
    nobody was here to see it answer, the time limit of its start, or of its waking, did not run."""
    spawned = None if replica.state is State.STARTING else replica.spawned
    since = replica.since if replica.turning is None else now
    return replace(replica, last_used=now, in_flight=None, spawned=spawned, since=since)


def _lasting(saved: Saved) -> Saved:
    """`saved` without what changes with every request: that is not worth a write."""
    calm = tuple(
        replace(replica, in_flight=None, last_used=0.0, stops=min(1, replica.stops)) for replica in saved.replicas
    )
    return replace(saved, replicas=calm, table=0)
