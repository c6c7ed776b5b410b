"""Trials of experiments with external faults: any Chaos Toolkit file, run against any service.

Chaos Toolkit runs the file as its author wrote it. An event handler follows the run and adds the steps of a trial:
the baseline, the intent on disk before the act, the proof after it, the hold before the undo, the watch after it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from chaoslib.activity import run_activity
from chaoslib.exceptions import ActivityFailed, InterruptExecution
from chaoslib.run import RunEventHandler

from monkeyproof.clock import wait_for
from monkeyproof.config.redaction import redact, register_loaded_secrets
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, Refusal
from monkeyproof.experiment.activity_roles import ActivityRoles, activity_named, after_injection, is_action, uses
from monkeyproof.faults.actions.external import (
    EVIDENCE_WITHIN_S,
    activity_summary,
    result_text,
    why_no_evidence,
    why_not_done,
)
from monkeyproof.injection.inject import current, intend
from monkeyproof.probes.steady_state import record_unmet, slo_holds
from monkeyproof.probes.watch import hold_until_recovered, watch_after_revert
from monkeyproof.record import history
from monkeyproof.record.history import Kind
from monkeyproof.runtime import trial_mark
from monkeyproof.types import Json
from monkeyproof.undo.log import Undo, store_experiment_copy

logger = logging.getLogger("chaostoolkit")
TOO_LONG = "took too long"
"""Part of Chaos Toolkit's message about an activity that its timeout ended."""


def baseline(document: Mapping[str, Json]) -> bool:
    """Whether the service is steady before the injection; True if the experiment calls ``slo_holds`` itself."""
    return uses(document, "slo_holds") or slo_holds()


