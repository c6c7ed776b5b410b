"""Injecting a fault: record, act, prove; and taking it back. The same steps for every family of faults."""

from __future__ import annotations

import contextlib
import math
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from monkeyproof.clock import Clock, SystemClock
from monkeyproof.errors import NotReverted, Refusal, TargetError, Unproven
from monkeyproof.injection.active import ActiveFaults
from monkeyproof.record.history import HistoryWriter, Kind
from monkeyproof.runtime.stop_file import refuse_if_stopped
from monkeyproof.targets.opening import GONE, is_gone
from monkeyproof.targets.port import Target
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import OpenFault, Undo, UndoLog, unwritable
from monkeyproof.undo.plugin_undo import origin_of, why_lost


@dataclass(frozen=True, slots=True)
class Injection:
    """One fault, ready to be injected. Building one changes nothing."""

    fault: str
    """``family.name``, such as ``network.add_latency``."""
    subject: str
    """What it is done to: a link, a replica, a model."""
    parameters: Mapping[str, Json]
    apply: Callable[[], Any]
    """Do it; what it returns is handed to ``evidence``."""
    evidence: Callable[[Any], Evidence | None]
    """Read the proof back from the target; None while there is none yet. Polled."""
    undo: Undo | None
    """How to take it back. None only where ``one_shot`` says why there is nothing to take back."""
    evidence_within_s: float = 5.0
    prior: Mapping[str, Json] = field(default_factory=dict)
    """What it found before it acted; on record with the intent, for whoever has to mend by hand."""
    lease_s: float | None = None
    """After how long without renewal it ends by itself, at its own place. None: it does not."""
    ends_by_itself_s: float | None = None
    """How long after its intent, at the soonest, a timer of its own begins to end it. None: it has none. What gets
    better from then on is never taken for healing."""
    pauses_s: float = 0.0
    """For how long at most it goes away by itself, to come back. What is good no longer is not recovered."""
    why_gone: Callable[[], str] | None = None
    """Looks whether it is still there, and says why not; "" while it is. None: its lease tells, or nothing can."""
    one_shot: str = ""
    """Why nothing can be taken back: it is over the moment that it is done (a kill)."""

    @property
    def held(self) -> bool:
        """Whether the fault lasts until it is taken back."""
        return self.undo is not None


@dataclass
class Context:
    """The open trial, as its activities see it: there is at most one a process."""

    folder: Path
    target: Target
    history: HistoryWriter
    undo: UndoLog
    seed: int
    arm: str
    clock: Clock = field(default_factory=SystemClock)
    watched_from_s: float | None = None
    """Since when, in the trial's time, the target is as declared, under load and probed. None: not yet known."""
    faults_count: int = 0
    prove_within_s: float = math.inf
    """Of the fault that is injected next: no longer than it is wanted is its proof waited for."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    before_injection: Callable[[], None] = lambda: None
    """Refuses where nobody would take the fault back if this process were killed."""
    before_revert: Callable[[], None] = lambda: None
    """Looks whether all that was injected is still there, for otherwise nothing was measured."""
    looks: dict[str, Callable[[], str]] = field(default_factory=dict)
    """Of faults that are in effect, by id: why each is not there any more; "" while it is."""
    why_blind: Callable[[], str] = lambda: ""
    """Why nothing that happens from now on can be judged: an observer has died. Empty while all of them live."""
    planned: list[Injection] | None = None
    """A list: nothing is injected, and what would have been stands in it afterwards."""
    guards: list[str] = field(default_factory=list)
    """What was checked against the target's limits, in words."""
    in_force: ActiveFaults = field(default_factory=ActiveFaults)
    """This harness's own faults that are held at this moment."""

    def rng(self, purpose: str) -> np.random.Generator:
        """Randomness that depends on the trial's seed and on the purpose alone, not on the order of calls."""
        return np.random.default_rng([self.seed, zlib.crc32(purpose.encode())])


_current: Context | None = None


def set_current(context: Context | None) -> None:
    global _current
    _current = context


def current() -> Context:
    """The open trial.

    Raises:
        Refusal: there is none, so there would be no record, no proof and no way back.
    """
    if _current is None:
        raise Refusal(
            "no trial is open",
            "run the experiment with 'monkeyproof run', or name the control monkeyproof.control in it",
        )
    return _current


def has_current() -> bool:
    return _current is not None


def within_limit(name: str, value: float, what: str, *, adds_up: bool = False) -> None:
    """Hold a fault against one of the target's limits, before anything is done.

    Args:
        name: of the limit, as ``monkeyproof.config.limits.Limits`` has it.
        what: the fault, and what of it is limited, for a person.
        adds_up: count what the faults that are in force use already. Where they are is not asked: one request
            may meet all of them.

    Raises:
        Refusal: it goes further than the target allows.
    """
    context = current()
    file = context.target.file
    limit = getattr(file.limits_in_force, name)
    if limit is None:
        return
    before = context.in_force.used(name) if adds_up else 0.0
    if before:
        what += f", together with the {before:g} of what is in force already,"
    together = min(value + before, 1.0) if name == "rows_share" else value + before
    context.guards.append(f"{name}: {together:g} of at most {limit:g}")
    if together > limit:
        raise Refusal(
            f"{what} would be {together:g}, and target {file.name!r} allows {name} {limit:g}",
            f"have the experiment do less, or raise limits.{name} in {file.path} if that may be",
        )
    if adds_up:
        context.in_force.will_use(name, value)


