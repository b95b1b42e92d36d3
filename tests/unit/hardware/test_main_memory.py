"""Main memory within what cgroups allow."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from modelgrid.hardware import MainMemory, free_disk_bytes, main_memory

PHYSICAL = 1000
V2 = "sys/fs/cgroup/memory.max"
V1 = "sys/fs/cgroup/memory/memory.limit_in_bytes"
NO_LIMIT_V1 = "9223372036854771712"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {}, MainMemory(PHYSICAL, False)),
        ("0::/\n", {V2: "max\n"}, MainMemory(PHYSICAL, False)),
        ("0::/\n", {V2: "400\n"}, MainMemory(400, True)),
        ("0::/\n", {V2: "4000\n"}, MainMemory(PHYSICAL, False)),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "300\n"}, MainMemory(300, True)),
        # What is above bounds what is below.
        (
            "0::/a/b\n",
            {"sys/fs/cgroup/a/memory.max": "200\n", "sys/fs/cgroup/a/b/memory.max": "300\n"},
            MainMemory(200, True),
        ),
        # A container sees the host's path, and its own cgroup at the mount.
        ("0::/docker/abc\n", {V2: "100\n"}, MainMemory(100, True)),
        ("0::/../outside\n", {V2: "100\n"}, MainMemory(100, True)),
        ("0::/a\n", {"sys/fs/cgroup/unified/a/memory.max": "70\n"}, MainMemory(70, True)),
        ("5:cpu:/x\n4:memory:/x\n", {V1: NO_LIMIT_V1}, MainMemory(PHYSICAL, False)),
        ("4:cpu,memory:/x\n", {"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "60\n"}, MainMemory(60, True)),
        ("4:memory:/x\n0::/\n", {V1: "50\n"}, MainMemory(50, True)),
        ("5:cpu:/x\n", {V1: "50\n"}, MainMemory(PHYSICAL, False)),
        ("nonsense", {}, MainMemory(PHYSICAL, False)),
    ],
)
def test_the_least_limit_holds(tmp_path: Path, cgroup: str, files: dict[str, str], expected: MainMemory) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert main_memory(root=tmp_path, physical_bytes=PHYSICAL) == expected


def test_a_system_without_proc_has_its_physical_memory(tmp_path: Path) -> None:
    assert main_memory(root=tmp_path) == MainMemory(psutil.virtual_memory().total, False)


def test_this_machine_has_memory() -> None:
    assert 0 < main_memory().total_bytes <= psutil.virtual_memory().total


def test_room_is_told_for_folders_that_are_not_there_yet(tmp_path: Path) -> None:
    assert free_disk_bytes(tmp_path / "not/yet") == pytest.approx(free_disk_bytes(tmp_path), rel=0.1)
