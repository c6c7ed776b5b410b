"""When a sequential campaign (``--trials auto``) may leave out a trial."""

from __future__ import annotations

from monkeyproof.campaign.plan import CampaignPlan
from monkeyproof.reports.model.verdict import CampaignVerdict, Decision
from monkeyproof.trial.plan import TrialPlan


def is_needed(trial: TrialPlan, plan: CampaignPlan, verdict: CampaignVerdict) -> bool:
    """Whether a trial can still change the verdict; always, where the number of trials is fixed.

    A reference arm ends with its experiment. All shams that were asked for are run, for one more may break a hard
    limit at any time; unless every experiment is decided and the campaign has failed.
    """
    if not plan.sequential:
        return True
    decided = {
        name: all(
            one.decision is not Decision.INCONCLUSIVE or one.hopeless
            for one in verdict.verdicts
            if one.judged and one.experiment == name
        )
        for name in (experiment.name for experiment in plan.experiments)
    }
    if trial.experiment in decided:
        return not decided[trial.experiment]
    return not (all(decided.values()) and verdict.decision is Decision.FAIL)
