"""The known outages of a calibration: what they are, and whether a measurement of one holds the truth. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.intervals import impact_index, impact_interval
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import Event, Kind
from monkeyproof.record.readings import Readings
from monkeyproof.types import Interval, Outcome, Recovery

KINDS = ("dark", "hung", "slow", "wrong", "30 % wrong", "flapping", "never recovers")
TOTAL = ("dark", "hung", "slow", "wrong")
STABLE_FOR_S = 1.0
REST_S = 0.6
"""Good time after an episode: longer than an answer may take, so that none hangs over into the next one."""
WATCHED_REST_S = REST_S / 2
"""How much of it is watched. The next episode begins when the script says, however long the service took to
switch: to answer all that hung takes it 20 ms at 500 questions a second, and a switch that takes longer than the
other half is a stall."""
SLO = Slo(latency_ms=200.0, objective=0.98, stable_for_s=STABLE_FOR_S)
TIMEOUT_MS = 600.0
NEVER_S = 2.0


@dataclass(frozen=True, slots=True)
class Episode:
    """One outage: what the service does, one mode after another. The fault begins with the first."""

    kind: str
    steps: tuple[tuple[str, float], ...]

    @property
    def script(self) -> tuple[tuple[str, float], ...]:
        """The steps and the good time after them, in which a recovery proves itself."""
        return (*self.steps, ("good", REST_S if self.endless else STABLE_FOR_S + REST_S))

    @property
    def endless(self) -> bool:
        return self.kind == "never recovers"

    @property
    def duration_s(self) -> float:
        return sum(duration_s for _, duration_s in self.script)


def plan_episodes(count: int, seed: int) -> list[Episode]:
    """So many episodes, kinds in equal numbers, in an order and with durations that the seed decides."""
    rng = np.random.default_rng(seed)
    kinds = [KINDS[place % len(KINDS)] for place in range(count)]
    return [_episode(str(kind), rng) for kind in rng.permutation(kinds)]


def _episode(kind: str, rng: np.random.Generator) -> Episode:
    def for_s(low_s: float, high_s: float) -> float:
        return float(rng.uniform(low_s, high_s))

    if kind == "30 % wrong":
        return Episode(kind, (("partly wrong", for_s(1.0, 2.0)),))
    if kind == "flapping":
        first, second = (str(mode) for mode in rng.choice(TOTAL, 2))
        blip_s = for_s(0.2, 0.8) * STABLE_FOR_S
        return Episode(kind, ((first, for_s(0.3, 0.7)), ("good", blip_s), (second, for_s(0.3, 0.7))))
    if kind == "never recovers":
        return Episode(kind, ((str(rng.choice(TOTAL)), NEVER_S),))
    return Episode(kind, ((kind, for_s(0.3, 1.3)),))


@dataclass(frozen=True, slots=True)
class Judged:
    """One episode, true against measured. Errors are of the interval's midpoint."""

    episode: Episode
    recovery: Recovery
    onset_held: bool | None
    """None: the onset is not an instant, for the first answers of a partial outage may be good."""
    end_held: bool
    """Of an outage without end: that it was not called recovered."""
    error_ms: float | None
    width_ms: float | None
    disturbed: str
    """Why the episode tells nothing of the clock: the machine itself stopped. "" if it does."""

    @property
    def held(self) -> bool:
        return self.end_held and self.onset_held is not False


