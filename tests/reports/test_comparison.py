"""Comparing arms and campaigns: published worked examples, simulation, and where nothing can be compared."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sample_campaign import replica_kill
from samples import SLO as SAMPLE_SLO
from samples import write_trial
from scipy import stats
from test_statistics import PLACEBO, SIX_MP, SLO, campaign, observations, trial

from monkeyproof.cli import main
from monkeyproof.reports.formats.comparison_table import print_comparison
from monkeyproof.reports.model.campaign_comparison import CampaignComparison
from monkeyproof.reports.model.comparison_rows import comparison_rows
from monkeyproof.reports.stats.comparison import compare_arms, compare_campaigns, differences
from monkeyproof.reports.stats.effect import difference, log_rank_p, sign_p
from monkeyproof.reports.stats.survival import (
    Estimate,
    Observation,
    common_horizon_s,
    kaplan_meier,
    pseudo_values_s,
    restricted_mean,
)
from monkeyproof.types import Campaign, Outcome

Draw = Callable[[np.random.Generator, int], np.ndarray]


def exponential(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.exponential(1.0, count)


def lognormal(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.lognormal(0.0, 0.5, count)


def seen(times_s: Sequence[float] | np.ndarray, until_s: Sequence[float] | np.ndarray) -> list[Observation]:
    """Trials of these true times, watched until then."""
    return [Observation(float(min(one, end)), bool(one <= end)) for one, end in zip(times_s, until_s, strict=True)]


def holds(found: Estimate, truth_s: float) -> bool:
    assert found.low_s is not None
    assert found.high_s is not None
    return found.low_s <= truth_s <= found.high_s


def test_log_rank_of_the_leukaemia_trial() -> None:
    p = log_rank_p(observations(SIX_MP), observations(PLACEBO))
    assert p is not None
    # Kleinbaum and Klein, chapter 2: 16.79 with one degree of freedom.
    assert stats.chi2.isf(p, 1) == pytest.approx(16.79, abs=0.005)


def test_restricted_means_of_the_leukaemia_trial() -> None:
    # R survival, print(survfit(...), rmean = 35): 23.29 (se 2.83) and 8.67 (se 1.38). Greenwood's standard error
    # divides by n where the jackknife divides by n - 1; without censoring that is the whole difference.
    for pairs, mean_s, error_s, close in ((PLACEBO, 8.67, 1.38, 0.003), (SIX_MP, 23.29, 2.83, 0.03)):
        found = restricted_mean(observations(pairs), 35.0, 0.95)
        assert found.value_s == pytest.approx(mean_s, abs=0.005)
        assert found.low_s is not None
        jackknife_s = (found.value_s - found.low_s) / stats.t.ppf(0.975, 20)
        assert jackknife_s * math.sqrt(20 / 21) == pytest.approx(error_s, rel=close)


def test_difference_is_scipys_t_test() -> None:
    ours, theirs = [1.0, 2.5, 3.0, 4.0, 7.0], [2.0, 6.0, 3.5, 9.0, 8.0]
    one, other = seen(ours, [99.0] * 5), seen(theirs, [99.0] * 5)
    for paired, test in (
        (True, stats.ttest_rel(theirs, ours)),
        (False, stats.ttest_ind(theirs, ours, equal_var=False)),
    ):
        found, p = difference(one, other, 9.0, 0.9, paired=paired)
        interval = test.confidence_interval(0.9)
        expected = (2.2, interval.low, interval.high)
        assert (found.value_s, found.low_s, found.high_s) == pytest.approx(expected)
        assert p == pytest.approx(test.pvalue)


def leave_one_out_s(sample: Sequence[Observation], horizon_s: float) -> list[float]:
    """Pseudo-values by their definition."""
    count = len(sample)
    whole_s = kaplan_meier(sample).restricted_mean_s(horizon_s)
    others = ([*sample[:at], *sample[at + 1 :]] for at in range(count))
    return [count * whole_s - (count - 1) * kaplan_meier(one).restricted_mean_s(horizon_s) for one in others]


trials = st.lists(
    st.builds(Observation, st.integers(0, 60).map(lambda tenths: tenths / 10), st.booleans()),
    min_size=2,
    max_size=12,
)


@settings(deadline=None, max_examples=50)
@given(trials, st.integers(1, 70).map(lambda tenths: tenths / 10))
def test_pseudo_values(sample: list[Observation], horizon_s: float) -> None:
    assert pseudo_values_s(sample, horizon_s) == pytest.approx(leave_one_out_s(sample, horizon_s), abs=1e-9)


def close(one: Estimate, other: Estimate, factor: float = 1.0) -> bool:
    ends = ((one.value_s, other.value_s), (one.low_s, other.low_s), (one.high_s, other.high_s))
    return all(
        (a is None and b is None)
        or (a is not None and b is not None and math.isclose(a * factor, b, rel_tol=1e-6, abs_tol=1e-6))
        for a, b in ends
    )


@settings(deadline=None, max_examples=50)
@given(trials, trials, st.randoms(use_true_random=False))
def test_order_and_unit_of_time_change_nothing(
    one: list[Observation], other: list[Observation], rng: object
) -> None:
    horizon_s = common_horizon_s([one, other])
    mean, (gain, p) = restricted_mean(one, horizon_s, 0.95), difference(one, other, horizon_s, 0.95, paired=False)
    mixed = list(one)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    assert close(mean, restricted_mean(mixed, horizon_s, 0.95))
    assert close(gain, difference(mixed, other, horizon_s, 0.95, paired=False)[0])
    in_ms = [[replace(seen, time_s=seen.time_s * 1000) for seen in side] for side in (one, other)]
    gain_ms, p_ms = difference(in_ms[0], in_ms[1], horizon_s * 1000, 0.95, paired=False)
    assert close(gain, gain_ms, 1000)
    assert (p is None) == (p_ms is None)
    back, p_back = difference(other, one, horizon_s, 0.95, paired=False)
    assert (p_back is None) == (p is None)
    if gain.value_s is not None and back.value_s is not None:
        assert gain.value_s == pytest.approx(-back.value_s, abs=1e-9)


REPEATS = 1500
MONTE_CARLO = 3 * math.sqrt(0.95 * 0.05 / REPEATS)
"""Three standard errors of a simulated coverage of 95 %: 0.017."""


@pytest.mark.parametrize(
    ("draw", "count", "censored", "at_least"),
    [
        # Few trials of skewed times get somewhat less than 95 %, as the documentation of restricted_mean says.
        (exponential, 10, False, 0.90),
        (exponential, 10, True, 0.89),
        (lognormal, 10, True, 0.90),
        (exponential, 30, False, 0.95 - MONTE_CARLO),
        (exponential, 30, True, 0.92),
        (lognormal, 30, False, 0.95 - MONTE_CARLO),
    ],
)
def test_coverage_of_the_restricted_mean(draw: Draw, count: int, censored: bool, at_least: float) -> None:
    rng, horizon_s = np.random.default_rng(20261121), 3.0
    truth_s = float(np.minimum(draw(np.random.default_rng(1), 1_000_000), horizon_s).mean())
    held = 0
    for _ in range(REPEATS):
        until_s = rng.exponential(3.0, count) if censored else np.full(count, horizon_s)
        held += holds(restricted_mean(seen(draw(rng, count), until_s), horizon_s, 0.95), truth_s)
    assert at_least <= held / REPEATS <= 0.95 + MONTE_CARLO


@pytest.mark.parametrize(("count", "paired"), [(10, True), (10, False), (30, True), (30, False)])
def test_coverage_of_the_difference(count: int, paired: bool) -> None:
    """Lognormal times with a part that both arms of a seed share; ours are half as long; watched for 3 s."""
    rng, horizon_s = np.random.default_rng(20261122), 3.0

    def sides(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        shared = rng.normal(0.0, 0.4, count)
        other = shared if paired else rng.normal(0.0, 0.4, count)
        return 0.5 * np.exp(shared + rng.normal(0, 0.3, count)), np.exp(other + rng.normal(0, 0.3, count))

    ours_s, theirs_s = sides(np.random.default_rng(1), 1_000_000)
    truth_s = float(np.minimum(theirs_s, horizon_s).mean() - np.minimum(ours_s, horizon_s).mean())
    held = 0
    until_s = np.full(count, horizon_s)
    for _ in range(REPEATS):
        one, other = (seen(side, until_s) for side in sides(rng, count))
        held += holds(difference(one, other, horizon_s, 0.95, paired=paired)[0], truth_s)
    at_least = 0.92 if count == 10 else 0.95 - MONTE_CARLO
    assert at_least <= held / REPEATS <= 0.95 + MONTE_CARLO


@pytest.mark.parametrize(
    ("count", "back", "never", "paired"),
    [(8, 0.05, 0.0, True), (8, 0.2, 0.1, False), (16, 0.1, 0.0, True), (16, 0.05, 0.0, False)],
)
def test_coverage_with_rare_recoveries(count: int, back: float, never: float, paired: bool) -> None:
    """Ours is back after about 1.25 s, but for a share that never is; of the reference, a share is back sometime.
    Student's t alone fails each: of 8 trials, at a share of 0.05, it held the truth in a third of samples."""
    rng, horizon_s, repeats = np.random.default_rng(20261124), 15.0, 200
    truth_s = (1 - back) * horizon_s + back * 7.5 - ((1 - never) * 1.25 + never * horizon_s)

    def side(times_s: np.ndarray, recovers: float) -> list[Observation]:
        # Watching ends where the last bad answer was, which is never exactly at the horizon.
        until_s = horizon_s - rng.uniform(0, 0.02, count)
        return seen(np.where(rng.random(count) < recovers, times_s, 99.0), until_s)

    held = 0
    for _ in range(repeats):
        ours = side(rng.normal(1.25, 0.13, count), 1 - never)
        theirs = side(rng.uniform(0, horizon_s, count), back)
        both_s = common_horizon_s([ours, theirs])
        held += holds(difference(ours, theirs, both_s, 0.95, paired=paired)[0], truth_s)
    assert held / repeats >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repeats)


