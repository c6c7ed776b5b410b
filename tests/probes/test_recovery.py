"""Recovery, measured on traces whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from probe_traces import HEALER, PERIOD_S, SLO, detected, event, fault, letters, remedy, rows_of, trace

from monkeyproof.probes.recovery.measurement import measure, remedies_done
from monkeyproof.record.history import Event, Kind
from monkeyproof.record.readings import Readings
from monkeyproof.types import Outcome


def intended(events: list[Event], **more: float) -> list[Event]:
    """With this on record of the fault's own course."""
    return [replace(one, data={**one.data, **more}) if one.kind is Kind.FAULT_INTENDED else one for one in events]


# Readings every 50 ms, the fault at 2 s, steady means one second (20 slots) without a bad one.
OUTCOMES = {
    "absorbed": (letters((8, "G")), fault(reverted_s=6.0), Outcome.ABSORBED),
    "absorbed, though answers came from a fallback": (letters((2, "G"), (6, "D")), fault(), Outcome.ABSORBED),
    "healed": (letters((2, "G"), (1, "R"), (4, "G")), [*fault(reverted_s=6.0), *HEALER], Outcome.HEALED),
    "healer failed": (
        letters((2, "G"), (1, "R"), (4, "G")),
        [*fault(reverted_s=6.0), *remedy(2.7, 2.9, ok=False)],
        Outcome.SELF_RECOVERED,
    ),
    "healer acted while the recovery was proving itself": (
        letters((2, "G"), (1, "R"), (4, "G")),
        [*fault(reverted_s=6.0), *remedy(3.9, 4.2)],
        Outcome.HEALED,
    ),
    "healer acted too late": (
        letters((2, "G"), (1, "R"), (4, "G")),
        [*fault(reverted_s=6.0), *remedy(4.1, 4.2)],
        Outcome.SELF_RECOVERED,
    ),
    "healer acted before the fault": (
        letters((2, "G"), (1, "R"), (4, "G")),
        [*fault(reverted_s=6.0), *remedy(1.0, 1.1)],
        Outcome.SELF_RECOVERED,
    ),
    "a kill has nothing to revert": (
        letters((2, "G"), (1, "T"), (4, "G")),
        fault(held=False),
        Outcome.SELF_RECOVERED,
    ),
    "wrong answers are an outage": (letters((2, "G"), (1, "W"), (4, "G")), fault(), Outcome.SELF_RECOVERED),
    "slow answers are an outage": (letters((2, "G"), (1, "S"), (4, "G")), fault(), Outcome.SELF_RECOVERED),
    "only the revert helped": (
        letters((2, "G"), (3, "R"), (4, "G")),
        [*fault(reverted_s=5.0), *HEALER],
        Outcome.FAULT_REMOVED,
    ),
    "the fault's own timer ended it, whatever acted": (
        letters((2, "G"), (2, "R"), (4, "G")),
        [*intended(fault(reverted_s=7.0), ends_by_itself_s=2.0), *HEALER],
        Outcome.FAULT_REMOVED,
    ),
    "good before the fault's own timer could end it": (
        letters((2, "G"), (1, "R"), (5, "G")),
        [*intended(fault(reverted_s=7.0), ends_by_itself_s=2.5), *HEALER],
        Outcome.HEALED,
    ),
    "no longer good than a fault pauses that comes and goes": (
        letters((2, "G"), (2, "R"), (2.5, "G"), (2, "R"), (4, "G")),
        [*intended(fault(reverted_s=6.5), pauses_s=2.5), *HEALER],
        Outcome.FAULT_REMOVED,
    ),
    "good for longer than a fault pauses that comes and goes": (
        letters((2, "G"), (2, "R"), (5, "G")),
        [*intended(fault(reverted_s=7.6), pauses_s=2.5), *HEALER],
        Outcome.HEALED,
    ),
    "only pauses of a fault that is not reverted": (
        letters((2, "G"), (2, "R"), (2.5, "G"), (2, "R"), (2.5, "G")),
        intended(fault(held=False), pauses_s=2.5),
        Outcome.NOT_RECOVERED,
    ),
    "good too shortly before the revert": (
        letters((2, "G"), (3, "R"), (4, "G")),
        fault(reverted_s=5.9),
        Outcome.FAULT_REMOVED,
    ),
    "good for just long enough": (
        letters((2, "G"), (3, "R"), (4, "G")),
        fault(reverted_s=6.05),
        Outcome.SELF_RECOVERED,
    ),
    "bad only after the revert": (
        letters((5.2, "G"), (0.3, "R"), (4, "G")),
        fault(reverted_s=5.0),
        Outcome.FAULT_REMOVED,
    ),
    "never": (letters((2, "G"), (6, "R")), fault(reverted_s=5.0), Outcome.NOT_RECOVERED),
    "never, flapping": ("G" * 40 + ("R" * 3 + "G" * 15) * 10, fault(held=False), Outcome.NOT_RECOVERED),
    "one in ten is lost for ever": ("G" * 40 + ("R" + "G" * 9) * 20, fault(held=False), Outcome.NOT_RECOVERED),
    "good at the very end, not for long enough": (
        letters((2, "G"), (5, "R"), (0.9, "G")),
        fault(held=False),
        Outcome.NOT_RECOVERED,
    ),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome(name: str) -> None:
    text, events, outcome = OUTCOMES[name]
    found = measure(trace(text), events, SLO)
    assert (found.outcome, bool(found.reason)) == (outcome, True), found.reason
    assert (found.ttr is not None) == (outcome in (Outcome.HEALED, Outcome.SELF_RECOVERED))
    assert (found.censored_at_s is not None) == (outcome in (Outcome.FAULT_REMOVED, Outcome.NOT_RECOVERED))


INVALID = {
    "no fault": (letters((8, "G")), [event(1.0, Kind.BASELINE_MET)], "no fault was injected"),
    "no baseline": (letters((8, "G")), fault(baseline=False), "no baseline"),
    "baseline only after the fault": (
        letters((8, "G")),
        [*fault(baseline=False), event(3.0, Kind.BASELINE_MET)],
        "no baseline",
    ),
    "baseline missed": (
        letters((8, "G")),
        [*fault(), event(1.0, Kind.BASELINE_MISSED, why="only 80 % were good")],
        "only 80 % were good",
    ),
    "one of two faults unproven": (
        letters((2, "G"), (1, "R"), (4, "G")),
        [
            *fault(),
            event(2.5, Kind.FAULT_INTENDED, "registry", id="g", fault="registry.promote", held=True),
            event(4.0, Kind.FAULT_UNPROVEN, "registry", id="g", fault="registry.promote", why="no such version"),
        ],
        "registry.promote on registry (no such version)",
    ),
    "too many unknown": (letters((2, "G"), (0.4, "U"), (5, "G")), fault(), "7% of the readings"),
    "a hole in the file counts as unknown": (
        letters((2, "G"), (0.4, " "), (5, "G")),
        fault(),
        "7% of the readings",
    ),
    "another process removed it": (
        letters((2, "G"), (1, "R"), (4, "G")),
        [*fault(), event(8.9, Kind.FAULT_ENDED_EARLY, "champion", why="the champion is version 2, and was 3")],
        "the fault had ended before it was reverted, so it was not there all the while: the champion is",
    ),
    "one long gap": (letters((2, "G"), (1.2, "U"), (60, "G")), fault(), "1.2 s without any known reading"),
    "the prober died": (letters((2, "G"), (2, "R")), fault(reverted_s=9.0), "s without any known reading"),
    "the prober died before the fault": (letters((2, "G")), fault(t0_s=2.5), "no reading was due"),
    "one reading": ("G", fault(), "too few"),
    "an absorbed fault was not watched": (letters((2.5, "G")), fault(), "readings end 0.4 s after"),
    "aborted before anything was seen": (
        letters((4, "G")),
        [*fault(), event(3.9, Kind.TRIAL_ABORTED, why="Ctrl-C")],
        "aborted: Ctrl-C",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_says_why(name: str) -> None:
    text, events, why = INVALID[name]
    found = measure(trace(text), events, SLO)
    assert found.outcome is Outcome.INVALID
    assert why in found.reason
    assert found.ttr is None
    assert found.censored_at_s is None


def test_when_it_went_bad_and_when_that_was_known() -> None:
    """A question that hangs was asked at the onset, and found out when its time was over."""
    for letter, later_s in (("R", 0.0011), ("T", 1.0)):
        found = measure(trace(letters((2, "G"), (1, letter), (4, "G"))), fault(held=False), SLO)
        assert found.impact_s == pytest.approx(2.0)
        assert found.impact_seen_s == pytest.approx(2.0 + later_s)
    assert measure(trace(letters((8, "G"))), fault(held=False), SLO).impact_seen_s is None


def test_a_true_20_s_outage_measures_20_s() -> None:
    """The first trap: a peer's clock says 30 s."""
    found = measure(trace(letters((2, "G"), (20, "R"), (5, "G"))), fault(held=False), SLO)
    assert found.ttr is not None
    assert found.ttr.low_s <= 20.0 <= found.ttr.high_s
    assert found.ttr.width_s <= PERIOD_S + 0.02
    assert found.resilience_loss_s == pytest.approx(20 * SLO.objective, abs=0.1)


def test_a_flap_does_not_end_an_outage() -> None:
    """The second trap: a peer reports -5 s."""
    text = letters((2, "G"), (2, "R"), (0.9, "G"), (2, "R"), (5, "G"))
    found = measure(trace(text), fault(held=False), SLO)
    assert found.ttr is not None
    assert found.ttr.low_s <= 4.9 <= found.ttr.high_s
    assert found.relapses == 0


def test_never_recovered_is_censored_at_the_revert_and_not_dropped() -> None:
    """The third trap: a peer says "recovered, 3 s" for a flap that ends for ever."""
    text = letters((2, "G"), (1, "R"), (0.5, "G"), (8.5, "R"))
    found = measure(trace(text), fault(reverted_s=10.0), SLO)
    assert found.outcome is Outcome.NOT_RECOVERED
    assert found.censored_at_s == pytest.approx(8.0)
    assert found.recovered is None


def test_one_shot_is_censored_at_the_last_bad_reading() -> None:
    """The good readings at the end are no recovery, but nor is it known that there was none."""
    found = measure(trace(letters((2, "G"), (5, "R"), (0.5, "G"))), fault(held=False), SLO)
    assert found.outcome is Outcome.NOT_RECOVERED
    assert found.censored_at_s == pytest.approx(5.0 - PERIOD_S, abs=0.01)


def test_an_improvement_just_before_the_revert_is_censored() -> None:
    found = measure(trace(letters((2, "G"), (3, "R"), (4, "G"))), fault(reverted_s=5.9), SLO)
    assert found.censored_at_s == pytest.approx(3.0 - PERIOD_S, abs=0.01)
    assert "not for a whole window before" in found.reason


def test_the_time_the_revert_takes_is_not_time_under_the_fault() -> None:
    """The event of a revert comes when it is done; the fault may be gone since the revert began."""
    text = letters((2, "G"), (2, "R"), (4, "G"))
    assert measure(trace(text), fault(reverted_s=5.2), SLO).outcome is Outcome.SELF_RECOVERED
    for begins in (event(4.5, Kind.PHASE_STARTED, "revert"), event(4.5, Kind.PHASE_ENDED, "hold", why="horizon")):
        assert measure(trace(text), [*fault(reverted_s=5.2), begins], SLO).outcome is Outcome.FAULT_REMOVED


def test_an_answer_in_flight_at_the_revert_proves_nothing() -> None:
    """A hung request that the revert lets go is answered well, and in time: thanks to the revert."""
    rows = list(rows_of(trace(letters((2, "G"), (1, "R"), (4, "G")))))
    late = 79  # The last slot of the window that begins at 3 s: due at 3.95 s, answered at 4.1 s.
    rows[late] = replace(rows[late], finished_s=4.1)
    assert measure(Readings.of(rows), fault(reverted_s=4.05), SLO).outcome is Outcome.FAULT_REMOVED
    assert measure(Readings.of(rows), fault(reverted_s=4.15), SLO).outcome is Outcome.SELF_RECOVERED


def test_an_improvement_by_the_reset_is_no_recovery() -> None:
    """A kill has no revert, but between trials the harness starts what is still down."""
    text = letters((2, "G"), (2, "R"), (4, "G"))
    events = fault(held=False)
    assert measure(trace(text), events, SLO).outcome is Outcome.SELF_RECOVERED
    for reset_begins_s in (3.9, 4.9):
        ended = [
            *events,
            event(reset_begins_s, Kind.PHASE_STARTED, "put_back"),
            event(7.0, Kind.PHASE_ENDED, "put_back"),
        ]
        found = measure(trace(text), ended, SLO)
        assert found.outcome is Outcome.NOT_RECOVERED
        assert found.end_s == pytest.approx(reset_begins_s, abs=PERIOD_S + 0.001)


def test_a_reading_in_flight_at_t0_counts() -> None:
    """A request that the kill cut off was sent before t0, and its user was hit."""
    text = "G" * 39 + "T" + "G" * 120
    found = measure(trace(text), fault(t0_s=2.0, held=False), SLO)
    assert found.outcome is Outcome.SELF_RECOVERED
    assert (found.bad_count, found.impact_s) == (1, 2.0)
    assert found.ttr is not None
    assert found.ttr.low_s == 0.0


def test_an_unknown_reading_widens_the_interval() -> None:
    text = "G" * 40 + "R" * 20 + "U" * 2 + "G" * 100
    found = measure(trace(text), fault(held=False), SLO)
    assert found.recovered is not None
    assert found.recovered.low_s == pytest.approx(2.95, abs=0.001)
    assert found.recovered.high_s == pytest.approx(3.11, abs=0.001)


def test_a_blip_before_the_damage_is_no_recovery_from_it() -> None:
    text = letters((2, "G")) + "R" + letters((1.5, "G"), (4, "W"), (3, "G"))
    found = measure(trace(text), fault(reverted_s=6.5), SLO)
    assert found.outcome is Outcome.FAULT_REMOVED
    assert found.ttr is None
    assert found.relapses == 1
    assert found.recovered is not None
    assert found.recovered.low_s > 7.0


def test_a_recovery_is_dated_after_the_last_relapse_under_the_fault() -> None:
    text = letters((2, "G")) + "R" + letters((1.5, "G"), (1, "W"), (5, "G"))
    found = measure(trace(text), fault(reverted_s=9.0), SLO)
    assert found.outcome is Outcome.SELF_RECOVERED
    assert found.ttr is not None
    assert found.ttr.high_s > 2.4


def test_an_incomplete_schedule_is_invalid() -> None:
    text = letters((2, "G"), (6, "G"))
    for more, why in (
        (event(2.1, Kind.FAULT_UNPROVEN, "promote", id="", fault="promote", why="registry is down"), "promote"),
        (event(8.0, Kind.OBSERVER_DIED, "load", why="status 1"), "the load died"),
        (event(5.0, Kind.TRIAL_ABORTED, "x", why="its worker died"), "its worker died"),
    ):
        found = measure(trace(text), [*fault(), more], SLO)
        assert found.outcome is Outcome.INVALID
        assert why in found.reason
    assert measure(trace(text), fault(), SLO).outcome is Outcome.ABSORBED


@pytest.mark.parametrize(
    ("text", "outcome"),
    [(letters((2, "G"), (6, "G")), "absorbed"), (letters((2, "G"), (3, "R"), (4, "G")), "fault removed")],
)
def test_without_named_evidence_the_outcome_is_unproven(text: str, outcome: str) -> None:
    injected = [event(one.t_s, Kind.FAULT_INJECTED, one.subject, **one.data) for one in fault(reverted_s=5.0)]
    events = [
        instead if one.kind is Kind.FAULT_EFFECTIVE else one
        for one, instead in zip(fault(reverted_s=5.0), injected, strict=True)
    ]
    found, proven = measure(trace(text), events, SLO), measure(trace(text), fault(reverted_s=5.0), SLO)
    assert found.outcome is Outcome.UNPROVEN
    assert not found.outcome.counts
    assert found.reason.startswith(f"looks {outcome}: {proven.reason}; but nothing is named as evidence")
    assert replace(found, outcome=proven.outcome, reason=proven.reason) == proven
    without = [one for one in events if one.kind is not Kind.FAULT_INJECTED]
    assert measure(trace(text), without, SLO).outcome is Outcome.INVALID


def test_why_nothing_was_injected() -> None:
    missed = event(1.0, Kind.BASELINE_MISSED, good_share=0.5, window_s=1.5, why="half of it was bad")
    assert measure(trace(letters((4, "G"))), [missed], SLO).reason == (
        "no fault was injected, for the baseline was not met: half of it was bad"
    )


def test_a_false_alarm_before_the_fault_heals_nothing() -> None:
    assert remedies_done([*fault(), *remedy(1.0, 1.2)], 2.0, 9.0) == ()
    assert remedies_done([*fault(), *remedy(2.5, 2.7), *remedy(3.0, 3.1, ok=False)], 2.0, 9.0) == ("restart",)


def test_relapses_are_counted() -> None:
    text = letters((2, "G"), (1, "R"), (1.5, "G"), (0.5, "W"), (2, "G"), (1, "R"), (3, "G"))
    found = measure(trace(text), fault(held=False), SLO)
    assert (found.outcome, found.relapses) == (Outcome.SELF_RECOVERED, 2)
    assert "went bad again 2 times" in found.reason


def test_two_faults_begin_with_the_first_and_end_with_the_last() -> None:
    events = [
        *fault(2.0, name="a", reverted_s=6.5),
        *fault(2.4, name="b", reverted_s=6.4, baseline=False),
        event(2.0, Kind.BASELINE_MET),
    ]
    found = measure(trace(letters((2, "G"), (1, "R"), (6, "G"))), events, SLO)
    assert (found.t0_s, found.effective_s, found.reverted_s) == (2.0, pytest.approx(2.45), 6.4)


SILENT = {
    "noticed after half a second": ([*detected(2.5)], 0.5),
    "noticed before it was wrong": ([*detected(2.2)], None),
    "noticed before the fault: a false alarm": ([*detected(1.0)], 1.0),
    "never noticed": ([], 1.0),
    "noticed when it was over": ([*detected(6.0)], 1.0),
}


@pytest.mark.parametrize("name", SILENT)
def test_silent_time(name: str) -> None:
    events, silent_s = SILENT[name]
    late = name.startswith("noticed before it was")
    text = letters((2.4 if late else 2, "G"), (1, "W"), (4, "G"))
    found = measure(trace(text), [*fault(), *events], SLO)
    assert found.wrong_count == 20
    assert found.first_wrong_s == pytest.approx(0.4 if late else 0.0)
    assert found.silent_s == pytest.approx(silent_s or 0.0, abs=0.02)


def test_counts_and_times() -> None:
    text = letters((2, "G"), (0.5, "D"), (0.5, "W"), (0.1, "U"), (4, "G"))
    found = measure(trace(text), [*fault(), *HEALER], SLO)
    assert (found.degraded_count, found.wrong_count, found.bad_count, found.unknown_count) == (10, 10, 10, 2)
    assert found.readings_count == 10 + 10 + 2 + 80
    assert found.ttd_s == pytest.approx(0.6)
    assert found.lateness_p99_ms == pytest.approx(0.1, abs=0.01)
    assert found.end_s == pytest.approx(7.05)
