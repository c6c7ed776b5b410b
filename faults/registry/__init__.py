"""Faults of the model registry and of rollbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monkeyproof.faults.registry.last_good import restore_last_good as restore_last_good
from monkeyproof.faults.registry.pinning import unpin as unpin
from monkeyproof.faults.registry.promotion import restore_champion as restore_champion
from monkeyproof.faults.registry.promotion import restore_version as restore_version
from monkeyproof.faults.registry.promotion import stop_flipping as stop_flipping
from monkeyproof.injection.fault_registry import collect_faults

if TYPE_CHECKING:
    from monkeyproof.faults.registry.last_good import *  # noqa: F403
    from monkeyproof.faults.registry.links import *  # noqa: F403
    from monkeyproof.faults.registry.pinning import *  # noqa: F403
    from monkeyproof.faults.registry.promotion import *  # noqa: F403

collect_faults(__name__)