class ExternalFault(RunEventHandler):  # type: ignore[misc]
    """Follows one run of an experiment and records its fault in the open trial's history.

    Chaos Toolkit swallows exceptions of its handlers. Where the record fails, SystemExit therefore stops the
    method; Chaos Toolkit still runs the rollbacks, and ``failure`` has the reason.
    """

    def __init__(
        self, document: Mapping[str, Json], roles: ActivityRoles, source: tuple[str, str] = ("", "")
    ) -> None:
        """``source``: path and digest of the experiment's file, where they are known."""
        self._source = source
        self.failure: MonkeyproofError | None = None
        self._document = document
        self._roles = roles
        self._inject = activity_named(document, roles.inject) or {}
        self._background = bool(self._inject.get("background"))
        self._after = after_injection(document, roles)
        self._in_place = roles.evidence in self._after
        self._ended_by_method = any(is_action(document, name) for name in self._after)
        self._configuration: Json = None
        self._secrets: Json = None
        self._fault_id = ""
        self._section = ""
        self._started = threading.Event()
        self._judged = self._ending = self._over = self._undo_ended = self._watched = False
        self._run_ends = self._interrupted = False
        self._undone: list[str] = []

    @property
    def _fault(self) -> str:
        return f"foreign.{self._roles.inject}"

    def running(
        self,
        experiment: Json,  # noqa: ARG002
        journal: Json,  # noqa: ARG002
        configuration: Json,
        secrets: Json,
        schedule: Json,  # noqa: ARG002
        settings: Json,  # noqa: ARG002
    ) -> None:
        self._configuration, self._secrets = configuration, secrets
        register_loaded_secrets(configuration, secrets)

    def hypothesis_before_completed(
        self,
        experiment: Json,  # noqa: ARG002
        state: Mapping[str, Json] | None,
        journal: Json,  # noqa: ARG002
    ) -> None:
        """The author's own idea of a steady state counts as well as ours."""
        record_unmet(state)

    @property
    def goes_on(self) -> bool:
        """Whether an injecting activity may be running in the background at this moment."""
        return self._background and self._started.is_set() and not self._over

    def start_method(self, experiment: Json) -> None:  # noqa: ARG002
        self._section = "method"

    def signal_exit(self) -> None:
        """A signal ends the run: from here on, nothing is held or watched."""
        self._run_ends = True

    def start_activity(self, activity: Mapping[str, Json]) -> None:
        self._await_start(activity)
        is_method_action = self._section == "method" and activity.get("type") == "action"
        if is_method_action and not self._fault_id:
            self._begin()
        if is_method_action and activity.get("name") == self._roles.inject:
            self._started.set()
        elif is_method_action and self._started.is_set():
            # Any action after the injection may end the fault.
            self._end_begins()

    def activity_completed(self, activity: Mapping[str, Json], run: Mapping[str, Json]) -> None:
        name = str(activity.get("name"))
        if not self._started.is_set():
            return
        with self._recording_failures():
            if self._section == "method" and name == self._roles.inject:
                self._injected(run)
            elif self._section == "method" and name == self._roles.evidence and not self._judged:
                self._evidence_ended(run)
            elif self._ending and activity.get("type") == "action" and not self._undo_ended:
                why = self._why_failed(run) or self._why_not_done(activity, run["output"])
                self._ending_action_ended(name, why)

    def _await_start(self, activity: Mapping[str, Json]) -> None:
        """Wait for an injection in the background, which may get its thread after the next activity begins."""
        if self._background and self._section == "method" and activity.get("name") in self._after:
            self._started.wait(EVIDENCE_WITHIN_S)

    def start_rollbacks(self, experiment: Json) -> None:  # noqa: ARG002
        """Hold the fault before the rollbacks, whatever they do."""
        self._section = "rollbacks"
        if self._fault_id:
            self._end_begins()

    def rollbacks_completed(self, experiment: Json, journal: Json) -> None:  # noqa: ARG002
        if self._interrupted:
            journal["status"] = "interrupted"
        if self._over:  # A fault in the background, with nothing to undo.
            self._watch()

    def _begin(self) -> None:
        """Record the intent before the first action, whichever action is named as the injection."""
        context = current()
        undo, prior = None, dict[str, Json]()
        before = "no evidence is named"
        if self._roles.evidence:
            before, value = self._run_evidence()
            prior = {self._roles.evidence: result_text(value) if value is not None else before}
        try:
            why, what_to_do = self._roles.why_not_undoable
            if why:
                raise Refusal(why, what_to_do)
            arguments = self._stored(context.folder / history.EXPERIMENT_FILE)
            if self._roles.undo:
                undo = Undo("monkeyproof.faults.actions.external:run_activities", arguments)
            if self._background:
                horizon_s = context.target.file.windows.horizon_s
                self._inject["provider"].setdefault("timeout", horizon_s)
            self._fault_id = intend(
                context,
                self._fault,
                context.target.file.name,
                activity_summary(self._inject),
                undo,
                held=undo is not None or self._background or self._ended_by_method,
                prior=prior,
                nothing_to_undo="the experiment's author says so",
            )
        except Exception as error:  # Whatever a disk or the undo log raises: without a record nothing is injected.
            why = f"the intent could not be recorded: {error}"
            self.failure = error if isinstance(error, Refusal) else Refusal(why, "correct that, then try again")
            logger.critical("%s", self.failure)
            raise SystemExit(EXIT_REFUSED) from None
        if not before:
            self._judge(f"{self._roles.evidence} held before anything was injected, so it proves nothing")

    def _stored(self, path: Path) -> dict[str, Json]:
        """Store the experiment, without its secrets.

        Returns:
            The arguments with which ``run_activities`` runs its undo again.

        Raises:
            Refusal: the undo needs a secret, and the file that contains it is not known.
        """
        shown = redact(self._document)
        history.write_json(path, shown)
        if not self._roles.undo:
            return {}
        # A user may delete the trial's folder while its fault is active; the copy is in the harness's home.
        kept = store_experiment_copy(current().undo.path, shown)
        arguments = {"experiment": str(kept), "activities": list(self._roles.undo), "folder": str(Path.cwd())}
        if shown == self._document:
            return arguments
        if not self._source[0]:
            raise Refusal(
                "its undo could not be run again: values in it may be secrets, so they are not stored",
                "take them from the environment, or use 'monkeyproof run', which knows the file",
            )
        return arguments | {"file": self._source[0], "sha256": self._source[1]}

    def _injected(self, run: Mapping[str, Json]) -> None:
        """Judge the injecting activity when it has ended."""
        why = self._why_failed(run)
        if self._background and TOO_LONG in why:
            why = ""  # The activity was meant to last until its timeout.
        elif not why:
            why = self._why_not_done(self._inject, run["output"])
        if why and not self._judged:
            self._judge(f"it was not injected: {why}")
        if not self._judged and not self._in_place:
            self._prove()
        if self._background and not self._over:
            # The fault lasted as long as its activity; the undo reverts what is left.
            self._reverted("the activity in the background ended")

    def _prove(self) -> None:
        """Look for the proof at once, where the method does not."""
        if self._roles.evidence:
            self._judge(*self._poll_evidence())
            return
        self._judged = True
        current().history.event(Kind.FAULT_INJECTED, self._subject, id=self._fault_id, fault=self._fault)

    def _evidence_ended(self, run: Mapping[str, Json]) -> None:
        """Judge the evidence probe of the method; poll it further if it does not hold yet."""
        value = run["output"]
        why_not = self._why_failed(run) or self._why_no_evidence(value)
        if why_not:
            why_not, value = self._poll_evidence()
        self._judge(why_not, value)

    def _poll_evidence(self) -> tuple[str, Json]:
        """Poll the evidence. Returns why there is none in time ("" if there is), and the last value."""
        last = self._run_evidence()

        def found() -> bool:
            nonlocal last
            last = last if not last[0] else self._run_evidence()
            return not last[0]

        wait_for(found, within_s=EVIDENCE_WITHIN_S, every_s=0.05)
        return last

    def _run_evidence(self) -> tuple[str, Json]:
        """Why the evidence does not hold at this moment ("" if it does), and its value."""
        probe = activity_named(self._document, self._roles.evidence) or {}
        try:
            output = run_activity(probe, self._configuration, self._secrets)
        except ActivityFailed as error:
            return str(error), None
        return self._why_no_evidence(output), output

    def _judge(self, why_not: str, value: Json = None) -> None:
        self._judged = True
        write = current().history.event
        if why_not:
            write(Kind.FAULT_UNPROVEN, self._subject, id=self._fault_id, fault=self._fault, why=why_not)
            return
        summary = f"{self._roles.evidence}: {result_text(value)}"
        current().undo.effective(self._fault_id, summary)
        write(
            Kind.FAULT_EFFECTIVE,
            self._subject,
            id=self._fault_id,
            fault=self._fault,
            summary=summary,
            evidence={"probe": self._roles.evidence, "value": result_text(value)},
        )

    def _end_begins(self) -> None:
        """Hold the fault before the first activity that may end it; only the first call has an effect."""
        if self._ending:
            return
        self._ending = True
        trial_mark.mark_undo()
        with self._recording_failures():
            if not self._judged:
                if not self._started.is_set():
                    self._judge(f"{self._roles.inject} never ran")
                elif self._roles.evidence:
                    self._judge(f"{self._roles.evidence} never ran")
                else:
                    self._prove()
            if not (self._over or self._run_ends or uses(self._document, "hold_until_recovered")):
                hold_until_recovered()
            if self._roles.undo or self._ended_by_method:
                current().history.event(Kind.PHASE_STARTED, "revert")

    def _ending_action_ended(self, name: str, why: str) -> None:
        undo = self._roles.undo or (name,)
        if name not in undo:
            return
        if why:
            # The undo log stays open: the end of the trial runs the undo again.
            self._undo_ended = True
            current().history.event(
                Kind.FAULT_NOT_REVERTED, self._subject, id=self._fault_id, fault=self._fault, why=f"{name}: {why}"
            )
            return
        self._undone.append(name)
        if len(self._undone) == len(undo):
            self._undo_ended = True
            summary = f"ran {', '.join(self._undone)}"
            if self._roles.undo:
                current().undo.reverted(self._fault_id, summary)
            if not self._over:
                self._reverted(summary)
            current().history.event(Kind.PHASE_ENDED, "revert")
            self._watch()

    def _watch(self) -> None:
        if not (self._watched or self._run_ends or uses(self._document, "watch_after_revert")):
            self._watched = True
            watch_after_revert()

    def _reverted(self, summary: str) -> None:
        self._over = True
        current().history.event(
            Kind.FAULT_REVERTED, self._subject, id=self._fault_id, fault=self._fault, summary=summary
        )

    @property
    def _subject(self) -> str:
        return str(current().target.file.name)

    def _why_failed(self, run: Mapping[str, Json]) -> str:
        if run.get("status") == "succeeded":
            return ""
        words = "".join(run.get("exception") or ("it did not end",)).strip()
        return words.splitlines()[-1].removeprefix("chaoslib.exceptions.ActivityFailed: ")

    def _why_not_done(self, activity: Mapping[str, Json], output: Json) -> str:
        return why_not_done(activity, output, self._configuration, self._secrets)

    def _why_no_evidence(self, output: Json) -> str:
        probe = activity_named(self._document, self._roles.evidence) or {}
        return why_no_evidence(probe, output, self._configuration, self._secrets)

    @contextlib.contextmanager
    def _recording_failures(self) -> Iterator[None]:
        """Record exceptions, which Chaos Toolkit would swallow: the trial would look better than it was."""
        try:
            yield
        except InterruptExecution as interruption:
            # Chaos Toolkit would swallow it here.
            self._run_ends = self._interrupted = True
            if self._section != "rollbacks":  # An interruption does not skip rollbacks.
                raise SystemExit(EXIT_REFUSED) from interruption
        except Exception as error:
            logger.exception("following the experiment")
            current().history.event(
                Kind.FAULT_UNPROVEN,
                self._subject,
                id="",
                fault=self._fault,
                why=f"could not follow it: {error}",
            )
