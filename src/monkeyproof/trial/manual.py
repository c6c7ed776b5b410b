"""Manual injection, from Python and under ``monkeyproof fault``: without an experiment and without sidecars.

    import monkeyproof

    with monkeyproof.break_target("target.yaml", seed=7) as monkey:
        found = monkey.inject("network.add_latency", link="features", low_ms=50, high_ms=200)
        print(found.evidence)
        ...

Manual injection is as safe as a trial: it uses the same locks, limits, undo log, watchdog, leases and final audit.
It does not measure how users fare.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from monkeyproof import paths
from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, NotReverted, Refusal, TargetError, UsageError
from monkeyproof.injection.arguments import check_arguments
from monkeyproof.injection.fault_registry import find
from monkeyproof.injection.inject import has_current, revert
from monkeyproof.record import history
from monkeyproof.record.history import HistoryWriter, Kind, events_in
from monkeyproof.runtime import trial_mark
from monkeyproof.runtime.stop_file import SIGNALS
from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on
from monkeyproof.safety.residue import Residue
from monkeyproof.targets.opening import check_answers, is_down, open_target
from monkeyproof.targets.port import Target
from monkeyproof.trial.cleanup import audit_and_reset, report_residue
from monkeyproof.trial.fault_session import FaultSession
from monkeyproof.trial.plan import TrialPlan, trial_json
from monkeyproof.trial.trial_monitor import TrialMonitor
from monkeyproof.types import Json

BY_HAND = "by-hand"
AT_MOST_S = 300.0


class EndBlock(BaseException):
    """Ends the block; not an ``Exception``, so that no ``except Exception`` in the block can stop it."""


class Ended(MonkeyproofError):
    """The block ended early, or one of its faults did; everything is reverted."""

    exit_code = EXIT_REFUSED


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that took effect."""

    id: str
    fault: str
    """``network.add_latency``"""
    subject: str
    """The part of the target that it affects: a link, a replica, a model."""
    evidence: str
    """The proof, read back from the target, in one sentence."""
    data: Mapping[str, Json] = field(default_factory=dict)
    """The same proof in figures."""


class Monkey:
    """Injects faults into one target, inside the block that ``break_target`` opens."""

    def __init__(self, faults: FaultSession) -> None:
        self._fault_session = faults
        self.folder: Path = faults.context.folder
        """The folder of its events and its undo log."""

    @property
    def target(self) -> Target:
        """The open target, for reading its state."""
        return self._fault_session.context.target

    def inject(self, name: str, /, **arguments: Json) -> Injected:
        """Inject a fault by its registered name ('monkeyproof list --faults').

        Equal to a call of its function, ``monkeyproof.faults.network.add_latency(...)``, inside the block.

        Raises:
            UsageError: there is no such fault, or its arguments are wrong; the message lists its parameters.
            Refusal: the target does not allow the fault, or a limit does not.
            Unproven: no evidence of an effect was found in time. The fault is reverted.
        """
        fault = find(name)
        check_arguments(fault, arguments)
        found = fault.function(**arguments)
        return Injected(found["id"], found["fault"], found["subject"], found["evidence"], found["data"])

    def revert(self) -> list[str]:
        """Revert everything now; the end of the block does so in any case.

        Returns:
            One sentence for each fault.

        Raises:
            NotReverted: something could not be reverted.
        """
        return revert()

    @property
    def held(self) -> list[str]:
        """The active faults: ``network.add_latency on features``."""
        return [f"{one.fault} on {one.subject}" for one in self._fault_session.log.open_faults()]

    def why_inactive(self) -> str:
        """Why a held fault is no longer active, as far as the target shows it; "" if all are active."""
        checks, words = self._fault_session.context.presence_checks, list[str]()
        for one in self._fault_session.log.open_faults():
            with contextlib.suppress(TargetError):  # The revert reports a target that does not answer.
                words += [checks[one.id]()] if one.id in checks else []
        words += [str(one.data["why"]) for one in events_in(self.folder) if one.kind is Kind.LEASE_RAN_OUT]
        return "; ".join(one for one in words if one)

    @property
    def undone(self) -> list[str]:
        """The reverts and resets so far, one sentence each."""
        found = []
        for event in events_in(self.folder):
            if event.kind is Kind.FAULT_REVERTED:
                found.append(str(event.data["summary"]))
            elif (event.kind, event.subject) == (Kind.PHASE_ENDED, "put_back"):
                found.append(f"the target, to the state that its file declares: {event.data['why']}")
        return found


