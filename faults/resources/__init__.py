"""Faults of what processes live on: memory, handles, disk, processor, GPU, clock. All on this machine only."""

from monkeyproof.faults.resources.clock import skew_clock, start_with_right_clock
from monkeyproof.faults.resources.cpu import steal_cpu
from monkeyproof.faults.resources.gpu import fill_gpu
from monkeyproof.faults.resources.limits import exhaust_handles, exhaust_memory, fill_disk, restore_limit

__all__ = [
    "exhaust_handles",
    "exhaust_memory",
    "fill_disk",
    "fill_gpu",
    "restore_limit",
    "skew_clock",
    "start_with_right_clock",
    "steal_cpu",
]
