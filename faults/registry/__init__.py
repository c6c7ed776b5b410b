"""Faults of the model registry and of rollbacks."""

from __future__ import annotations

from monkeyproof.faults.registry.last_good import publish_copy, spoil_last_good, unspoil
from monkeyproof.faults.registry.links import failing, outage, slow
from monkeyproof.faults.registry.pinning import pin, unpin
from monkeyproof.faults.registry.promotion import (
    delete_previous,
    flip_back,
    promote_degraded,
    put_back_version,
    restore_champion,
    stop_flipping,
)

__all__ = [
    "delete_previous",
    "failing",
    "flip_back",
    "outage",
    "pin",
    "promote_degraded",
    "publish_copy",
    "put_back_version",
    "restore_champion",
    "slow",
    "spoil_last_good",
    "stop_flipping",
    "unpin",
    "unspoil",
]
