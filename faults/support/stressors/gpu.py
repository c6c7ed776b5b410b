"""Takes up a share of a GPU's free memory, until its monitor ends it.

    python -m monkeyproof.faults.support.stressors.gpu --id ID --owner PID:STARTED --for-s S --share 0.9 \
        --exit_now-mib 256

Needs the CUDA driver and nothing else. The driver releases the memory when the process ends, in whatever way.
"""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.faults.support.stressors.cuda import Device, NoCuda, seen_from_outside
from monkeyproof.faults.support.stressors.parent_monitor import (
    ParentDeathMonitor,
    exit_now,
    parse_arguments,
    report,
    stressor_parser,
)

MIB = 1024 * 1024
BLOCK_BYTES = 256 * MIB
BLOCK_MIN_BYTES = 2 * MIB


def fill(device: Device, wanted_bytes: int, monitor: ParentDeathMonitor) -> int:
    """Allocate up to ``wanted_bytes``, in smaller blocks where memory is fragmented; returns the total."""
    taken, block = 0, BLOCK_BYTES
    while taken + BLOCK_MIN_BYTES <= wanted_bytes and not monitor.why_over():
        size = min(block, wanted_bytes - taken)
        if device.take(size):
            taken += size
        elif block <= BLOCK_MIN_BYTES:
            break
        else:
            block //= 2
    return taken


def main(argv: Sequence[str] | None = None) -> None:
    found = stressor_parser("monkeyproof.faults.support.stressors.gpu", "Take up memory of a GPU.")
    found.add_argument("--device", type=int, default=0)
    found.add_argument("--share", type=float, default=0.9)
    found.add_argument("--exit_now-mib", type=float, default=256.0)
    arguments = parse_arguments(found, argv)
    monitor = ParentDeathMonitor(arguments.owner, arguments.for_s)
    try:
        device = Device(arguments.device)
        before, outside_before = device.memory(), seen_from_outside(device.bus_id)
        most = max(0, before.free_bytes - int(arguments.leave_mib * MIB))
        taken = fill(device, min(int(before.free_bytes * arguments.share), most), monitor)
        after, outside = device.memory(), seen_from_outside(device.bus_id)
    except NoCuda as error:
        report(error=str(error))
        exit_now()
    report(
        device=device.name,
        bus_id=device.bus_id,
        taken_bytes=taken,
        free_before_bytes=before.free_bytes,
        free_after_bytes=after.free_bytes,
        total_bytes=after.total_bytes,
        monitor_free_before_bytes=outside_before.free_bytes if outside_before else None,
        monitor_free_after_bytes=outside.free_bytes if outside else None,
    )
    monitor.wait()
    exit_now()


if __name__ == "__main__":
    main()
