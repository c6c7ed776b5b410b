"""Processes as the kernel shows them, and the target's scoring ones among them; for torture.py.

It reads /proc with code of its own instead of ``monkeyproof.runtime.procfs``: the torture audits the package from
outside, and a reader that they shared would hide its own errors.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MARK = "MONKEYPROOF_TORTURE"
"""In the environment of what a round starts, and so of whatever that starts. Its value is the round's folder."""
STRESSOR = b"monkeyproof.faults.support.stressors."
SCORING = b"monkeyproof.targets.local.control_plane.fork_server"
_PINNED = re.compile(rb"^replica_model_pinned (\S+)$", re.MULTILINE)
_TIMEOUT_S = 1.0
"""A replica that is stopped, or has no handle left, answers no request."""


class Scoring:
    """The target's scoring processes: how they were before anything was done to them, and how they are."""

    def __init__(self, folder: Path, urls: Mapping[str, str], champion: str, question: Any) -> None:
        self._folder = str(folder).encode()
        self._urls = urls
        self._champion = champion
        self._question = json.dumps(question).encode()
        pids = list(self._pids())
        self._count = len(pids)
        self._limits, self._environment = _read(pids[0], "limits"), _read(pids[0], "environ")

    def faults(self) -> list[str]:
        """What is stopped, has other limits or another environment, or is held to a version."""
        left = []
        for pid in self._pids():
            limits, environment = _read(pid, "limits"), _read(pid, "environ")
            if state(pid) in ("T", "t"):
                left.append(f"pid {pid} is stopped")
            if limits and limits != self._limits:
                changed = sorted(set(limits.splitlines()) - set(self._limits.splitlines()))
                left.append(f"pid {pid} has other limits: {b'; '.join(changed).decode()}")
            if environment and environment != self._environment:
                more = sorted(set(environment.split(b"\0")) - set(self._environment.split(b"\0")))
                left.append(f"pid {pid} has another environment: {b' '.join(more).decode()}")
        # A process that is stopped or has no handle left answers no request, and asking it would only take time.
        return left or [f"{name} is pinned to version {version}" for name, version in self._pins().items()]

    def missing(self) -> list[str]:
        """Replicas that do not answer with the champion, and processes that are too many or too few."""
        left = []
        if (count := len(list(self._pids()))) != self._count:
            left.append(f"{count} scoring processes, and there were {self._count}")
        for name, url in self._urls.items():
            try:
                request = urllib.request.Request(
                    f"{url}/invocations", self._question, {"Content-Type": "application/json"}
                )
                with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                    if (found := answer.headers.get("X-Model-Version")) != self._champion:
                        left.append(f"{name} answers with version {found}")
            except OSError as error:
                left.append(f"{name} does not answer ({error})")
        return left

    def _pids(self) -> Iterator[int]:
        """The fork server's, and those that it forked. They name a file of the folder; a worker does, too."""
        for pid, words in processes():
            if self._folder in words and SCORING in words:
                yield pid

    def _pins(self) -> dict[str, str]:
        """As the replicas say themselves. Of one that does not answer, ``missing`` tells."""
        found = {}
        for name, url in self._urls.items():
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as answer,
            ):
                if (pinned := _PINNED.search(answer.read())) and float(pinned[1]):
                    found[name] = pinned[1].decode()
        return found


def marked(root: Path) -> Iterator[tuple[int, bytes]]:
    """What rounds in folders below ``root`` started and still runs, with its words."""
    mark = f"{MARK}={root}".encode()
    for pid, words in processes():
        environment = _read(pid, "environ").split(b"\0")
        if any(one == mark or one.startswith(mark + b"/") for one in environment):
            yield pid, words


def processes() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes()


def state(pid: int) -> str:
    """The kernel's letter; "" of a process that is gone."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return ""


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    return state(pid) in ("", "Z", "X")


def _read(pid: int, name: str) -> bytes:
    """What the kernel tells of a process; nothing of one that is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
