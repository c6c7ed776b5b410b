"""Two campaigns beside one another: what ``monkeyproof compare`` prints."""

from __future__ import annotations

from dataclasses import dataclass

from monkeyproof.reports.model.report import Report
from monkeyproof.reports.stats.comparison import Comparison, compare_campaigns, differences


@dataclass(frozen=True, slots=True)
class CampaignComparison:
    """Two campaigns, A and B."""

    names: tuple[str, str]
    confidence: float
    """Of the intervals: that of A's SLO."""
    comparisons: tuple[Comparison, ...]
    """One for each experiment and arm that both ran. Positive effects are in favour of A."""
    differences: tuple[str, ...]
    """In what the campaigns were not alike, so that a difference between their trials may come from it."""


def compare(ours: Report, reference: Report, names: tuple[str, str]) -> CampaignComparison:
    """Compare A (ours) with B (the reference), by A's SLO. ``names`` are for people."""
    return CampaignComparison(
        names,
        ours.slo.recovery.confidence,
        compare_campaigns(ours.campaign, reference.campaign, ours.slo),
        tuple(differences(ours.campaign, reference.campaign, (ours.folder, reference.folder))),
    )
