"""The residue audit: what a trial left behind although everything is reverted.

It runs before the target is reset. What a healer changed is no residue: the reset restores it. What a fault left
is residue even if the reset would restore it, for then an undo reported success and had none. Records that a fault
corrupted are the exception: the target refreshes them by itself, so the audit searches them afterwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from monkeyproof.clock import wait_for
from monkeyproof.record import history
from monkeyproof.record.history import Event, Kind
from monkeyproof.runtime import procfs, trial_mark
from monkeyproof.safety.snapshot import BEFORE_FILE, TargetSnapshot, versions_of
from monkeyproof.targets.port import Artifacts, Features, Links, Processes, Registry, Replicas, Target
from monkeyproof.types import Json

AUDIT_WITHIN_S = 10.0
"""Of all checks together: what does not answer in time cannot be checked."""
REFRESHED_WITHIN_S = 5.0
STRAYS_END_WITHIN_S = 1.0
"""Processes that end by themselves so soon are no strays."""
STILL_PAUSED = " is still paused"
REBUILD = "'monkeyproof target down' and up, or what brings your target back"


@dataclass(frozen=True, slots=True)
class Residue:
    """One thing that a trial left behind."""

    what: str
    what_to_do: str
    """What to do about it."""
    unknown: bool = False
    """Whether it could only be found out that this cannot be checked."""
    of_others: bool = False
    """Whether another user or process did it in the meantime, so that the harness must not undo it."""

    def __str__(self) -> str:
        return f"{self.what} ({self.what_to_do})"


class Audit:
    """Checks a target and this machine's processes when a trial ends, or when the trial's process has died."""

    def __init__(self, target: Target, folder: Path, snapshot: TargetSnapshot) -> None:
        self._target, self._folder, self._snapshot = target, folder, snapshot
        self._children = procfs.children()
        self._written: dict[tuple[str, int], tuple[float, float]] = {}

    @classmethod
    def begin(cls, target: Target, folder: Path) -> Audit:
        """Capture the target as declared, before anything is injected, to compare with at the end.

        The snapshot is written into ``folder``, for the process that audits if this one dies.
        """
        snapshot = TargetSnapshot.capture(target)
        history.write_json(folder / BEFORE_FILE, asdict(snapshot))
        return cls(target, folder, snapshot)

    def left(self, events: Collection[Event]) -> list[Residue]:
        """Residue on the target. What cannot be checked any more counts as residue."""
        checks: Mapping[str, Callable[[], list[Residue]]] = {
            "the fault proxy": self._faults_on_links,
            "the replicas": self._paused,
            "the target's processes": lambda: self._stopped_processes(events),
            "the registry": lambda: self._changed_in_registry(events),
            "the artifacts": self._changed_artifacts,
        }
        found = _run_within(checks, AUDIT_WITHIN_S)
        replicas = {one.what_to_do for one in found if one.what.endswith(STILL_PAUSED)}
        # A replica and its process are one thing.
        return [one for one in found if one.what_to_do not in replicas or one.what.endswith(STILL_PAUSED)]

    def record_written(self) -> None:
        """Record which wrong values faults on links report to have written; to be called before their revert.

        Raises:
            TargetError: the fault proxy does not answer.
        """
        links = self._target.find(Links)
        if links is None or self._target.find(Features) is None:
            return
        for toxic_id in links.active():
            for cell in links.stats(toxic_id).get("journal", ()):
                # Fields other than features are never in the store.
                if isinstance(cell["column"], int):
                    self._written[cell["entity"], cell["column"]] = (cell["old"], cell["new"])

    def find_stored(self) -> list[Residue]:
        """Wrong values that the stream, a healer and the target itself have not replaced in the feature store."""
        features = self._target.find(Features)
        if features is None or not self._written:
            return []
        entities = sorted({entity for entity, _ in self._written})
        wrong: list[tuple[str, int]] = []

        def refreshed() -> bool:
            stored = features.read(entities)
            wrong.clear()
            for (entity, column), (old, new) in self._written.items():
                vector = stored.get(entity)
                if vector is not None and column < len(vector) and vector[column] == new != old:
                    wrong.append((entity, column))
            return not wrong

        def check() -> list[Residue]:
            if wait_for(refreshed, within_s=REFRESHED_WITHIN_S, every_s=0.1):
                return []
            number = f"{len(wrong)} value{'s' if len(wrong) > 1 else ''} that a fault corrupted"
            is_are, first = "are" if len(wrong) > 1 else "is", f"{wrong[0][0]}, column {wrong[0][1]}"
            what = f"{number} {is_are} still in the feature store (the first: {first})"
            return [Residue(what, "refresh it from its source")]

        return _run_within({"the feature store": check}, AUDIT_WITHIN_S)

    def strays(self) -> list[Residue]:
        """Processes that the trial started and that still run after its end."""

        def found() -> set[int]:
            table = procfs.living()
            own = procfs.children(table) - self._children
            undone = {pid for pid in own if trial_mark.is_started_by_undo(pid, self._folder)}
            return (own | trial_mark.marked_processes(self._folder, table)) - undone

        return strays(found, within_s=STRAYS_END_WITHIN_S)

    def _faults_on_links(self) -> list[Residue]:
        links = self._target.find(Links)
        if links is None:
            return []
        what_to_do = "end the fault proxy: 'monkeyproof target down', or your 'monkeyproof proxy'"
        return [Residue(f"the fault {one} is still on a link", what_to_do) for one in links.active()]

    def _paused(self) -> list[Residue]:
        replicas = self._target.find(Replicas)
        return [
            Residue(f"{one.name}{STILL_PAUSED}", f"kill -CONT {one.pid}")
            for one in (replicas.list() if replicas is not None else ())
            if one.state == "paused"
        ]

    def _stopped_processes(self, events: Collection[Event]) -> list[Residue]:
        """Processes of the target or the trial that were stopped since; users may stop others."""
        if self._snapshot.stopped is None:
            return []
        table, known = procfs.living(), {(pid, started) for pid, started in self._snapshot.stopped}
        new = {one.pid for one in table.values() if one.is_stopped and (one.pid, one.started_ticks) not in known}
        if not new:
            return []
        named = {pid for event in events if event.kind is Kind.FAULT_EFFECTIVE for pid in _pids_in(event)}
        of_target = self._target.find(Processes)
        ours = new & (
            named | trial_mark.marked_processes(self._folder) | procfs.listeners(new, _ports(self._target))
        )
        if of_target is not None:
            ours |= new & procfs.with_descendants(of_target.roots(), table)
        return [
            Residue(f"process {pid} is stopped: {procfs.program_name(pid)}", f"kill -CONT {pid}")
            for pid in sorted(ours)
        ]

    def _changed_in_registry(self, events: Collection[Event]) -> list[Residue]:
        registry = self._target.find(Registry)
        if registry is None or not self._snapshot.champion:
            return []
        champion, versions = registry.champion(), versions_of(registry)
        found = [
            Residue(f"version {one} of the model is not what it was", "publish it anew")
            for one, artifact in self._snapshot.versions.items()
            if versions.get(one) != artifact
        ]
        promoted = {
            event.data["parameters"].get("version")
            for event in events
            if event.kind is Kind.FAULT_INTENDED and str(event.data["fault"]).startswith("registry.")
        }
        healed = any(event.kind is Kind.HEALER_ACTED for event in events)
        if champion != self._snapshot.champion and (champion in promoted or not healed):
            what_to_do = f"make version {self._snapshot.champion} the champion again"
            what = f"the champion is version {champion}, and was {self._snapshot.champion}"
            found.append(Residue(what, what_to_do, of_others=champion not in promoted))
        return found

    def _changed_artifacts(self) -> list[Residue]:
        artifacts = self._target.find(Artifacts)
        if artifacts is None or not self._snapshot.artifacts:
            return []
        now = artifacts.digests(self._snapshot.champion)
        return [
            Residue(f"the artifact {name} is {'not what it was' if name in now else 'missing'}", REBUILD)
            for name, digest in self._snapshot.artifacts.items()
            if now.get(name) != digest
        ]


def strays(find: Callable[[], set[int]], *, within_s: float) -> list[Residue]:
    """Residue for the processes that ``find`` returns, if they do not end by themselves in time."""
    left: set[int] = set()

    def ended() -> bool:
        nonlocal left
        left = find()
        return not left

    if wait_for(ended, within_s=within_s, every_s=0.05):
        return []
    return [
        Residue(f"process {pid} still runs: {procfs.program_name(pid)}", f"if it still runs: kill {pid}")
        for pid in sorted(left)
    ]


def _run_within(checks: Mapping[str, Callable[[], list[Residue]]], within_s: float) -> list[Residue]:
    """Run all checks concurrently: one that hangs must delay neither the others nor the trial's end."""
    found: dict[str, list[Residue]] = {}

    def run(name: str, check: Callable[[], list[Residue]]) -> None:
        try:
            found[name] = check()
        except Exception as error:  # Adapters fail in many ways; each means that the state is unknown.
            found[name] = [_unknown(name, error)]

    threads = {
        name: threading.Thread(target=run, args=(name, check), name=f"audit of {name}", daemon=True)
        for name, check in checks.items()
    }
    for thread in threads.values():
        thread.start()
    ends_s = time.monotonic() + within_s
    for thread in threads.values():
        thread.join(max(0.0, ends_s - time.monotonic()))
    late = f"no answer within {within_s:g} s"
    return [one for name in checks for one in found.get(name, [_unknown(name, late)])]


def _unknown(name: str, why: object) -> Residue:
    return Residue(f"{name} cannot be checked: {why}", "see that it answers", unknown=True)


def _pids_in(event: Event) -> set[int]:
    evidence: Json = event.data.get("evidence") or {}
    return {evidence["pid"]} if isinstance(evidence.get("pid"), int) else set()


def _ports(target: Target) -> set[int]:
    """Ports of this machine on which parts of the target listen, by its file."""
    file = target.file
    urls = [urlsplit(file.predict.url)] + ([urlsplit(file.registry.uri)] if file.registry else [])
    places = [(one.hostname, one.port) for one in urls]
    places += [
        (host, int(port)) for host, _, port in (link.forward.rpartition(":") for link in file.links.values())
    ]
    return {port for host, port in places if port and host in ("127.0.0.1", "localhost", "::1")}
