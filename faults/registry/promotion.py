"""Promotes the wrong version: once, again after every rollback, or with the right one deleted."""

from __future__ import annotations

import json
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from monkeyproof import paths
from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.faults.support.champion import CHAMPION, digest_tag, inject_promotion, version_named, worst_but
from monkeyproof.faults.support.checks import check_number
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Context, current, has_current
from monkeyproof.record.history import write_json
from monkeyproof.targets.port import Deletion, ModelVersion, Registry, Replicas, Target, require
from monkeyproof.types import Json

POLL_S = 0.1
ENDS_WITHIN_S = 15.0
"""Longest duration of a call to a registry that does not answer, with all its retries."""


@fault(
    needs=(Registry, Replicas),
    evidence="the registry names it as champion, and a replica serves it",
    undo="the old champion is restored, unless another program chose another since",
    healing="roll back to the last version that verifies",
    draw=lambda rng, target, intensity: {} if target.registry else None,  # noqa: ARG005
)
def promote_degraded(
    version: str = "",
) -> dict[str, Json]:
    """Make a worse model the champion; ``version`` "" is the one with the lowest accuracy tag.

    The registry and a replica that serves it prove it.
    """
    return inject_promotion(
        "registry.promote_degraded", _worse(version), undo="monkeyproof.faults.registry:restore_champion"
    )


@fault(
    needs=(Registry, Replicas),
    evidence="the registry names it as champion, and a replica serves it",
    undo="it is promoted no more, and the champion that it displaced last is restored",
    healing="roll back, and again; then find the program that promotes it",
    draw=lambda rng, target, intensity: {"times": 1} if target.registry else None,  # noqa: ARG005
)
def flip_back(
    version: str = "",
    times: int = 1,
    after_ms: float = 1000.0,
) -> dict[str, Json]:
    """Make a worse model the champion, and again ``after_ms`` after each rollback: another deployer is at work.

    The undo restores the champion that was displaced last: the old one, or one that another program (but no other
    fault) chose meanwhile; where that has been deleted, the old one.

    Args:
        version: the version; "" is the one with the lowest accuracy tag.
        times: how often it is promoted again; 0 for as long as the fault is held.
    """
    check_number("after_ms", after_ms)
    if isinstance(times, bool) or not isinstance(times, int) or times < 0:
        raise UsageError(f"times: {times!r} is not a number of times; 0 is for as long as the fault is held")
    if after_ms < 0:
        raise UsageError(f"after_ms: {after_ms} is not a time")
    context = current()
    chosen, mark = _worse(version), uuid.uuid4().hex
    registry = require(context.target, Registry)
    note = paths.home() / f"displaced-{mark}.json"
    deployer = Deployer(context, registry, chosen.version, times, after_ms / 1000, note)

    def apply() -> None:
        _deployers[mark] = deployer
        registry.set_champion(chosen.version)
        deployer.start()

    return inject_promotion(
        "registry.flip_back",
        chosen,
        undo="monkeyproof.faults.registry:stop_flipping",
        apply=apply,
        extra_parameters={"times": times, "after_ms": float(after_ms)},
        undo_arguments={"mark": mark, "note": str(note)},
    )


@fault(
    needs=(Registry, Replicas, Deletion),
    evidence="the registry names the new champion and has no version of the old one; a replica serves it",
    undo="the old version is restored with its aliases, and is champion again",
    healing="roll back to another version that verifies; else call a person",
)
def delete_previous(
    version: str = "",
) -> dict[str, Json]:
    """Make a worse model the champion and delete the old champion's version, as a tidy pipeline does.

    Its file stays. Only for targets that can restore a deleted version, bit by bit: MLflow itself cannot.
    """
    context = current()
    registry, deletion = require(context.target, Registry), require(context.target, Deletion)
    chosen, previous = _worse(version), registry.champion()

    def apply() -> None:
        registry.set_champion(chosen.version)
        deletion.delete(previous)
        if any(one.version == previous for one in registry.versions()):
            raise TargetError(f"version {previous} should be deleted, and is still there")

    return inject_promotion(
        "registry.delete_previous",
        chosen,
        undo="monkeyproof.faults.registry:restore_version",
        apply=apply,
        undo_arguments={"record": dict(deletion.record(previous))},
    )


