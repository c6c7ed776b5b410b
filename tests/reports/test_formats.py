"""results.json, report.md, junit.xml, and the words that all formats share."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from sample_campaign import make_campaign
from samples import campaign_of

from monkeyproof.errors import UsageError
from monkeyproof.reports import text as words
from monkeyproof.reports.formats import junit, markdown
from monkeyproof.reports.formats.results_json import RESULTS_FILE, campaign_text, read_results, schema
from monkeyproof.reports.model.report import build
from monkeyproof.reports.write import write_reports
from monkeyproof.types import Campaign, Interval, Outcome, Recovery, TrialResult

DOCS = Path(__file__).parents[2] / "docs"
HOSTILE = (
    "<script>alert(1)</script> | `x` *b* [l](http://evil.test) \x1b[31mred\x1b[0m \x00\x08\ud800\u202e & "
    "\"q\" 'p' ]]>\nnew"
)


def trial(outcome: Outcome, arm: str = "elephant", **more: Any) -> TrialResult:
    recovery = Recovery(
        outcome,
        more.pop("reason", "because"),
        ttr=Interval(3.1, 3.24) if outcome in (Outcome.HEALED, Outcome.SELF_RECOVERED) else None,
        censored_at_s=15.0 if outcome in (Outcome.FAULT_REMOVED, Outcome.NOT_RECOVERED) else None,
    )
    return TrialResult("kill", "A kill", arm, more.pop("seed", 1), 0, "f", "t", "2026-01-01", recovery, **more)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Campaign, Path]:
    folder = tmp_path_factory.mktemp("campaign")
    campaign = make_campaign(folder, seeds=2)
    write_reports(build(campaign, folder))
    return campaign, folder


def test_everything_is_written(written: tuple[Campaign, Path]) -> None:
    _, folder = written
    assert {"results.json", "report.md", "report.html", "junit.xml"} <= {path.name for path in folder.iterdir()}


def test_results_lose_nothing(written: tuple[Campaign, Path]) -> None:
    campaign, folder = written
    assert read_results(folder) == campaign
    assert read_results(folder / RESULTS_FILE) == campaign


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
def test_results_lose_nothing_of_any_value(
    tmp_path_factory: pytest.TempPathFactory, load: dict[str, Any], number: float, expected: str
) -> None:
    result = replace(trial(Outcome.HEALED, load=load, reason=expected), evidence=(expected,))
    result = replace(result, recovery=replace(result.recovery, ttd_s=number))
    campaign = campaign_of([result])
    path = tmp_path_factory.mktemp("any") / "results.json"
    path.write_text(campaign_text(campaign))
    assert read_results(path) == campaign


def test_nan_and_infinity_are_null(tmp_path: Path) -> None:
    load = {"p99_ms": float("nan"), "most": float("inf"), "count": np.int64(3), "rate": np.float64(1.5)}
    result = trial(Outcome.HEALED, load=load)
    path = tmp_path / "r.json"
    text = campaign_text(campaign_of([replace(result, recovery=replace(result.recovery, ttd_s=float("nan")))]))
    path.write_text(text)
    assert "NaN" not in text
    assert "Infinity" not in text
    found = read_results(path).trials[0]
    assert found.recovery.ttd_s is None
    assert found.load == {"p99_ms": None, "most": None, "count": 3, "rate": 1.5}


def test_required_number_that_is_nan() -> None:
    result = trial(Outcome.HEALED)
    result = replace(result, recovery=replace(result.recovery, resilience_loss_s=float("nan")))
    with pytest.raises(UsageError, match=r"trials\.0\.recovery\.resilience_loss_s"):
        campaign_text(campaign_of([result]))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"version": 2}', "newer monkeyproof"),
        ("{}", "no version"),
        ("[]", "no version"),
        ("{", "damaged"),
        ('{"version": 1}', "name"),
        ('{"version": 1, "name": NaN}', "NaN"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_damaged_results(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / RESULTS_FILE
    path.write_text(text)
    with pytest.raises(UsageError, match=why) as refused:
        read_results(path)
    assert str(path) in str(refused.value)


def test_missing_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        read_results(tmp_path)


def test_the_documented_schema_is_the_real_one() -> None:
    text = (DOCS / "results.md").read_text()
    block = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert block is not None
    assert json.loads(block[1]) == schema()
    prose = text[: block.start()]
    for part in ("Recovery", "TrialResult"):
        for name in schema()["$defs"][part]["properties"]:
            assert f"`{name}`" in prose, name


def test_markdown_has_the_facts(written: tuple[Campaign, Path]) -> None:
    campaign, folder = written
    text = (folder / "report.md").read_text()
    assert "> 15.0 s (censored)".replace(">", "&gt;") in text
    assert "not reached" in text
    assert "monkeyproof report DIR" in text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows = sum(token.type == "tr_open" for token in tokens)
    assert rows == 3 + 10 + 5 + len(campaign.trials)


def test_hostile_words_stay_words_in_markdown() -> None:
    result = trial(Outcome.HEALED, healed_by=(HOSTILE,), evidence=(HOSTILE,), reason=HOSTILE)
    text = markdown.render(build(replace(campaign_of([result]), name=HOSTILE, machine={HOSTILE: HOSTILE}), Path()))
    assert "\x1b" not in text
    assert "\x00" not in text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {child.type for token in tokens for child in token.children or ()} | {token.type for token in tokens}
    assert not kinds & {"html_block", "html_inline", "link_open", "em_open", "image"}
    columns = [
        sum(other.type == "td_open" for other in tokens[place : next_row(tokens, place)])
        for place, token in enumerate(tokens)
        if token.type == "tr_open"
    ]
    assert set(columns) == {0, len(markdown.GROUP_COLUMNS), len(markdown.TRIAL_COLUMNS)}


def next_row(tokens: list[Any], place: int) -> int:
    return next(at for at in range(place, len(tokens)) if tokens[at].type == "tr_close")


JUDGED = [
    (trial(Outcome.ABSORBED), None),
    (trial(Outcome.HEALED), None),
    (trial(Outcome.SELF_RECOVERED), None),
    (trial(Outcome.FAULT_REMOVED), "failure"),
    (trial(Outcome.NOT_RECOVERED), "failure"),
    (trial(Outcome.FAULT_REMOVED, "none"), None),
    (trial(Outcome.NOT_RECOVERED, "none"), None),
    (trial(Outcome.SELF_RECOVERED, expected=(Outcome.HEALED,)), "failure"),
    (trial(Outcome.HEALED, "none", expected=(Outcome.NOT_RECOVERED,)), "failure"),
    (trial(Outcome.HEALED, expected=(Outcome.HEALED, Outcome.ABSORBED)), None),
    (trial(Outcome.INVALID), "error"),
    (trial(Outcome.INVALID, "none"), "error"),
    (trial(Outcome.UNPROVEN), "error"),
    (trial(Outcome.HEALED, aborted="stopped by a signal"), "error"),
    (trial(Outcome.ABSORBED, sham=True, false_heals=("restart",)), "failure"),
    (trial(Outcome.ABSORBED, benign=True, false_heals=("restart",)), "failure"),
    (trial(Outcome.HEALED, not_reverted=("a link is still slow",)), "error"),
    (trial(Outcome.NOT_RECOVERED, not_reverted=("a link is still slow",)), "error"),
]


@pytest.mark.parametrize(("result", "verdict"), JUDGED)
def test_junit_judges(result: TrialResult, verdict: str | None) -> None:
    root = ElementTree.fromstring(junit.render(build(campaign_of([result]), Path())))
    case = next(root.iter("testcase"))
    found = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    assert found == ([verdict] if verdict else [])
    (suite,) = root
    for tag, name in (("testcase", "tests"), ("testcase/failure", "failures"), ("testcase/error", "errors")):
        assert suite.get(name) == str(len(suite.findall(tag)))
    assert suite.get("skipped") == "0"


def test_junit_of_hostile_words_is_xml() -> None:
    result = trial(Outcome.INVALID, arm=HOSTILE, evidence=(HOSTILE,), detected=(HOSTILE,), reason=HOSTILE)
    text = junit.render(
        build(replace(campaign_of([result]), name=HOSTILE, target=HOSTILE, versions={HOSTILE: HOSTILE}), Path())
    )
    root = ElementTree.fromstring(text)
    error = next(root.iter("error"))
    assert "<script>alert(1)</script>" in error.get("message", "")
    assert "red" in error.get("message", "")
    assert "\x1b" not in text.decode()


def test_junit_names_are_unique() -> None:
    root = ElementTree.fromstring(
        junit.render(build(campaign_of([trial(Outcome.HEALED), trial(Outcome.HEALED)]), Path()))
    )
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert names == [
        ("kill", "elephant/seed-1"),
        ("kill", "elephant/seed-1/2"),
        ("kill", "elephant/verdict"),
    ]


@given(st.text())
def test_clean_text_is_printable_and_valid_xml(text: str) -> None:
    cleaned = words.clean(text)
    assert "\n" not in cleaned
    assert words.clean(cleaned) == cleaned
    ElementTree.fromstring(ElementTree.tostring(_element(cleaned)))


def _element(text: str) -> ElementTree.Element:
    element = ElementTree.Element("a")
    element.text = text
    return element


def test_clean_removes_terminal_sequences() -> None:
    assert words.clean("a\x1b[1;31mred\x1b[0m b\x1b]0;title\x07c\r\nd\x00e\u202ef") == "ared bc def"


@pytest.mark.parametrize(
    ("value_s", "expected"),
    [
        (None, "could not tell"),
        (float("nan"), "could not tell"),
        (0.184, "0.18 s"),
        (9.996, "10.0 s"),
        (124.4, "124 s"),
    ],
)
def test_seconds(value_s: float | None, expected: str) -> None:
    assert words.seconds(value_s) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, "100 %"), (0.9999, "> 99.9 %"), (0.0001, "< 0.1 %"), (0.0, "0 %"), (0.28, "28 %")],
)
def test_percent_rounding(share: float, expected: str) -> None:
    assert words.percent(share) == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.ABSORBED, "0 s (absorbed)"),
        (Outcome.HEALED, "3.10–3.24 s"),
        (Outcome.FAULT_REMOVED, "> 15.0 s (censored)"),
        (Outcome.NOT_RECOVERED, "> 15.0 s (censored)"),
        (Outcome.INVALID, "could not tell"),
    ],
)
def test_time_to_recover_in_words(outcome: Outcome, expected: str) -> None:
    assert words.time_to_recover(trial(outcome).recovery) == expected


def test_unknown_is_not_none() -> None:
    assert words.silent_time(Recovery(Outcome.HEALED, "")) == "none wrong"
    assert words.silent_time(Recovery(Outcome.HEALED, "", wrong_count=3)) == "could not tell"
    assert words.silent_time(Recovery(Outcome.INVALID, "")) == "could not tell"
    assert words.time_to_detect(trial(Outcome.HEALED)) == "not detected"
    assert words.time_to_detect(trial(Outcome.HEALED, "none")) == "no healer"
