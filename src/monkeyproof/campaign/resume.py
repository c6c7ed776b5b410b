"""The plan with which a campaign began, and what refuses to continue it otherwise than planned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monkeyproof import paths
from monkeyproof.campaign.plan import CAMPAIGN_FILE, CampaignPlan
from monkeyproof.campaign.request import CampaignRequest
from monkeyproof.campaign.results import read_header
from monkeyproof.errors import UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.activity_roles import ActivityNames
from monkeyproof.experiment.catalogue import Experiment
from monkeyproof.types import Json

_OPTION_NAMES = {"names": "the experiments", "healers": "--healer", "trials_count": "--trials"}
"""Options whose words differ from the request's attribute."""


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The plan of an interrupted campaign, as its folder holds it."""

    folder: Path
    plan: Mapping[str, Json]

    @classmethod
    def read(cls, folder: Path) -> StoredPlan:
        """Read a plan that can be continued.

        Raises:
            UsageError: there is none, or every trial of it is finished.
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
        """Raises: UsageError: a file is missing, or has changed."""
        return tuple(self._unchanged(one) for one in self.plan["experiments"])

    def sham(self) -> Experiment | None:
        """Raises: UsageError: its file is missing, or has changed."""
        return self._unchanged(self.plan["sham"]) if self.plan["sham"] else None

    def refuse_contradictions(self, request: CampaignRequest) -> None:
        """Options beside --resume may repeat the plan, and not contradict it.

        Raises:
            UsageError: an option does.
        """
        plan, sequential = self.plan, self.plan["sequential"]
        names = sorted(Path(name).stem if Path(name).suffix else name for name in catalogue.chosen(request.names))
        planned: dict[str, tuple[Any, Any]] = {
            "names": (names, sorted(one["name"] for one in plan["experiments"])),
            "arms": (sorted(request.arms), sorted(plan["arms"])),
            "healers": (sorted(request.arms), sorted(plan["arms"])),
            "trials_count": (request.trials_count, None if sequential else plan["trials_count"]),
            "max_trials": (request.max_trials, plan["trials_count"] if sequential else None),
            "shams_count": (request.shams_count, plan["shams_count"]),
            "seed": (request.seed, plan["seed"]),
            "out": (request.out and request.out.resolve(), self.folder),
        }
        then = plan["experiments"][0].get("named", {})
        for role in ("inject", "evidence", "undo"):
            planned[role] = (getattr(request.activities, role) or None, then.get(role))
        for name, (now, before) in planned.items():
            if name in request.given and now != before:
                option = _OPTION_NAMES.get(name, f"--{name.removesuffix('_count').replace('_', '-')}")
                raise UsageError(
                    f"{self.folder}: {option} contradicts this campaign's plan; leave it out, or begin a new "
                    "campaign"
                )

    def refuse_changes(self, plan: CampaignPlan) -> None:
        """Compare the plan of the rest with the stored one.

        Raises:
            UsageError: the target, its golden set, or the order of trials has changed; says what to do.
        """
        # The stored plan went through JSON, where tuples become lists.
        now, then = json.loads(json.dumps(plan.as_json(), default=str)), self.plan
        # A restarted embedded target has other ports in its file.
        embedded = plan.target.stack and then["target"]["embedded"]
        same = ("name", "settings") if embedded else ("name", "sha256")
        if any(now["target"][key] != then["target"][key] for key in same):
            raise self._changed(f"the target file {plan.target.path}")
        if now["target"]["golden_sha256"] != then["target"]["golden_sha256"]:
            raise self._changed(f"the golden set {plan.target.predict.golden}")
        if now["order"] != then["order"]:
            raise self._changed("the order of trials that its seed gives (numpy, or monkeyproof)")

    def _unchanged(self, stored: Mapping[str, Json]) -> Experiment:
        name = stored["name"]
        named = ActivityNames(**stored.get("named", {}))
        # A user's own file may carry the name of the experiment in the catalogue from which it was copied.
        path = Path(stored["path"])
        own = path.exists() and not path.is_relative_to(paths.experiments().resolve())
        found = catalogue.find(str(path) if own or name not in catalogue.names() else name, named)
        if found.sha256 != stored["sha256"]:
            raise self._changed(f"the experiment {found.path}")
        return found

    def _changed(self, what: str) -> UsageError:
        return UsageError(
            f"{self.folder}: {what} has changed since this campaign began, so its trials would not be alike; "
            "restore it, or begin a new campaign"
        )