@dataclass
class Deployer:
    """Promotes a version again whenever another one is champion. Ends with its trial at the latest."""

    context: Context
    registry: Registry
    version: str
    times: int
    after_s: float
    note: Path
    """File to which it writes the champion that it is about to displace: another process may have to undo it."""
    promoted_again: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="another deployer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. Raises TargetError if it does not end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(ENDS_WITHIN_S)
            if self._thread.is_alive():
                raise TargetError(f"version {self.version} is still being promoted; try again")

    def _run(self) -> None:
        while not self._stop.wait(POLL_S) and has_current() and current() is self.context:
            if self.times and self.promoted_again >= self.times:
                return
            try:
                if self.registry.champion() == self.version or self._stop.wait(self.after_s):
                    continue
                if (displaced := self.registry.champion()) != self.version:
                    if not self._others():
                        write_json(self.note, displaced)
                    self.registry.set_champion(self.version)
                    self.promoted_again += 1
            except TargetError:
                continue  # A deployer tries again.

    def _others(self) -> bool:
        """Whether other open faults have chosen a champion, which their own undo restores."""
        return sum(one.subject == CHAMPION for one in tuple(self.context.undo.open_faults())) > 1


_deployers: dict[str, Deployer] = {}
"""By mark. They live in the process that injected them, and end with it."""


def restore_champion(target: Target, promoted: str, previous: str, sha256: str = "") -> str:
    """Undo of ``promote_degraded``, unless another program chose another champion since. Idempotent.

    Args:
        sha256: digest of the old champion's artifact before the fault, as its publisher gave it; "" for unknown.
    """
    registry = require(target, Registry)
    now = registry.champion()
    if now == previous:
        return f"the champion is version {previous} already"
    if now != promoted:
        return f"the champion is version {now} by now, neither ours ({promoted}) nor the old one: left as it is"
    versions = registry.versions()
    if all(one.version != previous for one in versions):
        raise TargetError(
            f"version {previous}, the old champion, does not exist any more: choose another instead of {promoted}"
        )
    registry.set_champion(previous)
    now = registry.champion()
    if now != previous:
        raise TargetError(f"the champion should be version {previous} again, and is {now}")
    changed = sha256 and digest_tag(versions, previous) != sha256
    return f"the champion is version {previous} again" + (
        ", whose digest another program has changed since" if changed else ""
    )


def stop_flipping(
    target: Target, promoted: str, previous: str, mark: str, sha256: str = "", note: str = ""
) -> str:
    """Undo of ``flip_back``. Idempotent; where its process has ended, nothing is promoted any more.

    Args:
        note: path of the file that names the champion that was displaced last; ``previous`` where there is none.
    """
    deployer = _deployers.get(mark)
    again = ""
    if deployer is not None:
        deployer.stop()
        again = f"; version {promoted} had been promoted again {deployer.promoted_again} times"
    displaced = json.loads(Path(note).read_bytes()) if note and Path(note).exists() else previous
    if all(one.version != displaced for one in require(target, Registry).versions()):
        displaced = previous  # It has been deleted since.
    done = restore_champion(target, promoted, displaced, sha256 if displaced == previous else "") + again
    if note:
        Path(note).unlink(missing_ok=True)
    _deployers.pop(mark, None)
    return done


def restore_version(
    target: Target, promoted: str, previous: str, record: dict[str, Json], sha256: str = ""
) -> str:
    """Undo of ``delete_previous``: restores the version first, since an alias has to point to one. Idempotent."""
    registry = require(target, Registry)
    was_there = not require(target, Deletion).restore(previous, record)
    if all(one.version != previous for one in registry.versions()):
        raise TargetError(f"version {previous} should be there again, and is not")
    words = f"version {previous} is there {'already' if was_there else 'again'}; "
    return words + restore_champion(target, promoted, previous, sha256)


def _worse(asked_for: str) -> ModelVersion:
    """The version to promote.

    Raises:
        UsageError: there is none of that name.
        Refusal: it is the champion, or no version is known to be worse than others.
    """
    target = current().target
    registry = require(target, Registry)
    require(target, Replicas)
    champion, versions = registry.champion(), registry.versions()
    if not asked_for:
        return worst_but(versions, champion)
    if str(asked_for) == champion:
        raise Refusal(f"version {champion} is the champion already", "name another version")
    return version_named(versions, str(asked_for))
