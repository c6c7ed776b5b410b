"""Reads /proc: the one place of the package that does.

psutil, which the lock file has through locust, is not used, for four reasons. A process is identified here by its
pid and its start time in clock ticks since boot, which never changes; psutil gives seconds since the epoch, which
move with the clock. psutil takes almost twice as long to list all processes. Its import costs 25 ms or more, in
every process of every trial. And it reads no scheduling times, no signal masks and no names of abstract sockets,
so that a reader of /proc would be needed beside it.

Functions that answer a question about one process take a missing process for an answer ("" or None or False);
those that measure one raise OSError, for a measurement without its process is an error.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_DEAD = ("Z", "X")
_LISTENING = "0A"
_DEFAULT_LOWEST_EPHEMERAL_PORT = 32768


@dataclass(frozen=True, slots=True)
class Process:
    """What /proc/PID/stat says of one process; it may be a zombie."""

    pid: int
    state: str
    """The kernel's letter: R, S and D run or sleep, T is stopped by a signal, t by a debugger, Z is a zombie."""
    parent: int
    group: int
    started_ticks: int
    """In clock ticks since boot: together with the pid it identifies a process, for no later one shares both."""

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        return self.state not in _DEAD

    @property
    def is_stopped(self) -> bool:
        """Whether a signal stopped it. One that a debugger holds is not."""
        return self.state == "T"


def process(pid: int) -> Process | None:
    """One process, a zombie as well; None if there is none of that number."""
    with contextlib.suppress(OSError, IndexError):
        # The program's name, in parentheses, may hold anything, parentheses too.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return Process(pid, fields[0], int(fields[1]), int(fields[2]), int(fields[19]))
    return None


def living() -> dict[int, Process]:
    """All processes of the machine that have not ended, by pid."""
    found = (process(pid) for pid in pids())
    return {one.pid: one for one in found if one is not None and one.is_alive}


def pids() -> list[int]:
    """The numbers of all processes of the machine, zombies included."""
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdecimal()]


def children(table: Mapping[int, Process] | None = None) -> set[int]:
    """Living processes that this one started."""
    table = living() if table is None else table
    return {one.pid for one in table.values() if one.parent == os.getpid()}


def with_descendants(roots: Collection[int], table: Mapping[int, Process]) -> set[int]:
    """The given processes and all that descend from them."""
    found = set(roots)
    while more := {one.pid for one in table.values() if one.parent in found} - found:
        found |= more
    return found


def living_in_group(group: int) -> set[int]:
    """Living processes of a process group."""
    return {one.pid for one in living().values() if one.group == group}


def state(pid: int) -> str:
    """The kernel's letter for the state of a process (see ``Process.state``); "" if there is none."""
    found = process(pid)
    return "" if found is None else found.state


def is_alive(pid: int) -> bool:
    """Whether a process of that number runs; a zombie does not."""
    return state(pid) not in ("", *_DEAD)


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process."""
    return state(pid) in ("T", "t")


def start_ticks(pid: int) -> int | None:
    """When a living process began, in clock ticks since boot; None for a zombie and where there is none."""
    found = process(pid)
    return found.started_ticks if found is not None and found.is_alive else None


def command_line(pid: int) -> list[bytes]:
    """The words of a process's command line, and an empty one at the end; [] if it has ended."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    return []


def program_name(pid: int) -> str:
    """The program, or the Python module, alone: arguments may hold secrets. "?" if that cannot be known."""
    words = command_line(pid)
    return os.fsdecode(b" ".join(words[:3] if words[1:2] == [b"-m"] else words[:1])) or "?"


def environment(pid: int) -> list[bytes]:
    """The ``NAME=value`` entries that a process started with; [] if it has ended or is another user's."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    return []


def open_descriptors(pid: int) -> set[int]:
    """Descriptors that a process holds. Raises OSError: it has ended, or is another user's."""
    return {int(path.name) for path in (_PROC / str(pid) / "fd").iterdir()}


def thread_count(pid: int) -> int:
    """Threads of a process, those that Python does not know included. Raises OSError: it has ended."""
    return sum(1 for _ in (_PROC / str(pid) / "task").iterdir())


def address_space_bytes(pid: int) -> int:
    """The size of a process's address space. Raises OSError: it has ended."""
    return int((_PROC / str(pid) / "statm").read_text().split()[0]) * resource.getpagesize()


def expects_signal(pid: int, number: int) -> bool:
    """Whether a process ignores a signal or has a handler for it. Raises OSError: it has ended."""
    lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    masks = dict(line.split(":\t", 1) for line in lines if line.startswith(("SigIgn", "SigCgt")))
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks.values())


def cpu_times_ns(pid: int) -> tuple[int, int]:
    """How long all threads of a process ran on a CPU, and how long they waited for one; (0, 0) if it has ended."""
    on_cpu_ns = waited_ns = 0
    for path in (_PROC / str(pid) / "task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):
            ran, waited, _ = path.read_text().split()
            on_cpu_ns, waited_ns = on_cpu_ns + int(ran), waited_ns + int(waited)
    return on_cpu_ns, waited_ns


def listeners(candidates: Collection[int], ports: Collection[int]) -> set[int]:
    """Which of these processes hold a socket that listens on one of these TCP ports of this machine."""
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(ports)}
    found = set()
    for pid in candidates:
        with contextlib.suppress(OSError):
            for path in (_PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(path.readlink()) in wanted:
                        found.add(pid)
    return found


def _listening_inodes(ports: Collection[int]) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) in ports:
                    yield fields[9]


def abstract_socket_names() -> set[str]:
    """Names of the abstract Unix sockets that processes of this machine hold; empty if they cannot be read."""
    with contextlib.suppress(OSError):
        lines = (_PROC / "net" / "unix").read_text(errors="replace").splitlines()
        return {word[1:] for line in lines if (word := line.rpartition(" ")[2]).startswith("@")}
    return set()


def lowest_ephemeral_port() -> int:
    """Where the range begins from which the kernel takes the near ends of outgoing connections."""
    with contextlib.suppress(FileNotFoundError):
        return int((_PROC / "sys" / "net" / "ipv4" / "ip_local_port_range").read_text().split()[0])
    return _DEFAULT_LOWEST_EPHEMERAL_PORT
