"""The Elephant's mind: one step for each sample. Detect, diagnose, decide, act, verify, and take back.

It blocks on nothing: actions run elsewhere, and are looked at again at the next step. Every step is written to
the trial's history as it happens. What was done to hold a fault off (a drain, a snapshot, a quarantine) is a
mitigation, and is taken back when there has been evidence for a while that this is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from monkeyproof.clock import Clock
from monkeyproof.errors import TargetError
from monkeyproof.healing import detect
from monkeyproof.healing.detect import Detection, Signal
from monkeyproof.healing.diagnose import Cause, Diagnosis, Seen, diagnose
from monkeyproof.healing.incidents import Incidents
from monkeyproof.healing.policy import (
    LIFTS,
    Act,
    Attempt,
    Case,
    Escalate,
    Limits,
    Mitigation,
    Patience,
    Remedy,
    Resolve,
    State,
    decide,
    observe,
)
from monkeyproof.healing.reference import Reference, all_asked, learn
from monkeyproof.healing.remedies import REMEDIES, Actuators
from monkeyproof.healing.samples import Sample
from monkeyproof.record.history import HistoryWriter, Kind

LEARN_WITHIN_S = 10.0
LEARN_FROM = 8
"""Samples: few, so that one that was unlucky does not keep it from learning for long."""
MOST_SAMPLES = 24
FORGET_S = 1.0
"""A detection that is back within this time is the same one."""
ABOUT_REPLICAS = (Signal.REPLICA_DOWN, Signal.REPLICA_SLOW)
MASKED: dict[Remedy, tuple[Signal, ...]] = {
    Remedy.QUARANTINE_AND_RESTORE: (Signal.STRAY_RECORDS, Signal.STRAY_FEATURES),
    Remedy.SERVE_SNAPSHOT: (Signal.STORE_DOWN, Signal.FEATURE_ERRORS, Signal.STRAY_FEATURES),
}
"""What still strays behind a mitigation is known, and harms nobody."""

Key = tuple[Cause, str]
Submit = Callable[[Callable[[], Attempt]], "Future[Attempt]"]


@dataclass(slots=True)
class _Memory:
    """Since when a detection has been there, and when it was last."""

    seen: Seen
    last_s: float


class Controller:
    """Fed with samples. ``prepare`` makes the hands once the reference is known; ``submit`` runs an action."""

    def __init__(
        self,
        history: HistoryWriter,
        prepare: Callable[[Reference], Actuators],
        submit: Submit,
        clock: Clock,
        limits: Limits | None = None,
    ) -> None:
        self._history = history
        self._incidents = Incidents(history)
        self._prepare = prepare
        self._submit = submit
        self._clock = clock
        self._limits = limits or Limits()
        self._window: deque[Sample] = deque(maxlen=MOST_SAMPLES)
        self._reference: Reference | None = None
        self._hands: Actuators | None = None
        self._began_s = clock.monotonic_s()
        self._memory: dict[tuple[Signal, str], _Memory] = {}
        self._cases: dict[Key, Case] = {}
        self._mitigations: dict[tuple[Remedy, str], Mitigation] = {}
        self._patience = Patience()
        self._busy: dict[str, Future[Attempt]] = {}
        self._lifting: dict[tuple[Remedy, str], Future[Attempt]] = {}
        self._actions_s: deque[float] = deque(maxlen=64)

    @property
    def ready(self) -> bool:
        return self._reference is not None

    def step(self, sample: Sample) -> None:
        """Take one sample in, and do what follows from it."""
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

    # --- learning --------------------------------------------------------------------------------------------

    def _learn(self, now_s: float) -> None:
        reference = learn(tuple(self._window)[-LEARN_FROM:])
        if reference is not None:
            try:
                self._hands = self._prepare(reference)
            except TargetError:
                return  # Not well enough to be a reference. It is asked again with the next sample.
            self._reference = reference
            self._history.event(Kind.HEALER_READY, samples=reference.samples_count, version=reference.version)
        elif now_s - self._began_s > LEARN_WITHIN_S and not self._incidents.count:
            why = f"no healthy reference within {LEARN_WITHIN_S:g} s: the target is not well, or cannot be seen"
            self._incidents.write(
                "target", why, None, (), "Look at the target first: what is normal is not known."
            )

    def _accept_champion(self, window: Sequence[Sample]) -> None:
        """A new version that has been right for a whole window is a release, not a fault."""
        assert self._reference is not None
        assert self._hands is not None
        answers = [asked for sample in window for asked in all_asked(sample)]
        versions = frozenset[str]().union(*(asked.versions for asked in answers))
        wrong, right = sum(asked.wrong for asked in answers), sum(asked.right for asked in answers)
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
            self._hands = replace(self._hands, version=version)

    # --- seeing ----------------------------------------------------------------------------------------------

    def _masked(self, one: Detection) -> bool:
        return any(one.signal in MASKED.get(remedy, ()) for remedy, _ in self._mitigations)

    def _note(self, found: Sequence[Detection], now_s: float) -> None:
        for one in found:
            key = (one.signal, one.subject)
            known = self._memory.get(key)
            if known is None:
                self._history.event(
                    Kind.HEALER_DETECTED,
                    one.subject,
                    signal=one.signal,
                    value=one.value,
                    threshold=one.threshold,
                    summary=one.summary,
                )
            self._memory[key] = _Memory(Seen(one, known.seen.since_s if known else now_s), now_s)
        for key in [key for key, known in self._memory.items() if now_s - known.last_s > FORGET_S]:
            del self._memory[key]

    def _open(self, found: Sequence[Detection], now_s: float) -> None:
        seen = [self._memory[(one.signal, one.subject)].seen for one in found]
        at_work = any(case.state is not State.ESCALATED for case in self._cases.values())
        for diagnosis in diagnose(seen, now_s, explained=at_work or self._just_acted(now_s)):
            key = (diagnosis.cause, diagnosis.subject)
            if key not in self._cases:
                self._cases[key] = Case(diagnosis, now_s)
                self._history.event(
                    Kind.HEALER_DIAGNOSED, diagnosis.subject, cause=diagnosis.cause, summary=diagnosis.summary
                )

    def _just_acted(self, now_s: float) -> bool:
        return bool(self._actions_s) and now_s - self._actions_s[-1] < self._limits.settle_s

    # --- cases -----------------------------------------------------------------------------------------------

    def _advance(self, key: Key, found: Sequence[Detection], now_s: float) -> None:
        case = self._cases[key]
        subject = case.diagnosis.subject
        if case.state is State.ACTING:
            case = self._finished(case, now_s)
        case = observe(case, self._out_of_range(case.diagnosis, found), now_s)
        match decide(case, self._actions_s, now_s, self._limits):
            case Act(remedy) if subject not in self._busy:
                self._busy[subject] = self._act(remedy, subject, case.diagnosis.summary, now_s)
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
        # A quarantine may have begun although the rest of the remedy failed.
        if attempt.remedy in LIFTS and (attempt.ok or attempt.remedy is Remedy.QUARANTINE_AND_RESTORE):
            key = (attempt.remedy, case.diagnosis.subject)
            self._mitigations[key] = Mitigation(*key, now_s)
            self._patience = self._patience.needed_again(*key, now_s)
        state = State.VERIFYING if attempt.ok else State.OPEN
        return replace(case, state=state, tried=(*case.tried, attempt))

    def _out_of_range(self, diagnosis: Diagnosis, found: Sequence[Detection]) -> frozenset[Signal] | None:
        """The signals that speak of this case; None if too little is known to say that others are in range."""
        recent = list(self._window)[-detect.RECENT :]
        blind = not any(sample.gateway.right + sample.gateway.wrong for sample in recent)
        if diagnosis.cause is not Cause.BLIND and (blind or recent[-1].replicas is None):
            return None
        return frozenset(
            one.signal for one in found if one.signal not in ABOUT_REPLICAS or one.subject == diagnosis.subject
        )

    def _act(self, remedy: Remedy, subject: str, why: str, now_s: float) -> Future[Attempt]:
        hands = self._hands
        assert hands is not None
        self._actions_s.append(now_s)
        self._history.event(Kind.HEALER_ACTING, subject, remedy=remedy, summary=why)

        def perform() -> Attempt:
            began_s = self._clock.monotonic_s()
            try:
                ok, summary = True, REMEDIES[remedy](hands, subject)
            except Exception as error:  # Whatever a remedy meets, the Elephant lives on and says so.
                ok, summary = False, str(error) or repr(error)
            self._history.event(Kind.HEALER_ACTED, subject, remedy=remedy, ok=ok, summary=summary)
            return Attempt(remedy, began_s, self._clock.monotonic_s(), ok, summary)

        return self._submit(perform)

    # --- taking back -----------------------------------------------------------------------------------------

    def _lift(self, window: Sequence[Sample], now_s: float) -> None:
        for key, future in [(key, future) for key, future in self._lifting.items() if future.done()]:
            del self._lifting[key], self._busy[key[1]]
            if future.result().ok:
                self._mitigations.pop(key, None)
                self._patience = self._patience.lifted(*key, now_s)
            else:
                self._mitigations[key] = replace(self._mitigations[key], since_s=now_s)
        for key, mitigation in tuple(self._mitigations.items()):
            waited = now_s - mitigation.since_s >= self._patience.keep_s(mitigation)
            in_use = any(case.diagnosis.subject == key[1] for case in self._cases.values())
            within = sum(now_s - at_s < 60.0 for at_s in self._actions_s) < self._limits.actions_per_minute
            if waited and within and not in_use and key[1] not in self._busy and self._is_safe(mitigation, window):
                lift = LIFTS[mitigation.remedy]
                why = f"well again for {lift.evidence_s:g} s behind the remedy {mitigation.remedy}"
                self._busy[key[1]] = self._lifting[key] = self._act(lift.by, key[1], why, now_s)

    def _is_safe(self, mitigation: Mitigation, window: Sequence[Sample]) -> bool:
        assert self._reference is not None
        for_s = LIFTS[mitigation.remedy].evidence_s
        if mitigation.remedy is Remedy.DRAIN:
            return detect.is_fast(window, self._reference, mitigation.subject, for_s)
        if mitigation.remedy is Remedy.SERVE_SNAPSHOT:
            return detect.store_answers(window, for_s)
        return detect.records_are_clean(window, self._reference, for_s)


def resolution(case: Case) -> str:
    """How a case ended, for people."""
    done = [attempt for attempt in case.tried if attempt.ok]
    if done:
        return f"{case.diagnosis.cause}: in range again after {done[-1].remedy}"
    return f"{case.diagnosis.cause}: in range again, with no action of the Elephant"
