"""The main job on the real embedded target: break it, watch it heal, and say what its users saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from monkeyproof import paths
from monkeyproof.history import History, Kind
from monkeyproof.pytest_plugin import Chaos
from monkeyproof.types import Outcome

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

HEALED = {
    "latency-spike": "drain",
    "broken-rollback": "roll",
    "feature-store-outage": "snapshot",
}
"""Experiments that the Elephant heals under the fault, and a word of the remedy that does it."""
SILENT = ("corrupt-records", "broken-rollback", "feature-store-outage")


@pytest.mark.parametrize(
    "experiment",
    # A latency spike is healed below, where its history is read as well.
    [pytest.param(name, marks=pytest.mark.slow if name == "latency-spike" else ()) for name in HEALED],
)
def test_elephant_heals_under_the_fault(chaos: Chaos, experiment: str) -> None:
    trial = chaos.run(experiment, healer="elephant")
    assert trial.outcome is Outcome.HEALED, trial
    assert trial.recovered_within_s(15), trial
    assert any(HEALED[experiment] in remedy for remedy in trial.result.healed_by), trial.result.healed_by
    recovery = trial.recovery
    assert recovery.bad_count > 0
    assert recovery.ttd_s is not None
    assert recovery.t0_s is not None
    assert recovery.impact_s is not None
    assert recovery.impact_s >= recovery.t0_s
    assert trial.result.evidence
    assert not trial.result.not_reverted
    assert trial.result.load["requests"] > 0


def test_elephant_mends_corrupt_records_before_many_are_served(chaos: Chaos) -> None:
    """One batch is enough for it to see; whether a probe met a record of that batch is the probe's luck."""
    trial = chaos.run("corrupt-records", healer="elephant")
    assert trial.outcome in (Outcome.HEALED, Outcome.ABSORBED), trial
    assert any("restore" in remedy for remedy in trial.result.healed_by), trial.result.healed_by
    assert trial.recovery.wrong_count < 50


@pytest.mark.parametrize(
    "experiment",
    # Each takes its whole horizon, so one that fails silently stands for all.
    [
        "feature-store-outage",
        pytest.param("corrupt-records", marks=pytest.mark.slow),
        pytest.param("broken-rollback", marks=pytest.mark.slow),
        pytest.param("latency-spike", marks=pytest.mark.slow),
    ],
)
def test_without_a_healer_it_stays_broken_until_the_fault_is_removed(chaos: Chaos, experiment: str) -> None:
    trial = chaos.run(experiment, healer="none")
    assert trial.outcome is Outcome.FAULT_REMOVED, trial
    assert trial.recovery.ttr is None
    assert trial.recovery.censored_at_s is not None
    assert trial.recovery.ttd_s is None
    assert not trial.recovered_within_s(60)
    if experiment in SILENT:
        # What the project exists for: HTTP 200, fast, and wrong.
        assert trial.recovery.wrong_count > 0.9 * trial.recovery.bad_count, trial
        assert trial.recovery.silent_s is not None
        # Nobody noticed for as long as it lasted.
        assert trial.recovery.silent_s > 0.9 * trial.recovery.censored_at_s


@pytest.mark.parametrize("healer", [pytest.param("none", marks=pytest.mark.slow), "elephant"])
def test_a_killed_replica_is_the_platforms_own_business(chaos: Chaos, healer: str) -> None:
    trial = chaos.run("replica-kill", healer=healer)
    assert trial.outcome in (Outcome.ABSORBED, Outcome.SELF_RECOVERED), trial
    assert trial.recovered_within_s(6), trial
    assert "gone" in trial.result.evidence[0]


def test_in_a_sham_nobody_heals_and_nothing_is_bad(chaos: Chaos) -> None:
    trial = chaos.run("sham", healer="elephant")
    assert trial.outcome is Outcome.ABSORBED, trial
    events = History.read(trial.folder)
    assert not events.of_kind(Kind.HEALER_ACTING), "a false heal"
    # It learned what is usual from what it saw after the target was put back: six looks, four a second.
    prepared = next(event for event in events.of_kind(Kind.PHASE_ENDED) if event.subject == "prepare")
    ready = events.first(Kind.HEALER_READY)
    assert ready is not None
    assert ready.t_s - prepared.t_s >= 5 * 0.25
    # Chaos Toolkit has nothing to say of a trial that went well.
    assert not list(trial.folder.parent.glob("*.log"))


def test_every_trial_leaves_a_history_that_explains_itself(
    chaos: Chaos, open_to_others: Callable[[Path], list[str]]
) -> None:
    trial = chaos.run("latency-spike", healer="elephant", seed=3)
    assert trial.outcome is Outcome.HEALED, trial
    names = {path.name for path in trial.folder.iterdir()}
    assert {"trial.json", "events.jsonl", "readings.arrows", "load.json", "undo.jsonl", "journal.json"} <= names
    # Between the two there is no order: a healer may be quicker than the proof.
    harness = [
        Kind.TRIAL_STARTED,
        Kind.BASELINE_MET,
        Kind.FAULT_INTENDED,
        Kind.FAULT_EFFECTIVE,
        Kind.RECOVERY_SEEN,
        Kind.FAULT_REVERTED,
        Kind.TRIAL_ENDED,
    ]
    healer = [Kind.HEALER_READY, Kind.HEALER_DETECTED, Kind.HEALER_ACTING, Kind.HEALER_ACTED]
    kinds = [event.kind for event in History.read(trial.folder).events]
    for steps in (harness, healer):
        places = [kinds.index(step) for step in steps]
        assert places == sorted(places)
    # Nothing is anybody else's to read, of the trial, the campaign, or the harness's own state.
    assert open_to_others(trial.folder.parents[1]) == []
    assert open_to_others(paths.home()) == []
