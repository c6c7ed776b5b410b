"""An open trial: what stands around an experiment's activities, from the first observer to the last undo."""

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
from monkeyproof.runtime import procfs
from monkeyproof.safety.residue import Residue
from monkeyproof.targets.opening import check_answers, is_gone, open_target
from monkeyproof.trial.cleanup import look_and_put_back, put_back, tell
from monkeyproof.trial.fault_session import FaultSession
from monkeyproof.trial.plan import TrialPlan, trial_json
from monkeyproof.trial.sidecars import Sidecars, start_observers
from monkeyproof.trial.trial_monitor import TrialMonitor


class TrialSession:
    """A trial from its first observer to its last undo. ``close`` is safe at any point, and twice."""

    def __init__(self, plan: TrialPlan, observers: Sidecars | None = None) -> None:
        self.plan = plan
        self.folder = Path(plan.folder).resolve()
        self._clock = SystemClock()
        self._exits = contextlib.ExitStack()
        self._context: Context | None = None
        self._observers = observers
        self._prepared_s = 0.0
        self._overseer: TrialMonitor | None = None
        self._ground: FaultSession | None = None
        self._aborted = ""

    def start(self, hold_at_most_s: float = 0.0) -> None:
        """Prepare the trial if that is not done, and wait until load, prober and healer work.

        Args:
            hold_at_most_s: the longest time for which the experiment asks for a fault to be held.

        Raises:
            UsageError: the target does not answer, or an observer does not start; or there is no such arm.
        """
        if self._context is None:
            self.prepare()
        assert self._context is not None
        assert self._observers is not None
        self._context.active_faults.hold_at_most_s = hold_at_most_s
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
        ground = self._ground = FaultSession(
            self._exits, target, writer, seed=self.plan.seed, arm=self.plan.arm, clock=self._clock
        )
        self._context = ground.context
        self._context.why_blind = self._observers.why_blind
        writer.event(Kind.TRIAL_STARTED, self.plan.experiment, title=self.plan.title)
        looks = (
            self._observers.why_unwatched,
            writer.why_unrecorded,
            ground.why_gone,
            ground.why_too_long,
        )
        self._overseer = TrialMonitor(self.abort, *looks)
        put_back(target, writer, "prepare")
        ground.look()
        self._prepared_s = writer.now_s()
        self._observers.let_heal()

    def close(self) -> None:
        """Revert what is open, put the target back, end the observers, close the history.

        Raises:
            NotReverted: something is left. If that is a fault, the undo log stays open.
        """
        if self._overseer is not None:
            self._overseer.end()
        if self._context is not None and self._ground is not None and (why := self._ground.why_gone()):
            self.abort(why)
        context, self._context = self._context, None
        residue: list[Residue] = []
        failed: NotReverted | None = None
        unwritten: list[OSError] = []
        with _kept_in(unwritten), self._exits:
            if context is None or self._ground is None:
                procfs.unmark()
                return
            context.history.event(Kind.TRIAL_ENDING, self.plan.experiment)
            if self._observers is not None and not self._observers.why_unwatched():
                # What follows is what it could ask for.
                self._observers.end("sentry")
            status = "not reverted"
            try:
                failed = self._ground.take_back()
                residue = self._look_and_put_back(context, reverted=not failed)
                status = "not reverted" if failed or residue else "closed"
            finally:
                context.history.event(Kind.TRIAL_ENDED, self.plan.experiment, status=status)
        procfs.unmark()
        residue += self._ground.audit.strays() if self._ground.audit is not None else []
        try:
            tell(self.folder, context.history.anchor, residue)
        except NotReverted as error:
            raise NotReverted("; ".join(str(one) for one in (failed, error) if one)) from None
        if failed is not None:
            raise failed
        if unwritten:
            raise unwritten[0]

    @property
    def end_words(self) -> str:
        """What became of what was injected."""
        return "nothing had been injected" if self._ground is None else self._ground.log.known.end_words

    @property
    def is_open(self) -> bool:
        """Whether something that was injected may still be there."""
        return self._ground is not None and bool(self._ground.log.open_faults())

    def _look_and_put_back(self, context: Context, *, reverted: bool) -> list[Residue]:
        if self._observers is not None:
            for name, why in self._observers.dead().items():
                context.history.event(Kind.OBSERVER_DIED, name, why=why)
            # No healer acts while the harness itself puts the target back.
            self._observers.end("healer", "load")
        if is_gone(context.target.file):
            return []
        audit = self._ground.audit if self._ground is not None else None
        if not reverted:  # It would be put back under a fault; 'monkeyproof revert' comes first.
            return audit.left(events_in(self.folder)) if audit is not None else []
        # Watching ends where that phase starts: what gets better from there on is our doing.
        return look_and_put_back(audit, context.target, context.history)

    def note_failure(self, activity: str, error: MonkeyproofError) -> None:
        """Write down that an action of the method failed, so that no trial is judged without its fault."""
        if self._context is not None:
            self._context.history.event(Kind.FAULT_UNPROVEN, activity, id="", fault=activity, why=str(error))

    @property
    def aborted(self) -> str:
        """Why the trial ended before its time, as it was first written down; "" if it was not."""
        with contextlib.suppress(OSError, UsageError):
            for event in events_in(self.folder):
                if event.kind is Kind.TRIAL_ABORTED:
                    return str(event.data.get("why", ""))
        return self._aborted

    def abort(self, why: str) -> None:
        """Write down that the trial ended before its time, unless somebody else has said why."""
        if self._context is not None and not self.aborted:
            self._aborted = why
            self._context.history.event(Kind.TRIAL_ABORTED, self.plan.experiment, why=why)


@contextlib.contextmanager
def _kept_in(errors: list[OSError]) -> Iterator[None]:
    """What a disk did not take must not keep anybody from looking at what is left."""
    try:
        yield
    except OSError as error:
        errors.append(error)
