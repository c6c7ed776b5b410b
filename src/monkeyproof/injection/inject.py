"""Injects a fault (record, act, prove) and reverts it: the same steps for every family of faults."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from monkeyproof.clock import Clock
from monkeyproof.errors import NotReverted, Refusal, TargetError, Unproven
from monkeyproof.injection.context import Context, Injection, current, has_current, set_current, within_limit
from monkeyproof.record.history import Kind
from monkeyproof.runtime.stop_file import refuse_if_stop_requested
from monkeyproof.targets.opening import TARGET_DOWN, is_down
from monkeyproof.targets.port import Target
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import OpenFault, Undo, unwritable
from monkeyproof.undo.plugin_undo import origin_of, why_lost

__all__ = [
    "Context",
    "Injection",
    "current",
    "has_current",
    "inject",
    "intend",
    "record_if_gone",
    "revert",
    "revert_fault",
    "set_current",
    "within_limit",
]


def inject(injection: Injection) -> dict[str, Json]:
    """Inject one fault: intent synced to disk, then the act, then the proof.

    Returns:
        ``{"id", "fault", "subject", "evidence", "data"}``, which Chaos Toolkit keeps in its journal.

    Raises:
        Refusal: the target does not allow this family of faults, no trial is open, or nothing would undo it.
        Unproven: there was no evidence of an effect in time. The fault is reverted.
        Exception: whatever ``apply`` raised. The fault is reverted.
    """
    context = current()
    undo = _undo_to_record(context, injection)
    if context.planned is not None:
        context.planned.append(injection)
        context.active_faults.begins("", context.clock.monotonic_s(), held=injection.held)
        return {"fault": injection.fault, "subject": injection.subject}
    fault_id = intend(
        context,
        injection.fault,
        injection.subject,
        injection.parameters,
        undo,
        held=injection.held,
        prior=injection.prior,
        lease_s=injection.lease_s,
        nothing_to_undo=injection.one_shot,
        ends_by_itself_s=injection.ends_by_itself_s,
        pauses_s=injection.pauses_s,
    )
    context.active_faults.begins(fault_id, context.clock.monotonic_s(), held=injection.held)
    evidence = _apply_and_prove(context, injection, fault_id)
    return {
        "id": fault_id,
        "fault": injection.fault,
        "subject": injection.subject,
        "evidence": evidence.summary,
        "data": dict(evidence.data),
    }


def _undo_to_record(context: Context, injection: Injection) -> Undo | None:
    """The fault's undo as the undo log records it; None where the fault says why there is nothing to undo.

    Raises:
        Refusal: the target does not allow the fault's family, or nothing would undo the fault.
        UsageError: there is no such undo.
    """
    file = context.target.file
    family = injection.fault.split(".")[0]
    if family not in file.allow_faults:
        raise Refusal(
            f"target {file.name!r} does not allow faults of the family {family!r}",
            f"add it to allow_faults in {file.path} if it may be broken that way",
        )
    undo = injection.undo
    if undo is None:
        if not injection.one_shot:
            raise Refusal(
                f"{injection.fault} on {injection.subject} says neither how it is undone nor why there is nothing "
                "to undo",
                "give its Injection an undo, or one_shot",
            )
        return None
    if undo.is_built_in:
        undo.resolved()
        return undo
    if why := why_lost(undo.function, file.path):
        raise Refusal(
            f"neither the watchdog nor 'monkeyproof revert' would find the undo of {injection.fault} ({why})",
            f"install the package that has it, or name its module in plugins in {file.path}",
        )
    return replace(undo, package=origin_of(undo.function, file.path))


def _apply_and_prove(context: Context, injection: Injection, fault_id: str) -> Evidence:
    """Apply a recorded fault and wait for its proof; revert it if either fails.

    Raises:
        Exception: whatever ``apply`` or ``evidence`` raised, or Unproven.
    """
    try:
        evidence = _prove(injection, injection.apply(), context.clock, context.prove_within_s)
        context.undo.effective(fault_id, evidence.summary)
        if injection.why_ended is not None:
            context.presence_checks[fault_id] = injection.why_ended
    except Exception as error:  # Whatever failed, the fault may be present by now.
        context.history.event(
            Kind.FAULT_UNPROVEN, injection.subject, id=fault_id, fault=injection.fault, why=str(error)
        )
        _revert_open(context, only=fault_id)
        raise
    context.history.event(
        Kind.FAULT_EFFECTIVE,
        injection.subject,
        id=fault_id,
        fault=injection.fault,
        summary=evidence.summary,
        evidence=dict(evidence.data),
    )
    return evidence


def intend(
    context: Context,
    fault: str,
    subject: str,
    parameters: Mapping[str, Json],
    undo: Undo | None,
    *,
    held: bool,
    prior: Mapping[str, Json],
    lease_s: float | None = None,
    nothing_to_undo: str = "",
    ends_by_itself_s: float | None = None,
    pauses_s: float = 0.0,
) -> str:
    """Sync to disk that a fault is about to be injected, and how to undo it. This instant is t0.

    Args:
        undo: None only where ``nothing_to_undo`` says why.
        ends_by_itself_s, pauses_s: as of ``Injection``.

    Returns:
        The fault's id.

    Raises:
        Refusal: a stop is requested, nothing would undo the fault if this process were killed, or the disk does
            not take the record; then nothing may be injected.
    """
    refuse_if_stop_requested()
    context.before_injection()
    with context.lock:
        context.faults_count += 1
        fault_id = f"{context.folder.name}-{context.faults_count}"
    target_file, utc = str(context.target.file.path), context.clock.utc().isoformat()
    try:
        if undo is not None:
            context.undo.intend(OpenFault(fault_id, fault, subject, undo, target_file, utc, prior, lease_s))
        else:
            why = nothing_to_undo
            context.undo.intend_one_shot(
                fault_id, fault, subject, why=why, target_file=target_file, prior=prior, t0_utc=utc
            )
    except OSError as error:
        raise unwritable(context.undo.path, error) from None
    course: dict[str, Json] = {} if ends_by_itself_s is None else {"ends_by_itself_s": float(ends_by_itself_s)}
    if pauses_s:
        course["pauses_s"] = round(pauses_s, 3)
    context.history.event(
        Kind.FAULT_INTENDED, subject, id=fault_id, fault=fault, parameters=dict(parameters), held=held, **course
    )
    if context.history.lost:
        raise Refusal(context.history.lost, "make room on the disk, or choose another folder with --out")
    return fault_id


def _prove(injection: Injection, handle: Any, clock: Clock, at_most_s: float) -> Evidence:
    within_s = min(injection.evidence_within_s, at_most_s)
    deadline_s = clock.monotonic_s() + within_s
    while True:
        found = injection.evidence(handle)
        if found is not None:
            return found
        if clock.monotonic_s() >= deadline_s:
            raise Unproven(
                f"{injection.fault} on {injection.subject}: injected, but no evidence of an effect within "
                f"{within_s:.3g} s; the fault is reverted"
            )
        clock.sleep_s(0.02)


def revert() -> list[str]:
    """Revert every open fault of the trial, newest first. Idempotent. An action for experiments.

    Returns:
        One sentence for each reverted fault.

    Raises:
        NotReverted: some faults could not be reverted; the others are.
    """
    context = current()
    if not context.undo.open_faults():
        return []
    context.active_faults.ending()
    done: list[str] = []
    try:
        context.before_revert()
    finally:  # Whatever that check raised, open faults are reverted.
        # From here on, the harness itself may be what improves the readings.
        context.history.event(Kind.PHASE_STARTED, "revert")
        try:
            done += _revert_open(context)
        finally:
            context.history.event(Kind.PHASE_ENDED, "revert")
    return done


def revert_fault(fault_id: str) -> list[str]:
    """Revert one fault while others stay, as a fault schedule does. Idempotent.

    Raises:
        NotReverted: the fault could not be reverted.
    """
    context = current()
    found = [one for one in context.undo.open_faults() if one.id == fault_id]
    done: list[str] = []
    try:
        for fault in found:
            # A schedule claims no healing, so a fault that is missing ended before its time.
            record_if_gone(context, fault)
            context.before_revert()
    finally:  # As in ``revert``.
        done += _revert_open(context, only=fault_id)
    return done


def record_if_gone(context: Context, fault: OpenFault) -> None:
    """Record, once, that a fault is no longer present; do nothing if it is, or if that cannot be seen."""
    if fault.id not in context.presence_checks:
        return
    with contextlib.suppress(TargetError):  # The revert itself finds out whether the target can be reached.
        if why := context.presence_checks[fault.id]():
            del context.presence_checks[fault.id]
            context.history.event(Kind.FAULT_ENDED_EARLY, fault.subject, id=fault.id, fault=fault.fault, why=why)


def _run_undo(fault: OpenFault, target: Target) -> str:
    try:
        return fault.undo.run(target, Path(fault.target_file))
    except Exception:  # An undo may raise anything. It does not matter once the target has ended.
        if is_down(target.file):
            return TARGET_DOWN
        raise


def _revert_open(context: Context, only: str | None = None) -> list[str]:
    done: list[str] = []
    failed: list[str] = []
    for fault in context.undo.open_faults():
        if only is not None and fault.id != only:
            continue
        try:
            summary = _run_undo(fault, context.target)
            context.undo.reverted(fault.id, summary)
        except Exception as error:  # One stuck undo must not keep the others from running.
            failed.append(f"{fault.fault} on {fault.subject}: {error}")
            context.history.event(
                Kind.FAULT_NOT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, why=str(error)
            )
        else:
            done.append(summary)
            context.active_faults.ended(fault.id)
            context.history.event(
                Kind.FAULT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, summary=summary
            )
    if failed:
        raise NotReverted(
            "could not be reverted: " + "; ".join(failed) + ". Fix the cause, then run 'monkeyproof revert'"
        )
    return done
