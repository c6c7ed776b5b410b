"""One trial: observers on, baseline, inject, hold, revert, watch; then everything put back and recorded.

A trial under ``monkeyproof run`` is a worker process of its own (``python -m monkeyproof.trial PLAN``), for
chaoslib's ``run_experiment`` needs a main thread, keeps global caches and installs signal handlers.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import platform
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from monkeyproof import __version__, catalogue, errors, history
from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config import TargetFile
from monkeyproof.errors import EXIT_OK, EXIT_REFUSED, MonkeyproofError, NotReverted, UsageError
from monkeyproof.history import Event, HistoryWriter, Kind
from monkeyproof.injection import Context, revert, set_current
from monkeyproof.observers import Observers, start_observers
from monkeyproof.overseer import Overseer
from monkeyproof.process import end_group_mates, leave
from monkeyproof.redaction import RedactedStream, know_loaded, redact
from monkeyproof.residue import Audit, Residue
from monkeyproof.roles import Named, roles_of
from monkeyproof.safeguards import Safeguards
from monkeyproof.stopping import STOPPED, is_stopped
from monkeyproof.targets.opening import check_answers, open_target
from monkeyproof.targets.port import Resettable
from monkeyproof.types import Json
from monkeyproof.undo import begin, undo_dir

if TYPE_CHECKING:
    from monkeyproof.foreign import ForeignFault

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What one trial is to do. Everything random in it comes from ``seed``."""

    experiment: str
    title: str
    experiment_sha256: str
    seed: int
    arm: str
    index: int
    target: str
    """Path of the target file; "" for the running embedded target."""
    folder: str
    experiment_file: str = ""
    expected: tuple[str, ...] = ()
    sham: bool = False
    inject: str = ""
    """Names of activities of somebody else's experiment, where they are given; see monkeyproof.roles."""
    evidence: str = ""
    undo: str = ""


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
        history.write_json(self.folder / history.TRIAL_FILE, _trial_json(self.plan, target.file, anchor))
        writer = HistoryWriter(self.folder, anchor, "trial", self._clock)
        self._exits.callback(writer.close)
        log = begin(undo_dir() / f"{run_name(self.folder)}.jsonl")
        # Closed after the log: a worker that is killed while it closes that is still watched.
        safeguards = Safeguards(log.path, self.folder, target, writer)
        self._exits.callback(safeguards.close)
        self._exits.callback(log.close, self.folder / history.UNDO_FILE)
        self._context = Context(self.folder, target, writer, log, self.plan.seed, self.plan.arm, self._clock)
        self._context.before_injection, self._context.before_revert = safeguards.check, safeguards.settle
        set_current(self._context)
        self._exits.callback(set_current, None)
        writer.event(Kind.TRIAL_STARTED, self.plan.experiment, title=self.plan.title)
        self._overseer = Overseer(self.abort, self._observers.why_unwatched)
        _put_back(self._context, "prepare")
        self._audit = Audit(target)
        self._prepared_s = writer.now_s()
        self._observers.let_heal()

    def close(self) -> None:
        """Revert what is open, put the target back, end the observers, close the history.

        Raises:
            NotReverted: something is left; the undo log stays open.
        """
        if self._overseer is not None:
            self._overseer.end()
        context, self._context = self._context, None
        residue: list[Residue] = []
        with self._exits:
            if context is None:
                return
            if self._observers is not None and not self._observers.why_unwatched():
                # What follows is what it could ask for.
                self._observers.end("sentry")
            status = "not reverted"
            try:
                revert()
                if self._observers is not None:
                    for name, why in self._observers.dead().items():
                        context.history.event(Kind.OBSERVER_DIED, name, why=why)
                    # No healer acts while the harness itself puts the target back.
                    self._observers.end("healer", "load")
                residue = self._audit.left(events_so_far(self.folder)) if self._audit is not None else []
                # Watching ends where this phase starts: what gets better from here on is our doing.
                _put_back(context, "put_back")
                status = "not reverted" if residue else "closed"
            finally:
                context.history.event(Kind.TRIAL_ENDED, self.plan.experiment, status=status)
        residue += self._audit.strays() if self._audit is not None else []
        if residue:
            writer = HistoryWriter(self.folder, context.history.anchor, "audit", self._clock)
            for one in residue:
                writer.event(Kind.RESIDUE_FOUND, one.what, what=one.what, mend=one.mend)
            writer.close()
            raise NotReverted("left behind after the trial: " + "; ".join(str(one) for one in residue))

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
        return ""

    def abort(self, why: str) -> None:
        """Write down that the trial ended before its time, unless somebody else has said why."""
        if self._context is not None and not self.aborted:
            self._context.history.event(Kind.TRIAL_ABORTED, self.plan.experiment, why=why)


