"""``junit.xml``: one test case for each trial and each verdict, for tools that read test results.

No case is ever skipped: a trial that could not be judged is an error, so that it never passes a gate.
"""

from __future__ import annotations

from xml.etree import ElementTree

from monkeyproof.reports import text as words
from monkeyproof.reports.format_table import report_format
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.model.verdict import CampaignVerdict, Decision
from monkeyproof.reports.stats.comparison import NO_HEALER
from monkeyproof.types import TrialResult


@report_format("junit.xml", name="junit")
def render(report: Report) -> bytes:
    """The campaign as JUnit XML: its trials, then the verdicts."""
    campaign, verdict = report.campaign, report.verdict
    problems = [(error_of(trial), failure_of(trial)) for trial in campaign.trials]
    root = ElementTree.Element("testsuites", {"name": "monkeyproof"})
    suite = ElementTree.SubElement(root, "testsuite", {"name": words.clean(campaign.name), "skipped": "0"})
    suite.set("timestamp", words.clean(campaign.started_utc))
    about = [
        ("verdict", str(verdict.decision)),
        ("verdict reason", verdict.reason),
        ("target", campaign.target),
        ("seed", str(campaign.seed)),
        ("clock", report.clock),
        *words.pairs_of(campaign.versions),
    ]
    _properties(suite, about)
    taken: dict[tuple[str, str], int] = {}
    for trial, (error, failure) in zip(campaign.trials, problems, strict=True):
        name = f"{trial.arm}/seed-{trial.seed}"
        times = taken[trial.experiment, name] = taken.get((trial.experiment, name), 0) + 1
        _case(suite, trial, name if times == 1 else f"{name}/{times}", error, failure)
    _verdict_cases(suite, verdict)
    counts = {
        "tests": str(len(suite.findall("testcase"))),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
        "time": _time(campaign.duration_s),
    }
    for element in (root, suite):
        for key, value in counts.items():
            element.set(key, value)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _verdict_cases(suite: ElementTree.Element, verdict: CampaignVerdict) -> None:
    """A case for each experiment and arm that is judged; one for the campaign if none of them has its decision."""
    judged = [one for one in verdict.verdicts if one.judged]
    for one in judged:
        _verdict_case(suite, one.experiment, f"{one.arm}/verdict", one.decision, one.reason)
    if verdict.decision not in {one.decision for one in judged}:
        _verdict_case(suite, "campaign", "verdict", verdict.decision, verdict.reason)


def _verdict_case(suite: ElementTree.Element, of: str, name: str, decision: Decision, reason: str) -> None:
    attributes = {"classname": words.clean(of), "name": words.clean(name), "time": _time(0.0)}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    _properties(case, [("verdict", str(decision)), ("reason", reason)])
    if decision is not Decision.PASS:
        tag = "failure" if decision is Decision.FAIL else "error"
        message = words.clean(f"{decision}: {reason}")
        ElementTree.SubElement(case, tag, {"message": message, "type": str(decision)}).text = message


def error_of(trial: TrialResult) -> str:
    """Why the trial proves nothing about the target, or left it broken; empty if neither."""
    reasons = []
    if trial.not_reverted:
        reasons.append("not reverted: " + "; ".join(trial.not_reverted))
    if not trial.recovery.outcome.counts:
        reasons.append(f"{words.OUTCOMES[trial.recovery.outcome][0]}: {trial.recovery.reason}")
    if trial.aborted:
        reasons.append("aborted: " + trial.aborted)
    return words.clean("; ".join(reasons))


def failure_of(trial: TrialResult) -> str:
    """What is wrong with the outcome; empty if nothing is. An arm without a healer need not recover."""
    outcome = trial.recovery.outcome
    if not outcome.counts:
        return ""
    reasons = []
    if trial.false_heals:
        harmless = "nothing was broken" if trial.sham else "the fault did no harm"
        reasons.append(f"false heal, {harmless}: " + ", ".join(trial.false_heals))
    if trial.as_expected is False:
        expected = " or ".join(words.OUTCOMES[expected][0] for expected in trial.expected)
        reasons.append(f"expected {expected}, was {words.OUTCOMES[outcome][0]}")
    elif not outcome.under_fault and trial.arm != NO_HEALER:
        reasons.append(words.OUTCOMES[outcome][0])
    return words.clean("; ".join([*reasons, trial.recovery.reason])) if reasons else ""


def _case(suite: ElementTree.Element, trial: TrialResult, name: str, error: str, failure: str) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": words.clean(trial.experiment),
            "name": words.clean(name),
            "time": _time(trial.recovery.end_s or 0.0),
        },
    )
    _properties(case, _trial_properties(trial))
    if error or failure:
        attributes = {"message": error or failure, "type": str(trial.recovery.outcome)}
        problem = ElementTree.SubElement(case, "error" if error else "failure", attributes)
        problem.text = "; ".join(part for part in (error, failure) if part)
    lines = [f"reason: {trial.recovery.reason}"]
    lines += [f"evidence: {evidence}" for evidence in trial.evidence]
    lines += [f"detected: {summary}" for summary in trial.detected]
    lines += [f"healed by: {remedy}" for remedy in trial.healed_by]
    lines += [f"escalated: {summary}" for summary in trial.escalations]
    ElementTree.SubElement(case, "system-out").text = "\n".join(words.clean(line) for line in lines)


def _trial_properties(trial: TrialResult) -> list[tuple[str, str]]:
    found = trial.recovery
    return [
        ("outcome", str(found.outcome)),
        ("ttr", words.time_to_recover(found)),
        ("ttd", words.time_to_detect(trial)),
        ("bad", str(found.bad_count)),
        ("wrong", str(found.wrong_count)),
        ("silent", words.silent_time(found)),
        ("history", words.clean(trial.folder)),
    ]


def _properties(parent: ElementTree.Element, pairs: list[tuple[str, str]]) -> None:
    properties = ElementTree.SubElement(parent, "properties")
    for name, value in pairs:
        ElementTree.SubElement(properties, "property", {"name": words.clean(name), "value": words.clean(value)})


def _time(value_s: float) -> str:
    return f"{value_s:.3f}"
