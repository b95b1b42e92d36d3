"""Which file holds, and where things lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelgrid.config import ConfigError, find_config
from modelgrid.config.paths import ForeignFolder, Paths, find_paths


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return find_paths({"MODELGRID_HOME": str(tmp_path / "home")})


def test_the_nearest_file_wins(paths: Paths, tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    assert find_config(paths, environ, None) is None

    paths.config_file.parent.mkdir()
    paths.config_file.touch()
    assert find_config(paths, environ, None) == paths.config_file

    here = tmp_path / "work/modelgrid.yaml"
    here.touch()
    assert find_config(paths, environ, None) == here

    variable = tmp_path / "variable.yaml"
    variable.touch()
    environ["MODELGRID_CONFIG"] = str(variable)
    assert find_config(paths, environ, None) == variable

    (tmp_path / "work/named.yaml").touch()
    assert find_config(paths, environ, Path("named.yaml")) == tmp_path / "work/named.yaml"


def test_a_named_file_that_is_not_there_is_an_error(paths: Paths) -> None:
    with pytest.raises(
        ConfigError, match=r"^--config: there is no file .*/gone.yaml \(make one: modelgrid config init\)"
    ):
        find_config(paths, {}, Path("gone.yaml"))
    with pytest.raises(ConfigError, match=r"^environment MODELGRID_CONFIG: there is no file /gone.yaml"):
        find_config(paths, {"MODELGRID_CONFIG": "/gone.yaml"}, None)


def test_a_home_holds_everything(tmp_path: Path) -> None:
    paths = find_paths({"MODELGRID_HOME": str(tmp_path)})
    for path in (paths.config, paths.state, paths.data, paths.cache, paths.run):
        assert path.is_relative_to(tmp_path)


def test_sockets_have_short_addresses_in_deep_folders_too(tmp_path: Path) -> None:
    deep = find_paths({"MODELGRID_HOME": str(tmp_path / ("x" * 120))})
    assert len(str(deep.link_socket)) < 108
    assert deep.run == find_paths({"MODELGRID_HOME": str(tmp_path / ("x" * 120))}).run
    assert deep.run != find_paths({"MODELGRID_HOME": str(tmp_path / ("y" * 120))}).run


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Paths]:
    """Paths whose sockets need a short stand-in."""
    paths = find_paths({"MODELGRID_HOME": str(tmp_path / ("x" * 120))})
    assert not paths.run.is_relative_to(tmp_path)
    yield paths
    if paths.run.is_symlink():
        paths.run.unlink()
    elif paths.run.exists():
        paths.run.rmdir()


def test_a_stand_in_is_closed_to_others_at_each_level(deep: Paths) -> None:
    deep.make()
    assert [oct(folder.stat().st_mode & 0o777) for folder in (deep.run.parent, deep.run)] == ["0o700", "0o700"]


@pytest.mark.parametrize("theirs", ["link", "open to all"])
def test_a_stand_in_that_somebody_else_could_have_made_is_refused(deep: Paths, tmp_path: Path, theirs: str) -> None:
    deep.run.parent.mkdir(exist_ok=True, mode=0o700)
    if theirs == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        deep.run.symlink_to(tmp_path / "theirs")
    else:
        deep.run.mkdir()
        deep.run.chmod(0o777)
    with pytest.raises(ForeignFolder, match=r"set a MODELGRID_HOME with a shorter path"):
        deep.make()
    with pytest.raises(ForeignFolder):  # for those too who make nothing
        find_paths({"MODELGRID_HOME": str(deep.config)})


def test_what_may_hold_secrets_is_closed_to_others(tmp_path: Path) -> None:
    paths = find_paths({"MODELGRID_HOME": str(tmp_path / "home")})
    paths.make()
    paths.make()
    assert [oct(folder.stat().st_mode & 0o777) for folder in (paths.state, paths.run)] == ["0o700", "0o700"]
