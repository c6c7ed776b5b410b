"""From a request, or the folder of an interrupted campaign, to what is to run; and, with a target, to a plan.

Everything that can be wrong without the target is refused here, before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from monkeyproof import paths
from monkeyproof.campaign.plan import CampaignPlan
from monkeyproof.campaign.request import CampaignRequest
from monkeyproof.campaign.resume import StoredPlan
from monkeyproof.config.target_file import TargetFile, load_plugins_of
from monkeyproof.errors import UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.catalogue import Experiment


@dataclass(frozen=True, slots=True)
class PreparedCampaign:
    """All of a campaign's plan but the target."""

    folder: Path
    experiments: tuple[Experiment, ...]
    arms: tuple[str, ...]
    """Empty for the default of the target."""
    trials_count: int
    sequential: bool
    seed: int
    shams_count: int
    sham: Experiment | None
    max_minutes: float | None
    target_path: Path | None
    """The target file; None for the embedded target."""
    stored: StoredPlan | None = None
    """The plan that a resumed campaign has to follow."""

    @property
    def resumed(self) -> bool:
        return self.stored is not None

    def plan(self, target: TargetFile) -> CampaignPlan:
        """The plan against this target.

        Raises:
            UsageError: it contradicts itself, the target, or the plan with which the campaign began.
        """
        arms = self.arms or (("elephant",) if target.stack else ("none",))
        if self.stored is None and target.stack is None and "elephant" in arms:
            raise UsageError("the Elephant heals the embedded target only; use --arms none for others")
        plan = CampaignPlan(
            experiments=self.experiments,
            arms=arms,
            trials_count=self.trials_count,
            seed=self.seed,
            target=target,
            folder=self.folder,
            sequential=self.sequential,
            shams_count=self.shams_count,
            sham=self.sham,
            max_minutes=self.max_minutes,
        )
        if self.stored is not None:
            self.stored.refuse_changes(plan)
        return plan


def prepare(request: CampaignRequest) -> PreparedCampaign:
    """Prepare a new campaign.

    Raises:
        UsageError: a plugin cannot be loaded, an experiment is unknown or damaged, or the folder is not empty.
    """
    load_plugins_of(request.target)
    experiments = tuple(catalogue.find(name, request.activities) for name in catalogue.chosen(request.names))
    sham = catalogue.find("sham") if request.shams_count else None
    folder = (request.out or Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: not an empty folder; choose another one with --out")
    return PreparedCampaign(
        folder=folder,
        experiments=experiments,
        arms=request.arms,
        trials_count=request.trials_count or request.max_trials,
        sequential=request.trials_count is None,
        seed=request.seed,
        shams_count=request.shams_count,
        sham=sham,
        max_minutes=request.max_minutes,
        target_path=request.target,
    )


def prepare_resumed(folder: Path, request: CampaignRequest) -> PreparedCampaign:
    """Prepare the rest of an interrupted campaign. A time limit holds for one sitting, so it may be new.

    Raises:
        UsageError: the campaign cannot be continued, its experiments have changed, or the request contradicts it.
    """
    stored = StoredPlan.read(folder)
    stored.refuse_contradictions(request)
    load_plugins_of(request.target or stored.target_path)
    plan = stored.plan
    # An embedded target that was started for the campaign may have ended with it.
    own = paths.target_dir() / "target.yaml"
    return PreparedCampaign(
        folder=folder,
        experiments=stored.experiments(),
        arms=tuple(plan["arms"]),
        trials_count=plan["trials_count"],
        sequential=plan["sequential"],
        seed=plan["seed"],
        shams_count=plan["shams_count"],
        sham=stored.sham(),
        max_minutes=request.max_minutes if request.max_minutes is not None else plan["max_minutes"],
        target_path=request.target or (None if stored.target_path == own else stored.target_path),
        stored=stored,
    )