def test_interval_without_spread() -> None:
    """8 of 8 back against 0 of 8: up to 36.9 % of either may have ended the other way (Clopper and Pearson)."""
    ours, theirs = seen([1.1, 1.2, 1.2, 1.3, 1.3, 1.4, 1.2, 1.3], [15.0] * 8), [Observation(15.0, False)] * 8
    found, p = difference(ours, theirs, 15.0, 0.95, paired=True)
    other = stats.binomtest(0, 8).proportion_ci(0.95, method="exact").high
    assert found.value_s == pytest.approx(13.75)
    assert found.low_s == pytest.approx(13.75 - other * math.hypot(15.0, 13.75))
    assert found.high_s is not None
    assert 13.75 < found.high_s < 13.9  # Ours cannot be much sooner, and the reference no later.
    assert p is None
    assert sign_p(zip(ours, theirs, strict=True)) == pytest.approx(2 / 2**8)


def test_with_enough_of_either_kind_it_is_students_t() -> None:
    ours = seen([1.0, 2.0, 3.0, 4.0, 5.0, 99, 99, 99, 99, 99], [15.0] * 10)
    theirs = seen([9.0, 6.0, 8.0, 7.0, 5.5, 99, 99, 99, 99, 99], [15.0] * 10)
    found, p = difference(ours, theirs, 15.0, 0.95, paired=False)
    times_s = [[min(one.time_s, 15.0) for one in side] for side in (theirs, ours)]
    test = stats.ttest_ind(*times_s, equal_var=False)
    assert (found.low_s, found.high_s) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert p == pytest.approx(test.pvalue)


