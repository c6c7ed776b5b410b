"""An open trial: what stands around an experiment's activities, from the first observer to the last undo."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path

from monkeyproof import history, processes
from monkeyproof.aftermath import events_so_far, look_and_put_back, put_back, tell
from monkeyproof.clock import SystemClock
from monkeyproof.errors import MonkeyproofError, NotReverted, TargetError, UsageError
from monkeyproof.history import HistoryWriter, Kind
from monkeyproof.injection import Context, revert, set_current
from monkeyproof.observers import Observers, start_observers
from monkeyproof.overseer import Overseer
from monkeyproof.residue import Audit, Residue
from monkeyproof.safeguards import Safeguards
from monkeyproof.targets.opening import check_answers, is_gone, open_target
from monkeyproof.targets.port import Target
from monkeyproof.trial_plan import TrialPlan, trial_json
from monkeyproof.undo import begin, undo_dir


class OpenTrial:
    """A trial from its first observer to its last undo. ``close`` is safe at any point, and twice."""

    def __init__(self, plan: TrialPlan, observers: Observers | None = None) -> None:
        self.plan = plan
        self.folder = Path(plan.folder).resolve()
        self._clock = SystemClock()
        self._exits = contextlib.ExitStack()
        self._context: Context | None = None
        self._observers = observers
        self._prepared_s = 0.0
        self._overseer: Overseer | None = None
        self._audit: Audit | None = None
        self._aborted = ""

    def start(self) -> None:
        """Prepare the trial if that is not done, and wait until load, prober and healer work.

        Raises:
            UsageError: the target does not answer, or an observer does not start; or there is no such arm.
        """
        if self._context is None:
            self.prepare()
        assert self._context is not None
        assert self._observers is not None
        self._context.watched_from_s = max(self._prepared_s, self._observers.await_working())
        if self._context.target.file.abort_if:
            self._observers.stand_sentry(self._context.target.file.path)

    def prepare(self) -> None:
        """Have the observers start, open the target, write what is tried, and put the target back.

        Raises:
            UsageError: the target does not answer, or there is no such arm.
        """
        path = Path(self.plan.target) if self.plan.target else None
        if self._observers is None:
            self._observers = start_observers(asdict(self.plan))
        try:
            target = open_target(path)
            self._exits.callback(target.close)
            self._exits.callback(self._observers.close)
            check_answers(target)
        except BaseException:
            self._exits.close()
            self._observers.discard()
            raise
        anchor = self._observers.anchor
        history.write_json(self.folder / history.TRIAL_FILE, trial_json(self.plan, target.file, anchor))
        writer = HistoryWriter(self.folder, anchor, "trial", self._clock, keeps_going=True)
        self._exits.callback(writer.close)
        log = begin(undo_dir() / f"{run_name(self.folder)}.jsonl")
        # Closed after the log: a worker that is killed while it closes that is still watched.
        safeguards = Safeguards(log.path, self.folder, target, writer)
        self._exits.callback(safeguards.close)
        self._exits.callback(log.close, self.folder / history.UNDO_FILE)
        context = Context(self.folder, target, writer, log, self.plan.seed, self.plan.arm, self._clock)
        context.before_injection = safeguards.check
        context.before_revert = lambda: self._before_revert(context, safeguards)
        self._context = context
        set_current(context)
        self._exits.callback(set_current, None)
        writer.event(Kind.TRIAL_STARTED, self.plan.experiment, title=self.plan.title)
        looks = (self._observers.why_unwatched, writer.why_unrecorded, lambda: _why_gone(target))
        self._overseer = Overseer(self.abort, *looks)
        put_back(target, writer, "prepare")
        self._audit = Audit.begin(target, self.folder)
        self._prepared_s = writer.now_s()
        self._observers.let_heal()

    def close(self) -> None:
        """Revert what is open, put the target back, end the observers, close the history.

        Raises:
            NotReverted: something is left. If that is a fault, the undo log stays open.
        """
        if self._overseer is not None:
            self._overseer.end()
        if self._context is not None and (why := _why_gone(self._context.target)):
            self.abort(why)
        context, self._context = self._context, None
        residue: list[Residue] = []
        with self._exits:
            if context is None:
                processes.unmark()
                return
            context.history.event(Kind.TRIAL_ENDING, self.plan.experiment)
            if self._observers is not None and not self._observers.why_unwatched():
                # What follows is what it could ask for.
                self._observers.end("sentry")
            status = "not reverted"
            try:
                failed = self._revert()
                residue = self._look_and_put_back(context, reverted=not failed)
                status = "not reverted" if failed or residue else "closed"
            finally:
                context.history.event(Kind.TRIAL_ENDED, self.plan.experiment, status=status)
        processes.unmark()
        residue += self._audit.strays() if self._audit is not None else []
        try:
            tell(self.folder, context.history.anchor, residue)
        except NotReverted as error:
            raise NotReverted("; ".join(str(one) for one in (failed, error) if one)) from None
        if failed is not None:
            raise failed

    def _revert(self) -> NotReverted | None:
        try:
            revert()
        except NotReverted as error:  # What else is left has to be known as well.
            return error
        return None

    def _look_and_put_back(self, context: Context, *, reverted: bool) -> list[Residue]:
        if self._observers is not None:
            for name, why in self._observers.dead().items():
                context.history.event(Kind.OBSERVER_DIED, name, why=why)
            # No healer acts while the harness itself puts the target back.
            self._observers.end("healer", "load")
        if is_gone(context.target.file):
            return []
        if not reverted:  # It would be put back under a fault; 'monkeyproof revert' comes first.
            return self._audit.left(events_so_far(self.folder)) if self._audit is not None else []
        # Watching ends where that phase starts: what gets better from there on is our doing.
        return look_and_put_back(self._audit, context.target, context.history)

    def _before_revert(self, context: Context, safeguards: Safeguards) -> None:
        safeguards.settle()
        of_data = any(one.fault.startswith("data.") for one in context.undo.open_faults())
        if of_data and self._audit is not None:
            # What cannot be asked now is told by the look at the fault proxy.
            with contextlib.suppress(TargetError):
                self._audit.note_written()

    def note_failure(self, activity: str, error: MonkeyproofError) -> None:
        """Write down that an action of the method failed, so that no trial is judged without its fault."""
        if self._context is not None:
            self._context.history.event(Kind.FAULT_UNPROVEN, activity, id="", fault=activity, why=str(error))

    @property
    def aborted(self) -> str:
        """Why the trial ended before its time, as it was first written down; "" if it was not."""
        with contextlib.suppress(OSError, UsageError):
            for event in events_so_far(self.folder):
                if event.kind is Kind.TRIAL_ABORTED:
                    return str(event.data.get("why", ""))
        return self._aborted

    def abort(self, why: str) -> None:
        """Write down that the trial ended before its time, unless somebody else has said why."""
        if self._context is not None and not self.aborted:
            self._aborted = why
            self._context.history.event(Kind.TRIAL_ABORTED, self.plan.experiment, why=why)


def _why_gone(target: Target) -> str:
    return "the embedded target ended in the middle of the trial" if is_gone(target.file) else ""


def run_name(folder: Path) -> str:
    """What a trial is called where those of all campaigns are: ``CAMPAIGN-TRIAL``."""
    campaign = folder.parent if folder.parent.name != "trials" else folder.parent.parent
    return f"{campaign.name}-{folder.name}"
