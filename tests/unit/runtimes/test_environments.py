"""Environments: real uv, tiny packages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import modelgrid
from modelgrid.runtimes.environments import MAKING, ROLE, Environments
from modelgrid.runtimes.runtime import StartError
from modelgrid.spec import Environment

EMPTY = Environment("empty")


def quiet(phase: str, detail: str) -> None:
    """Progress that nobody follows."""


def make(root: Path, environment: Environment) -> Path:
    return asyncio.run(Environments(root).ready(environment, quiet))


def run(python: Path, program: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, env=environ)
    return done.stdout.strip()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A package that no index has, as a file: a wheel is a zip."""
    return make_wheel(tmp_path, "tinygrid", "1.0")


def make_wheel(folder: Path, name: str, version: str, requires: str | None = None) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_an_environment_is_an_interpreter_of_its_own(tmp_path: Path) -> None:
    python = make(tmp_path, EMPTY)
    prefix, version = run(python, "import sys; print(sys.prefix); print(sys.version_info[:2])").splitlines()
    assert Path(prefix) == python.parent.parent
    assert version == str(sys.version_info[:2])
    assert run(python, "import importlib.util; print(importlib.util.find_spec('modelgrid'))") == "None"


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    steps: list[str] = []

    def progress(phase: str, detail: str) -> None:
        assert phase == "environment"
        steps.append(detail)

    async def scenario() -> None:
        pythons = await asyncio.gather(*(Environments(tmp_path).ready(EMPTY, progress) for _ in range(4)))
        assert len(set(pythons)) == 1

    asyncio.run(scenario())
    assert sum(step.startswith("making empty") for step in steps) == 1
    assert "waiting for empty, which another process is making" in steps
    steps.clear()
    asyncio.run(Environments(tmp_path).ready(EMPTY, progress))
    assert steps == []


def test_requirements_are_installed_from_the_list_and_from_a_file(tmp_path: Path, wheel: Path) -> None:
    other = make_wheel(tmp_path, "othergrid", "2.0")
    listed = tmp_path / "requirements.txt"
    listed.write_text(f"othergrid @ file://{other}\n")
    python = make(tmp_path / "e", Environment("two", (f"tinygrid @ file://{wheel}",), requirements_file=str(listed)))
    assert run(python, "import tinygrid, othergrid; print(tinygrid.version, othergrid.version)") == "1.0 2.0"


def test_a_changed_requirements_file_is_another_environment(tmp_path: Path) -> None:
    listed = tmp_path / "requirements.txt"
    listed.write_text("# one\n")
    environment = Environment("file", requirements_file=str(listed))
    first = make(tmp_path / "e", environment)
    listed.write_text("# two\n")
    assert make(tmp_path / "e", environment) != first


def test_a_requirements_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot read /no/such/requirements\.txt"):
        make(tmp_path, Environment("file", requirements_file="/no/such/requirements.txt"))


def test_torch_comes_before_the_rest_and_overrides_win(tmp_path: Path, wheel: Path) -> None:
    needy = make_wheel(tmp_path, "needygrid", "1.0", requires="tinygrid==9.9")
    plain = Environment("needy", (f"needygrid @ file://{needy}",), torch=f"tinygrid @ file://{wheel}")
    with pytest.raises(StartError, match="tinygrid"):
        make(tmp_path / "e", plain)
    python = make(tmp_path / "e", replace(plain, overrides=(f"tinygrid @ file://{wheel}",)))
    assert run(python, "import needygrid, tinygrid; print(tinygrid.version)") == "1.0"


def test_files_are_written_below_site_packages(tmp_path: Path) -> None:
    metadata = "Metadata-Version: 2.1\nName: pretended\nVersion: 3.2\n"
    python = make(tmp_path, replace(EMPTY, files=(("pretended-3.2.dist-info/METADATA", metadata),)))
    assert run(python, "from importlib.metadata import version; print(version('pretended'))") == "3.2"


def test_a_file_outside_of_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="lies outside"):
        make(tmp_path / "e", replace(EMPTY, files=(("../../../../../escaped", ""),)))
    assert not (tmp_path / "escaped").exists()


def test_modelgrid_is_linked_and_a_stale_link_is_mended(tmp_path: Path) -> None:
    assert modelgrid.__file__ is not None
    ours = Path(modelgrid.__file__)
    environment = replace(EMPTY, links_modelgrid=True)
    python = make(tmp_path, environment)
    show = "import os, modelgrid; print(os.path.realpath(modelgrid.__file__))"
    assert run(python, show) == str(ours.resolve())
    [link] = python.parent.parent.glob("lib/python*/site-packages/modelgrid")
    link.unlink()
    link.symlink_to("/no/longer/there")
    assert make(tmp_path, environment) == python
    assert run(python, show) == str(ours.resolve())