def test_the_sign_test_leaves_out_what_does_not_tell() -> None:
    stuck, soon, late = Observation(15.0, False), Observation(1.0, True), Observation(2.0, True)
    unwatched = Observation(0.5, False)
    assert sign_p([(soon, late)] * 5 + [(late, soon)]) == pytest.approx(stats.binomtest(5, 6).pvalue)
    assert sign_p([(soon, stuck)] * 6 + [(stuck, stuck), (soon, unwatched), (soon, soon)]) == pytest.approx(1 / 32)
    assert sign_p([(stuck, stuck), (unwatched, late)]) is None
    # At equal times a recovery comes before a censoring.
    assert sign_p([(Observation(1.0, False), soon)] * 3) == pytest.approx(0.25)


@pytest.mark.parametrize(("count", "censored"), [(10, False), (30, False), (30, True)])
def test_coverage_of_the_median(count: int, censored: bool) -> None:
    rng = np.random.default_rng(20261123)
    held = 0
    for _ in range(REPEATS):
        until_s = rng.exponential(3.0, count) if censored else np.full(count, 99.0)
        low_s, high_s = kaplan_meier(seen(rng.exponential(1.0, count), until_s)).quantile_interval_s(0.5)
        held += (low_s or 0.0) <= math.log(2) <= (math.inf if high_s is None else high_s)
    assert held / REPEATS >= 0.95 - MONTE_CARLO  # The band moves in steps, so it may hold more often.


