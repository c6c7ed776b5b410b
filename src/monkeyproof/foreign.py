"""Trials of experiments whose faults are not ours: any Chaos Toolkit file, run against any service.

Chaos Toolkit runs the file as its author wrote it. This watches it do so, and adds what a trial needs: a baseline
before, the intent on disk before the act, the proof after it, a hold before the undo, and a look afterwards.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from chaoslib.activity import run_activity
from chaoslib.exceptions import ActivityFailed
from chaoslib.run import RunEventHandler

from monkeyproof import history
from monkeyproof.clock import wait_for
from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, Refusal
from monkeyproof.faults.foreign import told, why_no_evidence, why_not_done
from monkeyproof.history import Kind
from monkeyproof.injection import current, intend
from monkeyproof.probes.steady_state import slo_holds
from monkeyproof.probes.watch import hold_until_recovered, watch_after_revert
from monkeyproof.roles import Roles, activity_named, after_injection, uses
from monkeyproof.types import Json
from monkeyproof.undo import Undo

logger = logging.getLogger("chaostoolkit")
EVIDENCE_WITHIN_S = 5.0


def baseline(document: Mapping[str, Json]) -> bool:
    """Whether the service is steady before anything is done to it; the experiment's own look at it will do."""
    return uses(document, "slo_holds") or slo_holds()