def inject(injection: Injection) -> dict[str, Json]:
    """Inject one fault: intent synced to disk, then the act, then the proof.

    Returns:
        ``{"id", "fault", "subject", "evidence", "data"}``, which Chaos Toolkit keeps in its journal.

    Raises:
        Refusal: the target does not allow this family of faults, no trial is open, or nothing would take it back.
        Unproven: no evidence of an effect was found in time. It was taken back.
        Exception: whatever the act raised. It was taken back.
    """
    context = current()
    undo = _undo_to_record(context, injection)
    if context.planned is not None:
        context.planned.append(injection)
        context.in_force.begins("", context.clock.monotonic_s(), held=injection.held)
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
    context.in_force.begins(fault_id, context.clock.monotonic_s(), held=injection.held)
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
    """Do what is on record, and await its proof; what fails is undone.

    Raises:
        Exception: whatever the act raised, or that there is no proof.
    """
    try:
        evidence = _prove(injection, injection.apply(), context.clock, context.prove_within_s)
        context.undo.effective(fault_id, evidence.summary)
        if injection.why_gone is not None:
            context.looks[fault_id] = injection.why_gone
    except Exception as error:  # Whatever it was, the fault may be there by now; it is raised again.
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
    """Put on disk that a fault is about to be injected, with how to take it back. This instant is t0.

    Args:
        undo: None only where ``nothing_to_undo`` says why.
        ends_by_itself_s, pauses_s: as of ``Injection``.

    Returns:
        The fault's id.

    Raises:
        Refusal: somebody asked for everything to stop, nobody stands by to undo the fault if this process is
            killed, or the disk does not take it; then nothing may be injected.
    """
    refuse_if_stopped()
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
                f"{within_s:.3g} s; it was taken back"
            )
        clock.sleep_s(0.02)


def revert() -> list[str]:
    """Take back every open fault of the trial, newest first. Idempotent. An action for experiments.

    Returns:
        One sentence for each fault that was taken back.

    Raises:
        NotReverted: some could not be; the others were.
    """
    context = current()
    if not context.undo.open_faults():
        return []
    context.in_force.ending()
    done: list[str] = []
    try:
        context.before_revert()
    finally:  # Whatever became of that look, what is open is taken back.
        # From here on, what gets better may be the Monkey's own doing.
        context.history.event(Kind.PHASE_STARTED, "revert")
        try:
            done += _revert_open(context)
        finally:
            context.history.event(Kind.PHASE_ENDED, "revert")
    return done


def take_back(fault_id: str) -> list[str]:
    """Take back one fault where others stay, as in a storm. Idempotent.

    Raises:
        NotReverted: it could not be.
    """
    context = current()
    found = [one for one in context.undo.open_faults() if one.id == fault_id]
    done: list[str] = []
    try:
        for fault in found:
            # No healing is claimed where faults come and go, so whoever ended it did so before its time.
            note_if_gone(context, fault)
            context.before_revert()
    finally:  # As in ``revert``.
        done += _revert_open(context, only=fault_id)
    return done


def note_if_gone(context: Context, fault: OpenFault) -> None:
    """Put on record, once, that a fault is not there any more; nothing if it is, or nobody can tell."""
    if fault.id not in context.looks:
        return
    with contextlib.suppress(TargetError):  # Whether it can be reached, the revert itself tells.
        if why := context.looks[fault.id]():
            del context.looks[fault.id]
            context.history.event(Kind.FAULT_TAKEN_AWAY, fault.subject, id=fault.id, fault=fault.fault, why=why)


def _take_back(fault: OpenFault, target: Target) -> str:
    try:
        return fault.undo.run(target, Path(fault.target_file))
    except Exception:  # An undo of anybody's. Only where the target is gone does it not matter.
        if is_gone(target.file):
            return GONE
        raise


def _revert_open(context: Context, only: str | None = None) -> list[str]:
    done: list[str] = []
    failed: list[str] = []
    for fault in context.undo.open_faults():
        if only is not None and fault.id != only:
            continue
        try:
            summary = _take_back(fault, context.target)
            context.undo.reverted(fault.id, summary)
        except Exception as error:  # One stuck undo must not keep the others from running.
            failed.append(f"{fault.fault} on {fault.subject}: {error}")
            context.history.event(
                Kind.FAULT_NOT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, why=str(error)
            )
        else:
            done.append(summary)
            context.in_force.ended(fault.id)
            context.history.event(
                Kind.FAULT_REVERTED, fault.subject, id=fault.id, fault=fault.fault, summary=summary
            )
    if failed:
        raise NotReverted(
            "could not be reverted: " + "; ".join(failed) + ". Mend the cause, then run 'monkeyproof revert'"
        )
    return done
