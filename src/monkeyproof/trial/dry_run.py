"""Dry run: shows what a trial would inject, without injecting it.

Nothing here describes a fault: the experiment's own actions run with a context that plans. They check their
arguments, read the target, choose and build what they would inject, as in a trial, and end there.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import MonkeyproofError, UsageError
from monkeyproof.experiment.activity_roles import OWN_FAULTS, ActivityRoles, activity_named, is_own_fault, roles_of
from monkeyproof.experiment.catalogue import Experiment
from monkeyproof.faults.actions.external import activity_summary
from monkeyproof.injection.active import ActiveFaults
from monkeyproof.injection.fault_registry import WHEN_SEEN, Fault
from monkeyproof.injection.inject import Context, Injection, revert, set_current
from monkeyproof.probes.watch import STORM, longest_hold_s, promised_hold
from monkeyproof.record.history import HistoryWriter
from monkeyproof.targets.port import Links, Registry, Target, Toxic
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.types import Json
from monkeyproof.undo.log import Undo, UndoLog

if TYPE_CHECKING:
    from monkeyproof.injection.fault_registry import Fault

C = TypeVar("C")
REGISTRY_TIMEOUT_S = 3.0
OURS = "monkeyproof."
UNBOUNDED = "none: limits do not bound external activities"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One injection that a trial would perform."""

    headline: str
    """``network.add_latency on gateway->replica-2``"""
    details: tuple[tuple[str, str], ...] = ()
    refused: MonkeyproofError | None = None
    """Why the trial would not perform it; None if it would."""


class DescribedLinks:
    """``port.Links`` for the links of a target file whose fault proxy does not run."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def list(self) -> Sequence[str]:
        return self._names

    def active(self) -> Sequence[str]:
        return ()

    def add(self, toxic: Toxic) -> str:
        raise self._none(toxic.link)

    def remove(self, toxic_id: str) -> bool:
        raise self._none(toxic_id)

    def stats(self, toxic_id: str) -> Mapping[str, Json]:
        raise self._none(toxic_id)

    def _none(self, what: str) -> UsageError:
        return UsageError(f"{what}: a plan starts no fault proxy")


class DescribedTarget:
    """``port.Target`` made from a target file alone: it starts nothing."""

    def __init__(self, file: TargetFile) -> None:
        self._file = file
        self._links = DescribedLinks(sorted(file.links)) if file.links else None
        self._registry = (
            RegistryClient(
                file.registry.uri, file.registry.model, file.registry.alias, timeout_s=REGISTRY_TIMEOUT_S
            )
            if file.registry
            else None
        )

    @property
    def file(self) -> TargetFile:
        return self._file

    def find(self, capability: type[C]) -> C | None:
        offered: Mapping[type, object | None] = {Links: self._links, Registry: self._registry}
        found: C | None = offered.get(capability)  # type: ignore[assignment]
        return found

    def close(self) -> None:
        if self._registry is not None:
            self._registry.close()


@dataclass(frozen=True, slots=True)
class DryRun:
    """Plans trials against one target. ``target`` is None for a target that is down, which a trial would start."""

    file: TargetFile
    target: Target | None

    def manual_step(self, fault: Fault, arguments: Mapping[str, Json], seed: int, hold_s: float) -> PlannedStep:
        """The injection of one fault without an experiment. Needs a target that is up."""
        assert self.target is not None
        active_faults = ActiveFaults()
        active_faults.hold_at_most_s = hold_s
        with planning(self.target, seed, "none", active_faults) as context:
            fault.function(**arguments)
            planned, limit_checks = (context.planned or [])[0], "; ".join(context.limit_checks)
        return _planned_step(planned, limit_checks, f"for {hold_s:g} s, or until Ctrl-C")

    def steps(self, experiment: Experiment, seed: int, arm: str) -> list[PlannedStep]:
        """The injections of one trial, in the order of the experiment's method."""
        document = experiment.document
        roles = roles_of(document, experiment.extension.named)
        if roles is not None:
            return [self._external_step(document, roles)]
        active_faults = ActiveFaults()  # For the whole trial: its faults share each limit.
        active_faults.hold_at_most_s = longest_hold_s(document)
        steps = []
        for activity in _actions_of(document):
            if activity["provider"].get("module") == STORM and self.target is not None:
                steps += self._storm_steps(document, activity, self.target, seed, arm)
            elif (step := self._own_step(document, activity, seed, arm, active_faults)) is not None:
                steps.append(step)
        return steps

    def _storm_steps(
        self, document: Mapping[str, Json], activity: Mapping[str, Json], target: Target, seed: int, arm: str
    ) -> list[PlannedStep]:
        """The faults of a storm, each as if it were the only one; the limits name what would be refused."""
        provider = activity["provider"]
        with planning(target, seed, arm, ActiveFaults()) as context:
            try:
                _call(document, provider["module"], provider["func"], dict(provider.get("arguments") or {}))
            except MonkeyproofError as error:
                return [PlannedStep(str(activity.get("name", provider["func"])), (("", str(error)),), error)]
            planned, limit_checks = list(context.planned or ()), "; ".join(context.limit_checks)
        return [_planned_step(one, limit_checks, "for as long as the schedule says") for one in planned]

    def _own_step(
        self,
        document: Mapping[str, Json],
        activity: Mapping[str, Json],
        seed: int,
        arm: str,
        active_faults: ActiveFaults,
    ) -> PlannedStep | None:
        provider = activity["provider"]
        module = str(provider.get("module", ""))
        own_fault = is_own_fault(activity)
        if provider["type"] != "python" or not (module.startswith(OURS) or own_fault):
            shown = activity_summary(activity)
            words = ", ".join(f"{key} {value}" for key, value in shown.items() if key != "activity")
            return PlannedStep(
                f"{activity.get('name', 'an activity')} (not a fault of monkeyproof)",
                (
                    ("runs", words),
                    ("limit", UNBOUNDED),
                    ("undo", "none is known"),
                ),
            )
        if (module, provider.get("func")) == ("monkeyproof.injection", revert.__name__):
            active_faults.clear()
        if not own_fault:
            return None  # A hold or a revert.
        held = promised_hold(document, self.file.windows, ends_trial=True)
        arguments = dict(provider.get("arguments") or {})
        if self.target is None:
            given = ", ".join(f"{key} {_short(value)}" for key, value in arguments.items()) or "no arguments"
            return PlannedStep(
                f"{module.removeprefix(OWN_FAULTS)}.{provider['func']}",
                (
                    ("with", given),
                    ("held", held),
                    ("undo", "is recorded before the act; 'monkeyproof plan' names it while the target is up"),
                ),
            )
        with planning(self.target, seed, arm, active_faults) as context:
            try:
                _call(document, module, provider["func"], arguments)
            except MonkeyproofError as error:
                return PlannedStep(str(activity.get("name", provider["func"])), (("", str(error)),), error)
            except Exception as error:  # A trial would fail in the same way, in its middle.
                wrong = UsageError(f"{provider['func']} cannot be called with these arguments: {error}")
                return PlannedStep(str(activity.get("name", provider["func"])), (("", str(wrong)),), wrong)
            planned = list(context.planned or ())
            limit_checks = "; ".join(context.limit_checks)
        if not planned:
            return None
        step = _planned_step(planned[0], limit_checks, held)
        if (module, provider["func"]) == WHEN_SEEN:
            when = f"once {arguments['event']} is seen, within {arguments['within_s']:g} s; else not at all"
            step = replace(step, details=(("when", when), *step.details))
        return step

    def _external_step(self, document: Mapping[str, Json], roles: ActivityRoles) -> PlannedStep:
        shown = activity_summary(activity_named(document, roles.inject) or {})
        undo = f"runs {', '.join(roles.undo)}" if roles.undo else "none: its author says there is nothing to undo"
        return PlannedStep(
            f"foreign.{roles.inject} on {self.file.name}",
            (
                ("with", ", ".join(f"{key} {value}" for key, value in shown.items() if key != "activity")),
                ("held", promised_hold(document, self.file.windows, ends_trial=False)),
                ("limit", UNBOUNDED),
                ("proof", roles.evidence or "none is named, so its trials are unproven"),
                ("undo", undo),
            ),
        )


