"""What keeps a launch from being started, as far as it can be told in advance: before weights are pulled for it."""

from __future__ import annotations

import os
import shutil

from modelgrid.runtimes.runtime import StartError
from modelgrid.spec import Launch


def check_startable(launch: Launch) -> None:
    """Raises StartError where its engine refuses the place, or its program isn't on the PATH."""
    if launch.refusal is not None:
        raise StartError(f"cannot start {launch.model}: {launch.refusal}")
    if launch.install is None:
        return
    program, path = launch.argv[0], launch.env.get("PATH", os.environ.get("PATH"))
    if shutil.which(program, path=path) is None:
        raise StartError(f'cannot start {launch.model}: there is no "{program}" on the PATH ({launch.install})')
