"""One trial: start sidecars, baseline, inject, hold, revert, watch; then audit, reset and record.

A trial under ``monkeyproof run`` is a worker process of its own (``python -m monkeyproof.trial.run PLAN``):
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

from monkeyproof import errors
from monkeyproof.config.redaction import RedactedStream, redact, register_loaded_secrets
from monkeyproof.errors import EXIT_NOT_REVERTED, EXIT_OK, EXIT_REFUSED, MonkeyproofError
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.activity_roles import ActivityNames, roles_of
from monkeyproof.record import history
from monkeyproof.runtime.process_group import exit_now, kill_group_members
from monkeyproof.runtime.stop_file import SIGNALS, STOPPED, is_stop_requested
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.trial.session import TrialSession
from monkeyproof.trial.sidecars import Sidecars
from monkeyproof.types import Json

if TYPE_CHECKING:
    from monkeyproof.trial.external import ExternalFault

_CLASSES = re.compile(r"^((chaoslib|monkeyproof)\.[\w.]+: )+")
"""The class names before the message of a wrapped error."""
_CHAINED = re.compile(r"\n\n(During handling of|The above exception was)")


def run_worker(plan: TrialPlan, trial: TrialSession) -> None:
    """Run one planned trial with chaoslib, on this process's main thread.

    Raises:
        MonkeyproofError: usage, refusal, or something not reverted; the history is complete up to there.
        SystemExit: a signal ended the trial; everything is reverted.
    """
    from chaoslib.caching import cache_activities
    from chaoslib.run import RunEventHandler, Runner, initialize_run_journal
    from chaoslib.types import Schedule, Strategy

    from monkeyproof.faults.actions.external import set_limits
    from monkeyproof.probes.steady_state import record_unmet
    from monkeyproof.probes.watch import longest_hold_s
    from monkeyproof.trial.external import ExternalFault, baseline

    class Signals(RunEventHandler):  # type: ignore[misc]
        """Replaces the signal handlers of chaoslib, which skips rollbacks on a second signal."""

        def running(
            self, _experiment: object, _journal: object, configuration: Json, secrets: Json, *_: Json
        ) -> None:
            register_loaded_secrets(configuration, secrets)

        def started(self, experiment: object, journal: object) -> None:  # noqa: ARG002
            _end_on_signals(external)

        def hypothesis_before_completed(self, experiment: object, state: Json, journal: object) -> None:  # noqa: ARG002
            record_unmet(state)

    experiment = copy.deepcopy(dict(catalogue.find(plan.experiment_file).document))
    cache_activities(experiment)
    roles = roles_of(experiment, ActivityNames(plan.inject, plan.evidence, plan.undo))
    source = (plan.experiment_file, plan.experiment_sha256)
    external = ExternalFault(experiment, roles, source) if roles else None
    if roles is not None:
        set_limits(experiment, roles)
    # Created here, so that it records what ran however the run ends.
    journal: dict[str, Json] = initialize_run_journal(experiment) | {"status": "never started"}
    _end_on_signals(external)
    try:
        trial.start(longest_hold_s(experiment))
        runner = Runner(Strategy.DEFAULT, Schedule())
        runner.register_event_handler(Signals())
        if external is not None:
            runner.register_event_handler(external)
        if external is None or baseline(experiment):
            always = {"runtime": {"rollbacks": {"strategy": "always"}}}
            runner.run(experiment, settings=always, journal=journal)
        if external is not None and external.failure is not None:
            raise external.failure
        if journal["status"] == "interrupted":
            raise SystemExit(EXIT_REFUSED)
    except SystemExit:
        journal["status"] = "interrupted"
        trial.abort(why_signalled())
        raise
    finally:
        # From here on, no signal may interrupt the revert.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        # The history has the failures of an external experiment already.
        failed = _failed_action(journal) if external is None else None
        if failed is not None:
            trial.note_failure(*failed)
        if trial.folder.exists():
            history.write_json(trial.folder / history.JOURNAL_FILE, redact(journal))
        trial.close()
    if failed is not None and (not trial.aborted or failed[1].exit_code == EXIT_NOT_REVERTED):
        raise failed[1]


def _failed_action(journal: Mapping[str, Json]) -> tuple[str, MonkeyproofError] | None:
    """The name and the error of the first action that failed: chaoslib calls such an experiment completed.

    A fault without evidence does not count as a failure: the trial is invalid, and its history records why.
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
    return STOPPED if is_stop_requested() else "a signal ended it"


def _end_on_signals(external: ExternalFault | None = None) -> None:
    """End the trial in order at the first signal, and ignore later ones, which must not interrupt the revert."""

    def end_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        if external is not None and external.goes_on:
            # Otherwise the activity would continue during its undo and after it.
            kill_group_members()
        raise SystemExit(EXIT_REFUSED)

    for number in SIGNALS:
        signal.signal(number, end_once)


def _exit_of(trial: TrialSession | None, why: str) -> tuple[int, str]:
    """Exit code and message for a trial that ended early; the message reports the state of its faults."""
    if trial is None:
        return EXIT_REFUSED, f"{why}; nothing had been injected"
    if trial.is_open:
        return EXIT_NOT_REVERTED, f"{why}; what was injected may still be there; run 'monkeyproof revert'"
    return EXIT_REFUSED, f"{why}; {trial.end_summary}"


def main(sidecars: Sidecars | None = None) -> NoReturn:
    """Entry of the worker: the plan's path is the only argument; the outcome is a file beside it.

    ``sidecars``: those that monkeyproof.trial.worker has started already.
    """
    plan_path = Path(sys.argv[1])
    # The harness asks for this itself; as a warning it would leave a log beside every trial.
    logging.getLogger("chaostoolkit").addFilter(
        lambda record: record.getMessage() != "Rollbacks were explicitly requested to be played"
    )
    code, words = EXIT_OK, ""
    trial: TrialSession | None = None
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    try:
        plan = TrialPlan(**json.loads(plan_path.read_bytes()))
        trial = TrialSession(plan, sidecars)
        _end_on_signals()
        try:
            # First, because the healer waits for it; the other imports run meanwhile.
            trial.prepare()
            run_worker(plan, trial)
        except BaseException as error:
            trial.abort(str(error) if isinstance(error, Exception) else why_signalled())
            raise
        finally:
            trial.close()
        if trial.aborted:  # At the last moment, when signals were ignored already.
            raise SystemExit(EXIT_REFUSED)
    except MonkeyproofError as error:
        code, words = error.exit_code, str(error)
    except SystemExit:
        why = trial.aborted.replace("ended it", "ended the trial") if trial is not None else ""
        code, words = _exit_of(trial, why or "a signal ended the trial")
    except OSError as error:
        why = f"{error.filename or plan_path.parent} cannot be written ({error.strerror or error})"
        code, words = _exit_of(trial, why)
    try:
        history.write_json(plan_path.with_suffix(".outcome.json"), {"exit_code": code, "error": redact(words)})
    except OSError:  # The campaign has the exit code, and finds the cause.
        with contextlib.suppress(OSError):
            print(words, file=sys.stderr)
    exit_now(code)


if __name__ == "__main__":
    main()
