"""The lines of the verdict, in words: one experiment under one arm each."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.reports import text
from monkeyproof.reports.model.names import healer_name, sentence
from monkeyproof.reports.model.verdict import CampaignVerdict, Verdict
from monkeyproof.reports.stats.comparison import NO_HEALER


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One experiment under one arm."""

    verdict: Verdict
    experiment: str
    arm: str
    word: str
    """The decision; where nothing is judged, why not."""
    reason: str
    """As a sentence."""


def verdict_rows(verdict: CampaignVerdict) -> tuple[VerdictRow, ...]:
    """The rows, judged ones first, each kind in the order of the campaign."""
    ordered = sorted(verdict.verdicts, key=lambda one: not one.judged)
    return tuple(
        VerdictRow(
            verdict=one,
            experiment=text.clean(one.experiment),
            arm=healer_name(one.arm),
            word=one.decision if one.judged else ("reference" if one.arm == NO_HEALER else "no limit set"),
            reason=sentence(one.reason),
        )
        for one in ordered
    )


def rows_beside(verdict: CampaignVerdict, rows: tuple[VerdictRow, ...]) -> tuple[VerdictRow, ...]:
    """The rows that add something to the campaign's verdict: where one alone is judged, its row adds nothing."""
    judged = [one for one in verdict.verdicts if one.judged]
    shown = judged if len(judged) == 1 and judged[0].reason in verdict.reason else []
    return tuple(row for row in rows if row.verdict not in shown)


def campaign_reason(verdict: CampaignVerdict) -> str:
    """Why, as a sentence; the name of an experiment keeps its spelling."""
    reason = text.clean(verdict.reason)
    named = any(reason.startswith(text.clean(one.experiment)) for one in verdict.verdicts)
    return reason + "." if named else sentence(reason)
