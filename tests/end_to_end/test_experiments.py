"""The main job on the real embedded target, in its parts; test_catalogue_trials runs every experiment once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from short_trials import with_windows

from monkeyproof import paths
from monkeyproof.config.target_file import TargetFile
from monkeyproof.pytest_plugin import Chaos
from monkeyproof.record.history import History, Kind
from monkeyproof.types import Outcome

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

SILENT = ("corrupt-records", "broken-rollback", "feature-store-outage")
HORIZON_S = 5.0


@pytest.fixture(scope="module")
def quick(chaos_target: TargetFile, tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    """As ``chaos``, with the same SLO, but short windows."""
    folder = tmp_path_factory.mktemp("quick")
    target = with_windows(chaos_target, folder, baseline_s=0.5, horizon_s=HORIZON_S, after_revert_s=5.0)
    return Chaos(target, folder, "elephant", 1)


@pytest.mark.parametrize(
    "experiment",
    # One that fails silently stands for all.
    [
        "feature-store-outage",
        pytest.param("corrupt-records", marks=pytest.mark.slow),
        pytest.param("broken-rollback", marks=pytest.mark.slow),
        pytest.param("latency-spike", marks=pytest.mark.slow),
    ],
)
def test_without_a_healer_it_stays_broken_until_the_fault_is_removed(quick: Chaos, experiment: str) -> None:
    trial = quick.run(experiment, healer="none")
    assert trial.outcome is Outcome.FAULT_REMOVED, trial
    assert trial.recovery.ttr is None
    assert trial.recovery.censored_at_s is not None
    assert trial.recovery.ttd_s is None
    assert not trial.recovered_within_s(60)
    if experiment in SILENT:
        # What the project exists for: HTTP 200, fast, and wrong.
        assert trial.recovery.wrong_count > 0.9 * trial.recovery.bad_count, trial
        assert trial.recovery.silent_s is not None
        # No healer detected it while it lasted.
        assert trial.recovery.silent_s > 0.9 * trial.recovery.censored_at_s


@pytest.mark.slow
def test_the_platform_restarts_a_killed_replica(quick: Chaos) -> None:
    trial = quick.run("replica-kill", healer="none")
    assert trial.outcome in (Outcome.ABSORBED, Outcome.SELF_RECOVERED), trial
    assert trial.recovered_within_s(6), trial
    assert "gone" in trial.result.evidence[0]


def test_a_sham_has_no_healing_and_no_bad_answer(quick: Chaos) -> None:
    trial = quick.run("sham", healer="elephant")
    assert trial.outcome is Outcome.ABSORBED, trial
    events = History.read(trial.folder)
    assert not events.of_kind(Kind.HEALER_ACTING), "a false heal"
    # It learned what is usual from what it saw after the target was reset: six samples, four a second.
    prepared = next(event for event in events.of_kind(Kind.PHASE_ENDED) if event.subject == "prepare")
    ready = events.first(Kind.HEALER_READY)
    assert ready is not None
    assert ready.t_s - prepared.t_s >= 5 * 0.25
    # Chaos Toolkit has nothing to say of a trial that went well.
    assert not list(trial.folder.parent.glob("*.log"))


def test_every_trial_leaves_a_history_that_explains_itself(
    quick: Chaos, open_to_others: Callable[[Path], list[str]]
) -> None:
    trial = quick.run("latency-spike", healer="elephant", seed=3)
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
    # No other user may read anything, of the trial, the campaign, or the harness's own state.
    assert open_to_others(trial.folder.parents[1]) == []
    assert open_to_others(paths.home()) == []
