"""Faults by hand: from Python, and under ``monkeyproof fault``; without an experiment, and without observers.

    import monkeyproof

    with monkeyproof.break_target("target.yaml", seed=7) as monkey:
        found = monkey.inject("network.add_latency", link="features", low_ms=50, high_ms=200)
        print(found.evidence)
        ...

It is as safe as a trial: the locks, the limits, the undo log, the watchdog, the leases, the look at what is left.
Nothing is measured: how users fare is what trials are for.
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
from monkeyproof.runtime import procfs
from monkeyproof.runtime.stop_file import SIGNALS
from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on
from monkeyproof.safety.residue import Residue
from monkeyproof.targets.opening import check_answers, is_gone, open_target
from monkeyproof.targets.port import Target
from monkeyproof.trial.cleanup import look_and_put_back, tell
from monkeyproof.trial.fault_session import FaultSession
from monkeyproof.trial.plan import TrialPlan, trial_json
from monkeyproof.trial.trial_monitor import TrialMonitor
from monkeyproof.types import Json

BY_HAND = "by-hand"
AT_MOST_S = 300.0


class EndBlock(BaseException):
    """The block has to end, whatever is in it: no ``except Exception`` may hold that up."""


class Ended(MonkeyproofError):
    """Faults by hand ended before their time; they were taken back."""

    exit_code = EXIT_REFUSED


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that took effect."""

    id: str
    fault: str
    """``network.add_latency``"""
    subject: str
    """What it was done to: a link, a replica, a model."""
    evidence: str
    """The proof, read back from the target, in one sentence."""
    data: Mapping[str, Json] = field(default_factory=dict)
    """The same, in figures."""


