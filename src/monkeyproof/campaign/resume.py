"""The plan of a campaign that began earlier, and whether it can still be continued as it was planned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.campaign.plan import CAMPAIGN_FILE, CampaignPlan
from monkeyproof.campaign.results import read_header
from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.activity_roles import ActivityNames
from monkeyproof.experiment.catalogue import Experiment
from monkeyproof.types import Json


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The plan of a campaign that began earlier, as its folder tells it."""

    folder: Path
    plan: Mapping[str, Json]

    @classmethod
    def read(cls, folder: Path) -> StoredPlan:
        """Read a plan that can be continued.

        Raises:
            UsageError: there is none, or nothing is left to do.
        """
        header = read_header(folder)
        try:
            plan = header["plan"]
            complete = header["duration_s"] is not None and not header["aborted"] and not header["ended_early"]
        except KeyError as error:
            raise UsageError(
                f"{folder / CAMPAIGN_FILE}: of an older version that cannot be continued: {error} is missing"
            ) from None
        if complete:
            raise UsageError(
                f"{folder}: this campaign is complete; 'monkeyproof gate {folder}' judges it, "
                f"'monkeyproof report {folder}' writes its reports anew"
            )
        return cls(folder, plan)

    @property
    def target_path(self) -> Path:
        return Path(self.plan["target"]["path"])

    def experiments(self) -> tuple[Experiment, ...]:
        """Raises: UsageError: one is gone, or is not what it was."""
        return tuple(self._unchanged(one) for one in self.plan["experiments"])

    def sham(self) -> Experiment | None:
        """Raises: UsageError: it is gone, or is not what it was."""
        return self._unchanged(self.plan["sham"]) if self.plan["sham"] else None

    def resumed(self, target: TargetFile, max_minutes: float | None) -> CampaignPlan:
        """The same plan again, with the target as it is now. A time limit holds for one sitting, so it may be new.

        Raises:
            UsageError: something that it rests on has changed; says what to do.
        """
        plan = CampaignPlan(
            experiments=self.experiments(),
            arms=tuple(self.plan["arms"]),
            trials_count=self.plan["trials_count"],
            seed=self.plan["seed"],
            target=target,
            folder=self.folder,
            sequential=self.plan["sequential"],
            shams_count=self.plan["shams_count"],
            sham=self.sham(),
            max_minutes=max_minutes,
        )
        now, then = plan.as_json(), self.plan
        # A restarted embedded target has other ports in its file.
        same = ("name", "settings") if target.stack and then["target"]["embedded"] else ("name", "sha256")
        # What was stored went through JSON; tuples come back as lists.
        now = json.loads(json.dumps(now, default=str))
        if any(now["target"][key] != then["target"][key] for key in same):
            raise self._changed(f"the target file {target.path}")
        if now["target"]["golden_sha256"] != then["target"]["golden_sha256"]:
            raise self._changed(f"the golden set {target.predict.golden}")
        if now["order"] != then["order"]:
            raise self._changed("the order of trials that its seed gives (numpy, or monkeyproof)")
        return plan

    def _unchanged(self, stored: Mapping[str, Json]) -> Experiment:
        name = stored["name"]
        named = ActivityNames(**stored.get("named", {}))
        # One's own file may carry the name of one in the catalogue, from which it was copied.
        path = Path(stored["path"])
        own = path.exists() and not path.is_relative_to(paths.experiments().resolve())
        found = catalogue.find(str(path) if own or name not in catalogue.names() else name, named)
        if found.sha256 != stored["sha256"]:
            raise self._changed(f"the experiment {found.path}")
        return found

    def _changed(self, what: str) -> UsageError:
        return UsageError(
            f"{self.folder}: {what} has changed since this campaign began, so its trials would not be alike; "
            "put it back as it was, or begin a new campaign"
        )
