"""Reverts one fault that a trial left behind, or finds that it has ended already."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import cast

from monkeyproof import paths
from monkeyproof.clock import SystemClock
from monkeyproof.targets.opening import TARGET_DOWN, open_target
from monkeyproof.targets.port import Target
from monkeyproof.undo.log import OpenFault

LEASE_EXPIRED_AFTER_S = 30.0
"""Added to a lease before it counts as expired, so that a clock that was set does not matter."""


class _LazyTarget:
    """A target that is opened when an undo first uses it: the undo of an external experiment needs none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target: Target | None = None

    def __getattr__(self, name: str) -> object:
        if self._target is None:
            self._target = open_target(self._path)
        return getattr(self._target, name)

    def close(self) -> None:
        if self._target is not None:
            self._target.close()


def revert_one(fault: OpenFault) -> str:
    """Undo a fault; returns one sentence on what was done or found.

    Raises:
        Exception: whatever its undo raises; the fault is not reverted then.
    """
    if ended_with_target(Path(fault.target_file)):
        return TARGET_DOWN
    if words := ended_by_lease(fault):
        return words
    target = _LazyTarget(Path(fault.target_file))
    try:
        return fault.undo.run(cast("Target", target), Path(fault.target_file))
    finally:
        target.close()


def ended_by_lease(fault: OpenFault) -> str:
    """Why a fault must have ended by its lease, if its target file is missing; "" if that is not certain.

    No process can renew the lease, because the caller holds the undo log.
    """
    if fault.lease_s is None or Path(fault.target_file).exists():
        return ""
    with contextlib.suppress(ValueError, TypeError):
        age_s = (SystemClock().utc() - datetime.fromisoformat(fault.t0_utc)).total_seconds()
        if age_s > fault.lease_s + LEASE_EXPIRED_AFTER_S:
            return f"its lease of {fault.lease_s:g} s is over, and {fault.target_file} is missing: it has ended"
    return ""


def ended_with_target(target_file: Path) -> bool:
    """Whether the embedded target has ended, and every fault with it: it starts from its declared state."""
    from monkeyproof.targets.local.control_plane import lifecycle

    # Whether it runs, not whether it answers: a stopped one still has its faults.
    return target_file.parent == paths.target_dir() and not lifecycle.is_running()