class Monkey:
    """Breaks one target by hand, for as long as the block lasts that ``break_target`` opened."""

    def __init__(self, ground: FaultSession) -> None:
        self._ground = ground
        self.folder: Path = ground.context.folder
        """Where its events and its undo log are kept."""

    @property
    def target(self) -> Target:
        """The open target, for whoever wants to look at it."""
        return self._ground.context.target

    def inject(self, name: str, /, **arguments: Json) -> Injected:
        """Inject a fault by its name in the registry ('monkeyproof list --faults').

        The same as to call its function, ``monkeyproof.faults.network.add_latency(...)``, in here.

        Raises:
            UsageError: there is no such fault, or its arguments are wrong; says which it takes.
            Refusal: the target does not allow it, or not so much of it.
            Unproven: no evidence of an effect was found in time. It was taken back.
        """
        fault = find(name)
        check_arguments(fault, arguments)
        found = fault.function(**arguments)
        return Injected(found["id"], found["fault"], found["subject"], found["evidence"], found["data"])

    def revert(self) -> list[str]:
        """Take everything back now; the way out of the block does so in any case. One sentence for each fault.

        Raises:
            NotReverted: something could not be taken back.
        """
        return revert()

    @property
    def held(self) -> list[str]:
        """What is held at this moment: ``network.add_latency on features``."""
        return [f"{one.fault} on {one.subject}" for one in self._ground.log.open_faults()]

    def why_gone(self) -> str:
        """Why something that is held is not there any more, as far as that can be seen; "" if it is."""
        checks, words = self._ground.context.presence_checks, list[str]()
        for one in self._ground.log.open_faults():
            with contextlib.suppress(TargetError):  # Whether it can be reached, the revert tells.
                words += [checks[one.id]()] if one.id in checks else []
        words += [str(one.data["why"]) for one in events_in(self.folder) if one.kind is Kind.LEASE_RAN_OUT]
        return "; ".join(one for one in words if one)

    @property
    def undone(self) -> list[str]:
        """What was taken back and put back so far, one sentence each."""
        found = []
        for event in events_in(self.folder):
            if event.kind is Kind.FAULT_REVERTED:
                found.append(str(event.data["summary"]))
            elif (event.kind, event.subject) == (Kind.PHASE_ENDED, "put_back"):
                found.append(f"the target as its file declares it: {event.data['why']}")
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
    """Open a target for faults by hand, and take all of them back on every way out, exceptions included.

    Args:
        target: its file; None for the embedded target that is running.
        seed: of all that faults draw by chance.
        at_most_s: how long a fault may be held; a little later (by the target's windows) the block is ended.
        folder: for its events and its undo log. Default: one in the harness's home.
        own_process: whether this process does nothing else, so that whatever it leaves running is told.

    Raises:
        UsageError: the target does not answer; or this is not the main thread, where alone a block can be ended.
        Refusal: something else breaks the target, or an earlier fault may still be there.
        Ended: the block had to end before its own end: 'monkeyproof stop', or ``at_most_s``.
        NotReverted: something is left. If that is a fault, the undo log stays open.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("faults by hand can be injected from the main thread only: no other can be ended in time")
    if has_current():
        raise Refusal("a trial or another block is open in this process", "end that one first")
    path = Path(target) if target is not None else None
    with clear_to_inject(), sole_campaign_on(path or paths.target_dir() / "target.yaml"):
        held = _Held(path, seed, at_most_s, folder or _new_folder(), own_process=own_process)
        with held.signals():
            try:
                yield held.open()
            finally:
                held.close()


class _Held:
    """What stands around the block: a guarded target, somebody who may end the block, and the end itself."""

    def __init__(self, path: Path | None, seed: int, at_most_s: float, folder: Path, *, own_process: bool) -> None:
        self._path, self._seed, self._at_most_s, self._folder = path, seed, at_most_s, folder
        self._own_process = own_process
        self._exits = contextlib.ExitStack()
        self._ground: FaultSession | None = None
        self._overseer: TrialMonitor | None = None
        self._why = ""
        self._lost = ""
        """Why a fault ended by itself: whatever was seen meanwhile was seen without it."""

    def open(self) -> Monkey:
        clock = SystemClock()
        try:
            target = open_target(self._path)
            self._exits.callback(target.close)
            check_answers(target)
            paths.make_private(self._folder)
            self._folder = self._folder.resolve()
            if self._own_process:
                procfs.mark(self._folder)
                self._exits.callback(procfs.unmark)
            anchor = Anchor.now(clock)
            plan = TrialPlan(
                BY_HAND, "Faults by hand", "", self._seed, "none", 0, str(target.file.path), str(self._folder)
            )
            history.write_json(self._folder / history.TRIAL_FILE, trial_json(plan, target.file, anchor))
            writer = HistoryWriter(self._folder, anchor, BY_HAND, clock, keeps_going=True)
            self._exits.callback(writer.close)
            ground = FaultSession(
                self._exits, target, writer, seed=self._seed, arm="none", clock=clock, ends_group=False
            )
            ground.context.active_faults.hold_at_most_s = self._at_most_s
            self._ground = ground
            writer.event(Kind.TRIAL_STARTED, BY_HAND, title=plan.title)
            ground.look()
            self._overseer = TrialMonitor(self._end, writer.why_unrecorded, ground.why_gone, ground.why_too_long)
        except BaseException:
            if self._ground is None:
                self._exits.close()
            raise
        return Monkey(ground)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """The first signal ends the block, Ctrl-C as it always does; then all is taken back before it counts."""
        old = {number: signal.getsignal(number) for number in SIGNALS}
        got: list[int] = []

        def leave(number: int, frame: FrameType | None) -> None:
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
                signal.signal(number, leave)
        try:
            yield
        except EndBlock:
            pass
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        if self._why:
            raise Ended(f"ended before its time: {self._why}; what was injected is reverted")
        for one in got:
            signal.raise_signal(one)
        if self._lost:
            raise Ended(f"a fault was not there all the while: {self._lost}")

    def close(self) -> None:
        """Take all of it back, look at what is left, and put the target back as its file declares it.

        Raises:
            NotReverted: something is left.
        """
        for number in SIGNALS:  # Nothing may cut the undoing short.
            signal.signal(number, signal.SIG_IGN)
        if self._overseer is not None:
            self._overseer.end()
        ground, self._ground = self._ground, None
        if ground is None:
            return
        context, audit = ground.context, ground.audit
        residue: list[Residue] = []
        with self._exits:
            status = "not reverted"
            try:
                failed = ground.take_back()
                if audit is not None and not is_gone(context.target.file):
                    found = (
                        audit.left(events_in(self._folder))
                        if failed
                        else look_and_put_back(audit, context.target, context.history)
                    )
                    # What somebody else made of the target meanwhile is theirs, and was the point of it.
                    residue = [one for one in found if not one.of_others]
                status = "not reverted" if failed or residue else "closed"
            finally:
                context.history.event(Kind.TRIAL_ENDED, BY_HAND, status=status)
        ran_out = [str(one.data["why"]) for one in events_in(self._folder) if one.kind is Kind.LEASE_RAN_OUT]
        self._lost = "; ".join(ran_out)
        if audit is not None and self._own_process:
            residue += audit.strays()
        try:
            tell(self._folder, context.history.anchor, residue)
        except NotReverted as error:
            raise NotReverted("; ".join(str(one) for one in (failed, error) if one)) from None
        if failed is not None:
            raise failed

    def _end(self, why: str) -> None:
        """Called beside the main thread, which is interrupted next."""
        self._why = why
        if self._ground is not None:
            self._ground.context.history.event(Kind.TRIAL_ABORTED, BY_HAND, why=why)


def _new_folder() -> Path:
    return paths.home() / BY_HAND / f"{SystemClock().utc():%Y%m%d-%H%M%S-%f}-{os.getpid()}"
