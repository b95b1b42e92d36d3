"""Phases, the table's file, settings, launches."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from modelgrid.config import Config, ConfigError, ConfigProblem, GatewayConfig
from modelgrid.controller import Launches, Settings
from modelgrid.controller.phases import Phases
from modelgrid.controller.tablefile import read_table, write_table
from modelgrid.spec import (
    ModelName,
    ModelSpec,
    Replica,
    ReplicaId,
    RoutingTable,
    State,
    cpu_machine,
    shares_of,
)
from modelgrid.spec.messages import decode_table

GOOD = Config(digest="1")


def test_each_phase_ends_where_the_next_begins() -> None:
    phases = Phases()
    phases.enter("queued", 10.0)
    phases.enter("weights", 12.0)
    phases.enter("spawn", 12.0)
    phases.enter("spawn", 14.0, "of something")
    assert phases.detail == "spawn: of something"
    assert phases.seconds(15.0) == {"queued": 2.0, "weights": 0.0, "spawn": 3.0}
    phases.enter("load", 16.0)
    phases.end(18.0)
    assert (phases.detail, phases.ended) == ("", 18.0)
    assert phases.seconds(99.0) == {"queued": 2.0, "weights": 0.0, "spawn": 4.0, "load": 2.0}


def test_a_clock_that_is_set_back_makes_no_negative_phase() -> None:
    phases = Phases()
    phases.enter("queued", 10.0)
    assert phases.seconds(5.0) == {"queued": 0.0}


def test_a_table_is_written_for_its_owner_alone_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    for number in (3, 4):
        table = RoutingTable(number=number)
        write_table(path, table)
        assert decode_table(path.read_bytes()) == table
        assert read_table(path) == table
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


def test_a_table_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert read_table(tmp_path / "none.json") is None
    (tmp_path / "bad.json").write_bytes(b'{"type":"table","number":"x"')
    assert read_table(tmp_path / "bad.json") is None


class File:
    """A configuration file that can be edited."""

    def __init__(self) -> None:
        self.config: Config | None = GOOD

    def load(self) -> Config:
        if self.config is None:
            raise ConfigError([ConfigProblem(3, 1, "models", "no")], None)
        return self.config


def test_an_edit_is_taken_up_once() -> None:
    file = File()
    settings = Settings(file.load)
    assert not settings.refresh()
    file.config = replace(GOOD, digest="2", models=(ModelSpec(ModelName("a"), "custom"),))
    assert settings.refresh()
    assert settings.config == file.config
    assert not settings.refresh()


def test_a_bad_edit_keeps_what_runs_and_is_told_once() -> None:
    file = File()
    settings = Settings(file.load)
    file.config = None
    with capture_logs() as logs:
        assert not settings.refresh()
        assert not settings.refresh()
    assert [line["event"] for line in logs] == ["config.refused"]
    assert settings.config == GOOD
    assert settings.error is not None
    assert "models: no" in settings.error
    file.config = GOOD
    assert not settings.refresh()
    assert settings.error is None


def test_what_takes_a_new_start_stays_as_it_is_and_that_is_told() -> None:
    file = File()
    settings = Settings(file.load)
    file.config = replace(GOOD, digest="2", gateway=GatewayConfig(port=9001), models=(ModelSpec(ModelName("a"), "c"),))
    assert settings.refresh()
    assert settings.config.gateway == GOOD.gateway
    assert settings.config.models == file.config.models
    assert settings.note is not None
    assert not settings.refresh()
    assert settings.note is not None
    file.config = replace(GOOD, digest="3")
    assert settings.refresh()
    assert settings.note is None


def test_an_edit_that_breaks_the_reading_is_a_bad_edit_like_any_other() -> None:
    edits = iter([GOOD])

    def load() -> Config:
        return next(edits)  # StopIteration, the second time

    settings = Settings(load)
    assert not settings.refresh()
    assert settings.config == GOOD
    assert settings.error is not None


def test_what_is_served_is_in_force_whatever_the_file_says_by_now() -> None:
    served = GatewayConfig(host="0.0.0.0", workers=4)
    assert Settings(File().load, gateway=served).config.gateway == served


@pytest.fixture
def launches(tmp_path: Path) -> Callable[[bytes], Launches]:
    return lambda secret: Launches(cpu_machine(10), tmp_path, secret)


CUSTOM = ModelSpec(ModelName("a"), "custom", command=("x", "{port}"), memory_bytes=4)


def replica(id: str, memory_bytes: int = 4) -> Replica:
    return Replica(
        ReplicaId(id), CUSTOM.name, CUSTOM.revision, State.STARTING, shares_of(memory_bytes), 0.0, 0.0, "because"
    )


def test_a_replica_s_key_is_the_same_each_time_and_another_for_each(launches: Callable[[bytes], Launches]) -> None:
    def key(id: str, secret: bytes = b"one") -> str | None:
        return launches(secret).launch(CUSTOM, replica(id)).key

    assert key("a-1") == key("a-1")
    assert len({key("a-1"), key("a-2"), key("a-1", b"two")}) == 3
    assert len(key("a-1") or "") == 64


def test_a_replica_s_key_is_shown_nowhere(launches: Callable[[bytes], Launches]) -> None:
    launch = launches(b"one").launch(CUSTOM, replica("a-1"))
    assert launch.key is not None
    assert launch.key not in repr(launch)
    assert all(launch.key not in word for word in launch.argv)


def test_a_launch_says_what_was_planned_for_it(launches: Callable[[bytes], Launches]) -> None:
    assert launches(b"one").launch(CUSTOM, replica("a-1", 6)).memory_bytes == 6