def events_so_far(folder: Path) -> list[Event]:
    return list(history.parse_events((folder / history.EVENTS_FILE).read_bytes()))


def run_name(folder: Path) -> str:
    """What a trial is called where those of all campaigns are: ``CAMPAIGN-TRIAL``."""
    campaign = folder.parent if folder.parent.name != "trials" else folder.parent.parent
    return f"{campaign.name}-{folder.name}"


def _put_back(context: Context, phase: str) -> None:
    """What a healer changed, or a fault left, must not leak from one trial into another."""
    resettable = context.target.find(Resettable)
    if resettable is None:
        return
    context.history.event(Kind.PHASE_STARTED, phase)
    try:
        changed = "; ".join(resettable.reset()) or "nothing had to be put back"
    except Exception as error:  # Adapters fail in many ways; each one means that the target is not as it was.
        changed = f"could not: {error}"
        raise NotReverted(f"the target could not be put back: {error}. 'monkeyproof target down' and up") from None
    finally:
        context.history.event(Kind.PHASE_ENDED, phase, why=changed)


def _trial_json(plan: TrialPlan, target: TargetFile, anchor: Anchor) -> dict[str, Json]:
    return {
        "version": history.VERSION,
        **asdict(plan),
        "anchor": asdict(anchor),
        "target_name": target.name,
        "target_sha256": hashlib.sha256(target.path.read_bytes()).hexdigest(),
        "slo": asdict(target.slo),
        "windows": asdict(target.windows),
        "prober": asdict(target.prober),
        "load": asdict(target.load),
        "versions": versions(),
        "machine": machine(),
    }


def versions() -> dict[str, str]:
    """Of this package and of what its numbers rest on."""
    names = ("chaostoolkit-lib", "mlflow", "numpy", "scipy", "locust")
    return {"monkeyproof": __version__, **{name: metadata.version(name) for name in names}}


