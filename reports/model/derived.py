"""What ``results.json`` holds beside the campaign: the verdict and the figures of the printed table. Nobody reads
them back; they are made anew from the campaign whenever it is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from monkeyproof.reports.formats import results_json
from monkeyproof.reports.model.verdict import as_json, judge
from monkeyproof.reports.stats.proportions import Share
from monkeyproof.reports.stats.summary import Group, summarise
from monkeyproof.types import Campaign, Json


def derive(campaign: Campaign) -> dict[str, Json]:
    """The keys ``verdict`` and ``summary``. docs/results.md describes them.

    Raises:
        UsageError: the campaign's SLO is none.
    """
    slo = results_json.slo_of(campaign)
    summary = summarise(campaign, slo)
    return {
        "verdict": as_json(judge(campaign, slo)),
        "summary": {
            "groups": [_group(group) for group in summary.groups],
            "comparisons": [asdict(pair) for pair in summary.pairs],
        },
    }


def _group(group: Group) -> Mapping[str, Json]:
    return {
        "experiment": group.experiment,
        "arm": group.arm,
        "sham": group.sham,
        "storm": group.storm,
        "trials_count": len(group.trials),
        "valid_count": len(group.observations),
        "censored_count": group.censored_count,
        "outcomes": {str(outcome): number for outcome, number in group.counts.items()},
        "median": asdict(group.median),
        "median_earliest_s": group.median_earliest_s,
        "ttr_width_median_s": group.ttr_width_median_s,
        "p90": asdict(group.p90),
        "restricted_mean": asdict(group.restricted_mean),
        "horizon_s": group.horizon_s,
        "in_time": _share(group.in_time),
        "absorbed": _share(group.absorbed),
        "served_wrong": _share(group.served_wrong),
        "false_heals_count": sum(bool(trial.false_heals) for trial in group.trials),
    }


def _share(share: Share | None) -> Json:
    return None if share is None else asdict(share)
