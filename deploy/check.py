"""Holds the alert rules, their tests and the dashboard's queries against promtool: ``python -m deploy.check``.

promtool is the one of the PATH, else it is unpacked from Debian's package `prometheus` (20 MB), which needs no root.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_HERE = Path(__file__).parent
_RULES = _HERE / "prometheus" / "modelgrid.rules.yaml"
_TESTS = _HERE / "prometheus" / "modelgrid.rules.test.yaml"
_DASHBOARD = _HERE / "grafana" / "modelgrid.json"
_UNPACKED = _HERE.parent / "build" / "promtool"
_DOWNLOAD_S = 120.0
_CHECK_S = 60.0
_GRAFANAS = {  # what Grafana puts in for its variables
    "$__rate_interval": "5m",
    "$__range": "1h",
    "$instance": ".*",
    "$model": ".*",
}


class NoPromtool(Exception):
    """There is none, and none can be had here."""


def main(arguments: list[str]) -> int:
    """With ``--if-any``, a machine that can't have promtool is no failure."""
    try:
        promtool = _promtool()
    except NoPromtool as error:
        sys.stderr.write(f"the alert rules were not checked: {error}\n")
        return 0 if "--if-any" in arguments else 1
    with tempfile.TemporaryDirectory() as folder:
        queries = Path(folder) / "dashboard.yaml"
        queries.write_text(yaml.safe_dump(as_rules(json.loads(_DASHBOARD.read_text("utf-8")))), "utf-8")
        return max(
            _run([promtool, "check", "rules", str(_RULES), str(queries)]),
            _run([promtool, "test", "rules", str(_TESTS)]),
        )


def as_rules(dashboard: dict[str, Any]) -> dict[str, Any]:
    """The dashboard's queries as a file of recording rules, which promtool parses."""
    rules = [
        {"record": f"dashboard:panel_{panel['id']}:{target['refId'].lower()}", "expr": _filled(target["expr"])}
        for panel, target in targets(dashboard)
    ]
    return {"groups": [{"name": "dashboard", "rules": rules}]}


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each query of a dashboard, with its panel."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel, target


def _filled(expression: str) -> str:
    for variable, value in _GRAFANAS.items():
        expression = expression.replace(variable, value)
    return expression


def _promtool() -> str:
    if found := shutil.which("promtool"):
        return found
    unpacked = _UNPACKED / "usr" / "bin" / "promtool"
    if not unpacked.exists():
        _unpack()
    return str(unpacked)


def _unpack() -> None:
    how = "install promtool, which is part of Prometheus"
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise NoPromtool(f"there is no promtool ({how})")
    with tempfile.TemporaryDirectory() as folder:
        _UNPACKED.parent.mkdir(exist_ok=True)
        try:
            done = subprocess.run(
                [apt, "-qq", "download", "prometheus"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_DOWNLOAD_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NoPromtool(f"Debian's package prometheus didn't come in {_DOWNLOAD_S:.0f} s ({how})") from error
        packages = list(Path(folder).glob("*.deb"))
        if done.returncode or not packages:
            said = done.stderr.strip().splitlines()
            raise NoPromtool(f"cannot get Debian's package prometheus: {said[-1] if said else 'nothing came'} ({how})")
        fresh = Path(folder) / "whole"
        subprocess.run([dpkg, "-x", str(packages[0]), str(fresh)], check=True, timeout=_DOWNLOAD_S)
        shutil.rmtree(_UNPACKED, ignore_errors=True)
        shutil.move(fresh, _UNPACKED)


def _run(command: list[str]) -> int:
    return subprocess.run(command, check=False, timeout=_CHECK_S).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
