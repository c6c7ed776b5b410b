"""Taking back one fault that a trial left behind, or seeing that it is gone already."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import cast

from monkeyproof import paths
from monkeyproof.clock import SystemClock
from monkeyproof.targets.opening import GONE, open_target
from monkeyproof.targets.port import Target
from monkeyproof.undo.log import OpenFault

LEASE_OVER_AFTER_S = 30.0
"""Longer ago than a lease has run out, a clock that was set cannot matter."""


class _Late:
    """A target that is opened when an undo asks for it: that of somebody else's fault needs none."""

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


def undo_one(fault: OpenFault) -> str:
    """One sentence on what was done or found. Raises whatever its undo raises: then it is not taken back."""
    if gone_with_its_target(Path(fault.target_file)):
        return GONE
    if words := ended_by_its_lease(fault):
        return words
    target = _Late(Path(fault.target_file))
    try:
        return fault.undo.run(cast("Target", target), Path(fault.target_file))
    finally:
        target.close()


def ended_by_its_lease(fault: OpenFault) -> str:
    """Words if so: nobody could look any more, and nobody renews it, for whoever asks holds its log."""
    if fault.lease_s is None or Path(fault.target_file).exists():
        return ""
    with contextlib.suppress(ValueError, TypeError):
        age_s = (SystemClock().utc() - datetime.fromisoformat(fault.t0_utc)).total_seconds()
        if age_s > fault.lease_s + LEASE_OVER_AFTER_S:
            return f"its lease of {fault.lease_s:g} s is over, and {fault.target_file} is gone: it ended by itself"
    return ""


def gone_with_its_target(target_file: Path) -> bool:
    """Whether that is over, whatever was done to it: the embedded target begins anew each time it comes up."""
    from monkeyproof.targets.local.control_plane import lifecycle

    # Not whether it answers: one that stands still has its faults yet.
    return target_file.parent == paths.target_dir() and not lifecycle.is_running()