class ForeignFault(RunEventHandler):  # type: ignore[misc]
    """Follows one run of an experiment and writes what it means into the open trial's history.

    Chaos Toolkit swallows exceptions of its handlers. What must not be done without a record is therefore
    stopped with SystemExit, after which Chaos Toolkit still runs the rollbacks; the reason is in ``failure``.
    """

    def __init__(self, document: Mapping[str, Json], roles: Roles) -> None:
        self.failure: MonkeyproofError | None = None
        self._document = document
        self._roles = roles
        self._inject = activity_named(document, roles.inject) or {}
        self._background = bool(self._inject.get("background"))
        self._in_place = roles.evidence in after_injection(document, roles)
        self._configuration: Json = None
        self._secrets: Json = None
        self._fault_id = ""
        self._judged = self._held = False
        self._undone: list[str] = []
        self._over = False

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

    def hypothesis_before_completed(
        self,
        experiment: Json,  # noqa: ARG002
        state: Mapping[str, Json] | None,
        journal: Json,  # noqa: ARG002
    ) -> None:
        """The author's own idea of a steady state counts as well as ours."""
        if state is not None and not state["steady_state_met"]:
            name = state["probes"][-1]["activity"]["name"]
            why = f"the experiment's own steady-state probe {name!r} did not hold"
            current().history.event(Kind.BASELINE_MISSED, good_share=None, window_s=0.0, why=why)

    def start_activity(self, activity: Mapping[str, Json]) -> None:
        name = activity.get("name")
        if name == self._roles.inject and not self._fault_id:
            self._begin()
        elif name in self._roles.undo and self._fault_id and not self._undone:
            with self._told():
                self._hold()
                if not self._over:
                    current().history.event(Kind.PHASE_STARTED, "revert")

    def activity_completed(self, activity: Mapping[str, Json], run: Mapping[str, Json]) -> None:
        name = activity.get("name")
        if not self._fault_id or self._over:
            return
        with self._told():
            if name == self._roles.inject:
                self._injected(run)
            elif name == self._roles.evidence and not self._judged:
                self._evidence_ended(run)
            elif name in self._roles.undo:
                self._undo_ended(str(name), self._why_failed(run) or self._why_not_done(activity, run["output"]))

    def start_rollbacks(self, experiment: Json) -> None:  # noqa: ARG002
        """Whatever the rollbacks are, they come after the fault was held."""
        if self._fault_id:
            with self._told():
                self._hold()

    def _begin(self) -> None:
        """The last moment before the act."""
        context = current()
        path = context.folder / history.EXPERIMENT_FILE
        undo = None
        try:
            history.write_json(path, self._document)
            if self._roles.undo:
                arguments = {
                    "experiment": str(path),
                    "activities": list(self._roles.undo),
                    "folder": str(Path.cwd()),
                }
                undo = Undo("monkeyproof.faults.foreign:run_activities", arguments)
            self._fault_id = intend(
                context,
                self._fault,
                context.target.file.name,
                told_of(self._inject),
                undo,
                held=undo is not None or self._background,
            )
        except Refusal as refusal:
            self.failure = refusal
            raise SystemExit(EXIT_REFUSED) from None
        except Exception as error:
            self.failure = Refusal(f"the intent could not be written down: {error}")
            raise SystemExit(EXIT_REFUSED) from None

    def _injected(self, run: Mapping[str, Json]) -> None:
        """The injecting activity is over."""
        why = self._why_failed(run) or self._why_not_done(self._inject, run["output"])
        if why and not self._judged:
            self._judge(f"it was not injected: {why}")
        if not self._judged and not self._in_place:
            self._prove()
        if self._background and not self._roles.undo:
            # It lasted as long as its activity did.
            self._reverted("the activity in the background ended")

    def _prove(self) -> None:
        """Where its proof does not stand in the method, look for it at once."""
        if self._roles.evidence:
            self._judge(*self._look())
            return
        self._judged = True
        current().history.event(Kind.FAULT_INJECTED, self._subject, id=self._fault_id, fault=self._fault)

    def _evidence_ended(self, run: Mapping[str, Json]) -> None:
        """It looked once, where it stands in the method; an effect may take a moment."""
        value = run["output"]
        why_not = self._why_failed(run) or self._why_no_evidence(value)
        if why_not:
            why_not, value = self._look()
        self._judge(why_not, value)

    def _look(self) -> tuple[str, Json]:
        """Poll the evidence: why there is none, if there is none in time, and the last value."""
        probe = activity_named(self._document, self._roles.evidence) or {}
        last: tuple[str, Json] = ("", None)

        def found() -> bool:
            nonlocal last
            try:
                output = run_activity(probe, self._configuration, self._secrets)
                last = self._why_no_evidence(output), output
            except ActivityFailed as error:
                last = str(error), None
            return not last[0]

        wait_for(found, within_s=EVIDENCE_WITHIN_S, every_s=0.05)
        return last

    def _judge(self, why_not: str, value: Json = None) -> None:
        self._judged = True
        write = current().history.event
        if why_not:
            write(Kind.FAULT_UNPROVEN, self._subject, id=self._fault_id, fault=self._fault, why=why_not)
            return
        write(
            Kind.FAULT_EFFECTIVE,
            self._subject,
            id=self._fault_id,
            fault=self._fault,
            summary=f"{self._roles.evidence}: {told(value)}",
            evidence={"probe": self._roles.evidence, "value": told(value)},
        )

    def _hold(self) -> None:
        """Once, before the first thing that may undo the fault."""
        if self._held:
            return
        self._held = True
        if self._over:
            watch_after_revert()
            return
        if not self._judged:
            if self._roles.evidence:
                self._judge(f"{self._roles.evidence} was never asked")
            else:
                self._prove()
        if not uses(self._document, "hold_until_recovered"):
            hold_until_recovered()

    def _undo_ended(self, name: str, why: str) -> None:
        if why:
            # The undo log stays open: the trial's end tries it again.
            self._over = True
            current().history.event(
                Kind.FAULT_NOT_REVERTED, self._subject, id=self._fault_id, fault=self._fault, why=f"{name}: {why}"
            )
            return
        self._undone.append(name)
        if len(self._undone) == len(self._roles.undo):
            summary = f"ran {', '.join(self._undone)}"
            current().undo.reverted(self._fault_id, summary)
            self._reverted(summary)
            current().history.event(Kind.PHASE_ENDED, "revert")
            if not uses(self._document, "watch_after_revert"):
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
        if run["status"] == "succeeded":
            return ""
        words = "".join(run.get("exception") or ("it failed",)).strip()
        return words.splitlines()[-1].removeprefix("chaoslib.exceptions.ActivityFailed: ")

    def _why_not_done(self, activity: Mapping[str, Json], output: Json) -> str:
        return why_not_done(activity, output, self._configuration, self._secrets)

    def _why_no_evidence(self, output: Json) -> str:
        probe = activity_named(self._document, self._roles.evidence) or {}
        return why_no_evidence(probe, output, self._configuration, self._secrets)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """An exception here would vanish in Chaos Toolkit, and the trial would look better than it was."""
        try:
            yield
        except Exception as error:
            logger.exception("following the experiment")
            current().history.event(
                Kind.FAULT_UNPROVEN, self._subject, id="", fault=self._fault, why=f"could not follow it: {error}"
            )


def told_of(activity: Mapping[str, Json]) -> dict[str, Json]:
    """What a report says of an activity. Its arguments and headers may hold secrets, so they are left out."""
    provider = activity.get("provider", {})
    words = {key: provider[key] for key in ("type", "path", "url", "module", "func") if key in provider}
    if "url" in words:
        words["url"] = str(words["url"]).partition("?")[0]
    return {"activity": activity.get("name", ""), **words}
