"""A model of an engine that an installed package brings is served like any other, whatever else is installed."""

from __future__ import annotations

import sys
from pathlib import Path

from e2e.conftest import MakeDaemon
from e2e.daemon import faulty
from packages import ENGINE, install


def test_an_engine_of_a_package_serves_beside_broken_ones(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    install(tmp_path, "shout", {"shout_engine": ENGINE}, {"shout": "shout_engine:SHOUT"})
    install(tmp_path, "odd", {"odd": "import no_such_library"}, {"odd": "odd:ENGINE", "custom": "odd:ENGINE"}, "2.5")
    model = {**faulty(), "engine": "shout"}
    daemon = make_daemon({"loud": model, "plain": faulty()}, environ={"PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"})
    daemon.start()
    for name in ("loud", "plain"):
        answer = daemon.chat(name)
        assert answer.status_code == 200, answer.text
    assert "engine custom of the package odd 2.5 is not used" in daemon.log()
    checked = daemon.run("config", "check")
    assert checked.returncode == 0
    assert checked.stderr.startswith("warning: engine custom of the package odd 2.5 is not used")
    shown = daemon.run("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