def judge(
    episode: Episode, readings: Readings, switches: Sequence[tuple[float, float]], stalls: Sequence[Interval]
) -> Judged:
    """Measure one episode as a trial is measured, and hold that against the truth.

    ``switches`` are the instants between which each step of ``episode.script`` began; ``stalls`` when the service
    itself was not run. All on the readings' clock. The readings may hold other episodes, too.
    """
    began, ended = Interval(*switches[0]), Interval(*switches[-1])
    over_s = ended.low_s if episode.endless else ended.high_s + STABLE_FOR_S + WATCHED_REST_S
    recovery = measure(readings, events_of(began, over_s), SLO)
    onset = _onset(readings, began.low_s)
    true_onset = None if episode.kind == "30 % wrong" else began
    found = None if episode.endless else recovery.recovered
    if episode.endless:
        end_held = recovery.outcome is Outcome.NOT_RECOVERED and recovery.recovered is None
    else:
        end_held = recovery.outcome is Outcome.SELF_RECOVERED and _holds(found, ended)
    truth_s = (ended.low_s + ended.high_s) / 2
    return Judged(
        episode,
        recovery,
        None if true_onset is None else _holds(onset, true_onset),
        end_held,
        None if found is None else ((found.low_s + found.high_s) / 2 - truth_s) * 1000.0,
        None if found is None else found.width_s * 1000.0,
        _disturbed(episode, recovery, stalls, began.low_s, over_s),
    )


def events_of(began: Interval, over_s: float) -> list[Event]:
    """The events that a trial would record of a fault without a revert."""
    name = {"id": "f", "fault": "calibration"}
    return [
        Event(1, began.low_s, Kind.BASELINE_MET, "calibrate"),
        Event(2, began.low_s, Kind.FAULT_INTENDED, "calibrate", "service", {**name, "held": False}),
        Event(3, began.high_s, Kind.FAULT_EFFECTIVE, "calibrate", "service", name),
        Event(4, over_s, Kind.PHASE_STARTED, "calibrate", "put_back"),
    ]


def _onset(readings: Readings, t0_s: float) -> Interval | None:
    schedule = ProbeSchedule.of(readings)
    impact = None if schedule is None else impact_index(schedule, t0_s)
    return None if schedule is None or impact is None else impact_interval(schedule, impact, t0_s)


def _holds(found: Interval | None, truth: Interval) -> bool:
    return found is not None and found.low_s <= truth.high_s and truth.low_s <= found.high_s


def _disturbed(
    episode: Episode, recovery: Recovery, stalls: Sequence[Interval], from_s: float, to_s: float
) -> str:
    """Why the episode tells nothing of the clock, or "". An interval that was measured is never excused."""
    if any(stall.low_s < to_s and from_s < stall.high_s for stall in stalls):
        return "the service itself was not run for a while"
    if recovery.outcome is Outcome.INVALID:
        return recovery.reason
    tolerated = (1.0 - SLO.objective) * STABLE_FOR_S / (to_s - from_s) * recovery.readings_count
    if not episode.endless and recovery.recovered is None and recovery.unknown_count > tolerated:
        unknown = f"{recovery.unknown_count} questions were not asked in time"
        return f"the prober itself was not run for a while ({unknown}), so no window could prove the recovery"
    return ""


def _percentile(values: Sequence[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else 0.0


def figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """Figures over all episodes but those that were disturbed."""
    counted = [one for one in judged if not one.disturbed]
    errors_ms = [one.error_ms for one in counted if one.error_ms is not None]
    widths_ms = [one.width_ms for one in counted if one.width_ms is not None]
    held_count = sum(one.held for one in counted)
    onsets = [one.onset_held for one in counted if one.onset_held is not None]
    return {
        "episodes_count": len(counted),
        "disturbed_count": len(judged) - len(counted),
        "held_count": held_count,
        "held_share": held_count / len(counted) if counted else 0.0,
        "onsets_count": len(onsets),
        "onsets_held_count": sum(onsets),
        "bias_ms": float(np.mean(errors_ms)) if errors_ms else 0.0,
        "error_p99_ms": _percentile([abs(error) for error in errors_ms], 99),
        "width_p50_ms": _percentile(widths_ms, 50),
        "width_max_ms": max(widths_ms, default=0.0),
    }


def figures_by_kind(judged: Sequence[Judged]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for kind in KINDS:
        of_kind = [one for one in judged if one.episode.kind == kind]
        if of_kind:
            found.append({"kind": kind, **figures(of_kind)})
    return found