def test_a_broken_requirement_shows_what_uv_said_and_is_tried_anew(tmp_path: Path) -> None:
    listed = tmp_path / "requirements.txt"
    listed.write_text("broken requirement line ===\n")
    environment = Environment("broken", requirements_file=str(listed))
    environments = Environments(tmp_path / "e")
    for _ in range(2):
        with pytest.raises(StartError, match=r"(?s)cannot make the environment broken: uv failed:.*broken requir"):
            asyncio.run(environments.ready(environment, quiet))
    assert not list((tmp_path / "e").glob("*/.modelgrid-ready"))


@pytest.fixture
def hanging(tmp_path: Path) -> Environment:
    """An environment that is never done: building its package hangs. `building` appears when that begins."""
    source = tmp_path / "hanging"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "backend.py").write_text(
        f"import pathlib, time\npathlib.Path({str(tmp_path / 'building')!r}).touch()\n"
        "def prepare_metadata_for_build_wheel(*_): time.sleep(600)\n"
        "def build_wheel(*_): time.sleep(600)\n"
    )
    return Environment("hanging", (f"hanging @ file://{source}",))


def mend(tmp_path: Path) -> None:
    """The hanging package now fails at once."""
    (tmp_path / "hanging" / "backend.py").write_text("def build_wheel(*_): raise SystemExit('no')\n")


def test_a_cancelled_build_ends_uv_and_is_made_anew(tmp_path: Path, hanging: Environment) -> None:
    environments = Environments(tmp_path / "e")

    async def scenario() -> None:
        task = asyncio.create_task(environments.ready(hanging, quiet))
        await wait_for(lambda: (tmp_path / "building").exists())
        assert below(os.getpid())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_for(lambda: not below(os.getpid()))

    asyncio.run(scenario())
    assert not list((tmp_path / "e").glob("*/.modelgrid-ready"))
    mend(tmp_path)
    with pytest.raises(StartError, match="uv failed"):  # and not: waits for ever
        asyncio.run(environments.ready(hanging, quiet))


def test_who_makes_an_environment_is_marked_as_such(
    tmp_path: Path, hanging: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROLE, "controller")

    async def scenario() -> None:
        task = asyncio.create_task(Environments(tmp_path / "e").ready(hanging, quiet))
        await wait_for(lambda: (tmp_path / "building").exists())
        assert marks_below(os.getpid()) == {MAKING}
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())


def test_what_a_killed_builder_leaves_running_is_not_joined_by_another(tmp_path: Path, hanging: Environment) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom modelgrid.runtimes.environments import Environments\n"
        "from modelgrid.spec import Environment\n"
        "environment = Environment('hanging', (sys.argv[2],))\n"
        "asyncio.run(Environments(Path(sys.argv[1])).ready(environment, lambda phase, detail: None))"
    )
    builder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "e"), *hanging.requirements])
    asyncio.run(wait_for(lambda: (tmp_path / "building").exists()))
    left = below(builder.pid)
    builder.kill()
    builder.wait()
    mend(tmp_path)
    steps: list[str] = []

    async def scenario() -> None:
        ready = Environments(tmp_path / "e").ready(hanging, lambda phase, detail: steps.append(detail))
        task = asyncio.create_task(ready)
        await wait_for(lambda: bool(steps))
        assert steps == ["waiting for hanging, which another process is making"]
        for process in left:
            with suppress(psutil.NoSuchProcess):  # the first one's end may end the next
                process.kill()
        with pytest.raises(StartError, match="uv failed"):
            await task

    asyncio.run(scenario())


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def below(pid: int) -> list[psutil.Process]:
    alive = []
    for each in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_ZOMBIE:
                alive.append(each)
    return alive


def marks_below(pid: int) -> set[str]:
    marks: set[str] = set()
    for process in below(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # uv runs programs that end at once
            marks.add(process.environ()[ROLE])
    return marks


def test_a_half_made_environment_is_made_anew(tmp_path: Path) -> None:
    python = make(tmp_path, EMPTY)
    folder = python.parent.parent
    (folder / ".modelgrid-ready").unlink()
    (folder / "rest").touch()
    assert make(tmp_path, EMPTY) == python
    assert not (folder / "rest").exists()


def test_an_environment_whose_interpreter_was_removed_is_made_anew(tmp_path: Path) -> None:
    python = make(tmp_path, EMPTY)
    python.unlink()
    python.symlink_to("/no/such/python")
    make(tmp_path, EMPTY)
    assert run(python, "print(1)") == "1"


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot make the environment empty: .* free, it takes .* \(free some space"):
        asyncio.run(Environments(tmp_path, free_bytes=2**60).ready(EMPTY, quiet))
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_a_build_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="it took longer than"):
        asyncio.run(Environments(tmp_path, build_timeout_s=0.0).ready(EMPTY, quiet))
    assert make(tmp_path, EMPTY).exists()
