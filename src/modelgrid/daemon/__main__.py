"""The supervisor's children begin here: ``python -m modelgrid.daemon ROLE OPTIONS``, with the options as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec

from modelgrid.config import GatewayConfig
from modelgrid.config.paths import find_paths
from modelgrid.daemon.children import READY


def main() -> None:
    """Become the role that the arguments name."""
    role, options = sys.argv[1], json.loads(sys.argv[2])
    ready = os.environ.pop(READY, None)  # not for processes that this one starts
    gateway = msgspec.convert(options["gateway"], GatewayConfig)
    paths = find_paths()
    if role == "controller":
        from modelgrid.daemon.config_file import ConfigFile
        from modelgrid.daemon.controller_process import run_controller

        path = Path(options["config"]) if options["config"] else None
        file = ConfigFile(path, paths.last_config, options["overrides"], options["hub"], options["memory_bytes"])
        run_controller(paths, file, gateway)
    else:
        from modelgrid.daemon.gateway_process import run_gateway

        run_gateway(
            paths,
            gateway,
            number=options["number"],
            descriptor=options["descriptor"],
            ledger=options.get("ledger"),
            row=options.get("row", 0),
            ready=int(ready) if ready else None,
        )


main()
