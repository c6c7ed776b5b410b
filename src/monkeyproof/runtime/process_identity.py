"""Telling a process from a stranger that was given its number later."""

from __future__ import annotations

from pathlib import Path

from monkeyproof.types import Json


def pid_start(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether the process has been stopped by a signal."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")


def identity(pid: int) -> dict[str, Json]:
    """``pid`` and ``started``, which no later process shares."""
    return {"pid": pid, "started": pid_start(pid)}


def is_same(known: dict[str, Json]) -> bool:
    """Whether the process of that identity is still there."""
    return known["started"] is not None and pid_start(int(known["pid"])) == known["started"]