@contextlib.contextmanager
def break_target(
    target: str | Path | None = None,
    *,
    seed: int = 1,
    at_most_s: float = AT_MOST_S,
    folder: Path | None = None,
    own_process: bool = False,
) -> Iterator[Monkey]:
    """Open a target for manual injection, and revert all faults on every way out, exceptions included.

    Args:
        target: path of the target file; None for the running embedded target.
        seed: seed of everything that faults draw at random.
        at_most_s: how long a fault may be held; a little later (by the target's windows) the block is ended.
        folder: for its events and its undo log. Default: one in the harness's home.
        own_process: whether this process does nothing else, so that the audit reports processes that it leaves.

    Raises:
        UsageError: the target does not answer; or this is not the main thread, the only one that can be ended.
        Refusal: another campaign uses the target, or an earlier fault may still be active.
        Ended: the block had to end early: 'monkeyproof stop', or ``at_most_s``.
        NotReverted: there is residue. If that is a fault, the undo log stays open.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("manual injection works on the main thread only: no other thread can be ended in time")
    if has_current():
        raise Refusal("a trial or another block is open in this process", "end that one first")
    path = Path(target) if target is not None else None
    with clear_to_inject(), sole_campaign_on(path or paths.target_dir() / "target.yaml"):
        held = ManualSession(path, seed, at_most_s, folder or _new_folder(), own_process=own_process)
        with held.signals():
            try:
                yield held.open()
            finally:
                held.close()


class ManualSession:
    """Everything around the block: the fault session, the monitor that may end the block, and the end itself."""

    def __init__(self, path: Path | None, seed: int, at_most_s: float, folder: Path, *, own_process: bool) -> None:
        self._path, self._seed, self._at_most_s, self._folder = path, seed, at_most_s, folder
        self._own_process = own_process
        self._exits = contextlib.ExitStack()
        self._fault_session: FaultSession | None = None
        self._monitor: TrialMonitor | None = None
        self._why = ""
        self._lost = ""
        """Why a fault ended by itself: later observations of the block were made without it."""

    def open(self) -> Monkey:
        clock = SystemClock()
        try:
            target = open_target(self._path)
            self._exits.callback(target.close)
            check_answers(target)
            paths.make_private(self._folder)
            self._folder = self._folder.resolve()
            if self._own_process:
                trial_mark.set_mark(self._folder)
                self._exits.callback(trial_mark.clear_mark)
            anchor = Anchor.now(clock)
            plan = TrialPlan(
                BY_HAND, "Manual injection", "", self._seed, "none", 0, str(target.file.path), str(self._folder)
            )
            history.write_json(self._folder / history.TRIAL_FILE, trial_json(plan, target.file, anchor))
            writer = HistoryWriter(self._folder, anchor, BY_HAND, clock, keeps_going=True)
            self._exits.callback(writer.close)
            faults = FaultSession(
                self._exits, target, writer, seed=self._seed, arm="none", clock=clock, ends_group=False
            )
            faults.context.active_faults.hold_at_most_s = self._at_most_s
            self._fault_session = faults
            writer.event(Kind.TRIAL_STARTED, BY_HAND, title=plan.title)
            faults.begin_audit()
            self._monitor = TrialMonitor(
                self._end, writer.why_unrecorded, faults.why_target_ended, faults.why_too_long
            )
        except BaseException:
            if self._fault_session is None:
                self._exits.close()
            raise
        return Monkey(faults)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """End the block at the first signal, Ctrl-C as usual; the signal takes effect after the revert."""
        old = {number: signal.getsignal(number) for number in SIGNALS}
        got: list[int] = []

        def end_block(number: int, frame: FrameType | None) -> None:
            before = old[signal.Signals(number)]
            if number == signal.SIGINT and callable(before):
                before(number, frame)
                return
            for other in SIGNALS:
                signal.signal(other, signal.SIG_IGN)
            if not self._why:
                got.append(number)
            raise EndBlock

        for number in SIGNALS:
            if number != signal.SIGINT or old[number] is not signal.SIG_IGN:  # A shell's background job.
                signal.signal(number, end_block)
        try:
            yield
        except EndBlock:
            pass
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        if self._why:
            raise Ended(f"ended early: {self._why}; what was injected is reverted")
        for one in got:
            signal.raise_signal(one)
        if self._lost:
            raise Ended(f"a fault was not active all the time: {self._lost}")

    def close(self) -> None:
        """Revert all faults, audit the target, and reset it to the state that its file declares.

        Raises:
            NotReverted: there is residue.
        """
        for number in SIGNALS:  # No signal may interrupt the revert.
            signal.signal(number, signal.SIG_IGN)
        if self._monitor is not None:
            self._monitor.end()
        faults, self._fault_session = self._fault_session, None
        if faults is None:
            return
        context, audit = faults.context, faults.audit
        residue: list[Residue] = []
        with self._exits:
            status = "not reverted"
            try:
                failed = faults.revert_all()
                if audit is not None and not is_down(context.target.file):
                    found = (
                        audit.left(events_in(self._folder))
                        if failed
                        else audit_and_reset(audit, context.target, context.history)
                    )
                    # Changes that the block's own code made to the target are intended.
                    residue = [one for one in found if not one.of_others]
                status = "not reverted" if failed or residue else "closed"
            finally:
                context.history.event(Kind.TRIAL_ENDED, BY_HAND, status=status)
        ran_out = [str(one.data["why"]) for one in events_in(self._folder) if one.kind is Kind.LEASE_RAN_OUT]
        self._lost = "; ".join(ran_out)
        if audit is not None and self._own_process:
            residue += audit.strays()
        try:
            report_residue(self._folder, context.history.anchor, residue)
        except NotReverted as error:
            raise NotReverted("; ".join(str(one) for one in (failed, error) if one)) from None
        if failed is not None:
            raise failed

    def _end(self, why: str) -> None:
        """Record why the block ends. Called beside the main thread, which is interrupted next."""
        self._why = why
        if self._fault_session is not None:
            self._fault_session.context.history.event(Kind.TRIAL_ABORTED, BY_HAND, why=why)


def _new_folder() -> Path:
    return paths.home() / BY_HAND / f"{SystemClock().utc():%Y%m%d-%H%M%S-%f}-{os.getpid()}"
