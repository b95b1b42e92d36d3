"""Environments: a Python environment for each engine, made by uv when first needed and then shared."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import uv

import modelgrid
from modelgrid.runtimes.locks import locked_by_task
from modelgrid.runtimes.pip_settings import PipSettings, read_pip_settings
from modelgrid.runtimes.runtime import Progress, StartError
from modelgrid.spec import Environment
from modelgrid.spec.units import format_bytes

ROLE = "MODELGRID_ROLE"  # what a process that is no replica does for us
MAKING = "environment"

_MARKER = ".modelgrid-ready"
_FREE_BYTES = 256 * 2**20
_FREE_FOR_TORCH_BYTES = 3 * 2**30
_BUILD_TIMEOUT_S = 3600.0
_SHOWN_LINES = 12  # of uv's, in an error
_LINE_BYTES = 2**20
_STEPS = ("Resolved", "Building", "Built", "Downloading", "Downloaded", "Prepared", "Installed", "Updated")


class Environments:
    """A folder of environments. Two processes that want the same one make it once: the second waits.

    An environment is ready when its marker is there; without it, what lies there is a failed or interrupted try, and
    is made anew. uv holds the lock too while it works, so that a try whose starter died isn't joined by another.
    """

    def __init__(
        self,
        root: Path,
        *,
        pip: PipSettings | None = None,
        build_timeout_s: float = _BUILD_TIMEOUT_S,
        free_bytes: int | None = None,
    ) -> None:
        self._root = root
        self._pip = pip
        self._build_timeout_s = build_timeout_s
        self._free_bytes = free_bytes  # what a build asks of the disk; None: as much as such an environment takes

    async def ready(self, environment: Environment, progress: Progress) -> Path:
        """Its interpreter; makes it first where it isn't there. May be cancelled. Raises StartError."""
        text = _read_requirements(environment)
        folder = self._root / quote(environment.key(text), safe="")
        try:
            if not _is_ready(folder):
                async with asyncio.timeout(self._build_timeout_s):
                    await self._make(environment, text, folder, progress)
            if environment.links_modelgrid:
                _link_modelgrid(folder)
        except TimeoutError:
            raise StartError(
                f"cannot make the environment {environment.name}: it took longer than {self._build_timeout_s:.0f} s"
                " (look at the network; what was downloaded is kept for the next try)"
            ) from None
        except OSError as error:
            raise StartError(
                f"cannot make the environment {environment.name}: {error} (look at {self._root})"
            ) from error
        return _python(folder)

    async def _make(self, environment: Environment, text: str, folder: Path, progress: Progress) -> None:
        def waiting() -> None:
            progress("environment", f"waiting for {environment.name}, which another process is making")

        self._root.mkdir(parents=True, exist_ok=True)
        async with locked_by_task(self._lock(folder), waiting) as lock:
            if _is_ready(folder):
                return
            self._check_disk(environment)
            await asyncio.to_thread(_clear, folder)
            await _Build(environment, text, folder, lock, self._uv_environ(), progress).run()
            (folder / _MARKER).touch()

    def _lock(self, folder: Path) -> Path:
        return folder.with_name(folder.name + ".lock")

    def _check_disk(self, environment: Environment) -> None:
        wanted = self._free_bytes
        if wanted is None:
            wanted = _FREE_FOR_TORCH_BYTES if environment.torch else _FREE_BYTES
        free = shutil.disk_usage(self._root).free
        if free < wanted:
            raise StartError(
                f"cannot make the environment {environment.name}: {self._root} has {format_bytes(free)} free, it takes"
                f" {format_bytes(wanted)} (free some space, or set MODELGRID_HOME to a larger disk)"
            )

    def _uv_environ(self) -> dict[str, str]:
        dropped = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME")
        environ = {name: value for name, value in os.environ.items() if name not in dropped}
        environ |= {"UV_NO_PROGRESS": "1", "NO_COLOR": "1", ROLE: MAKING}  # ours would pass for a second one of us
        return environ | (self._pip or read_pip_settings()).for_uv(environ)


