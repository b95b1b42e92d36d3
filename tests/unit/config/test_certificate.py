"""Files for TLS that nobody could be served by are told of when the configuration is checked, each in its own words."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelgrid.config import ConfigError, TlsConfig, load_config
from modelgrid.config.certificate import certificate_problem, expires, expiry_warning
from unit.gateway.certificates import make


def problem(tls: TlsConfig) -> tuple[str, str]:
    found = certificate_problem(tls)
    assert found is not None
    return found.field, found.why


def test_two_files_that_belong_together_are_fine(tmp_path: Path) -> None:
    assert certificate_problem(make(tmp_path)) is None


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    one, other = make(tmp_path, "one"), make(tmp_path, "other")
    field, why = problem(TlsConfig(one.certificate, other.key))
    assert field == "key"
    assert why == f"{other.key} is not the key of {one.certificate}: name the two that belong together"


def test_a_key_with_a_password_is_told_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    field, why = problem(make(tmp_path, password="secret-word"))
    assert field == "key"
    assert "asks for a password" in why
    assert "openssl pkey -in" in why


def test_files_that_are_not_there_or_something_else_are_told(tmp_path: Path) -> None:
    good = make(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("no PEM at all")
    broken = tmp_path / "broken.pem"
    broken.write_text(Path(good.certificate).read_text().replace("MII", "MIA"))
    missing = str(tmp_path / "missing")
    assert problem(TlsConfig(missing, good.key))[0] == "certificate"
    assert "No such file" in problem(TlsConfig(missing, good.key))[1]
    assert problem(TlsConfig(good.certificate, missing))[0] == "key"
    assert "holds no certificate in PEM" in problem(TlsConfig(str(text), good.key))[1]
    assert "holds no private key in PEM" in problem(TlsConfig(good.certificate, str(text)))[1]
    assert problem(TlsConfig(str(broken), good.key))[0] == "certificate"
    assert "Is a directory" in problem(TlsConfig(str(tmp_path), good.key))[1]


@pytest.mark.parametrize("days", [3, 90, 20_000])  # beyond 2050 dates are written in another way
def test_the_end_of_a_certificate_is_read(tmp_path: Path, days: int) -> None:
    files = make(tmp_path, days=days)
    end = expires(Path(files.certificate))
    assert end is not None
    assert abs(end - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=5)


def test_one_that_has_ended_or_soon_will_is_warned_of(tmp_path: Path) -> None:
    files = make(tmp_path, days=90)
    now = datetime.now(UTC)
    assert expiry_warning(files, now) is None
    assert re.search(r" expires on \d{4}-", expiry_warning(files, now + timedelta(days=80)) or "")
    assert re.search(r" expired on \d{4}-", expiry_warning(files, now + timedelta(days=91)) or "")


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "\xff\xfe"])
def test_an_end_that_cannot_be_read_is_unknown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.pem"
    path.write_bytes(content.encode("latin-1"))
    assert expires(path) is None
    assert expires(tmp_path / "missing") is None


def test_the_configuration_is_refused_with_the_field_and_its_line(tmp_path: Path) -> None:
    one, other = make(tmp_path, "one"), make(tmp_path, "other")
    file = tmp_path / "modelgrid.yaml"
    file.write_text("gateway:\n  tls:\n    certificate: one.pem\n    key: other.key\n")
    with pytest.raises(ConfigError) as refused:
        load_config(file, environ={})
    assert [(problem.line, problem.where) for problem in refused.value.problems] == [(4, "gateway.tls.key")]
    assert f"{other.key} is not the key of {one.certificate}" in str(refused.value)


def test_paths_are_relative_to_the_file_and_the_address_is_https(tmp_path: Path) -> None:
    files = make(tmp_path / "certs")
    file = tmp_path / "modelgrid.yaml"
    file.write_text("gateway: {tls: {certificate: certs/a.pem, key: certs/a.key, hsts: 0}}\n")
    gateway = load_config(file, environ={}).gateway
    assert gateway.tls == TlsConfig(files.certificate, files.key, 0.0)
    assert gateway.address == "https://127.0.0.1:9000"


def test_half_of_it_is_not_enough(tmp_path: Path) -> None:
    file = tmp_path / "modelgrid.yaml"
    file.write_text("gateway: {tls: {certificate: a.pem}}\n")
    with pytest.raises(ConfigError, match="says no key"):
        load_config(file, environ={})


def test_a_key_in_the_place_of_its_path_is_not_shown(tmp_path: Path) -> None:
    files = make(tmp_path)
    text = Path(files.key).read_text()
    file = tmp_path / "modelgrid.yaml"
    file.write_text(f"gateway:\n  tls:\n    certificate: a.pem\n    key: {json.dumps(text)}\n")
    with pytest.raises(ConfigError, match="is what should stand in a file") as refused:
        load_config(file, environ={})
    assert text.splitlines()[1] not in str(refused.value)
