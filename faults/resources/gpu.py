"""The memory of a GPU is taken up by somebody else."""

from __future__ import annotations

from collections.abc import Mapping

from monkeyproof.errors import Refusal
from monkeyproof.faults.support import stressor
from monkeyproof.faults.support.checks import check_between, check_count
from monkeyproof.faults.support.stressors.cuda import CUDA, NoCuda, library, seen_from_outside
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.targets.port import LEASE_S, Processes
from monkeyproof.types import Evidence, Json

MIB = 1024 * 1024
GPU_WITHIN_S = 60.0
"""A driver takes seconds for the first context of a device."""
NEARLY = 0.9


@fault(
    needs=(Processes,),
    evidence="the driver says that so much less of the device's memory is free",
    undo="the process that has it is ended; by itself when the harness is gone or its time is over",
    healing="smaller batches, another device, or the CPU; what fails for lack of memory is retried elsewhere",
)
def fill_gpu(share: float = 0.9, device: int = 0, leave_mib: float = 256.0) -> dict[str, Json]:
    """Take up a ``share`` of what is free of a GPU's memory, but leave at least ``leave_mib``.

    What the target has on the device already it keeps; what it asks for next fails with "out of memory". Refused
    where there is no CUDA driver.
    """
    check_between("share", share, 0.0, 1.0, above=True)
    check_count("device", device, 0, 1023)
    check_between("leave_mib", leave_mib, 0.0, 1024.0 * 1024.0)
    context = current()
    stressor.require_this_machine(context.target, "a GPU ballast")
    try:
        library(CUDA)
    except NoCuda as error:
        raise Refusal(str(error), "run where there is a GPU and its driver, or leave this fault out") from None
    ballast_id = stressor.new_id("gpu")
    arguments = ["--device", str(device), "--share", f"{share:g}", "--leave-mib", f"{leave_mib:g}"]

    def evidence(said: Mapping[str, Json]) -> Evidence | None:
        taken, bus_id = int(said["taken_bytes"]), str(said["bus_id"])
        before, after, seen_by = said["free_before_bytes"], said["free_after_bytes"], "the driver"
        monitor = seen_from_outside(bus_id)
        if monitor is not None and said["monitor_free_before_bytes"] is not None:
            before, after, seen_by = said["monitor_free_before_bytes"], monitor.free_bytes, "the driver's monitor"
        if not stressor.pids(ballast_id) or taken == 0 or before - after < NEARLY * taken:
            return None
        return Evidence(
            f"{said['device']}: {taken / MIB:.0f} MiB are taken up; {seen_by} says that {after / MIB:.0f} MiB are "
            f"free, and were {before / MIB:.0f}",
            {**said, "free_bytes": after, "pid": stressor.pids(ballast_id)[0], "seen_by": seen_by},
        )

    return inject(
        Injection(
            fault="resources.fill_gpu",
            subject=f"device {device}",
            parameters={"share": float(share), "device": device, "leave_mib": float(leave_mib)},
            apply=lambda: stressor.start("gpu", ballast_id, arguments, within_s=GPU_WITHIN_S),
            evidence=evidence,
            undo=stressor.undo(ballast_id, "the GPU ballast"),
            lease_s=LEASE_S,
            why_gone=stressor.why_ended(ballast_id),
        )
    )
