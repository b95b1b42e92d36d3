"""Serving many callers works as its how-to is written: its commands and files are taken from the page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import httpx
import yaml

from e2e.conftest import MakeDaemon
from e2e.daemon import Daemon, faulty, until
from modelgrid.config import load_text

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "serve-many-callers.md").read_text()
FILE, SESSION, SCRAPE = (yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))
COMMANDS = [shlex.split(line) for line in re.findall(r"^\$ modelgrid (.*)$", PAGE, re.M)]


def made(make_daemon: MakeDaemon) -> Daemon:
    """What the page says of its file, with two replicas that are here."""
    model = {name: value for name, value in FILE["models"]["chat"].items() if name not in ("engine", "urls", "served")}
    engine = faulty(**model, scaling={"min": 2, "max": 2})
    return make_daemon({"chat": engine}, **{**FILE["gateway"], "host": "127.0.0.1"})


def keys(daemon: Daemon) -> dict[str, str]:
    """The keys that the page has made, by their names."""
    told = [(words[2], daemon.run(*words)) for words in COMMANDS if words[:2] == ["key", "create"]]
    assert [done.stderr for _, done in told if done.returncode] == []
    return {name: done.stdout.strip() for name, done in told}


def status(daemon: Daemon, path: str, key: str | None) -> int:
    """What a GET with `key` is answered with."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.get(f"{daemon.url}{path}", headers=headers, trust_env=False).status_code


def test_what_the_page_shows_is_a_configuration() -> None:
    for shown in (FILE, SESSION):
        assert load_text(yaml.safe_dump(shown), path=None, environ={}).models


def test_every_command_of_the_page_works(make_daemon: MakeDaemon) -> None:
    daemon = made(make_daemon)
    daemon.write(daemon.config)
    secrets = keys(daemon)
    daemon.start()
    for words in COMMANDS:
        if words != ["serve"] and words[:2] != ["key", "create"]:
            done = daemon.run(*words)
            assert done.returncode == 0, (words, done.stderr)
    assert list(secrets) == ["team-a", "batch", "prometheus"]
    until("batch is revoked", lambda: status(daemon, "/v1/models", secrets["batch"]) == 401)
    assert status(daemon, "/v1/models", secrets["team-a"]) == 200


def test_prometheus_scrapes_as_the_page_says(make_daemon: MakeDaemon) -> None:
    daemon = made(make_daemon)
    daemon.write(daemon.config)
    key = keys(daemon)["prometheus"]
    daemon.start()
    (job,) = SCRAPE["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9000"]}]
    assert "credentials_file" in job["authorization"]
    assert status(daemon, "/metrics", None) == 401
    answer = httpx.get(f"{daemon.url}/metrics", headers={"authorization": f"Bearer {key}"}, trust_env=False)
    assert answer.status_code == 200
    assert "modelgrid_requests_total" in answer.text