class _Build:
    """One try at making an environment."""

    def __init__(
        self,
        environment: Environment,
        requirements_text: str,
        folder: Path,
        lock: int,
        environ: dict[str, str],
        progress: Progress,
    ) -> None:
        self._environment = environment
        self._requirements_text = requirements_text
        self._folder = folder
        self._lock = lock
        self._environ = environ
        self._progress = progress

    async def run(self) -> None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self._progress("environment", f"making {self._environment.name} (Python {version})")
        await self._uv("venv", "--python", sys.executable, str(self._folder))
        if torch := self._environment.torch:
            await self._install(("torch",) if torch == "auto" else (torch,), is_auto=torch == "auto")
        if self._environment.requirements or self._requirements_text.strip():
            await self._install(self._environment.requirements, has_file=True)
        for name, content in self._environment.files:
            _write_below(_site_packages(self._folder), name, content)

    async def _install(self, requirements: Sequence[str], *, is_auto: bool = False, has_file: bool = False) -> None:
        """Requirements go by files: an address in them may hold a password, which no list of processes should show."""
        argv = ["pip", "install", "--python", str(_python(self._folder))]
        argv += ["--requirements", self._write("requirements.txt", requirements)]
        if has_file and self._environment.requirements_file is not None:
            argv += ["--requirements", self._environment.requirements_file]
        if self._environment.overrides:
            argv += ["--override", self._write("overrides.txt", self._environment.overrides)]
        if is_auto:
            argv += ["--torch-backend", "auto"]
        await self._uv(*argv)

    def _write(self, name: str, lines: Sequence[str]) -> str:
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text("".join(line + "\n" for line in lines))
        return str(path)

    async def _uv(self, *argv: str) -> None:
        process = await asyncio.create_subprocess_exec(
            uv.find_uv_bin(),
            *argv,
            cwd=self._folder.parent,
            env=self._environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            start_new_session=True,
            pass_fds=(self._lock,),
        )
        try:
            lines = await self._follow(process)
            code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code != 0:
            raise StartError(_explain(self._environment.name, lines))

    async def _follow(self, process: asyncio.subprocess.Process) -> list[str]:
        assert process.stdout is not None
        lines: deque[str] = deque(maxlen=_SHOWN_LINES)
        async for raw in process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            if line:
                lines.append(line)
            if line.strip().startswith(_STEPS):
                self._progress("environment", f"{self._environment.name}: {line.strip()}")
        return list(lines)


def _explain(name: str, lines: Sequence[str]) -> str:
    said = "\n  ".join(lines) or "uv said nothing"
    if any("No space left on device" in line for line in lines):
        step = "free some space, or set MODELGRID_HOME to a larger disk"
    elif any(word in line for line in lines for word in ("dns error", "error sending request", "Could not connect")):
        step = "look at the network, or point pip or UV_DEFAULT_INDEX at a package index that can be reached"
    else:
        step = "correct its requirements; pip's settings and uv's variables say where packages come from"
    return f"cannot make the environment {name}: uv failed:\n  {said}\n({step})"


def _read_requirements(environment: Environment) -> str:
    if environment.requirements_file is None:
        return ""
    try:
        return Path(environment.requirements_file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(
            f"cannot make the environment {environment.name}: cannot read {environment.requirements_file}: {error}"
            " (correct the path of its requirements)"
        ) from None


def _is_ready(folder: Path) -> bool:
    """The interpreter is a link to the one that the environment was made with, which may have been removed since."""
    return (folder / _MARKER).is_file() and _python(folder).exists()


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _site_packages(folder: Path) -> Path:
    return next((folder / "lib").glob("python*/site-packages"))


def _write_below(root: Path, name: str, content: str) -> None:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise StartError(f"cannot write {name} into an environment: it lies outside of it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _link_modelgrid(folder: Path) -> None:
    """Checked each time: modelgrid may have been moved or upgraded since the environment was made."""
    assert modelgrid.__file__ is not None
    target = Path(modelgrid.__file__).parent
    link = _site_packages(folder) / "modelgrid"
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".modelgrid-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _clear(folder: Path) -> None:
    if folder.exists():
        (folder / _MARKER).unlink(missing_ok=True)  # first: half a folder must not look ready
        shutil.rmtree(folder)