def machine() -> dict[str, Json]:
    """What the trial ran on."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def run_worker(plan: TrialPlan, trial: OpenTrial) -> None:
    """Run one planned trial with chaoslib, on this process's main thread.

    Raises:
        MonkeyproofError: usage, refusal, or something not reverted; the history has what there is.
        SystemExit: a signal ended the trial; everything is reverted.
    """
    from chaoslib.caching import cache_activities
    from chaoslib.run import RunEventHandler, Runner, initialize_run_journal
    from chaoslib.types import Schedule, Strategy

    from monkeyproof.faults.foreign import set_limits
    from monkeyproof.foreign import ForeignFault, baseline

    class Signals(RunEventHandler):  # type: ignore[misc]
        """chaoslib installs handlers of its own, and loses rollbacks on a second signal."""

        def running(
            self, _experiment: object, _journal: object, configuration: Json, secrets: Json, *_: Json
        ) -> None:
            know_loaded(configuration, secrets)

        def started(self, experiment: object, journal: object) -> None:  # noqa: ARG002
            _leave_on_signals(foreign)

    experiment = copy.deepcopy(dict(catalogue.find(plan.experiment_file).document))
    cache_activities(experiment)
    roles = roles_of(experiment, Named(plan.inject, plan.evidence, plan.undo))
    source = (plan.experiment_file, plan.experiment_sha256)
    foreign = ForeignFault(experiment, roles, source) if roles else None
    if roles is not None:
        set_limits(experiment, roles)
    # Ours, so that what ran is on record however it ends.
    journal: dict[str, Json] = initialize_run_journal(experiment) | {"status": "never started"}
    _leave_on_signals(foreign)
    try:
        trial.start()
        runner = Runner(Strategy.DEFAULT, Schedule())
        runner.register_event_handler(Signals())
        if foreign is not None:
            runner.register_event_handler(foreign)
        if foreign is None or baseline(experiment):
            always = {"runtime": {"rollbacks": {"strategy": "always"}}}
            runner.run(experiment, settings=always, journal=journal)
        if foreign is not None and foreign.failure is not None:
            raise foreign.failure
        if journal["status"] == "interrupted":
            raise SystemExit(EXIT_REFUSED)
    except SystemExit:
        journal["status"] = "interrupted"
        trial.abort(why_signalled())
        raise
    finally:
        # From here on nothing may cut the undoing short.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # Of somebody else's experiment, what matters is in the history already; the rest is the journal's.
        failed = _failed_action(journal) if foreign is None else None
        if failed is not None:
            trial.note_failure(*failed)
        if trial.folder.exists():
            history.write_json(trial.folder / history.JOURNAL_FILE, redact(journal))
        trial.close()
    if failed is not None:
        raise failed[1]


def _failed_action(journal: Mapping[str, Json]) -> tuple[str, MonkeyproofError] | None:
    """The first action that failed, and how: chaoslib calls such an experiment completed. A person would not.

    A fault without evidence is no failure here: the trial is invalid, and its history says why.
    """
    for run in journal.get("run") or ():
        if run["activity"]["type"] == "action" and run.get("status") == "failed":
            words = "".join(run.get("exception") or ()).strip()
            match = re.search(r"monkeyproof\.errors\.(\w+): (.*)", words, re.DOTALL)
            kind = getattr(errors, match[1], MonkeyproofError) if match else MonkeyproofError
            if kind is errors.Unproven:
                continue
            error = MonkeyproofError(match[2].strip() if match else words.splitlines()[-1])
            error.exit_code = kind.exit_code
            return run["activity"]["name"], error
    return None


def why_signalled() -> str:
    return STOPPED if is_stopped() else "a signal ended it"


def _leave_on_signals(foreign: ForeignFault | None = None) -> None:
    """The first signal ends the trial in order; those that follow must not cut the undoing short."""

    def leave_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        if foreign is not None and foreign.goes_on:
            # Else it would go on beside its undo, and after it.
            end_group_mates()
        raise SystemExit(EXIT_REFUSED)

    for number in SIGNALS:
        signal.signal(number, leave_once)


def main(observers: Observers | None = None) -> NoReturn:
    """Entry of the worker: the plan's path is the only argument; the outcome is a file beside it.

    ``observers``: those that monkeyproof.trial_worker has started already.
    """
    plan_path = Path(sys.argv[1])
    # What this harness asks for itself is no warning to anybody, and would leave a log beside every trial.
    logging.getLogger("chaostoolkit").addFilter(
        lambda record: record.getMessage() != "Rollbacks were explicitly requested to be played"
    )
    code, words = EXIT_OK, ""
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    try:
        plan = TrialPlan(**json.loads(plan_path.read_bytes()))
        trial = OpenTrial(plan, observers)
        _leave_on_signals()
        try:
            # First, because the healer waits for it; what else there is to import is imported meanwhile.
            trial.prepare()
            run_worker(plan, trial)
        except BaseException as error:
            trial.abort(str(error) if isinstance(error, Exception) else why_signalled())
            raise
        finally:
            trial.close()
        if trial.aborted:  # At the very last moment, when signals were ignored already.
            raise SystemExit(EXIT_REFUSED)
    except MonkeyproofError as error:
        code, words = error.exit_code, str(error)
    except SystemExit:
        why = trial.aborted.replace("ended it", "ended the trial")
        code, words = EXIT_REFUSED, f"{why or 'a signal ended the trial'}; what was injected is reverted"
    history.write_json(plan_path.with_suffix(".outcome.json"), {"exit_code": code, "error": redact(words)})
    leave(code)


if __name__ == "__main__":
    main()
