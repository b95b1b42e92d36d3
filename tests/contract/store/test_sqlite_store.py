"""What the store on a disk promises beyond the contract: files, other processes, and what is wrong with them."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from modelgrid.spec import Event, ModelName, Quota, Wish
from modelgrid.store import Grant, KeyNameRefused, KeyRecord, Saved, StoreError, open_store

MINE = ModelName("mine")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "modelgrid.db"


def test_everything_is_there_after_opening_again(path: Path) -> None:
    first = open_store(path)
    first.save(Saved(next=5, table=6))
    first.set_wish(MINE, Wish.LOADED)
    record, _ = first.create_key("a", 1.0)
    first.record([Event(1.0, "mine", None, "start", "asked")])
    secret = first.secret()
    first.close()
    again = open_store(path)
    assert again.saved() == Saved(next=5, table=6)
    assert again.wishes() == {MINE: Wish.LOADED}
    assert again.keys() == [record]
    assert again.events(None, 5) == [Event(1.0, "mine", None, "start", "asked")]
    assert again.secret() == secret


def test_nobody_else_may_read_the_file_or_its_journals(path: Path) -> None:
    store = open_store(path)
    store.create_key("a", 1.0)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"modelgrid.db": 0o600, "modelgrid.db-wal": 0o600, "modelgrid.db-shm": 0o600}


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    open_store(path).close()
    path.chmod(0o644)
    open_store(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_text_of_a_key_never_reaches_the_disk(path: Path) -> None:
    store = open_store(path)
    _, text = store.create_key("a", 1.0)
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert text[:7].encode() in written
    assert text[:9].encode() not in written


def test_a_file_that_is_no_store_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"these are the notes of last summer\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError) as caught:
        open_store(path)
    assert str(caught.value) == (
        f"cannot read the store at {path}: file is not a database "
        "(move it away and start again: running engines are found and adopted)"
    )
    assert path.read_bytes() == before


def test_a_damaged_store_says_so_instead_of_answering_wrongly(path: Path) -> None:
    store = open_store(path)
    store.record(Event(float(n), "mine", None, "start", "x" * 500) for n in range(500))
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"\xff" * (len(content) - 8192 - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot (read|write) the store at .*: .*move it away"):
        open_store(path).events(None, 1000)


def test_a_record_that_makes_no_sense_is_an_error_not_a_guess(path: Path) -> None:
    store = open_store(path)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO replicas VALUES ('a', '{\"id\": 1}')")
    with pytest.raises(StoreError, match="cannot read the store"):
        store.saved()


def test_a_folder_in_its_place_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot open the store at .*modelgrid\.db: it is a folder"):
        open_store(path)


def test_a_path_below_a_file_is_an_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match=r"cannot open the store at .*: (Not a directory|File exists)"):
        open_store(tmp_path / "state" / "modelgrid.db")


def test_a_store_of_a_newer_modelgrid_is_refused_and_left_alone(path: Path) -> None:
    open_store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 999")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"a newer modelgrid wrote it \(its schema is 999.*upgrade modelgrid"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_locked_store_is_an_error_for_the_call_and_usable_afterwards(path: Path) -> None:
    store = open_store(path, busy_timeout_s=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"cannot write the store at .*: database is locked .*another process"):
        store.set_wish(MINE, Wish.LOADED)
    assert store.wishes() == {}  # reading goes on beside a writer
    other.execute("ROLLBACK")
    store.set_wish(MINE, Wish.LOADED)
    assert store.wishes() == {MINE: Wish.LOADED}


def test_a_refused_key_leaves_no_transaction_open(path: Path) -> None:
    store, other = open_store(path), open_store(path, busy_timeout_s=0.05)
    store.create_key("a", 1.0)
    with pytest.raises(KeyNameRefused):
        store.create_key("a", 1.0)
    other.set_wish(MINE, Wish.LOADED)


def test_a_closed_store_is_an_error_not_a_crash(path: Path) -> None:
    store = open_store(path)
    store.close()
    with pytest.raises(StoreError):
        store.wishes()


def test_the_version_tells_that_another_wrote(path: Path) -> None:
    mine, theirs = open_store(path), open_store(path)
    before = mine.version()
    assert mine.version() == before
    theirs.create_key("a", 1.0)
    assert mine.version() != before
    (key,) = mine.keys()
    assert key.name == "a"


_WRITER = """
import sys
from pathlib import Path
from modelgrid.spec import Event
from modelgrid.store import open_store
store = open_store(Path(sys.argv[1]))
for number in range(25):
    store.create_key(f"{sys.argv[2]} {number}", float(number))
    store.record([Event(float(number), sys.argv[2], None, "start", "")])