def test_nothing_to_say_is_none() -> None:
    stuck, back = Observation(15.0, False), Observation(2.0, True)
    nothing = Estimate(None, None, None)
    cases = [
        ([back] * 3, [back] * 3, Estimate(0.0, None, None)),
        ([back], [stuck], Estimate(13.0, None, None)),
        ([], [stuck], nothing),
        ([], [], nothing),
        ([Observation(0.0, False)] * 2, [back] * 2, nothing),
        ([Observation(0.0, True)] * 2, [Observation(0.0, True)] * 2, Estimate(0.0, None, None)),
    ]
    for ours, theirs, expected in cases:
        horizon_s = common_horizon_s([ours, theirs]) if ours or theirs else 0.0
        for paired in {False, len(ours) == len(theirs)}:
            assert difference(ours, theirs, horizon_s, 0.95, paired=paired) == (expected, None)
        assert restricted_mean(ours[:1], horizon_s, 0.95).low_s is None
    assert log_rank_p([stuck] * 3, [stuck] * 3) is None
    assert log_rank_p([back] * 3, [back] * 3) is None
    assert log_rank_p([], [back]) is None


def arms(seeds: range, other_seeds: range) -> Campaign:
    shown = [trial("kill", "elephant", seed, Outcome.HEALED, 1.0 + seed / 10) for seed in seeds]
    shown += [trial("kill", "none", seed, Outcome.SELF_RECOVERED, 5.0 + seed / 5) for seed in other_seeds]
    return campaign(*shown)


def test_arms_are_paired_by_seed() -> None:
    (found,) = compare_arms(arms(range(1, 11), range(1, 9)), SLO)
    assert (found.name, found.reference, found.count, found.reference_count) == ("elephant", "none", 10, 8)
    assert (found.pairs_count, found.compared_count) == (8, 8)
    assert found.sooner.value_s == pytest.approx(4.45)
    assert found.restricted_mean_s == pytest.approx(1.45)
    assert found.paired_p is not None
    assert found.paired_p < 0.001


def test_few_common_seeds_are_not_paired() -> None:
    (found,) = compare_arms(arms(range(1, 11), range(9, 19)), SLO)
    assert (found.pairs_count, found.paired_p, found.compared_count) == (0, None, 10)
    assert found.sooner.value_s == pytest.approx(7.7 - 1.55)
    assert found.log_rank_p is not None
    assert found.log_rank_p < 0.001


def test_campaigns_are_compared_arm_by_arm() -> None:
    before = replace(arms(range(1, 6), range(1, 6)), name="before")
    after = replace(campaign(*(one for one in before.trials if one.arm == "elephant")), name="after")
    (found,) = compare_campaigns(after, before, SLO)
    assert (found.name, found.reference, found.arm, found.pairs_count) == ("after", "before", "elephant", 5)
    assert found.sooner == Estimate(0.0, None, None)


def test_sign_test_without_spread() -> None:
    shown = [trial("kill", "elephant", seed, Outcome.HEALED, 1.0 + seed / 10) for seed in range(8)]
    shown += [trial("kill", "none", seed, Outcome.NOT_RECOVERED, 15.0) for seed in range(8)]
    (found,) = compare_arms(campaign(*shown), SLO)
    assert found.paired_p is None
    assert found.sign_p == pytest.approx(2 / 2**8)
    (row,) = comparison_rows((found,))
    assert "sign test p 0.008" in row.line
    text = io.StringIO()
    print_comparison(CampaignComparison(("a", "b"), 0.95, (found,), ()), Console(file=text, width=80))
    assert "0.008 sign test" in " ".join(text.getvalue().split())
    assert "Where nearly all trials of a side ended alike" in " ".join(text.getvalue().split())


def test_differences_between_campaigns() -> None:
    one = replace(arms(range(1, 3), range(1, 3)), slo={"latency_ms": 250, "recovery": {"within_s": 10}})
    other = replace(arms(range(1, 3), range(0)), target="u", slo={"latency_ms": 250, "recovery": {"within_s": 5}})
    assert differences(one, one) == []
    assert differences(one, other) == [
        "the targets differ (t in A, u in B)",
        "the SLOs differ in recovery.within_s (10 in A, 5 in B)",
        "only A tried kill (none)",
    ]


def test_the_table_is_whole_at_80_columns() -> None:
    found = compare_campaigns(arms(range(1, 11), range(1, 9)), arms(range(3, 13), range(1, 9)), SLO)
    text = io.StringIO()
    console = Console(file=text, width=80)
    unlike = ("the targets differ (t in A, u in B)",)
    print_comparison(CampaignComparison(("runs/a", "runs/b"), 0.95, found, unlike), console)
    shown = text.getvalue()
    assert "…" not in shown
    assert "8 pairs" in shown
    assert "the targets differ (t in A, u in B)" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "10 of 10" not in shown  # Of the pairs alone.


