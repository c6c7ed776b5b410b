"""Faults of what a process needs: memory, handles, disk, processor, GPU, clock. All on this machine only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monkeyproof.faults.resources.clock import start_with_right_clock as start_with_right_clock
from monkeyproof.faults.resources.limits import restore_limit as restore_limit
from monkeyproof.injection.fault_registry import collect_faults

if TYPE_CHECKING:
    from monkeyproof.faults.resources.clock import *  # noqa: F403
    from monkeyproof.faults.resources.cpu import *  # noqa: F403
    from monkeyproof.faults.resources.gpu import *  # noqa: F403
    from monkeyproof.faults.resources.limits import *  # noqa: F403

collect_faults(__name__)
