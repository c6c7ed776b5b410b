"""The report model: all that any format says about a campaign, computed once.

``build`` is the only place that judges a campaign and computes its statistics. Every format, the console, the
gate, the progress of a running campaign and MLflow tracking take a ``Report``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monkeyproof.config.target_file import ProberSettings, Slo
from monkeyproof.reports.model.campaign_settings import prober_of, slo_of
from monkeyproof.reports.model.clock import clock, lateness
from monkeyproof.reports.model.comparison_rows import ComparisonRow, comparison_rows
from monkeyproof.reports.model.group_rows import GroupRow, ShamRow, group_rows, sham_rows, under_fault
from monkeyproof.reports.model.headline import headline, warnings
from monkeyproof.reports.model.trial_rows import TrialRow, trial_rows
from monkeyproof.reports.model.verdict import CampaignVerdict, judge
from monkeyproof.reports.model.verdict_rows import VerdictRow, campaign_reason, rows_beside, verdict_rows
from monkeyproof.reports.stats.summary import Statistics, summarise
from monkeyproof.types import Campaign


@dataclass(frozen=True, slots=True)
class Report:
    """A campaign with its verdict, its statistics and the rows of its tables.

    Rows hold text for people, and under ``trial``, ``group``, ``comparison`` or ``verdict`` the numbers behind it.
    """

    campaign: Campaign
    folder: Path
    """The campaign's folder, in which the trials' histories are; ``trial.folder`` is relative to it."""
    slo: Slo
    prober: ProberSettings
    verdict: CampaignVerdict
    statistics: Statistics
    verdict_reason: str
    """Why, as a sentence."""
    verdict_rows: tuple[VerdictRow, ...]
    """One for each experiment and arm, judged ones first."""
    verdict_rows_beside: tuple[VerdictRow, ...]
    """Those that add something to ``verdict_reason``."""
    headline: tuple[str, ...]
    """What happened, in a few sentences."""
    warnings: tuple[str, ...]
    """What a reader must know before trusting the numbers, in sentences."""
    clock: str
    """How finely the clock was proven to tell the time, in one sentence."""
    lateness: str
    """The prober's own lateness in the worst trial (p99)."""
    trials: tuple[TrialRow, ...]
    groups: tuple[GroupRow, ...]
    """One for each experiment and arm, without shams and storms."""
    comparisons: tuple[ComparisonRow, ...]
    """Each arm against the arm without a healer."""
    shams: tuple[ShamRow, ...]


def build(campaign: Campaign, folder: Path) -> Report:
    """Judge a campaign, compute its statistics and fill its tables.

    Args:
        campaign: As read from the histories, or so far while it runs.
        folder: The campaign's; nothing is read from it here.

    Raises:
        UsageError: the campaign's SLO or prober settings are damaged.
    """
    slo = slo_of(campaign)
    verdict, statistics = judge(campaign, slo), summarise(campaign, slo)
    rows = verdict_rows(verdict)
    return Report(
        campaign=campaign,
        folder=folder,
        slo=slo,
        prober=prober_of(campaign),
        verdict=verdict,
        statistics=statistics,
        verdict_reason=campaign_reason(verdict),
        verdict_rows=rows,
        verdict_rows_beside=rows_beside(verdict, rows),
        headline=tuple(headline(statistics)),
        warnings=tuple(warnings(campaign, statistics)),
        clock=clock(campaign),
        lateness=lateness(campaign),
        trials=trial_rows(campaign),
        groups=group_rows(under_fault(statistics.groups)),
        comparisons=comparison_rows(statistics.pairs),
        shams=sham_rows(campaign),
    )
