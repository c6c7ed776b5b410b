"""The verdict, the figures, the clock and the shams, as every format and the command line show them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from sample_campaign import corrupt_records, replica_kill
from samples import SLO, campaign_of, write_trial

from monkeyproof.reports import text as words
from monkeyproof.reports.charts import curves
from monkeyproof.reports.formats import html, markdown, results_json
from monkeyproof.reports.formats.console import print_summary
from monkeyproof.reports.model.clock import clock, clock_warnings
from monkeyproof.reports.model.report import build
from monkeyproof.reports.model.trial_rows import trial_figures
from monkeyproof.reports.stats.proportions import exact_share
from monkeyproof.reports.write import write_reports
from monkeyproof.types import Campaign, Interval, Outcome, Recovery, TrialResult

CALIBRATION = {
    "utc": "2026-02-03T04:00:00+00:00",
    "rate_per_s": 50.0,
    "passed": True,
    "episodes_count": 36,
    "held_count": 36,
    "bias_ms": 0.4,
    "error_p99_ms": 12.0,
    "width_p50_ms": 41.0,
    "machine": {"cores": 2, "memory_gb": 24.0, "kernel": "6.1.0", "python": "3.11.9"},
    "by_kind": [
        {"kind": "30 % wrong", "width_p50_ms": 700.0, "width_max_ms": 900.0},
        {"kind": "dark", "width_p50_ms": 20.0, "width_max_ms": 21.0},
    ],
}


def trial(arm: str, seed: int, high_s: float | None, **more: object) -> TrialResult:
    """Healed after ``high_s``, or not recovered up to 15 s."""
    recovery = Recovery(
        Outcome.NOT_RECOVERED if high_s is None else Outcome.HEALED,
        "because",
        ttr=None if high_s is None else Interval(high_s - 0.5, high_s),
        censored_at_s=15.0 if high_s is None else None,
    )
    result = TrialResult("kill", "A kill", arm, seed, seed, "f", "t", "2026-01-01", recovery)
    return replace(result, **more)  # type: ignore[arg-type]


def sham(seed: int, *false_heals: str) -> TrialResult:
    found = Recovery(Outcome.ABSORBED, "not one reading was bad")
    return trial("elephant", seed, 1.0, experiment="sham", sham=True, false_heals=false_heals, recovery=found)


def both_arms(count: int = 36) -> list[TrialResult]:
    healed = [trial("elephant", seed, 2.0 + seed / 10) for seed in range(count)]
    return healed + [trial("none", seed, None) for seed in range(count)]


def printed(campaign: Campaign, width: int) -> str:
    out = io.StringIO()
    print_summary(build(campaign, Path()), Console(file=out, width=width))
    return out.getvalue()


def readable(campaign: Campaign, folder: Path, width: int) -> tuple[str, str, str]:
    """The campaign in every format for people."""
    report = build(campaign, folder)
    return html.render(report), markdown.render(report), printed(campaign, width)


def test_json_with_verdict_and_summary(tmp_path: Path) -> None:
    campaign = campaign_of(
        [write_trial(tmp_path, replica_kill("elephant", seed), seed, seed) for seed in range(1, 4)]
    )
    write_reports(build(campaign, tmp_path))
    assert results_json.read_results(tmp_path) == campaign
    value = json.loads((tmp_path / "results.json").read_text())
    assert value["verdict"]["decision"] == "inconclusive"
    (group,) = value["summary"]["groups"]
    share = exact_share(1, 3, 0.95)
    assert share is not None
    assert (group["absorbed"]["successes"], group["absorbed"]["count"]) == (1, 3)
    assert group["absorbed"]["high"] == pytest.approx(share.high)
    assert group["median"]["value_s"] == pytest.approx(build(campaign, tmp_path).statistics.groups[0].median_s)
    assert group["outcomes"] == {"absorbed": 1, "self_recovered": 2}
    prose = (Path(__file__).parents[2] / "docs/results.md").read_text()
    for name in group:
        assert f"`{name}`" in prose, name


def test_comparison_row() -> None:
    campaign = campaign_of(both_arms())
    (row,) = build(campaign, Path()).comparisons
    assert "sooner (" in row.cells[0]
    assert row.cells[1:5] == ("< 0.001 (sign test)", "< 0.001", "36 of 36", "0 of 36")
    assert "36 pairs" in row.line


@pytest.mark.parametrize(
    ("trials", "word"),
    [
        (both_arms(), "pass"),
        (both_arms(4), "inconclusive"),
        ([trial("elephant", s, None) for s in range(32)], "fail"),
    ],
)
def test_same_verdict_in_every_format(tmp_path: Path, trials: list[TrialResult], word: str) -> None:
    campaign = campaign_of(trials)
    assert f"Verdict: <strong>{word}</strong>" in html.render(build(campaign, tmp_path))
    assert f"**Verdict: {word.upper()}.**" in markdown.render(build(campaign, tmp_path))
    assert f"Verdict: {word}" in printed(campaign, 80)
    write_reports(build(campaign, tmp_path))
    (suite,) = ElementTree.parse(tmp_path / "junit.xml").getroot()
    (case,) = [one for one in suite.iter("testcase") if one.get("name") == "elephant/verdict"]
    problems = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    assert problems == {"pass": [], "fail": ["failure"], "inconclusive": ["error"]}[word]


def test_an_aborted_campaign_is_an_error_in_junit(tmp_path: Path) -> None:
    campaign = replace(campaign_of(both_arms()), aborted="stopped by SIGTERM")
    write_reports(build(campaign, tmp_path))
    cases = {one.get("name"): one for one in ElementTree.parse(tmp_path / "junit.xml").getroot().iter("testcase")}
    assert cases["verdict"].find("error") is not None
    assert "Stopped by SIGTERM" in (tmp_path / "report.html").read_text()
    assert "Verdict: aborted" in printed(campaign, 80)


def test_every_format_shows_a_false_heal(tmp_path: Path) -> None:
    absorbed = Recovery(Outcome.ABSORBED, "nothing was bad", t0_s=2.0, effective_s=2.1, end_s=9.0)
    needless = {"benign": True, "false_heals": ("restart",), "recovery": absorbed}
    campaign = campaign_of([trial("elephant", 1, 1.0, experiment="drift", **needless), trial("elephant", 2, 1.0)])
    expected = "False heal: a healer acted although the fault did no harm: drift (elephant, seed 1)."
    for text in (
        html.render(build(campaign, tmp_path)),
        markdown.render(build(campaign, tmp_path)),
        printed(campaign, 200),
    ):
        assert expected in text
    assert words.how_healed(campaign.trials[0]) == "false heal: restart"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    campaign = campaign_of([*both_arms(), sham(1), sham(2, "restart")])
    text = printed(campaign, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    row = build(campaign, Path()).groups[0]
    result = " ".join(text.split())
    for expected in (
        row.median,
        row.median_interval,
        row.p90,
        row.restricted_mean,
        row.in_time,
        row.in_time_interval,
    ):
        assert expected in result, expected
    assert "acted in 1 of 2 (restart)" in result


def test_a_terminal_without_unicode_gets_plain_signs() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    campaign = campaign_of(both_arms())
    print_summary(build(campaign, Path()), Console(file=out, width=80))
    out.flush()
    assert b"Verdict: pass" in raw.getvalue()


def test_curve_of_both_arms() -> None:
    trials = [*both_arms(12), trial("elephant", 99, None)]
    text = str(curves.draw_curves(build(campaign_of(trials), Path()).statistics.groups))
    for expected in (
        "km-line km-0",
        "km-line km-none",
        "km-band km-0",
        "km-tick km-none",
        "elephant",
        "no healer",
    ):
        assert expected in text, expected
    assert "deadline 10 s" in text
    assert "nan" not in text
    assert ElementTree.fromstring(text).tag == "svg"


def test_curve_of_one_trial() -> None:
    for result in ([trial("none", 1, None)], [trial("none", 1, 3.0)], [sham(1)]):
        groups = build(campaign_of(result), Path()).statistics.groups
        assert ElementTree.fromstring(str(curves.draw_curves(groups))).tag == "svg"
    assert not curves.draw_curves([])


def test_shams_enter_no_figure(tmp_path: Path) -> None:
    campaign = campaign_of([*both_arms(4), sham(1), sham(2, "restart")])
    page = html.render(build(campaign, tmp_path))
    assert "Shams: nothing was broken" in page
    assert "false heal: restart" in page
    assert "no limit set" in page
    (result,) = build(campaign, tmp_path).shams
    assert (result.count, result.false_count, result.acted) == (2, 1, "restart")
    without = campaign_of(both_arms(4))
    assert build(campaign, tmp_path).headline == build(without, tmp_path).headline


def test_resolution_of_the_clock(tmp_path: Path) -> None:
    campaign = campaign_of(both_arms(2))
    assert "not calibrated on this machine" in html.render(build(campaign, tmp_path))
    good = replace(campaign, calibration=CALIBRATION)
    for text in (html.render(build(good, tmp_path)), markdown.render(build(good, tmp_path))):
        assert "calibrated on this machine 2026-02-03 04:00 UTC, at 50 questions a second: 36 of 36 known" in text
        assert "the end of a total outage is known to 20 ms (median width)" in text
    assert clock_warnings(good) == []
    # Every total outage was disturbed, or another program wrote the file: the width is not printed.
    for rows in ([{"kind": "dark", "width_p50_ms": 0.0, "width_max_ms": 0.0}], [3], "x", None):
        expected = clock(replace(campaign, calibration={**CALIBRATION, "by_kind": rows}))
        assert expected.endswith("36 of 36 known outages lay within the interval that was reported.")
    (failed,) = clock_warnings(replace(campaign, calibration={**CALIBRATION, "passed": False}))
    assert "did not pass" in failed
    (other,) = clock_warnings(replace(campaign, calibration={**CALIBRATION, "rate_per_s": 200}))
    assert "at another rate (200 questions a second, here 50)" in other
    assert "'monkeyproof calibrate --rate-per-s 50' here" in other
    assert "cannot be read" in clock(replace(campaign, calibration={"held_count": "x"}))


def test_clock_of_another_machine(tmp_path: Path) -> None:
    moved = {**CALIBRATION, "machine": {"cores": 8, "memory_gb": 24.0, "kernel": "6.1.0", "python": "3.11.9"}}
    campaign = replace(campaign_of(both_arms(2)), calibration=moved)
    assert clock(campaign).startswith("Clock: calibrated on another machine ")
    (warning,) = clock_warnings(campaign)
    assert "on another machine, or before this one was changed (cores 8, here 2)" in warning
    assert "Run 'monkeyproof calibrate' here" in warning
    for text in (
        html.render(build(campaign, tmp_path)),
        markdown.render(build(campaign, tmp_path)),
        printed(campaign, 300),
    ):
        assert "(cores 8, here 2)" in text
    # What one of the two does not say is no difference.
    for machine in ({}, None, {"cores": 2}):
        assert clock_warnings(replace(campaign, calibration={**CALIBRATION, "machine": machine})) == []


def test_unproven_trial(tmp_path: Path) -> None:
    result = trial("none", 1, 3.0)
    result = replace(result, recovery=replace(result.recovery, outcome=Outcome.UNPROVEN))
    campaign = campaign_of([result])
    assert build(campaign, tmp_path).verdict.decision == "inconclusive"
    page = html.render(build(campaign, tmp_path))
    assert 'class="badge unproven"' in page
    assert "2.50–3.00 s (unproven)" in page
    meaning = "nothing names evidence that the fault took effect; it never counts for a pass"
    for text in (page, markdown.render(build(campaign, tmp_path)), printed(campaign, 300)):
        assert f"Unproven ({meaning}): 1 of 1 trial." in text
    for seen, expected in (
        (Recovery(Outcome.UNPROVEN, ""), "none bad (unproven)"),
        (Recovery(Outcome.UNPROVEN, "", bad_count=3, censored_at_s=4.0), "> 4.00 s (unproven)"),
    ):
        assert words.time_to_recover(seen) == expected


def test_fault_without_evidence(tmp_path: Path) -> None:
    plan = replace(corrupt_records("none", 1), outcome=Outcome.UNPROVEN)
    page = html.render(build(campaign_of([write_trial(tmp_path, plan, 1, 0)]), tmp_path))
    assert "<code>data.corrupt</code> on source-&gt;pipeline (unproven: nothing names evidence" in page


def test_single_verdict_is_printed_once(tmp_path: Path) -> None:
    campaign = campaign_of([trial("elephant", seed, 2.0) for seed in range(36)])
    for text in (
        html.render(build(campaign, tmp_path)),
        markdown.render(build(campaign, tmp_path)),
        printed(campaign, 300),
    ):
        assert text.count("36 of 36 recovered within 10 s") == 1
    aborted = replace(campaign, aborted="a signal ended the campaign")
    for text in (
        html.render(build(aborted, tmp_path)),
        markdown.render(build(aborted, tmp_path)),
        printed(aborted, 300),
    ):
        assert text.count("36 of 36 recovered within 10 s") == 1
        assert text.count("A signal ended the campaign.") == 1


def test_an_invalid_trial_is_no_surprise(tmp_path: Path) -> None:
    result = replace(trial("elephant", 1, 3.0), expected=(Outcome.ABSORBED,))
    campaign = campaign_of([result])
    assert "expected absorbed" in html.render(build(campaign, tmp_path))
    assert "otherwise than" in printed(campaign, 300)
    result = replace(result, recovery=replace(result.recovery, outcome=Outcome.INVALID))
    assert "expected absorbed" not in html.render(build(campaign_of([result]), tmp_path))
    assert "otherwise than" not in printed(campaign_of([result]), 300)


def test_delay_of_the_first_bad_answer(tmp_path: Path) -> None:
    result = write_trial(tmp_path, corrupt_records("elephant", 1), 1, 0)
    assert result.recovery.impact_s is not None
    seen = replace(result.recovery, impact_seen_s=result.recovery.impact_s + 0.25)
    assert ("First bad answer known after", "250 ms") in trial_figures(replace(result, recovery=seen))
    assert SLO["latency_ms"] == 250.0
