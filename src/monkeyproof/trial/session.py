"""A trial session: everything around an experiment's activities, from the first sidecar to the last undo."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from monkeyproof.clock import SystemClock
from monkeyproof.errors import MonkeyproofError, NotReverted, UsageError
from monkeyproof.injection.inject import Context
from monkeyproof.record import history
from monkeyproof.record.history import HistoryWriter, Kind, events_in
from monkeyproof.runtime import trial_mark
from monkeyproof.safety.residue import Residue
from monkeyproof.targets.opening import check_answers, is_down, open_target
from monkeyproof.trial.cleanup import audit_and_reset, report_residue, reset_target
from monkeyproof.trial.fault_session import FaultSession
from monkeyproof.trial.plan import TrialPlan, trial_json
from monkeyproof.trial.sidecars import Sidecars, start_sidecars
from monkeyproof.trial.trial_monitor import TrialMonitor


class TrialSession:
    """A trial from its first sidecar to its last undo. ``close`` is safe at any point, and idempotent."""

    def __init__(self, plan: TrialPlan, sidecars: Sidecars | None = None) -> None:
        self.plan = plan
        self.folder = Path(plan.folder).resolve()
        self._clock = SystemClock()
        self._exits = contextlib.ExitStack()
        self._context: Context | None = None
        self._sidecars = sidecars
        self._prepared_s = 0.0
        self._monitor: TrialMonitor | None = None
        self._fault_session: FaultSession | None = None
        self._aborted = ""

    def start(self, hold_at_most_s: float = 0.0) -> None:
        """Prepare the trial if that is not done, and wait until load, prober and healer work.

        Args:
            hold_at_most_s: the longest hold that the experiment asks for; 0 leaves it to the target file.

        Raises:
            UsageError: the target does not answer, a sidecar does not start, or there is no such arm.
        """
        if self._context is None:
            self.prepare()
        assert self._context is not None
        assert self._sidecars is not None
        self._context.active_faults.hold_at_most_s = hold_at_most_s
        self._context.watched_from_s = max(self._prepared_s, self._sidecars.wait_until_working())
        if self._context.target.file.abort_if:
            self._sidecars.start_abort_monitor(self._context.target.file.path)

    def prepare(self) -> None:
        """Start the sidecars, open the target, record the plan, and reset the target.

        Raises:
            UsageError: the target does not answer, or there is no such arm.
        """
        path = Path(self.plan.target) if self.plan.target else None
        if self._sidecars is None:
            self._sidecars = start_sidecars(asdict(self.plan))
        try:
            target = open_target(path)
            self._exits.callback(target.close)
            self._exits.callback(self._sidecars.close)
            check_answers(target)
        except BaseException:
            self._exits.close()
            self._sidecars.discard()
            raise
        anchor = self._sidecars.anchor
        history.write_json(self.folder / history.TRIAL_FILE, trial_json(self.plan, target.file, anchor))
        writer = HistoryWriter(self.folder, anchor, "trial", self._clock, keeps_going=True)
        self._exits.callback(writer.close)
        faults = self._fault_session = FaultSession(
            self._exits, target, writer, seed=self.plan.seed, arm=self.plan.arm, clock=self._clock
        )
        self._context = faults.context
        self._context.why_blind = self._sidecars.why_blind
        writer.event(Kind.TRIAL_STARTED, self.plan.experiment, title=self.plan.title)
        checks = (
            self._sidecars.why_unwatched,
            writer.why_unrecorded,
            faults.why_target_ended,
            faults.why_too_long,
        )
        self._monitor = TrialMonitor(self.abort, *checks)
        reset_target(target, writer, "prepare")
        faults.begin_audit()
        self._prepared_s = writer.now_s()
        self._sidecars.release_healer()

    def close(self) -> None:
        """Revert open faults, audit and reset the target, end the sidecars, close the history.

        Raises:
            NotReverted: there is residue. If that is a fault, the undo log stays open.
        """
        if self._monitor is not None:
            self._monitor.end()
        faults = self._fault_session
        if self._context is not None and faults is not None and (why := faults.why_target_ended()):
            self.abort(why)
        context, self._context = self._context, None
        residue: list[Residue] = []
        failed: NotReverted | None = None
        unwritten: list[OSError] = []
        with _collecting(unwritten), self._exits:
            if context is None or faults is None:
                trial_mark.clear_mark()
                return
            context.history.event(Kind.TRIAL_ENDING, self.plan.experiment)
            if self._sidecars is not None and not self._sidecars.why_unwatched():
                # The rest is what its conditions would demand anyway.
                self._sidecars.end("sentry")
            status = "not reverted"
            try:
                failed = faults.revert_all()
                residue = self._audit_and_reset(context, reverted=not failed)
                status = "not reverted" if failed or residue else "closed"
            finally:
                context.history.event(Kind.TRIAL_ENDED, self.plan.experiment, status=status)
        trial_mark.clear_mark()
        residue += faults.audit.strays() if faults.audit is not None else []
        try:
            report_residue(self.folder, context.history.anchor, residue)
        except NotReverted as error:
            raise NotReverted("; ".join(str(one) for one in (failed, error) if one)) from None
        if failed is not None:
            raise failed
        if unwritten:
            raise unwritten[0]

    @property
    def end_summary(self) -> str:
        """The state of the injected faults, for a message."""
        faults = self._fault_session
        return "nothing had been injected" if faults is None else faults.log.known.end_summary

    @property
    def is_open(self) -> bool:
        """Whether an injected fault may still be active."""
        return self._fault_session is not None and bool(self._fault_session.log.open_faults())

    def _audit_and_reset(self, context: Context, *, reverted: bool) -> list[Residue]:
        if self._sidecars is not None:
            for name, why in self._sidecars.dead().items():
                context.history.event(Kind.OBSERVER_DIED, name, why=why)
            # No healer acts while the harness resets the target.
            self._sidecars.end("healer", "load")
        if is_down(context.target.file):
            return []
        audit = self._fault_session.audit if self._fault_session is not None else None
        if not reverted:  # A reset would run under a fault; 'monkeyproof revert' comes first.
            return audit.left(events_in(self.folder)) if audit is not None else []
        # The judged readings end where that phase starts: later improvements are due to the reset.
        return audit_and_reset(audit, context.target, context.history)

    def note_failure(self, activity: str, error: MonkeyproofError) -> None:
        """Record that an action of the method failed, so that no trial is judged without its fault."""
        if self._context is not None:
            self._context.history.event(Kind.FAULT_UNPROVEN, activity, id="", fault=activity, why=str(error))

    @property
    def aborted(self) -> str:
        """The first recorded reason for which the trial ended early; "" if it did not."""
        with contextlib.suppress(OSError, UsageError):
            for event in events_in(self.folder):
                if event.kind is Kind.TRIAL_ABORTED:
                    return str(event.data.get("why", ""))
        return self._aborted

    def abort(self, why: str) -> None:
        """Record that the trial ended early, unless a reason is recorded already."""
        if self._context is not None and not self.aborted:
            self._aborted = why
            self._context.history.event(Kind.TRIAL_ABORTED, self.plan.experiment, why=why)


@contextlib.contextmanager
def _collecting(errors: list[OSError]) -> Iterator[None]:
    """Collect write errors: a full disk must not prevent the audit."""
    try:
        yield
    except OSError as error:
        errors.append(error)
