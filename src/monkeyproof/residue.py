"""What a trial left behind although everything is reverted: looked for before anything is put back.

What a healer changed is no residue: it is put back as it always was. What is put back anyway counts all the same
if a fault left it, for then an undo said that it was done, and was not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.errors import MonkeyproofError
from monkeyproof.history import Event, Kind
from monkeyproof.targets.port import Links, Registry, Replicas, Target


@dataclass(frozen=True, slots=True)
class Residue:
    """One thing that should not be there."""

    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what} ({self.mend})"


class Audit:
    """Looks at a target when its trial begins and when it ends; and at the processes of this one."""

    def __init__(self, target: Target) -> None:
        """The target is as declared: what it looks like now is what it has to look like again."""
        self._target = target
        self._children = children()
        self._champion, self._versions = self._registry()

    def left(self, events: Collection[Event]) -> list[Residue]:
        """Of the target. What cannot be looked at any more counts as left."""
        found: list[Residue] = []
        looks: Mapping[str, Callable[[], list[Residue]]] = {
            "the fault proxy": self._faults_on_links,
            "the replicas": self._paused,
            "the registry": lambda: self._changed_in_registry(events),
        }
        for name, look in looks.items():
            try:
                found += look()
            except MonkeyproofError as error:
                found.append(Residue(f"{name} cannot be looked at: {error}", "see that it answers"))
        return found

    def strays(self) -> list[Residue]:
        """Processes that the trial began and that still run, when all that belongs to it has ended."""
        return [
            Residue(f"process {pid} still runs: {_command(pid)}", f"if it is still there: kill {pid}")
            for pid in sorted(children() - self._children)
        ]

    def _faults_on_links(self) -> list[Residue]:
        links = self._target.find(Links)
        if links is None:
            return []
        mend = "end the fault proxy: 'monkeyproof target down', or your 'monkeyproof proxy'"
        return [Residue(f"the fault {one} is still on a link", mend) for one in links.active()]

    def _paused(self) -> list[Residue]:
        replicas = self._target.find(Replicas)
        return [
            Residue(f"{one.name} is still paused", f"kill -CONT {one.pid}")
            for one in (replicas.list() if replicas is not None else ())
            if one.state == "paused"
        ]

    def _registry(self) -> tuple[str, dict[str, tuple[str, str]]]:
        registry = self._target.find(Registry)
        if registry is None:
            return "", {}
        versions = {one.version: (one.sha256, one.artifact) for one in registry.versions()}
        return registry.champion(), versions

    def _changed_in_registry(self, events: Collection[Event]) -> list[Residue]:
        champion, versions = self._registry()
        found = [
            Residue(f"version {one} of the model is not what it was", "publish it anew")
            for one, artifact in self._versions.items()
            if versions.get(one) != artifact
        ]
        promoted = {
            event.data["parameters"].get("version")
            for event in events
            if event.kind is Kind.FAULT_INTENDED and str(event.data["fault"]).startswith("registry.")
        }
        healed = any(event.kind is Kind.HEALER_ACTED for event in events)
        if champion != self._champion and (champion in promoted or not healed):
            mend = f"make version {self._champion} the champion again"
            found.append(Residue(f"the champion is version {champion}, and was {self._champion}", mend))
        return found


def children() -> set[int]:
    """Living processes that this one started."""
    found: set[int] = set()
    own = str(os.getpid())
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name before it, in parentheses, may hold anything.
            state, parent = path.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if parent == own and state not in "ZX":
                found.add(int(path.parent.name))
    return found


def _command(pid: int) -> str:
    """Its name alone: arguments may hold secrets."""
    with contextlib.suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])
    return "?"
