"""The rule by which a campaign is judged, one clause after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof import errors
from monkeyproof.config.target_file import Limit, RecoveryObjective, Slo, read_target_file
from monkeyproof.reports.model.headline import headline
from monkeyproof.reports.model.verdict import CampaignVerdict, Decision, Verdict, as_json, judge
from monkeyproof.reports.stats.summary import summarise
from monkeyproof.types import Campaign, Interval, Outcome, Recovery, TrialResult

SLO = Slo()  # 90 % within 10 s at 95 %.
PASS, FAIL, INCONCLUSIVE, ABORTED = Decision
PAGE = (Path(__file__).parents[2] / "docs" / "verdict.md").read_text(encoding="utf-8")


def trial(outcome: Outcome = Outcome.ABSORBED, **changes: Any) -> TrialResult:
    """One trial; what is not of the trial is of its recovery. ``ttr`` may be a pair."""
    ttr = changes.pop("ttr", None)
    of_recovery = {key: changes.pop(key) for key in ("censored_at_s", "wrong_count") if key in changes}
    recovery = Recovery(outcome, "", ttr=Interval(*ttr) if ttr else None, **of_recovery)
    fields: dict[str, Any] = {"experiment": "replica-kill", "arm": "elephant", "index": 0} | changes
    return TrialResult(
        title="",
        seed=1,
        folder="",
        target="local",
        started_utc="2026-02-03T04:05:06Z",
        recovery=recovery,
        **fields,
    )


def healed(low_s: float, high_s: float, **changes: Any) -> TrialResult:
    return trial(Outcome.HEALED, ttr=(low_s, high_s), **changes)


def unhealed(censored_at_s: float | None, **changes: Any) -> TrialResult:
    return trial(Outcome.FAULT_REMOVED, censored_at_s=censored_at_s, **changes)


def sham(*false_heals: str, **changes: Any) -> TrialResult:
    return trial(experiment="sham", sham=True, false_heals=false_heals, **changes)


INVALID, UNPROVEN = trial(Outcome.INVALID), trial(Outcome.UNPROVEN)
LATE = healed(11.0, 11.1)


def campaign(trials: Sequence[TrialResult], **changes: Any) -> Campaign:
    numbered = tuple(replace(one, index=index) for index, one in enumerate(trials))
    return Campaign("c", "2026-02-03T04:05:06Z", 60.0, "local", 1, {}, {}, {}, {}, numbered, **changes)


def judged(trials: Sequence[TrialResult], slo: Slo = SLO, **changes: Any) -> CampaignVerdict:
    return judge(campaign(trials, **changes), slo)


def only(trials: Sequence[TrialResult], slo: Slo = SLO, **changes: Any) -> Verdict:
    found = judged(trials, slo, **changes)
    (verdict,) = found.verdicts
    assert verdict.decision is found.decision
    return verdict


def test_thirty_six_of_thirty_six_pass() -> None:
    found = only([healed(3.0, 3.1)] * 36)
    assert found.decision is PASS
    assert found.reason == (
        "36 of 36 recovered within 10 s: at least 90.3 % with 95 % confidence; 90 % are asked for"
    )
    assert found.in_time is not None
    assert found.in_time.low == pytest.approx(0.025 ** (1 / 36))
    assert (found.more_at_least, found.more_expected) == (None, None)
    assert only([healed(3.0, 3.1)] * 35).decision is INCONCLUSIVE


def test_three_of_three_show_next_to_nothing() -> None:
    found = only([trial()] * 3)
    assert found.decision is INCONCLUSIVE
    assert found.reason == (
        "3 of 3 recovered within 10 s, which shows only that at least 29.2 % do, with 95 % confidence; "
        "90 % are asked for; 33 more in time would pass"
    )
    assert (found.more_at_least, found.more_expected) == (33, 33)
    assert only([trial()] * (3 + found.more_at_least)).decision is PASS


def test_most_of_them_late_fail() -> None:
    found = only([trial()] * 3 + [LATE] * 6)
    assert found.decision is FAIL
    assert found.reason == "3 of 9 recovered within 10 s: at most 70.1 % with 95 % confidence; 90 % are asked for"
    assert judged([trial()] * 3 + [LATE] * 6).reason == f"replica-kill (elephant): {found.reason}"


def test_limits_of_a_sequential_campaign() -> None:
    plan = {"sequential": True}
    assert only([trial()] * 39, plan=plan).decision is INCONCLUSIVE
    found = only([trial()] * 42, plan=plan)
    assert found.decision is PASS
    assert "at every look" in found.reason
    assert found.in_time is not None
    assert found.in_time.sequential
    assert judged([trial()], plan=plan).sequential
    assert only([trial()] * 3, plan=plan).more_at_least == 37
    assert only([LATE] * 9, plan=plan).decision is FAIL


@pytest.mark.parametrize(
    ("one", "successes", "undecided"),
    [
        (trial(), 1, 0),
        (healed(9.9, 10.0), 1, 0),
        (trial(Outcome.SELF_RECOVERED, ttr=(1.0, 2.0)), 1, 0),
        (healed(9.9, 10.1), 0, 1),  # The deadline lies within what is not known.
        (healed(10.01, 10.1), 0, 0),
        (unhealed(9.9), 0, 1),  # Not watched for so long.
        (unhealed(None), 0, 1),
        (unhealed(10.0), 0, 0),
        (trial(Outcome.NOT_RECOVERED, censored_at_s=14.0), 0, 0),
        (trial(Outcome.NOT_RECOVERED, censored_at_s=4.0), 0, 1),
    ],
)
def test_in_time_and_undecided(one: TrialResult, successes: int, undecided: int) -> None:
    found = only([one] * 2)
    assert found.in_time is not None
    assert found.in_time_at_most is not None
    assert (found.in_time.successes, found.undecided_count) == (2 * successes, 2 * undecided)
    assert found.in_time_at_most.successes == 2 * (successes + undecided)


def test_undecided_neither_passes_nor_fails() -> None:
    found = only([unhealed(4.0)] * 60)
    assert found.decision is INCONCLUSIVE
    assert found.reason.startswith(
        "0 of 60 recovered within 10 s (not known: 60 not watched for so long under the fault), "
        "which shows nothing; "
    )
    assert found.more_expected is None
    assert " (not known: 2 recovered around the deadline), " in only([healed(9.9, 10.1)] * 2).reason
    assert "3 of 10 recovered within 10 s (not known: 1 not watched for so long under the fault): at most " in (
        only([trial()] * 3 + [LATE] * 6 + [unhealed(4.0)]).reason
    )
    assert only([unhealed(14.0)] * 60).decision is FAIL
    # Were the six counted as recovered, it would pass; were they left out, too.
    assert only([trial()] * 40 + [unhealed(4.0)] * 6).decision is INCONCLUSIVE


def test_invalid_trials_count_for_neither_side() -> None:
    found = only([trial()] * 36 + [INVALID] * 9)
    assert found.decision is PASS
    assert (found.trials_count, found.invalid_count) == (36, 9)
    # One more is more than the share that is allowed, whatever the others show, for either side.
    found = only([trial()] * 36 + [INVALID] * 10)
    assert found.decision is INCONCLUSIVE
    assert found.reason == (
        "10 of 46 trials cannot be judged (10 invalid), and at most 20 % may be so; "
        "4 more, all valid and in time, would pass"
    )
    assert found.more_at_least == 4
    assert only([trial()] * 40 + [INVALID] * 10).decision is PASS
    assert only([LATE] * 36 + [INVALID] * 10).decision is INCONCLUSIVE
    strict = Slo(recovery=RecoveryObjective(invalid_share_max=0))
    assert only([trial()] * 36 + [INVALID], strict).decision is INCONCLUSIVE
    third = Slo(recovery=RecoveryObjective(invalid_share_max=0.29))  # 0.29 * 100 is 28.999999999999996.
    assert only([trial()] * 71 + [INVALID] * 29, third).decision is PASS
    assert only([trial()] * 70 + [INVALID] * 30, third).decision is INCONCLUSIVE
    lax = Slo(recovery=RecoveryObjective(invalid_share_max=1))
    assert only([trial()] * 36 + [INVALID] * 100, lax).decision is PASS
    assert only([INVALID] * 3, lax).decision is INCONCLUSIVE


def test_unproven_trials_never_pass() -> None:
    found = only([UNPROVEN] * 40)
    assert found.decision is INCONCLUSIVE
    assert found.reason.startswith(
        "40 of 40 trials cannot be judged (40 unproven: nothing names evidence that the fault took effect); "
    )
    assert found.more_at_least is None
    assert "(1 invalid; 2 unproven: " in only([UNPROVEN, INVALID, UNPROVEN]).reason


def test_hopeless_experiment() -> None:
    """An experiment without evidence has none the next time; what is only invalid may have been bad luck."""
    assert only([UNPROVEN]).hopeless
    assert "--evidence" in only([UNPROVEN]).reason
    assert only([INVALID, UNPROVEN]).hopeless
    assert not only([trial(), UNPROVEN]).hopeless
    # 0.2 ** 2 is more than 0.025, 0.2 ** 3 is less.
    why = replace(INVALID, recovery=replace(INVALID.recovery, reason="no baseline"))
    assert [only([why] * count).hopeless for count in (1, 2, 3)] == [False, False, True]
    assert only([why] * 2).more_at_least == 36
    assert only([why] * 3).more_at_least is None
    assert "repair what makes them invalid (the last: no baseline)" in only([why] * 3).reason
    assert not only([*[why] * 30, trial()]).hopeless
    assert not only([why] * 30, Slo(recovery=RecoveryObjective(invalid_share_max=1))).hopeless
    assert not any(only(trials).hopeless for trials in ([trial()] * 36, [LATE] * 36, [trial()] * 3))


def test_wrong_answers_beyond_the_limit_fail_at_once() -> None:
    slo = Slo(wrong_answers=Limit(2))
    found = only([trial()] * 36 + [trial(wrong_count=57)], slo)
    assert found.decision is FAIL
    assert found.over_limit_count == 1
    assert found.reason == (
        "1 of 37 trials served too many wrong answers, up to 57 in one trial; at most 2 are allowed"
    )
    assert only([trial(wrong_count=3), *[INVALID] * 5], slo).decision is FAIL
    assert only([trial(wrong_count=2)] * 36, slo).decision is PASS
    assert only([trial(wrong_count=3)] * 36).decision is PASS  # No limit was set.
    # Nothing is known of an invalid trial, not even this.
    invalid = trial(Outcome.INVALID, wrong_count=9)
    assert only([*[trial()] * 36, invalid], slo).decision is PASS


def test_shams_never_enter_the_share() -> None:
    found = judged([trial()] * 35 + [sham()] * 5)
    assert found.decision is INCONCLUSIVE
    assert [one.trials_count for one in found.verdicts] == [35, 5]
    assert not found.verdicts[1].judged  # No limit was set.
    assert "no limit" in found.verdicts[1].reason
    assert judged([trial()] * 36 + [sham("restart")] * 5).decision is PASS


def test_false_heals_beyond_the_limit_fail() -> None:
    enough = [trial()] * 36
    none, one = Slo(false_heals=Limit(0)), Slo(false_heals=Limit(1))
    found = judged([*enough, sham(), sham("restart", "drain"), sham()], none)
    assert found.decision is FAIL
    assert found.reason == (
        "sham (elephant): a healer acted in 1 of 3 shams (restart, drain) although nothing was broken; "
        "none is allowed"
    )
    assert found.verdicts[1].over_limit_count == 1
    assert judged([*enough, sham(), sham("restart")], one).decision is PASS
    assert judged([*enough, sham("drain"), sham("restart")], one).decision is FAIL
    assert judged([*enough, sham()], none).decision is PASS


def test_false_heals_under_a_benign_fault() -> None:
    slo = Slo(false_heals=Limit(1))
    acted = trial(benign=True, false_heals=("restart",))
    enough = [*[trial(benign=True)] * 36, sham()]
    assert judged([*enough, acted], slo).decision is PASS
    found = judged([*enough, acted, acted], slo)
    assert found.decision is FAIL
    assert (
        "a healer acted in 2 of 38 trials (restart) although the fault did no harm; at most 1 is allowed"
        in found.reason
    )
    assert judged([*enough, acted, acted], SLO).decision is PASS


def test_false_heals_need_a_sham_that_is_valid() -> None:
    slo = Slo(false_heals=Limit(0))
    found = judged([trial()] * 36, slo)
    assert found.decision is INCONCLUSIVE
    assert "no sham was run" in found.reason
    assert "--shams N" in found.reason
    broken = replace(sham("restart"), recovery=INVALID.recovery)
    found = judged([*[trial()] * 36, broken], slo)
    assert found.decision is INCONCLUSIVE
    assert "1 of 1 trial cannot be judged" in found.reason
    # Each arm with a healer needs its own; without a healer there is nothing to ask for.
    mine = [trial(arm="mine")] * 36
    found = judged([*[trial()] * 36, *mine, sham()], slo)
    assert [(one.arm, one.decision) for one in found.verdicts if one.experiment == "sham"] == [
        ("elephant", PASS),
        ("mine", INCONCLUSIVE),
    ]
    assert judged([trial(arm="none")] * 36, slo).decision is PASS


def test_wrong_answers_in_a_sham_fail_too() -> None:
    slo = Slo(wrong_answers=Limit(0))
    assert judged([*[trial()] * 36, sham(wrong_count=1)], slo).decision is FAIL
    assert judged([*[trial()] * 36, sham()], slo).decision is PASS


def test_reference_arm() -> None:
    good, unhelped = [trial()] * 36, [replace(LATE, arm="none")] * 36
    found = judged([*good, *unhelped])
    assert found.decision is PASS
    assert [(one.arm, one.decision, one.judged) for one in found.verdicts] == [
        ("elephant", PASS, True),
        ("none", FAIL, False),
    ]
    assert judged(unhelped).decision is FAIL
    # An arm that was planned is one, though no trial of it was run.
    assert judged(unhelped, plan={"arms": ["none", "elephant"]}).decision is INCONCLUSIVE


def test_overall_is_the_worst() -> None:
    good = [trial()] * 36
    few, late = [trial(experiment="few")] * 3, [replace(LATE, experiment="late")] * 30
    assert judged([*good, *few]).decision is INCONCLUSIVE
    assert judged([*good, *few]).reason.startswith("few (elephant): 3 of 3 ")
    found = judged([*few, *good, *late, *[replace(LATE, experiment="later")] * 30])
    assert found.decision is FAIL
    assert found.reason.startswith("late (elephant): ")
    assert found.reason.endswith("(and 1 more failed)")
    both = judged([*good, *[trial(experiment="other")] * 36])
    assert (both.decision, both.reason) == (
        PASS,
        "each of 2 passed: replica-kill (elephant), other (elephant)",
    )


def test_what_was_not_run_does_not_pass() -> None:
    assert judged([]).decision is INCONCLUSIVE
    assert judged([]).reason == "no trial was run"
    plan = {"experiments": ["replica-kill", "data-drift"], "arms": ["none", "elephant"]}
    found = judged([*[trial()] * 36, *[trial(arm="none")] * 36], plan=plan)
    assert found.decision is INCONCLUSIVE
    assert found.reason == "data-drift (elephant): no trial of it was run"
    missing = [one for one in found.verdicts if one.experiment == "data-drift"]
    assert [(one.arm, one.judged, one.more_at_least) for one in missing] == [
        ("none", False, 36),
        ("elephant", True, 36),
    ]
    assert len(judged([], plan=plan).verdicts) == 4


def test_aborted_is_neither_good_nor_bad() -> None:
    late = [LATE] * 30
    assert judged(late, aborted="stopped by Ctrl-C").decision is ABORTED
    assert judged(late, aborted="stopped by Ctrl-C").reason == "stopped by Ctrl-C"
    left = replace(trial(), not_reverted=("replica-1 is still stopped",))
    found = judged([*late, left], aborted="stopped by Ctrl-C")
    assert found.decision is ABORTED
    assert found.reason == "not everything could be reverted: replica-1 is still stopped"


def test_rounding_of_limits() -> None:
    # 367 of 367 show 0.989999: with one digit, it would read as if it were enough.
    slo = Slo(recovery=RecoveryObjective(share=0.99))
    assert "at least 99.0 % " in only([trial()] * 368, slo).reason
    assert "only that at least 98.9999 % do" in only([trial()] * 367, slo).reason


def test_as_json_is_plain() -> None:
    found = judged([*[trial()] * 3, sham("restart"), INVALID], Slo(false_heals=Limit(1)))
    plain = as_json(found)
    assert json.loads(json.dumps(plain)) == plain
    assert type(plain["decision"]) is str
    assert plain["verdicts"][0]["in_time"]["successes"] == 3
    assert plain["verdicts"][1]["in_time"] is None


def test_exit_codes_as_documented() -> None:
    lines = PAGE.split("| code | `gate` | `run` |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    documented = {cells[2].strip(): int(cells[1]) for cells in (line.split("|") for line in lines)}
    assert documented == {
        "pass": errors.EXIT_OK,
        "fail": errors.EXIT_FAIL,
        "usage or configuration": errors.EXIT_USAGE,
        "inconclusive": errors.EXIT_INCONCLUSIVE,
        "aborted, or refused for safety": errors.EXIT_REFUSED,
        "something could not be reverted": errors.EXIT_NOT_REVERTED,
    }


def test_target_file_as_documented(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(PAGE.split("```yaml\n", 1)[1].split("```", 1)[0])
    slo = read_target_file(tmp_path / "t.yaml").slo
    assert slo == Slo(wrong_answers=Limit(0), false_heals=Limit(0))


def test_multiplicity_as_documented() -> None:
    assert "at most 2.5 % for one" in PAGE
    assert f"{5 * (1 - 0.95) / 2:.1%}".replace("%", " %") in PAGE
    assert "0.99 over five experiments keeps it to at most 2.5 %" in PAGE
    assert f"{5 * (1 - 0.99) / 2:.1%}" == "2.5%"


ANY = st.sampled_from(
    [trial(), healed(2.0, 2.1), LATE, healed(9.0, 11.0), unhealed(4.0), unhealed(12.0), INVALID, UNPROVEN, sham()]
)
RANK = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}


@given(st.lists(ANY, min_size=1, max_size=60), st.booleans())
def test_verdict_is_monotonic(trials: list[TrialResult], sequential: bool) -> None:
    plan = {"sequential": sequential}
    found = judged(trials, plan=plan)
    assert found.reason
    better = [trial() if one is LATE else one for one in trials]
    assert RANK[judged(better, plan=plan).decision] >= RANK[found.decision]
    unknown = [unhealed(4.0) if one is LATE else one for one in trials]
    assert RANK[judged(unknown, plan=plan).decision] >= RANK[found.decision]
    assert judged(unknown, plan=plan).decision is not PASS or found.decision is PASS


def storm(outcome: Outcome, **changes: Any) -> TrialResult:
    return replace(trial(experiment="storm", storm=True, **changes), recovery=Recovery(outcome, f"it {outcome}"))


def test_verdict_on_storms() -> None:
    survived, failed = storm(Outcome.FAULT_REMOVED), storm(Outcome.NOT_RECOVERED)
    for one in (survived, storm(Outcome.ABSORBED)):
        assert judged([one]).decision is PASS
    assert judged([failed]).decision is FAIL
    assert judged([failed]).reason == "storm (elephant): it not_recovered"
    assert "1 of 2 storms were survived" in judged([failed, survived]).reason
    assert judged([failed, survived]).decision is FAIL
    assert judged([storm(Outcome.INVALID)]).decision is INCONCLUSIVE
    assert judged([survived, storm(Outcome.INVALID)]).decision is INCONCLUSIVE
    assert judged([storm(Outcome.FAULT_REMOVED)], aborted="stopped").decision is ABORTED


def test_storms_never_enter_the_share() -> None:
    assert judged([*[trial()] * 36, *[storm(Outcome.FAULT_REMOVED)] * 5]).decision is PASS
    found = summarise(campaign([trial(), storm(Outcome.FAULT_REMOVED)]), SLO)
    assert [(group.experiment, group.storm) for group in found.groups] == [
        ("replica-kill", False),
        ("storm", True),
    ]
    assert [len(group.trials) for group in found.arms] == [1]
    assert headline(found)[1] == "With elephant, the target came back after 1 of 1 storm."
