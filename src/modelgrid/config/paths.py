"""Where things lie: XDG paths, or all below ``$MODELGRID_HOME``."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

LLM_CONFIG = "llm_config.json"  # in the folder where modelgrid is started
PATH_VARIABLE = "CONFIG_PATH"  # or where this says
_SOCKET_PATH_LIMIT = 100  # of 107 that Linux allows in a socket's address


class ForeignFolder(Exception):
    """A folder that may hold secrets is, or could be, another user's; the text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders of one installation. Two installations with different `state` folders know nothing of each other."""

    config: Path  # modelgrid.yaml
    state: Path  # the store, logs, records of replicas
    data: Path  # environments, models
    cache: Path
    run: Path  # sockets, process ids; short enough for a socket's address

    @property
    def config_file(self) -> Path:
        """The configuration, where none is named."""
        return self.config / "modelgrid.yaml"

    @property
    def store(self) -> Path:
        """The SQLite database."""
        return self.state / "modelgrid.db"

    @property
    def logs(self) -> Path:
        """One file for the daemon (``modelgrid.log``), one for each replica (``replicas/ID.log``)."""
        return self.state / "logs"

    @property
    def replicas(self) -> Path:
        """The process runtime's records, one file a replica."""
        return self.state / "replicas"

    @property
    def environments(self) -> Path:
        """Engines' Python environments."""
        return self.data / "environments"

    @property
    def models(self) -> Path:
        """Weights that were pulled."""
        return self.data / "models"

    @property
    def table(self) -> Path:
        """The last routing table, for a gateway worker that starts while the controller is away. Mode 0600."""
        return self.run / "table.json"

    @property
    def last_config(self) -> Path:
        """The configuration file as it last was good, for a controller that starts while it is not. Mode 0600."""
        return self.run / "config.yaml"

    @property
    def link_socket(self) -> Path:
        """Where gateway workers reach the controller."""
        return self.run / "link.sock"

    @property
    def api_socket(self) -> Path:
        """Where the command line reaches the control API."""
        return self.run / "api.sock"

    @property
    def serve_socket(self) -> Path:
        """Where the command line reaches the supervisor."""
        return self.run / "serve.sock"

    def make(self) -> None:
        """Create what is missing; what may hold secrets is closed to others. Raises OSError, ForeignFolder."""
        _make_run(self.run)
        for folder in (self.state, self.logs, self.replicas):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.state, self.run):
            folder.chmod(0o700)
        for folder in (self.data, self.environments, self.models, self.cache):
            folder.mkdir(parents=True, exist_ok=True)


def find_paths(environ: Mapping[str, str] = os.environ) -> Paths:
    """The paths of this user, or of ``$MODELGRID_HOME``. Raises ForeignFolder."""
    if home := environ.get("MODELGRID_HOME"):
        root = Path(home).expanduser().resolve()
        return Paths(root, root / "state", root / "data", root / "cache", _short(root / "run"))
    dirs = platformdirs.PlatformDirs("modelgrid", appauthor=False)
    state = Path(dirs.user_state_dir)
    return Paths(
        config=Path(dirs.user_config_dir),
        state=state,
        data=Path(dirs.user_data_dir),
        cache=Path(dirs.user_cache_dir),
        run=_short(state / "run"),
    )


def _short(run: Path) -> Path:
    """A socket's address has room for 107 bytes: a long path gets a short stand-in, the same each time.

    Not below $XDG_RUNTIME_DIR: a daemon of a login session and a `stop` outside of it would not find each other, and
    the folder goes at logout, which a daemon outlives.
    """
    if len(os.fsencode(run / "link.sock")) <= _SOCKET_PATH_LIMIT:
        return run
    digest = hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    stand_in = _stand_ins() / digest
    _check_own(stand_in.parent)
    _check_own(stand_in)
    return stand_in


def _stand_ins() -> Path:
    return Path("/tmp") / f"modelgrid-{os.getuid()}"  # noqa: S108  whose it is gets checked


def _make_run(run: Path) -> None:
    """Level by level: what `mkdir` makes on its way to a folder is open to others."""
    if run.parent != _stand_ins():
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        return
    for folder in (run.parent, run):
        folder.mkdir(exist_ok=True, mode=0o700)
        _check_own(folder)
        folder.chmod(0o700)


def _check_own(folder: Path) -> None:
    """In a folder where anybody may make what they like, somebody may have been here first, and would get what is
    written and answer what is asked. What isn't there yet harms nobody."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return
    raise ForeignFolder(
        f"cannot use {folder}: it is not a folder that belongs to this user alone (remove it, or set a MODELGRID_HOME "
        "with a shorter path, which needs none in /tmp)"
    )
