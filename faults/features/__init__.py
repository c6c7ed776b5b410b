"""Faults of the online feature store, as its readers see them: out of reach, slow, or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monkeyproof.injection.fault_registry import collect_faults

if TYPE_CHECKING:
    from monkeyproof.faults.features.answers import *  # noqa: F403
    from monkeyproof.faults.features.reach import *  # noqa: F403

collect_faults(__name__)
