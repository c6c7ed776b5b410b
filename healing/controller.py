"""The controller of the MAPE-K loop: one step for each sample. Detect, diagnose, decide, act, verify, and lift.

It blocks on nothing: actions run in threads, and the next step checks on them. The controller writes each step to
the trial's history as it happens. A remedy that holds a fault off (a drain, a snapshot, a quarantine) is a
mitigation; the controller lifts it when there has been evidence for a while that this is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from monkeyproof.clock import Clock
from monkeyproof.errors import TargetError
from monkeyproof.healing import detect
from monkeyproof.healing.actuators import Actuators
from monkeyproof.healing.detect import Detection, Signal
from monkeyproof.healing.diagnose import Cause, Diagnosis, OngoingDetection, diagnose
from monkeyproof.healing.incidents import Incidents
from monkeyproof.healing.policy import (
    Act,
    ActionLimits,
    Attempt,
    Case,
    Escalate,
    Mitigation,
    Patience,
    Resolve,
    State,
    decide,
    observe,
)
from monkeyproof.healing.reference import TargetReference, canary_results, learn
from monkeyproof.healing.remedies import REMEDIES
from monkeyproof.healing.remedy import LiftEvidence, Remedy
from monkeyproof.healing.samples import Sample
from monkeyproof.record.history import HistoryWriter, Kind

LEARN_WITHIN_S = 10.0
LEARN_FROM = 8
"""Samples: few, so that one unlucky sample does not keep it from learning for long."""
MOST_SAMPLES = 24
FORGET_S = 1.0
"""A detection that ends and comes back within this time is the same one."""
ABOUT_REPLICAS = (Signal.REPLICA_DOWN, Signal.REPLICA_SLOW)

Key = tuple[Cause, str]
Submit = Callable[[Callable[[], Attempt]], "Future[Attempt]"]


@dataclass(slots=True)
class _DetectionRecord:
    """Since when a detection has been there, and when it was last."""

    ongoing: OngoingDetection
    last_s: float


class Controller:
    """Takes samples. ``prepare`` makes the actuators once the reference is known; ``submit`` runs an action."""

    def __init__(
        self,
        history: HistoryWriter,
        prepare: Callable[[TargetReference], Actuators],
        submit: Submit,
        clock: Clock,
        limits: ActionLimits | None = None,
    ) -> None:
        self._history = history
        self._incidents = Incidents(history)
        self._prepare = prepare
        self._submit = submit
        self._clock = clock
        self._limits = limits or ActionLimits()
        self._window: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._reference: TargetReference | None = None
        self._actuators: Actuators | None = None
        self._began_s = clock.monotonic_s()
        self._detections: dict[tuple[Signal, str], _DetectionRecord] = {}
        self._cases: dict[Key, Case] = {}
        self._mitigations: dict[tuple[str, str], Mitigation] = {}
        self._patience = Patience()
        self._busy: dict[str, Future[Attempt]] = {}
        self._lifting: dict[tuple[str, str], Future[Attempt]] = {}
        self._actions_s: deque[float] = deque(maxlen=64)

    @property
    def ready(self) -> bool:
        return self._reference is not None

    def step(self, sample: Sample) -> None:
        """Take one sample in, and act on what follows from it."""
        self._window.append(sample)
        while sample.t_s - self._window[0].t_s > detect.WINDOW_S:
            self._window.popleft()
        if self._reference is None:
            self._learn(sample.t_s)
            return
        window = tuple(self._window)
        found = [one for one in detect.detect(window, self._reference) if not self._masked(one)]
        self._note(found, sample.t_s)
        self._open(found, sample.t_s)
        for key in tuple(self._cases):
            self._advance(key, found, sample.t_s)
        self._lift(window, sample.t_s)
        self._accept_champion(window)

    # --- knowledge -------------------------------------------------------------------------------------------

    def _learn(self, now_s: float) -> None:
        reference = learn(tuple(self._window)[-LEARN_FROM:])
        if reference is not None:
            try:
                self._actuators = self._prepare(reference)
            except TargetError:
                return  # The target is not well enough to be a reference. The next sample tries again.
            self._reference = reference
            self._history.event(Kind.HEALER_READY, samples=reference.samples_count, version=reference.version)
        elif now_s - self._began_s > LEARN_WITHIN_S and not self._incidents.count:
            why = f"no healthy reference within {LEARN_WITHIN_S:g} s: the target is not well, or cannot be seen"
            self._incidents.write("target", why, None, (), "Check the target first: what is normal is not known.")

    def _accept_champion(self, window: Sequence[Sample]) -> None:
        """A new version that has been right for a whole window is a release, not a fault."""
        assert self._reference is not None
        assert self._actuators is not None
        results = [result for sample in window for result in canary_results(sample)]
        versions = frozenset[str]().union(*(result.versions for result in results))
        wrong, right = sum(result.wrong for result in results), sum(result.right for result in results)
        whole = len(window) >= detect.WINDOW_S / 0.5 and right >= detect.MOST_ANSWERS
        if (
            whole
            and not wrong
            and len(versions) == 1
            and not self._cases
            and {self._reference.version} != versions
        ):
            version = next(iter(versions))
            self._reference = replace(self._reference, version=version)
            self._actuators = replace(self._actuators, version=version)

    # --- analyse ---------------------------------------------------------------------------------------------

    def _masked(self, one: Detection) -> bool:
        return any(one.signal in mitigation.remedy.masks for mitigation in self._mitigations.values())

    def _note(self, found: Sequence[Detection], now_s: float) -> None:
        for one in found:
            key = (one.signal, one.subject)
            known = self._detections.get(key)
            if known is None:
                self._history.event(
                    Kind.HEALER_DETECTED,
                    one.subject,
                    signal=one.signal,
                    value=one.value,
                    threshold=one.threshold,
                    summary=one.summary,
                )
            self._detections[key] = _DetectionRecord(
                OngoingDetection(one, known.ongoing.since_s if known else now_s), now_s
            )
        for key in [key for key, known in self._detections.items() if now_s - known.last_s > FORGET_S]:
            del self._detections[key]

    def _open(self, found: Sequence[Detection], now_s: float) -> None:
        ongoing = [self._detections[(one.signal, one.subject)].ongoing for one in found]
        at_work = any(case.state is not State.ESCALATED for case in self._cases.values())
        for diagnosis in diagnose(ongoing, now_s, explained=at_work or self._just_acted(now_s)):
            key = (diagnosis.cause, diagnosis.subject)
            if key not in self._cases:
                self._cases[key] = Case(diagnosis, now_s)
                self._history.event(
                    Kind.HEALER_DIAGNOSED, diagnosis.subject, cause=diagnosis.cause, summary=diagnosis.summary
                )

    def _just_acted(self, now_s: float) -> bool:
        return bool(self._actions_s) and now_s - self._actions_s[-1] < self._limits.settle_s

    # --- plan and execute ------------------------------------------------------------------------------------

    def _advance(self, key: Key, found: Sequence[Detection], now_s: float) -> None:
        case = self._cases[key]
        subject = case.diagnosis.subject
        if case.state is State.ACTING:
            case = self._finished(case, now_s)
        case = observe(case, self._out_of_range(case.diagnosis, found), now_s)
        match decide(case, self._actions_s, now_s, self._limits):
            case Act(name) if subject not in self._busy:
                self._busy[subject] = self._act(REMEDIES[name], subject, case.diagnosis.summary, now_s)
                case = replace(case, state=State.ACTING)
            case Escalate(why):
                case = replace(case, state=State.ESCALATED)
                self._incidents.write(subject, why, case.diagnosis, case.tried, case.rule.advice)
            case Resolve():
                del self._cases[key]
                self._history.event(Kind.HEALER_RESOLVED, subject, cause=key[0], summary=resolution(case))
                return
        self._cases[key] = case

    def _finished(self, case: Case, now_s: float) -> Case:
        future = self._busy[case.diagnosis.subject]
        if not future.done():
            return case
        del self._busy[case.diagnosis.subject]
        attempt = future.result()
        remedy = REMEDIES[attempt.remedy]
        if remedy.lifted_by is not None and (attempt.ok or remedy.lifted_if_failed):
            key = (remedy.name, case.diagnosis.subject)
            self._mitigations[key] = Mitigation(remedy, case.diagnosis.subject, now_s)
            self._patience = self._patience.needed_again(*key, now_s)
        state = State.VERIFYING if attempt.ok else State.OPEN
        return replace(case, state=state, tried=(*case.tried, attempt))

    def _out_of_range(self, diagnosis: Diagnosis, found: Sequence[Detection]) -> frozenset[Signal] | None:
        """The signals out of range that belong to this case; None if too little is known to call any in range."""
        recent = list(self._window)[-detect.RECENT :]
        blind = not any(sample.gateway.right + sample.gateway.wrong for sample in recent)
        if diagnosis.cause is not Cause.BLIND and (blind or recent[-1].replicas is None):
            return None
        return frozenset(
            one.signal for one in found if one.signal not in ABOUT_REPLICAS or one.subject == diagnosis.subject
        )

    def _act(self, remedy: Remedy, subject: str, why: str, now_s: float) -> Future[Attempt]:
        actuators = self._actuators
        assert actuators is not None
        self._actions_s.append(now_s)
        self._history.event(Kind.HEALER_ACTING, subject, remedy=remedy.name, summary=why)

        def perform() -> Attempt:
            began_s = self._clock.monotonic_s()
            try:
                ok, summary = True, remedy(actuators, subject)
            except Exception as error:  # Whatever a remedy raises, the Elephant goes on and reports it.
                ok, summary = False, str(error) or repr(error)
            self._history.event(Kind.HEALER_ACTED, subject, remedy=remedy.name, ok=ok, summary=summary)
            return Attempt(remedy.name, began_s, self._clock.monotonic_s(), ok, summary)

        return self._submit(perform)

    # --- lifting ---------------------------------------------------------------------------------------------

    def _lift(self, window: Sequence[Sample], now_s: float) -> None:
        for key, future in [(key, future) for key, future in self._lifting.items() if future.done()]:
            del self._lifting[key], self._busy[key[1]]
            if future.result().ok:
                self._mitigations.pop(key, None)
                self._patience = self._patience.lifted(*key, now_s)
            else:
                self._mitigations[key] = replace(self._mitigations[key], since_s=now_s)
        for key, mitigation in tuple(self._mitigations.items()):
            lift, subject = mitigation.remedy.lifted_by, mitigation.subject
            waited = now_s - mitigation.since_s >= self._patience.keep_s(mitigation)
            in_use = any(case.diagnosis.subject == subject for case in self._cases.values())
            within = sum(now_s - at_s < 60.0 for at_s in self._actions_s) < self._limits.actions_per_minute
            free = waited and within and not in_use and subject not in self._busy
            if lift is not None and free and self._is_safe(mitigation, window):
                why = (
                    f"well again for {mitigation.remedy.evidence_s:g} s behind the remedy {mitigation.remedy.name}"
                )
                self._busy[subject] = self._lifting[key] = self._act(lift, subject, why, now_s)

    def _is_safe(self, mitigation: Mitigation, window: Sequence[Sample]) -> bool:
        assert self._reference is not None
        remedy = mitigation.remedy
        if remedy.safe_when is None:
            return False
        return remedy.safe_when(LiftEvidence(window, self._reference, mitigation.subject, remedy.evidence_s))


def resolution(case: Case) -> str:
    """Say how a case ended."""
    done = [attempt for attempt in case.tried if attempt.ok]
    if done:
        return f"{case.diagnosis.cause}: in range again after {done[-1].remedy}"
    return f"{case.diagnosis.cause}: in range again, with no action of the Elephant"
