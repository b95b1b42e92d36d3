"""The controller's process: builds every object once and wires them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from typing import IO

import structlog
import uvloop

from modelgrid.api import create_app, serve_api
from modelgrid.config import Config, GatewayConfig
from modelgrid.config.paths import Paths
from modelgrid.controller import Controller, Launches, Settings
from modelgrid.daemon.config_file import ConfigFile
from modelgrid.engines import ENGINES
from modelgrid.hardware import GpuMeter, measure_machine
from modelgrid.runtimes import Environments, ProcessRuntime, RemoteRuntime, torch_wheel
from modelgrid.runtimes.runtime import Runtime
from modelgrid.spec import Machine
from modelgrid.store import Store, open_store
from modelgrid.telemetry import set_up_logging

log = structlog.get_logger()


def run_controller(paths: Paths, file: ConfigFile, gateway: GatewayConfig) -> None:
    """Run until SIGTERM, then stop every replica. Killed in any other way, it leaves replicas as they are. `gateway` is
    what the supervisor serves."""
    set_up_logging(paths.logs / "modelgrid.log")
    lock = _lock(paths)
    try:
        uvloop.run(_run(paths, file, gateway))
    except Exception:
        log.exception("controller.broke")
        sys.exit(1)
    finally:
        lock.close()


def runtimes_of(
    paths: Paths,
    config: Config,
    hidden: Callable[[], Collection[str]] = frozenset,
    on_gpus: Callable[[], Mapping[int, Mapping[str, int]]] = dict,
) -> dict[str, Runtime]:
    """Every runtime, by name. Also for those who look without a daemon, and start nothing. See `ProcessRuntime` for
    `hidden` and `on_gpus`."""
    environments = Environments(config.storage.environments or paths.environments)
    return {
        "process": ProcessRuntime(
            instance=str(paths.state),
            records=paths.replicas,
            logs=paths.logs,
            environments=environments,
            hidden=hidden,
            on_gpus=on_gpus,
        ),
        "remote": RemoteRuntime(records=paths.replicas / "remote"),
    }


async def _run(paths: Paths, file: ConfigFile, gateway: GatewayConfig) -> None:
    settings = Settings(file.load, file.last_good, gateway)
    config = settings.config
    store = open_store(paths.store)
    try:
        wheel = torch_wheel()

        def measure() -> Machine:
            return measure_machine(settings.config.machine, wheel)

        launches = Launches(measure(), config.storage.models or paths.models, store.secret())
        controller = Controller(
            paths=paths,
            settings=settings,
            store=store,
            runtimes=runtimes_of(paths, config, lambda: settings.config.variables, GpuMeter().held_bytes),
            launches=launches,
            measure=measure,
        )
        await _serve(controller, store, paths)
    finally:
        store.close()


async def _serve(controller: Controller, store: Store, paths: Paths) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, controller.stop)
    over = asyncio.Event()
    log.info("controller.started", pid=os.getpid())
    for why in ENGINES.refused:
        log.warning("engine.refused", why=why)
    async with asyncio.TaskGroup() as group:
        api = group.create_task(serve_api(create_app(controller, store), paths.api_socket, over))
        try:
            await controller.run()
        finally:
            over.set()
        await api
    log.info("controller.stopped")


def _lock(paths: Paths) -> IO[str]:
    """One controller at a time: a second one waits for the first to be gone."""
    file = (paths.run / "controller.lock").open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file
