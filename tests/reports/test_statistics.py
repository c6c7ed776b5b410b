"""Statistics against published worked examples, and the rules about censoring."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.config.target_file import RecoveryObjective, Slo
from monkeyproof.reports.stats.proportions import exact_share, sequential_share
from monkeyproof.reports.stats.summary import summarise
from monkeyproof.reports.stats.survival import Observation, common_horizon_s, kaplan_meier, observe
from monkeyproof.types import Campaign, Interval, Outcome, Recovery, TrialResult

# Remission times in weeks of acute leukaemia: E. J. Freireich et al., Blood 21 (1963) 699-716, as worked out in
# E. A. Gehan, Biometrika 52 (1965) 203-223 and in D. G. Kleinbaum and M. Klein, Survival Analysis, chapter 2.
SIX_MP = [(6, 1), (6, 1), (6, 1), (7, 1), (10, 1), (13, 1), (16, 1), (22, 1), (23, 1)]
SIX_MP += [(time, 0) for time in (6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35)]
PLACEBO = [(t, 1) for t in (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)]


def observations(pairs: list[tuple[int, int]]) -> list[Observation]:
    return [Observation(float(time), bool(event)) for time, event in pairs]


def test_kaplan_meier_of_the_leukaemia_trial() -> None:
    curve = kaplan_meier(observations(SIX_MP))
    found = {
        time: round(share, 3)
        for time, share in zip(curve.times_s, curve.shares, strict=True)
        if time in (6, 7, 10, 13, 16, 22, 23)
    }
    # Kleinbaum and Klein, table of the 6-MP group.
    assert found == {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert curve.quantile_s(0.5) == 23  # The published median; the 90th percentile is never reached.
    assert curve.quantile_s(0.9) is None
    assert curve.known_until_s == 35


def test_median_and_its_interval_without_censoring() -> None:
    curve = kaplan_meier(observations(PLACEBO))
    assert curve.quantile_s(0.5) == 8  # Published.
    assert curve.quantile_interval_s(0.5) == (4, 11)  # SAS LIFETEST, log-log, of the same data.
    assert curve.known_until_s == math.inf


def test_median_interval_that_is_open_above() -> None:
    # SAS LIFETEST, log-log, 6-MP: 13 to (none).
    assert kaplan_meier(observations(SIX_MP)).quantile_interval_s(0.5) == (13, None)


@pytest.mark.parametrize(
    ("pairs", "mean"),
    [(SIX_MP, 23.29), (PLACEBO, 8.67)],  # R survival: print(survfit(...), rmean = 35), "*rmean".
)
def test_restricted_mean(pairs: list[tuple[int, int]], mean: float) -> None:
    assert kaplan_meier(observations(pairs)).restricted_mean_s(35) == pytest.approx(mean, abs=0.005)


def test_restricted_mean_within_a_step() -> None:
    curve = kaplan_meier([Observation(2.0, True), Observation(6.0, True)])
    assert curve.restricted_mean_s(1.0) == 1.0
    assert curve.restricted_mean_s(4.0) == 3.0  # 2 at 1, 2 at 0.5
    assert curve.restricted_mean_s(10.0) == 4.0  # Nothing is censored: the plain mean.


# R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 5 (Clopper-Pearson).
@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_exact_shares(successes: int, count: int, low: float, high: float) -> None:
    found = exact_share(successes, count, 0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_no_share_of_nothing() -> None:
    assert exact_share(0, 0, 0.95) is None


OBSERVED = [
    (Outcome.ABSORBED, {}, Observation(0.0, True)),
    (Outcome.HEALED, {"ttr": Interval(3.1, 3.4)}, Observation(3.4, True)),  # The upper end.
    (Outcome.SELF_RECOVERED, {"ttr": Interval(0.2, 0.3)}, Observation(0.3, True)),
    (Outcome.FAULT_REMOVED, {"censored_at_s": 14.0}, Observation(14.0, False)),
    (Outcome.NOT_RECOVERED, {"censored_at_s": 15.0}, Observation(15.0, False)),
    (Outcome.NOT_RECOVERED, {}, Observation(0.0, False)),  # Not dropped, though nothing is known.
    (Outcome.HEALED, {}, Observation(0.0, False)),  # Healed at an unknown time: not flattered.
    (Outcome.INVALID, {"ttr": Interval(1.0, 2.0)}, None),
]


@pytest.mark.parametrize(("outcome", "fields", "seen"), OBSERVED)
def test_observation_of_a_trial(outcome: Outcome, fields: dict[str, Any], seen: Observation | None) -> None:
    assert observe(Recovery(outcome, "", **fields)) == seen


times = st.lists(
    st.builds(Observation, st.floats(0.01, 100).map(lambda x: round(x, 3)), st.booleans()), min_size=1, max_size=30
)


@given(times)
def test_curves_and_means_are_bounded(seen: list[Observation]) -> None:
    curve = kaplan_meier(seen)
    assert all(later <= earlier for earlier, later in zip((1.0, *curve.shares), curve.shares, strict=False))
    horizon_s = common_horizon_s([seen])
    assert 0 <= curve.restricted_mean_s(horizon_s) <= horizon_s + 1e-9
    if all(one.recovered for one in seen):
        plain = sum(one.time_s for one in seen) / len(seen)
        assert curve.restricted_mean_s(horizon_s) == pytest.approx(plain)


@given(times)
def test_censoring_never_shortens_times(seen: list[Observation]) -> None:
    worse = [replace(seen[0], recovered=False), *seen[1:]]
    horizon_s = max(one.time_s for one in seen)
    before = kaplan_meier(seen).restricted_mean_s(horizon_s)
    assert kaplan_meier(worse).restricted_mean_s(horizon_s) >= before - 1e-9


def trial(
    experiment: str, arm: str, seed: int, outcome: Outcome, time_s: float | None = None, index: int = 0
) -> TrialResult:
    under = outcome in (Outcome.HEALED, Outcome.SELF_RECOVERED)
    recovery = Recovery(
        outcome,
        "",
        ttr=Interval(time_s - 0.1, time_s) if under and time_s else None,
        censored_at_s=None if under else time_s,
    )
    return TrialResult(experiment, "", arm, seed, index, "", "t", "", recovery)


def campaign(*trials: TrialResult) -> Campaign:
    return Campaign("c", "", 1.0, "t", 1, {}, {}, {}, {}, trials)


SLO = Slo(recovery=RecoveryObjective(within_s=10.0, share=0.9, confidence=0.95))


def test_a_group() -> None:
    trials = [
        trial("kill", "elephant", 1, Outcome.HEALED, 2.0),
        trial("kill", "elephant", 2, Outcome.HEALED, 12.0),  # Too late for the deadline.
        trial("kill", "elephant", 3, Outcome.ABSORBED),
        trial("kill", "elephant", 4, Outcome.NOT_RECOVERED, 15.0),
        trial("kill", "elephant", 5, Outcome.FAULT_REMOVED, 5.0),  # Aborted early, say.
        trial("kill", "elephant", 6, Outcome.INVALID),
    ]
    group = summarise(campaign(*trials), SLO).groups[0]
    assert group.in_time is not None
    assert (group.in_time.successes, group.in_time.count) == (2, 5)
    assert (group.censored_count, group.invalid_count, group.censored_early_count) == (2, 1, 1)
    assert group.median_s == 12.0  # 0 and 2 leave 0.6, the censored 5 leaves two at risk, 12 leaves 0.3.
    assert group.p90.value_s is None
    assert group.horizon_s == 15.0
    assert sum(group.counts.values()) == 6


def test_group_of_invalid_trials() -> None:
    group = summarise(campaign(trial("kill", "none", 1, Outcome.INVALID)), SLO).groups[0]
    assert group.survival is None
    assert group.in_time is None
    assert (group.median_s, group.restricted_mean.value_s) == (None, None)


def test_arms_of_an_experiment_share_their_horizon() -> None:
    trials = [
        trial("kill", "elephant", 1, Outcome.HEALED, 2.0),
        trial("kill", "elephant", 2, Outcome.HEALED, 4.0),
        trial("kill", "none", 1, Outcome.NOT_RECOVERED, 15.0),
        trial("kill", "none", 2, Outcome.HEALED, 9.0),
    ]
    summary = summarise(campaign(*trials), SLO)
    assert [group.horizon_s for group in summary.groups] == [15.0, 15.0]
    assert [group.restricted_mean.value_s for group in summary.groups] == [3.0, 12.0]
    assert [(group.arm, len(group.observations)) for group in summary.arms] == [("elephant", 2), ("none", 2)]


def test_pairs_have_equal_seeds_and_two_valid_trials() -> None:
    trials = [
        trial("kill", "elephant", 1, Outcome.HEALED, 2.0),
        trial("kill", "elephant", 2, Outcome.HEALED, 4.0),
        trial("kill", "elephant", 3, Outcome.HEALED, 1.0),
        trial("kill", "elephant", 9, Outcome.HEALED, 1.0),  # No partner.
        trial("kill", "none", 1, Outcome.NOT_RECOVERED, 15.0),
        trial("kill", "none", 2, Outcome.SELF_RECOVERED, 6.0),
        trial("kill", "none", 3, Outcome.INVALID),  # Not a partner.
    ]
    (pair,) = summarise(campaign(*trials), SLO).pairs
    assert (pair.pairs_count, pair.recovered_count, pair.reference_recovered_count) == (2, 2, 1)
    assert (pair.count, pair.reference_count) == (4, 2)
    assert (pair.only_ours_count, pair.only_reference_count) == (1, 0)
    assert pair.sooner.value_s == pytest.approx((6 + 15) / 2 - 3)
    assert pair.horizon_s == 15.0


def test_a_seed_that_ran_twice_is_paired_in_order() -> None:
    trials = [
        trial("kill", "elephant", 1, Outcome.HEALED, 4.0, index=2),
        trial("kill", "elephant", 1, Outcome.HEALED, 2.0, index=0),
        trial("kill", "none", 1, Outcome.NOT_RECOVERED, 15.0, index=1),
    ]
    (pair,) = summarise(campaign(*trials), SLO).pairs
    assert (pair.pairs_count, pair.sooner.value_s) == (1, 13.0)


def test_intervals_of_a_group() -> None:
    trials = [trial("kill", "elephant", seed, Outcome.HEALED, float(seed)) for seed in range(1, 11)]
    group = summarise(campaign(*trials), SLO).groups[0]
    assert (group.median.value_s, group.p90.value_s) == (5.0, 9.0)
    assert group.median == group.survival.quantile(0.5) if group.survival else False
    # Nothing is censored: the ordinary t interval, 5.5 +- 2.262 * 3.0277 / sqrt(10).
    found = group.restricted_mean
    assert (found.value_s, found.low_s, found.high_s) == pytest.approx((5.5, 3.3341, 7.6659), abs=1e-4)
    assert group.median_earliest_s == pytest.approx(4.9)  # Every interval is 0.1 s wide.
    assert group.ttr_width_median_s == pytest.approx(0.1)


def test_shares_of_a_group() -> None:
    trials = [
        trial("kill", "elephant", 1, Outcome.ABSORBED),
        trial("kill", "elephant", 2, Outcome.HEALED, 2.0),
        trial("kill", "elephant", 3, Outcome.INVALID),
        trial("kill", "elephant", 4, Outcome.UNPROVEN, 2.0),
    ]
    trials[1:] = [replace(one, recovery=replace(one.recovery, wrong_count=7)) for one in trials[1:]]
    fixed = campaign(*trials)
    group = summarise(fixed, SLO).groups[0]
    assert (group.absorbed, group.served_wrong) == (exact_share(1, 2, 0.95), exact_share(1, 2, 0.95))
    assert (group.in_time, group.invalid_count) == (exact_share(2, 2, 0.95), 2)
    sequential = summarise(replace(fixed, plan={"sequential": True}), SLO).groups[0]
    assert sequential.in_time == sequential_share(2, 2, 0.95)
    assert sequential.served_wrong == sequential_share(1, 2, 0.95)


def test_shams_are_a_group_of_their_own() -> None:
    broken = trial("kill", "elephant", 1, Outcome.HEALED, 2.0)
    trials = [broken, trial("kill", "none", 1, Outcome.NOT_RECOVERED, 15.0)]
    trials += [replace(one, sham=True, recovery=Recovery(Outcome.ABSORBED, "")) for one in trials]
    summary = summarise(campaign(*trials), SLO)
    assert [(group.sham, len(group.observations)) for group in summary.groups] == [
        (False, 1),
        (False, 1),
        (True, 1),
        (True, 1),
    ]
    assert [len(group.trials) for group in summary.arms] == [1, 1]
    assert [(pair.pairs_count, pair.sooner.value_s) for pair in summary.pairs] == [(1, 13.0)]


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.none() | st.floats(0.2, 30)), max_size=8))
def test_group_without_nan(ended: list[tuple[Outcome, float | None]]) -> None:
    trials = [trial("kill", arm, seed, *one) for seed, one in enumerate(ended) for arm in ("none", "elephant")]
    summary = summarise(campaign(*trials), SLO)
    for group in (*summary.groups, *summary.arms):
        for found in (group.median, group.p90, group.restricted_mean):
            assert all(
                value is None or math.isfinite(value) for value in (found.value_s, found.low_s, found.high_s)
            )
    for pair in summary.pairs:
        told_s = (
            pair.sooner.value_s,
            pair.sooner.low_s,
            pair.sooner.high_s,
            pair.log_rank_p,
            pair.paired_p,
            pair.sign_p,
        )
        assert all(value is None or math.isfinite(value) for value in told_s)
        assert pair.sooner.value_s in (0.0, None)  # Both arms are the same.


def test_no_pairs_without_a_reference_arm() -> None:
    assert summarise(campaign(trial("kill", "elephant", 1, Outcome.HEALED, 2.0)), SLO).pairs == ()
