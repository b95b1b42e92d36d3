"""What the process runtime promises beyond the contract: real processes, real deaths."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from contract.runtimes.bench import ProcessBench, quiet, see, stop_to_the_end, wait_for, wait_for_exit, wait_for_log
from modelgrid.runtimes.environments import Environments
from modelgrid.runtimes.process import ProcessRuntime
from modelgrid.runtimes.runtime import StartError
from modelgrid.spec import Environment, Exited, Launch, ModelName, ReplicaId, Running, Unknown

ONE = ReplicaId("tiny-1")

STARTER = """
import asyncio, sys
from pathlib import Path
from modelgrid.runtimes.environments import Environments
from modelgrid.runtimes.process import ProcessRuntime
from modelgrid.spec import Launch, ModelName, ReplicaId

folder, instance = Path(sys.argv[1]), sys.argv[2]
runtime = ProcessRuntime(
    instance=instance, records=folder / "records", logs=folder / "logs", environments=Environments(folder / "e")
)
launch = Launch(ModelName("tiny"), "r1", "tiny", argv=("{python}", "-c", "import time; time.sleep(60)"))
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(runtime.start(ReplicaId("tiny-1"), launch, lambda phase, detail: None))
print("started", flush=True)
sys.stdin.readline()
"""


def starter(bench: ProcessBench) -> subprocess.Popen[str]:
    """Another process with a runtime over the same folders; each line on its stdin lets it take a step."""
    argv = [sys.executable, "-c", STARTER, str(bench.folder), bench.instance]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def step(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def pid_of(state: Running | Exited) -> int:
    assert isinstance(state, Running)
    assert state.pid is not None
    return state.pid


def test_starts_from_two_processes_are_one_replica(processes: ProcessBench) -> None:
    starters = [starter(processes) for _ in range(4)]
    for each in starters:
        step(each)
    for each in starters:
        assert each.stdout is not None
        assert each.stdout.readline() == "started\n"
    assert processes.count() == 1
    for each in starters:
        each.communicate("\n", timeout=20)
    assert processes.count() == 1


def test_replicas_outlive_a_killed_starter_and_are_adopted(processes: ProcessBench) -> None:
    daemon = starter(processes)
    step(daemon)
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "started\n"
    daemon.kill()
    daemon.communicate(timeout=20)

    async def scenario() -> None:
        runtime = processes.runtime()
        [process] = processes.ours()
        seen = (await see(runtime))[ONE]
        assert (seen.model, seen.revision, pid_of(seen.state)) == ("tiny", "r1", process.pid)
        assert isinstance(seen.state, Running)
        assert seen.state.url == process.environ()["MODELGRID_URL"]
        os.kill(process.pid, signal.SIGKILL)
        # Init takes it off the system's list at once, or a little later: until then its end can still be read.
        assert (await wait_for_exit(runtime, ONE)).why in ("gone while nobody watched", "killed by SIGKILL")
        await stop_to_the_end(runtime, ONE, force=False)

    asyncio.run(scenario())


def test_a_process_without_a_record_is_adopted(processes: ProcessBench) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.lives(), quiet)
        before = (await see(runtime))[ONE]
        for path in (processes.folder / "records").iterdir():
            path.unlink()
        other = processes.runtime()
        after = (await see(other))[ONE]
        assert isinstance(before.state, Running)
        assert isinstance(after.state, Running)
        assert after == replace(before, state=replace(before.state, memory_bytes=after.state.memory_bytes))
        await other.start(ONE, processes.lives(), quiet)
        assert processes.count() == 1
        os.kill(pid_of(after.state), signal.SIGKILL)
        await wait_for_exit(other, ONE)
        await stop_to_the_end(other, ONE, force=False)

    asyncio.run(scenario())


def test_how_a_replica_was_killed_is_told(processes: ProcessBench) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.lives(), quiet)
        os.kill(pid_of((await see(runtime))[ONE].state), signal.SIGKILL)
        onlooker = processes.runtime()  # is no parent, but sees the dead child that nobody has waited for
        assert await wait_for_exit(onlooker, ONE) == Exited("killed by SIGKILL", 0)
        assert await wait_for_exit(runtime, ONE) == Exited("killed by SIGKILL", 0)

    asyncio.run(scenario())


def test_another_installations_processes_are_not_seen(processes: ProcessBench, tmp_path: Path) -> None:
    stranger = ProcessBench(tmp_path / "stranger")
    try:

        async def scenario() -> None:
            theirs, ours = stranger.runtime(), processes.runtime()
            await theirs.start(ONE, stranger.lives(), quiet)
            assert await see(ours) == {}
            await ours.stop(ONE, force=True)
            assert isinstance((await see(theirs))[ONE].state, Running)

        asyncio.run(scenario())
    finally:
        stranger.close()


def test_a_pid_that_was_given_to_another_process_is_neither_seen_nor_stopped(processes: ProcessBench) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.exits(0), quiet)
        await wait_for_exit(runtime, ONE)
        stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
        try:
            path = processes.folder / "records" / f"{ONE}.json"
            record = json.loads(path.read_text()) | {"pid": stranger.pid, "exit": None, "is_over": False}
            path.write_text(json.dumps(record))
            other = processes.runtime()
            assert (await see(other))[ONE].state == Exited("gone while nobody watched", 0)
            await stop_to_the_end(other, ONE, force=True)
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    asyncio.run(scenario())


def test_a_member_that_got_the_dead_leaders_pid_is_not_the_leader(processes: ProcessBench) -> None:
    async def scenario() -> None:
        await processes.runtime().start(ONE, processes.lives(), quiet)
        path = processes.folder / "records" / f"{ONE}.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"started": record["started"] - 1}))
        runtime = processes.runtime()
        assert (await see(runtime))[ONE].state == Exited("gone while nobody watched", 1)
        await stop_to_the_end(runtime, ONE, force=False)
        assert processes.count() == 0

    asyncio.run(scenario())


def test_a_leader_that_lost_its_environment_is_known_by_its_session(processes: ProcessBench) -> None:
    """As programs that rewrite their title do."""
    program = (
        "import os, sys, time\nif sys.argv[1:]: os.execve(sys.executable, [sys.executable, '-c', sys.argv[1]], {})\n"
    )
    launch = processes.python(program, "import time\nprint('bare', flush=True)\ntime.sleep(60)")

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, launch, quiet)
        await wait_for_log(runtime, ONE, "bare")
        assert processes.count() == 0  # by its environment
        other = processes.runtime()
        pid = pid_of((await see(other))[ONE].state)
        await stop_to_the_end(other, ONE, force=True)
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    asyncio.run(scenario())


@pytest.mark.parametrize("environ", ["os.environ", "{}"], ids=["marked", "bare"])
def test_grandchildren_in_sessions_of_their_own_are_gone_too(processes: ProcessBench, environ: str) -> None:
    child = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
    )
    program = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], env={environ}, start_new_session=True)\n"
        "print('child', child.pid, flush=True)\n"
        "time.sleep(60)"
    )

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.python(program, child), quiet)
        await wait_for_log(runtime, ONE, "deaf")
        pid = next(int(line.split()[1]) for line in await runtime.logs(ONE, 9) if line.startswith("child"))
        leader = pid_of((await see(runtime))[ONE].state)
        os.kill(leader, signal.SIGKILL)
        assert await wait_for_exit(runtime, ONE) == Exited("killed by SIGKILL", 1)
        await stop_to_the_end(runtime, ONE, force=True)
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    asyncio.run(scenario())


def test_memory_counts_all_processes(processes: ProcessBench) -> None:
    eater = "import time\nheld = bytearray(64 << 20)\nprint('full', flush=True)\ntime.sleep(60)"
    program = (
        "import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)\n"
        "time.sleep(60)"
    )

    async def scenario() -> None:
        await processes.runtime().start(ONE, processes.python(program, eater), quiet)
        runtime = processes.runtime()
        await wait_for_log(runtime, ONE, "full")
        state = (await see(runtime))[ONE].state
        assert isinstance(state, Running)
        assert state.memory_bytes is not None
        assert 64 << 20 < state.memory_bytes < 256 << 20

    asyncio.run(scenario())


def test_memory_that_is_given_back_at_once_is_seen_at_the_next_look(processes: ProcessBench) -> None:
    program = (
        "import pathlib, sys, time\nheld = bytearray(64 << 20)\nprint('full', flush=True)\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\n"
        "held = None\nprint('empty', flush=True)\ntime.sleep(60)"
    )

    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            go = Path(folder) / "go"
            runtime = processes.runtime()
            await runtime.start(ONE, processes.python(program, str(go)), quiet)
            await wait_for_log(runtime, ONE, "full")
            full = (await see(runtime))[ONE].state
            go.touch()
            await wait_for_log(runtime, ONE, "empty")
            runtime.look_again(ONE)
            empty = (await see(runtime))[ONE].state
        assert isinstance(full, Running)
        assert isinstance(empty, Running)
        assert (full.memory_bytes or 0) > 64 << 20 > (empty.memory_bytes or 0) > 0

    asyncio.run(scenario())


def test_a_start_that_is_cancelled_while_its_environment_is_made_leaves_nothing(processes: ProcessBench) -> None:
    launch = replace(processes.lives(), environment=Environment("tiny"))

    async def scenario() -> None:
        runtime = processes.runtime()
        reached = asyncio.Event()
        task = asyncio.create_task(runtime.start(ONE, launch, lambda phase, detail: reached.set()))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await see(runtime) == {}
        assert processes.count() == 0
        await runtime.start(ONE, launch, quiet)
        assert isinstance((await see(runtime))[ONE].state, Running)

    asyncio.run(scenario())


def test_a_start_that_is_cancelled_at_any_moment_leaves_nothing_that_stop_does_not_clear(
    processes: ProcessBench,
) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        for yields in range(8):
            task = asyncio.create_task(runtime.start(ONE, processes.lives(), quiet))
            for _ in range(yields):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            before = processes.count()
            assert (ONE in await see(runtime)) == (before == 1)
            await stop_to_the_end(runtime, ONE, force=True)
            assert processes.count() == 0

    asyncio.run(scenario())


def test_an_environments_replica_runs_its_interpreter(processes: ProcessBench) -> None:
    program = "import os, sys\nprint(sys.prefix)\nprint(os.environ['PATH'].split(':')[0])"
    launch = replace(processes.python(program), environment=Environment("tiny"))

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, launch, quiet)
        await wait_for_exit(runtime, ONE)
        prefix, first = await runtime.logs(ONE, 10)
        assert Path(prefix).parent == processes.folder / "environments"
        assert first == f"{prefix}/bin"

    asyncio.run(scenario())


def test_a_replica_gets_its_facts_and_none_of_our_settings(
    processes: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELGRID_SECRET", "s3cret")
    monkeypatch.setenv("ORDINARY", "kept")
    program = "import json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read()]))"
    launch = replace(
        processes.python(program, "--port={port}", '{{"a": {"b": 1}}', "{host}"),
        env={"OWN": "{port}", "API_KEY": "k3y"},
    )

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, launch, quiet)
        await wait_for_exit(runtime, ONE)
        arguments, environ, read = json.loads((await runtime.logs(ONE, 1))[0])
        port = environ["MODELGRID_PORT"]
        assert arguments == [f"--port={port}", '{"a": {"b": 1}}', "127.0.0.1"]
        assert (environ["OWN"], environ["API_KEY"], environ["ORDINARY"]) == (port, "k3y", "kept")
        assert environ["MODELGRID_URL"] == f"http://127.0.0.1:{port}/v1"
        assert environ["MODELGRID_REPLICA"] == ONE
        assert "MODELGRID_SECRET" not in environ
        assert read == ""
        assert "k3y" not in (processes.folder / "records" / f"{ONE}.json").read_text()

    asyncio.run(scenario())


def test_what_others_took_from_the_environment_is_not_inherited(
    processes: ProcessBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ELSEWHERE_KEY", "MY_KEY", "HF_TOKEN", "ORDINARY"):
        monkeypatch.setenv(name, "s3cret")
    program = "import json, os\nprint(json.dumps(dict(os.environ)))"
    launch = replace(processes.python(program), env={"MY_KEY": "s3cret"})

    async def scenario() -> None:
        runtime = processes.runtime(hidden={"ELSEWHERE_KEY", "MY_KEY", "HF_TOKEN", "PATH"})
        await runtime.start(ONE, launch, quiet)
        await wait_for_exit(runtime, ONE)
        environ = json.loads((await runtime.logs(ONE, 1))[0])
        assert {"MY_KEY", "HF_TOKEN", "ORDINARY", "PATH"} <= environ.keys()  # its own, and everybody's
        assert "ELSEWHERE_KEY" not in environ

    asyncio.run(scenario())


def test_a_fixed_port_that_is_taken_is_named_with_its_holder(processes: ProcessBench) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        async def scenario() -> None:
            with pytest.raises(StartError, match=rf"port {port} is taken by process {os.getpid()} \("):
                await processes.runtime().start(ONE, replace(processes.lives(), port=port), quiet)
            assert await see(processes.runtime()) == {}

        asyncio.run(scenario())


def test_a_fixed_port_is_used(processes: ProcessBench) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, replace(processes.lives(), port=port), quiet)
        state = (await see(runtime))[ONE].state
        assert isinstance(state, Running)
        assert (state.url, state.root) == (f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("argv", "cwd", "says"),
    [
        ((), None, "it has no command"),
        (("no-such-program",), None, "there is no program no-such-program"),
        (("/etc/passwd",), None, "/etc/passwd can't be run: Permission denied"),
        (("true",), "/no/such/folder", "its folder /no/such/folder is not there"),
    ],
)
def test_a_command_that_cannot_run_says_why_and_leaves_nothing(
    processes: ProcessBench, argv: tuple[str, ...], cwd: str | None, says: str
) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        with pytest.raises(StartError, match=says):
            await runtime.start(ONE, Launch(ModelName("tiny"), "r1", "tiny", argv=argv, cwd=cwd), quiet)
        assert await see(runtime) == {}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("launch", "says"),
    [
        (
            Launch(ModelName("tiny"), "r1", "tiny", argv=("no-such-program", "serve"), install="install it from here"),
            'cannot start tiny: there is no "no-such-program" on the PATH (install it from here)',
        ),
        (
            Launch(ModelName("tiny"), "r1", "tiny", argv=("true",), refusal="it computes on GPUs only (use another)"),
            "cannot start tiny: it computes on GPUs only (use another)",
        ),
    ],
)
def test_what_an_engine_says_of_a_start_that_cannot_be_is_told(
    processes: ProcessBench, launch: Launch, says: str
) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        with pytest.raises(StartError, match=re.escape(says)):
            await runtime.start(ONE, launch, quiet)
        assert await see(runtime) == {}

    asyncio.run(scenario())


def test_logs_of_a_dead_replica_are_kept_also_after_its_stop(processes: ProcessBench) -> None:
    async def scenario() -> None:
        runtime: ProcessRuntime = processes.runtime()
        await runtime.start(ONE, processes.exits(1), quiet)
        await wait_for_exit(runtime, ONE)
        await stop_to_the_end(runtime, ONE, force=False)
        assert await runtime.logs(ONE, 5) == ["about to end"]
        assert await processes.runtime().logs(ONE, 5) == ["about to end"]

    asyncio.run(scenario())


def test_a_stopped_replica_leaves_no_file_but_its_log(processes: ProcessBench) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.lives(), quiet)
        await see(runtime)
        await stop_to_the_end(runtime, ONE, force=False)
        await runtime.stop(ONE, force=False)
        await see(runtime)
        assert list((processes.folder / "records").iterdir()) == []

    asyncio.run(scenario())


def test_an_engine_is_asked_to_end_once(processes: ProcessBench) -> None:
    """Many take a second request as impatience, and drop what they have in flight."""
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('asked', flush=True))\n"
        "signal.signal(signal.SIGWINCH, lambda *_: print('last', flush=True))\n"
        "print('set', flush=True)\nwhile True: time.sleep(60)"
    )

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.python(program), quiet)
        await wait_for_log(runtime, ONE, "set")
        await runtime.stop(ONE, force=False)
        await wait_for_log(runtime, ONE, "asked")
        await runtime.stop(ONE, force=False)
        # Of two pending signals the lower number comes first, so a second request would show before this one.
        os.kill(pid_of((await see(runtime))[ONE].state), signal.SIGWINCH)
        await wait_for_log(runtime, ONE, "last")
        assert await runtime.logs(ONE, 9) == ["set", "asked", "last"]

    asyncio.run(scenario())


def test_records_that_cannot_be_read_are_unknown_not_empty(processes: ProcessBench) -> None:
    (processes.folder / "records" / "tiny-1.json").mkdir(parents=True)

    async def scenario() -> None:
        found = await processes.runtime().list()
        assert isinstance(found, Unknown)
        assert "cannot list processes" in found.why

    asyncio.run(scenario())


def test_a_process_that_cannot_be_looked_at_has_not_gone(processes: ProcessBench) -> None:
    """No descriptor is left: that is Unknown, for a replica that seems gone would be started a second time."""

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.lives(), quiet)
        before = await see(runtime)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            found = await runtime.list()
            with pytest.raises(StartError, match="Too many open files"):
                await runtime.start(ReplicaId("tiny-2"), processes.lives(), quiet)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert isinstance(found, Unknown)
        assert (await see(runtime)).keys() == before.keys()

    asyncio.run(scenario())


def test_progress_is_told_in_the_callers_thread(processes: ProcessBench) -> None:
    told: list[tuple[str, str, int]] = []

    def progress(phase: str, detail: str) -> None:
        told.append((phase, detail, threading.get_ident()))

    async def scenario() -> None:
        launch = replace(processes.lives(), environment=Environment("tiny"))
        await processes.runtime().start(ONE, launch, progress)

    asyncio.run(scenario())
    assert told[-1] == ("spawn", "python", threading.get_ident())
    assert {phase for phase, _, _ in told} == {"environment", "spawn"}
    assert {thread for _, _, thread in told} == {threading.get_ident()}


def test_list_sees_a_replica_that_begins_and_ends_between_two_looks(processes: ProcessBench) -> None:
    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.exits(7), quiet)
        process = runtime._children[ONE]  # white box: wait without the runtime looking

        async def ended() -> bool:
            return Path(f"/proc/{process.pid}/stat").read_text().split(")")[1].split()[0] == "Z"

        await wait_for(ended)
        assert (await see(runtime))[ONE].state == Exited("exited with code 7", 0)

    asyncio.run(scenario())


def test_the_test_engine_with_a_child_and_deaf_ears_is_gone_by_force(processes: ProcessBench) -> None:
    argv = ("{python}", "-m", "modelgrid.services.faulty", "--port", "{port}", "--refuse-stop", "--spawn-child")

    async def scenario() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, Launch(ModelName("tiny"), "r1", "tiny", argv=argv), quiet)

        async def with_child() -> bool:
            return processes.count() == 2

        await wait_for(with_child)
        await runtime.stop(ONE, force=False)
        assert isinstance((await see(runtime))[ONE].state, Running)
        await runtime.stop(ONE, force=True)
        assert await see(runtime) == {}
        assert processes.count() == 0

    asyncio.run(scenario())


def shown_gpus(processes: ProcessBench, launch: Launch) -> tuple[str | None, str | None, tuple[str, ...]]:
    """CUDA's two variables as an engine reads them, and the devices that the runtime tells of."""
    program = (
        "import json, os, time\n"
        "print(json.dumps([os.environ.get(name) for name in ('CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER')]))\n"
        "print('told')\n"
        "while True: time.sleep(60)"
    )
    launch = replace(launch, argv=("{python}", "-c", program))

    async def main() -> tuple[str | None, str | None, tuple[str, ...]]:
        runtime = processes.runtime()
        await runtime.start(ONE, launch, quiet)
        await wait_for_log(runtime, ONE, "told")
        visible, order = json.loads((await runtime.logs(ONE, 2))[0])
        told = (await see(runtime))[ONE].devices
        for record in (processes.folder / "records").glob("*.json"):
            record.unlink()
        assert (await see(processes.runtime()))[ONE].devices == told  # by the processes' marks alone
        await stop_to_the_end(runtime, ONE, force=True)
        return visible, order, told

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((0,), ("0", "PCI_BUS_ID", ("gpu0",))),
        ((3, 1), ("3,1", "PCI_BUS_ID", ("gpu3", "gpu1"))),
        ((), ("", "PCI_BUS_ID", ())),
        (None, ("7", None, ())),
    ],
)
def test_a_replica_sees_its_gpus_only_and_its_record_tells_of_them(
    processes: ProcessBench,
    monkeypatch: pytest.MonkeyPatch,
    gpus: tuple[int, ...] | None,
    expected: tuple[str | None, str | None, tuple[str, ...]],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert shown_gpus(processes, replace(processes.lives(), gpus=gpus)) == expected


def test_what_a_model_says_of_its_gpus_itself_stands(processes: ProcessBench) -> None:
    launch = replace(processes.lives(), gpus=(0,), env={"CUDA_VISIBLE_DEVICES": "1"})
    assert shown_gpus(processes, launch)[0] == "1"


def test_what_processes_hold_of_gpus_is_told_by_replica_and_device(processes: ProcessBench) -> None:
    async def main() -> None:
        runtime = processes.runtime()
        await runtime.start(ONE, processes.lives(), quiet)
        (engine,) = processes.ours()
        held = {engine.pid: {"gpu0": 3, "gpu1": 4}, os.getpid(): {"gpu0": 100}}
        looking = ProcessRuntime(
            instance=processes.instance,
            records=processes.folder / "records",
            logs=processes.folder / "logs",
            environments=Environments(processes.folder / "environments"),
            on_gpus=lambda: held,
        )
        state = (await see(looking))[ONE].state
        assert isinstance(state, Running)
        assert state.gpu_bytes == {"gpu0": 3, "gpu1": 4}
        await stop_to_the_end(runtime, ONE, force=True)

    asyncio.run(main())
