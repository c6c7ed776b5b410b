"""The state of a target when its trial began, to compare with when it has ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.runtime import procfs
from monkeyproof.targets.port import Artifacts, Registry, Target

BEFORE_FILE = "before.json"
DIGESTED_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """The state to which the target must return, and which processes of this machine were stopped already."""

    champion: str = ""
    versions: Mapping[str, list[str]] = field(default_factory=dict)
    """Version to its digest as published, and its address."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    stopped: list[list[int]] | None = None
    """Pid and start (clock ticks since boot) of each stopped process; None: not known."""

    @classmethod
    def capture(cls, target: Target) -> TargetSnapshot:
        """Capture the state now.

        Raises:
            TargetError: the registry does not answer.
        """
        stopped = [[one.pid, one.started_ticks] for one in procfs.living().values() if one.is_stopped]
        registry = target.find(Registry)
        if registry is None:
            return cls(stopped=stopped)
        champion = registry.champion()
        return cls(champion, versions_of(registry), _digests(target, champion), stopped)

    @classmethod
    def read(cls, folder: Path) -> TargetSnapshot:
        """The snapshot of a trial that another process ran; empty if it did not get that far."""
        try:
            return cls(**json.loads((folder / BEFORE_FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return cls()


def versions_of(registry: Registry) -> dict[str, list[str]]:
    return {one.version: [one.sha256, one.artifact] for one in registry.versions()}


def _digests(target: Target, champion: str) -> dict[str, str]:
    """Digests of artifacts; empty where there are none, or where reading them takes too long to do it twice."""
    artifacts = target.find(Artifacts)
    if artifacts is None:
        return {}
    begun_s = time.monotonic()
    try:
        found = dict(artifacts.digests(champion))
    except TargetError:
        return {}
    return found if time.monotonic() - begun_s <= DIGESTED_WITHIN_S else {}
