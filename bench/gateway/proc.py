"""What the kernel says of processes: their CPU time, their memory, their threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU time of some processes, from their starts until now."""

    threads_ns: Mapping[tuple[int, int], int]  # by process and thread: exact, but a thread that ended is missing
    processes_ns: Mapping[int, int]  # by process, with the threads that ended: in ticks of the clock

    def since_ns(self, before: Cpu) -> int:
        """User and system time from `before` until now, of processes that are there now."""
        total = 0
        for pid, process_ns in self.processes_ns.items():
            own = {key: ns for key, ns in self.threads_ns.items() if key[0] == pid}
            had = {key: ns for key, ns in before.threads_ns.items() if key[0] == pid}
            if had.keys() <= own.keys():
                total += sum(own.values()) - sum(had.values())
            else:
                total += process_ns - before.processes_ns.get(pid, 0)
        return total


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes: with what is shared counted in full, and in proportion."""

    rss_bytes: int
    pss_bytes: int


def session_members(session: int, proc: Path = PROC) -> list[int]:
    """The processes of a session, its leader and all that they started and that did not leave it."""
    found = []
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                fields = stat_fields((folder / "stat").read_text())
            except OSError:
                continue  # it ended
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return sorted(found)


def stat_fields(text: str) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on: a name may hold spaces and parentheses."""
    return text.rpartition(")")[2].split()


def cpu(pids: Iterable[int], proc: Path = PROC) -> Cpu:
    """The CPU time of `pids` until now."""
    threads, processes = {}, {}
    for pid in pids:
        fields = stat_fields((proc / str(pid) / "stat").read_text())
        processes[pid] = (int(fields[11]) + int(fields[12])) * _TICK_NS
        for thread in (proc / str(pid) / "task").iterdir():
            try:
                threads[pid, int(thread.name)] = int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue  # it ended
    return Cpu(threads, processes)


def memory(pids: Iterable[int], proc: Path = PROC) -> Memory:
    """What `pids` hold together."""
    rss = pss = 0
    for pid in pids:
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                rss += int(rest.split()[0]) * 1024
            elif name == "Pss":
                pss += int(rest.split()[0]) * 1024
    return Memory(rss, pss)
