"""One trial: observers on, baseline, inject, hold, revert, watch; then everything put back and recorded.

A trial under ``monkeyproof run`` is a worker process of its own (``python -m monkeyproof.trial PLAN``), for
chaoslib's ``run_experiment`` needs a main thread, keeps global caches and installs signal handlers.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from monkeyproof import catalogue, errors, history
from monkeyproof.errors import EXIT_NOT_REVERTED, EXIT_OK, EXIT_REFUSED, MonkeyproofError
from monkeyproof.observers import Observers
from monkeyproof.open_trial import OpenTrial
from monkeyproof.process import end_group_mates, leave
from monkeyproof.redaction import RedactedStream, know_loaded, redact
from monkeyproof.roles import Named, roles_of
from monkeyproof.stopping import STOPPED, is_stopped
from monkeyproof.trial_plan import TrialPlan
from monkeyproof.types import Json

if TYPE_CHECKING:
    from monkeyproof.foreign import ForeignFault

_CLASSES = re.compile(r"^((chaoslib|monkeyproof)\.[\w.]+: )+")
"""Before the words of an error that is wrapped in others."""
_CHAINED = re.compile(r"\n\n(During handling of|The above exception was)")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    if failed is not None and (not trial.aborted or failed[1].exit_code == EXIT_NOT_REVERTED):
        raise failed[1]


def _failed_action(journal: Mapping[str, Json]) -> tuple[str, MonkeyproofError] | None:
    """The first action that failed, and how: chaoslib calls such an experiment completed. A person would not.

    A fault without evidence is no failure here: the trial is invalid, and its history says why.
    """
    for run in journal.get("run") or ():
        if run["activity"]["type"] == "action" and run.get("status") == "failed":
            words = "".join(run.get("exception") or ()).strip()
            match = re.search(r"monkeyproof\.errors\.(\w+): (.*)", _CHAINED.split(words)[0], re.DOTALL)
            kind = getattr(errors, match[1], MonkeyproofError) if match else MonkeyproofError
            if kind is errors.Unproven:
                continue
            error = MonkeyproofError(match[2].strip() if match else _CLASSES.sub("", words.splitlines()[-1]))
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
    except OSError as error:
        why = f"{error.filename or plan_path.parent} cannot be written ({error.strerror or error})"
        code, words = EXIT_REFUSED, f"{why}; what was injected is reverted"
    try:
        history.write_json(plan_path.with_suffix(".outcome.json"), {"exit_code": code, "error": redact(words)})
    except OSError:  # The campaign has the exit code, and finds out why.
        with contextlib.suppress(OSError):
            print(words, file=sys.stderr)
    leave(code)


if __name__ == "__main__":
    main()
