"""Pip's settings, handed on to uv."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from modelgrid.runtimes.pip_settings import PipSettings, read_pip_settings, torch_wheel

US = f"cp{sys.version_info.major}{sys.version_info.minor}"


def test_later_files_and_then_variables_win(tmp_path: Path) -> None:
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    first.write_text("[global]\nindex-url = https://a.example/simple\ntimeout = 5\n[install]\ncert = /a.pem\n")
    second.write_text("[global]\nindex_url = https://b.example/simple\ncert = /b.pem\n")
    environ = {"PIP_EXTRA_INDEX_URL": "https://c.example/simple https://d.example/simple", "PIP_TIMEOUT": "9"}
    assert read_pip_settings(environ, [first, tmp_path / "missing.conf", second]) == PipSettings(
        index_url="https://b.example/simple",
        extra_index_urls=("https://c.example/simple", "https://d.example/simple"),
        cert="/a.pem",  # a command's own section wins over the general one of any file
        timeout_s="9",
    )


def test_a_file_that_is_no_configuration_is_passed_over(tmp_path: Path) -> None:
    broken, good = tmp_path / "broken.conf", tmp_path / "good.conf"
    broken.write_text("what is this")
    good.write_text("[global]\nno-index = yes\n")
    assert read_pip_settings({}, [broken, good]) == PipSettings(no_index=True)


def test_the_file_that_the_environment_names_is_read_and_the_null_device_turns_all_off(tmp_path: Path) -> None:
    named = tmp_path / "named.conf"
    named.write_text("[global]\nindex-url = https://named.example/simple\n")
    assert read_pip_settings({"PIP_CONFIG_FILE": str(named)}).index_url == "https://named.example/simple"
    own = tmp_path / "pip" / "pip.conf"
    own.parent.mkdir()
    own.write_text("[global]\nindex-url = https://own.example/simple\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert read_pip_settings(environ).index_url == "https://own.example/simple"
    assert read_pip_settings(environ | {"PIP_CONFIG_FILE": "/dev/null"}) == PipSettings()


def test_local_places_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    environ = {
        "PIP_FIND_LINKS": f"{tmp_path} {tmp_path}/missing https://wheels.example/",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path} file:///no/such/index",
    }
    settings = read_pip_settings(environ, [])
    assert settings.find_links == (str(tmp_path), "https://wheels.example/")
    assert settings.extra_index_urls == (f"file://{tmp_path}",)


def test_uv_is_told_the_same() -> None:
    settings = PipSettings(
        find_links=("/a", "/b"),
        index_url="https://main.example/simple",
        extra_index_urls=("https://x.example/simple", "https://y.example/simple"),
        trusted_hosts=("x.example",),
    )
    assert settings.for_uv({}) == {
        "UV_FIND_LINKS": "/a,/b",
        "UV_DEFAULT_INDEX": "https://main.example/simple",
        "UV_EXTRA_INDEX_URL": "https://x.example/simple https://y.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "x.example",
    }


def test_what_uv_was_told_by_hand_stays() -> None:
    settings = PipSettings(find_links=("/a",), index_url="https://main.example/simple")
    by_hand = {"UV_FIND_LINKS": "/own", "UV_INDEX_URL": "https://own.example/simple"}
    assert settings.for_uv(by_hand) == {}


def test_settings_do_not_show_passwords() -> None:
    assert "s3cret" not in repr(PipSettings(index_url="https://user:s3cret@main.example/simple"))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], None),
        ([f"torch-2.9.0-{US}-{US}-{{tag}}.whl", f"torch-2.13.0+cpu-{US}-{US}-{{tag}}.whl"], "torch==2.13.0"),
        (["torch-2.13.0-cp27-cp27-{tag}.whl", f"torch-2.9.1-{US}-{US}-{{tag}}.whl"], "torch==2.9.1"),
        ([f"torch-2.13.0-{US}-{US}-win_amd64.whl", f"torchaudio-3.0.0-{US}-{US}-{{tag}}.whl"], None),
        (["torch-2.13.0.zip", "torch-2.14.0.dev1-py3-none-any.whl"], None),
    ],
)
def test_the_newest_torch_wheel_for_this_python_is_found(tmp_path: Path, names: list[str], found: str | None) -> None:
    machine = platform.machine()
    tag = f"manylinux_2_28_{machine}" if sys.platform == "linux" else f"macosx_11_0_{machine}"
    for name in names:
        (tmp_path / name.format(tag=tag)).touch()
    assert torch_wheel(PipSettings(find_links=(f"file://{tmp_path}",))) == found