@contextlib.contextmanager
def planning(target: Target, seed: int, arm: str, active_faults: ActiveFaults) -> Iterator[Context]:
    """Open a context that plans: injections are built, and kept in ``planned``; its folder is temporary."""
    with tempfile.TemporaryDirectory(prefix="mp-plan-") as name:
        folder, clock = Path(name), SystemClock()
        writer = HistoryWriter(folder, Anchor.now(clock), "plan", clock)
        log = UndoLog(folder / "undo.jsonl")
        context = Context(folder, target, writer, log, seed, arm, clock, planned=[], active_faults=active_faults)
        set_current(context)
        try:
            yield context
        finally:
            set_current(None)
            log.close()
            writer.close()


def _planned_step(planned: Injection, limit_checks: str, held: str) -> PlannedStep:
    parameters = ", ".join(f"{key} {_short(value)}" for key, value in planned.parameters.items())
    return PlannedStep(
        f"{planned.fault} on {planned.subject}",
        (
            ("family", planned.fault.split(".")[0]),
            ("with", parameters or "no parameters"),
            ("held", held if planned.held else f"not at all, it is over at once; watched {held}"),
            ("limit", limit_checks or "no limit of the target file applies"),
            ("undo", _words_of(planned.undo)),
        ),
    )


def _words_of(undo: Undo | None) -> str:
    return "none: there is nothing to undo" if undo is None else str(undo)


def _short(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if value != "" else '""'


def _actions_of(document: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    found = [
        activity_named(document, str(one["ref"])) if "ref" in one else one for one in document.get("method") or ()
    ]
    return [one for one in found if one is not None and one.get("type") == "action"]


def _call(document: Mapping[str, Json], module: str, function: str, arguments: Mapping[str, Json]) -> None:
    """Call the function as Chaos Toolkit would, which keeps only the text of exceptions."""
    from chaoslib import substitute
    from chaoslib.configuration import load_configuration
    from chaoslib.exceptions import ChaosException
    from chaoslib.secret import load_secrets

    try:
        configuration = load_configuration(document.get("configuration") or {})
        secrets = load_secrets(document.get("secrets") or {}, configuration)
        given = substitute(dict(arguments), configuration, secrets)
    except ChaosException as error:
        raise UsageError(str(error)) from None
    getattr(importlib.import_module(module), function)(**given)
