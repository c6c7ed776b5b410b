"""Drift in the records of a target. Tables of yours have theirs in monkeyproof.faults.data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monkeyproof.injection.fault_registry import collect_faults

if TYPE_CHECKING:
    from monkeyproof.faults.drift.records import *  # noqa: F403

collect_faults(__name__)
