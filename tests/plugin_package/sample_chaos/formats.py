"""A report format: one line for each trial."""

from __future__ import annotations

from monkeyproof.reports.format_table import report_format
from monkeyproof.reports.model.report import Report


@report_format("outcomes.txt", name="outcomes")
def outcomes(report: Report) -> str:
    """Experiment and outcome of each trial."""
    return "".join(f"{one.experiment}: {one.recovery.outcome}\n" for one in report.campaign.trials)