print(store.secret().hex())
"""


def test_processes_that_make_and_write_one_store_at_once_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    secrets = {writer.communicate(timeout=60)[0] for writer in writers}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    store = open_store(path)
    assert secrets == {store.secret().hex() + "\n"}
    assert len(store.keys()) == len(store.events(None, 1000)) == 75
    assert [event.at for event in store.events("b", 1000)] == [float(number) for number in range(25)]


def test_a_writer_that_is_killed_in_a_transaction_leaves_nothing_of_it(path: Path) -> None:
    open_store(path).save(Saved(next=7))
    half = (
        "import sqlite3, sys, os; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('BEGIN IMMEDIATE'); db.execute('DELETE FROM facts'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", half, str(path)], timeout=30).returncode == -9
    assert open_store(path).saved() == Saved(next=7)


# As the first version wrote it.
_FIRST_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE replicas (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE failures (model TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE wishes (model TEXT PRIMARY KEY, wish TEXT NOT NULL);
CREATE TABLE keys (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE,
    shown TEXT NOT NULL, created REAL NOT NULL, revoked REAL
);
CREATE UNIQUE INDEX keys_in_use ON keys (name) WHERE revoked IS NULL;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, model TEXT NOT NULL, replica TEXT,
    what TEXT NOT NULL, why TEXT NOT NULL
);
CREATE INDEX events_by_model ON events (model, number);
INSERT INTO facts VALUES ('next', 9), ('table', 12), ('secret', x'00112233');
INSERT INTO wishes VALUES ('mine', 'loaded');
INSERT INTO keys (id, name, sha256, shown, created, revoked) VALUES
    ('1', 'laptop', 'aa', 'mg-abcd', 5.0, NULL), ('2', 'old', 'bb', 'mg-efgh', 4.0, 6.0);
INSERT INTO events (at, model, replica, what, why) VALUES (1.0, 'mine', 'mine-1', 'start', 'asked');
PRAGMA user_version = 1;
"""


@pytest.fixture
def first_version(path: Path) -> Path:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.executescript(_FIRST_SCHEMA)
    db.close()
    return path


def test_a_store_of_the_first_version_is_brought_up_to_date_and_loses_nothing(first_version: Path) -> None:
    store = open_store(first_version)
    kept = store.keys()
    assert [(key.id, key.name, key.revoked, key.quota, key.models) for key in kept] == [
        ("1", "laptop", None, None, None),
        ("2", "old", 6.0, None, None),
    ]
    assert (store.saved(), store.secret()) == (Saved(next=9, table=12), b"\x00\x11\x22\x33")
    assert store.wishes() == {MINE: Wish.LOADED}
    assert store.events(None, 9) == [Event(1.0, "mine", "mine-1", "start", "asked")]
    limited, _ = store.create_key("team", 7.0, Grant(quota=Quota(tokens_per_minute=5), models=("mine",)))
    store.close()
    again = open_store(first_version)
    assert again.keys()[-1] == limited
    with sqlite3.connect(first_version) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)


# What the fifth version left behind, with the keys that it could make.
_FIFTH_SCHEMA = (
    _FIRST_SCHEMA.replace("PRAGMA user_version = 1;", "")
    + """
ALTER TABLE keys ADD COLUMN quota TEXT;
ALTER TABLE keys ADD COLUMN models TEXT;
ALTER TABLE events ADD COLUMN reason TEXT;
CREATE TABLE runs (replica TEXT PRIMARY KEY, at REAL NOT NULL, body TEXT NOT NULL);
CREATE INDEX runs_by_time ON runs (at);
INSERT INTO keys (id, name, sha256, shown, created, revoked, quota, models) VALUES
    ('3', 'team', 'cc', 'mg-ijkl', 5.5, NULL, '{"requests_per_minute":60,"tokens_per_minute":null,"concurrency":4}',
     '["a","b"]');
PRAGMA user_version = 5;
"""
)


def test_keys_of_the_version_before_scopes_are_those_of_callers_that_never_expire(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript(_FIFTH_SCHEMA)
    db.close()
    store = open_store(path)
    quota = Quota(requests_per_minute=60, concurrency=4)
    records = store.keys()
    assert [key.sha256 for key in records] == ["aa", "bb", "cc"]
    assert records == [
        KeyRecord("1", "laptop", "aa", "mg-abcd", 5.0),
        KeyRecord("2", "old", "bb", "mg-efgh", 4.0, 6.0),
        KeyRecord("3", "team", "cc", "mg-ijkl", 5.5, quota=quota, models=("a", "b")),
    ]
    assert (store.groups(), store.audit(9)) == ({}, [])
    assert store.rotate_key("team", 9.0, grace_s=1.0)[0].quota == quota
    store.close()


def test_two_processes_may_bring_a_store_up_to_date_at_once(first_version: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from modelgrid.store import open_store;"
        "print(len(open_store(Path(sys.argv[1])).keys()))"
    )
    openers = [
        subprocess.Popen([sys.executable, "-c", code, str(first_version)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [opener.communicate(timeout=60)[0] for opener in openers] == ["2\n"] * 3
