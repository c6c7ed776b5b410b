"""Takes up a share of a GPU's free memory, until its tether ends.

    python -m monkeyproof.faults.support.stressors.gpu --id ID --owner PID:STARTED --for-s S --share 0.9 \
        --leave-mib 256

Needs the CUDA driver and nothing else. The memory is given back with the process, however that ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from monkeyproof.faults.support.stressors.cuda import Device, NoCuda, seen_from_outside
from monkeyproof.faults.support.stressors.parent_monitor import ParentDeathMonitor, leave, parse, parser, say

MIB = 1024 * 1024
PIECE_BYTES = 256 * MIB
SMALLEST_PIECE_BYTES = 2 * MIB


def fill(device: Device, wanted_bytes: int, tether: ParentDeathMonitor) -> int:
    """Allocate as much in pieces that get smaller where memory is in pieces; returns how much it was."""
    taken, piece = 0, PIECE_BYTES
    while taken + SMALLEST_PIECE_BYTES <= wanted_bytes and not tether.why_over():
        size = min(piece, wanted_bytes - taken)
        if device.take(size):
            taken += size
        elif piece <= SMALLEST_PIECE_BYTES:
            break
        else:
            piece //= 2
    return taken


def main(argv: Sequence[str] | None = None) -> None:
    found = parser("monkeyproof.faults.support.stressors.gpu", "Take up memory of a GPU.")
    found.add_argument("--device", type=int, default=0)
    found.add_argument("--share", type=float, default=0.9)
    found.add_argument("--leave-mib", type=float, default=256.0)
    arguments = parse(found, argv)
    tether = ParentDeathMonitor(arguments.owner, arguments.for_s)
    try:
        device = Device(arguments.device)
        before, outside_before = device.memory(), seen_from_outside(device.bus_id)
        most = max(0, before.free_bytes - int(arguments.leave_mib * MIB))
        taken = fill(device, min(int(before.free_bytes * arguments.share), most), tether)
        after, outside = device.memory(), seen_from_outside(device.bus_id)
    except NoCuda as error:
        say(error=str(error))
        leave()
    say(
        device=device.name,
        bus_id=device.bus_id,
        taken_bytes=taken,
        free_before_bytes=before.free_bytes,
        free_after_bytes=after.free_bytes,
        total_bytes=after.total_bytes,
        monitor_free_before_bytes=outside_before.free_bytes if outside_before else None,
        monitor_free_after_bytes=outside.free_bytes if outside else None,
    )
    tether.wait()
    leave()


if __name__ == "__main__":
    main()