def test_compare_refusals(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["compare", *words])
        return result.exit_code, result.output

    code, output = run(str(tmp_path / "none"), str(tmp_path))
    assert (code, "no such folder" in output) == (2, True)
    code, output = run(str(tmp_path), str(tmp_path))
    assert (code, "not a campaign's folder" in output) == (2, True)
    header = {"version": 1, "name": "c", "started_utc": "", "duration_s": 1.0, "target": "t", "seed": 1}
    header |= {"slo": {}, "prober": {}, "machine": {}, "versions": {}}
    (tmp_path / "campaign.json").write_text(json.dumps(header))
    code, output = run(str(tmp_path), str(tmp_path))
    assert (code, "no experiment in common" in output) == (2, True)


def write_campaign(folder: Path, recovered_s: float, digest: str, **noted: object) -> None:
    """Six trials of one experiment, as a campaign leaves them."""
    shown = {"target": "t", "seed": 1, "slo": dict(SAMPLE_SLO), "prober": {}, "machine": {}, "versions": {}}
    header = {"version": 1, "name": folder.name, "started_utc": "", "duration_s": 1.0, **shown}
    anchor = {"monotonic_s": 0.0, "utc": "2026-02-03T04:05:06.000+00:00"}
    for seed in (1, 2, 4, 5, 6, 7):
        plan = replace(replica_kill("elephant", seed), recovered_s=recovered_s + seed / 10)
        place = folder / "trials" / write_trial(folder / "trials", plan, seed, seed).folder
        trial_file = place / "trial.json"
        more = {
            "title": "A kill",
            "index": seed,
            "target_name": "t",
            "anchor": anchor,
            "experiment_sha256": digest,
            **noted,
        }
        trial_file.write_text(json.dumps(json.loads(trial_file.read_text()) | shown | more | {"seed": seed}))
    (folder / "campaign.json").write_text(json.dumps(header))


def test_compare_reads_two_campaigns(tmp_path: Path) -> None:
    write_campaign(tmp_path / "after", 0.5, "abc")
    write_campaign(tmp_path / "before", 2.5, "abd")
    result = CliRunner().invoke(main, ["compare", str(tmp_path / "after"), str(tmp_path / "before")])
    assert result.exit_code == 0, result.output
    assert "6 of 6" in result.output
    sooner = re.search(r"(\d\.\d\d) s sooner", result.output)
    assert sooner is not None
    assert float(sooner[1]) == pytest.approx(2.0, abs=0.25)  # To some of the users' questions.
    assert "the experiment replica-kill was another file in each" in result.output
    turned = CliRunner().invoke(main, ["compare", str(tmp_path / "before"), str(tmp_path / "after")])
    assert f"{sooner[1]} s later" in turned.output


def noted(load: float, horizon_s: float, evidence: str) -> dict[str, object]:
    windows = {"baseline_s": 1.5, "horizon_s": horizon_s, "after_revert_s": 5.0}
    return {"load": {"rate_per_s": load}, "windows": windows, "inject": "", "evidence": evidence, "undo": ""}


def test_compare_lists_differences_between_trials(tmp_path: Path) -> None:
    write_campaign(tmp_path / "a", 0.5, "abc", **noted(20.0, 15.0, "pods-gone"))
    write_campaign(tmp_path / "b", 0.5, "abc", **noted(200.0, 30.0, ""))
    write_campaign(tmp_path / "older", 0.5, "abc")

    def printed(one: str, other: str) -> str:
        result = CliRunner().invoke(main, ["compare", str(tmp_path / one), str(tmp_path / other)])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    shown = printed("a", "b")
    assert "the loads differ in rate_per_s (20.0 in A, 200.0 in B)" in shown
    assert "the windows differ in horizon_s (15.0 in A, 30.0 in B)" in shown
    assert (
        "in the experiment replica-kill, another activity was named as its evidence "
        "(pods-gone in A, as in its file in B)"
    ) in shown
    assert "as the fault" not in shown
    assert "baseline_s" not in shown
    assert "not alike" not in printed("a", "a")
    assert "not alike" not in printed("a", "older")  # It recorded nothing of it.
    # One trial of other windows than the rest.
    one = next((tmp_path / "b").rglob("trial.json"))
    one.write_text(json.dumps(json.loads(one.read_text()) | {"windows": {"horizon_s": 15.0}}))
    assert "the windows differ, and were not the same in all trials of one campaign" in printed("a", "b")
