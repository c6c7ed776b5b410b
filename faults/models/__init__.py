"""Faults of models and of the files that they are stored in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monkeyproof.injection.fault_registry import collect_faults

if TYPE_CHECKING:
    from monkeyproof.faults.models.artifacts import *  # noqa: F403
    from monkeyproof.faults.models.deployment import *  # noqa: F403

collect_faults(__name__)
