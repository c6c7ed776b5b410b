"""Another process takes up the memory of a GPU."""

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
EVIDENCE_SHARE_MIN = 0.9


@fault(
    needs=(Processes,),
    evidence="the driver reports that so much less of the device's memory is free",
    undo="the stressor that holds it is ended; by itself when the harness has ended or its time is over",
    healing="smaller batches, another device, or the CPU; what fails for lack of memory is retried elsewhere",
)
def fill_gpu(share: float = 0.9, device: int = 0, leave_mib: float = 256.0) -> dict[str, Json]:
    """Take up a ``share`` of a GPU's free memory, but leave at least ``leave_mib``.

    The target keeps what it has on the device already; its next allocations fail with "out of memory". Refused
    where there is no CUDA driver.
    """
    check_between("share", share, 0.0, 1.0, above=True)
    check_count("device", device, 0, 1023)
    check_between("leave_mib", leave_mib, 0.0, 1024.0 * 1024.0)
    context = current()
    stressor.require_this_machine(context.target, "a GPU stressor")
    try:
        library(CUDA)
    except NoCuda as error:
        raise Refusal(str(error), "run where there is a GPU and its driver, or leave this fault out") from None
    stressor_id = stressor.new_id("gpu")
    arguments = ["--device", str(device), "--share", f"{share:g}", "--leave-mib", f"{leave_mib:g}"]

    def evidence(report: Mapping[str, Json]) -> Evidence | None:
        taken, bus_id = int(report["taken_bytes"]), str(report["bus_id"])
        before, after, seen_by = report["free_before_bytes"], report["free_after_bytes"], "the driver"
        monitor = seen_from_outside(bus_id)
        if monitor is not None and report["monitor_free_before_bytes"] is not None:
            before, after, seen_by = (
                report["monitor_free_before_bytes"],
                monitor.free_bytes,
                "NVML",
            )
        if not stressor.pids(stressor_id) or taken == 0 or before - after < EVIDENCE_SHARE_MIN * taken:
            return None
        return Evidence(
            f"{report['device']}: {taken / MIB:.0f} MiB are taken up; {seen_by} reports {after / MIB:.0f} MiB "
            f"free, and before {before / MIB:.0f}",
            {**report, "free_bytes": after, "pid": stressor.pids(stressor_id)[0], "seen_by": seen_by},
        )

    return inject(
        Injection(
            fault="resources.fill_gpu",
            subject=f"device {device}",
            parameters={"share": float(share), "device": device, "leave_mib": float(leave_mib)},
            apply=lambda: stressor.start("gpu", stressor_id, arguments, within_s=GPU_WITHIN_S),
            evidence=evidence,
            undo=stressor.undo(stressor_id, "the GPU stressor"),
            lease_s=LEASE_S,
            why_ended=stressor.why_ended(stressor_id),
        )
    )
