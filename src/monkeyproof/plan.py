"""What a campaign is to do, in which order, and whether it is still what was planned when it is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from monkeyproof import catalogue
from monkeyproof.catalogue import Experiment
from monkeyproof.config import TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.roles import Named
from monkeyproof.trial import TrialPlan
from monkeyproof.types import Json

CAMPAIGN_FILE = "campaign.json"
TRIALS_DIR = "trials"


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """What a campaign is to do. Trial i of every experiment and every arm has the seed ``seed + i``.

    Raises:
        UsageError: it contradicts itself.
    """

    experiments: tuple[Experiment, ...]
    arms: tuple[str, ...]
    trials_count: int
    """Of each experiment and arm; at most, if sequential."""
    seed: int
    target: TargetFile
    folder: Path
    sequential: bool = False
    """Ends as soon as the verdict is decided."""
    shams_count: int = 0
    """In each arm, beside the experiments."""
    sham: Experiment | None = None
    """What those shams run."""
    max_minutes: float | None = None
    """No trial begins later than this."""

    def __post_init__(self) -> None:
        names = [experiment.name for experiment in self.experiments]
        for what, words in (("experiment", names), ("arm", list(self.arms))):
            twice = [word for word in dict.fromkeys(words) if words.count(word) > 1]
            if twice:
                raise UsageError(f"{what} {twice[0]!r}: named twice; --trials N runs it more than once")
        shams = [experiment.name for experiment in self.experiments if experiment.extension.sham]
        if shams and self.shams_count:
            raise UsageError(f"{shams[0]!r} is a sham already, and --shams adds shams: name it, or use --shams")
        if shams and self.sequential:
            raise UsageError(
                f"{shams[0]!r} breaks nothing, so no verdict on it ends --trials auto; use --shams N beside others"
            )
        if self.shams_count and self.sham is None:
            raise UsageError("shams are asked for, and there is no sham to run")

    def trials(self) -> list[TrialPlan]:
        """In the order in which they run. Block i holds trial i of every experiment and arm, shuffled.

        Randomised complete blocks (R. A. Fisher, The Design of Experiments, 1935): the machine's drift favours no
        arm, and equal seeds are tried close to one another.
        """
        ordered: list[tuple[Experiment, str, int]] = []
        for index in range(self.trials_count):
            block = [(experiment, arm, index) for experiment in self.experiments for arm in self.arms]
            block += [(self.sham, arm, sham) for sham in self._shams_of(index) for arm in self.arms if self.sham]
            shuffled = np.random.default_rng([self.seed, index]).permutation(len(block))
            ordered += [block[place] for place in shuffled]
        digits = max(3, len(str(len(ordered))))
        return [self._trial(f"{number:0{digits}d}", *one) for number, one in enumerate(ordered, start=1)]

    def blocks_of(self, trials: list[TrialPlan]) -> list[int]:
        """The block of each trial; a sham stands in the block in which it is run."""
        of_sham = {sham: index for index in range(self.trials_count) for sham in self._shams_of(index)}
        beside = {self.sham.name} if self.sham else set()
        return [of_sham[trial.index] if trial.experiment in beside else trial.index for trial in trials]

    def _shams_of(self, index: int) -> list[int]:
        """Spread evenly; but a campaign that may end early has them in its first blocks, or it would miss them."""
        last = self.trials_count - 1
        if self.sequential:
            return [sham for sham in range(self.shams_count) if min(sham, last) == index]
        return [sham for sham in range(self.shams_count) if sham * self.trials_count // self.shams_count == index]

    def _trial(self, number: str, experiment: Experiment, arm: str, index: int) -> TrialPlan:
        slug = experiment.name.replace("/", "-")
        return TrialPlan(
            experiment=experiment.name,
            title=experiment.title,
            experiment_file=str(experiment.path),
            experiment_sha256=experiment.sha256,
            seed=self.seed + index,
            arm=arm,
            index=index,
            target=str(self.target.path),
            folder=str(self.folder / TRIALS_DIR / f"{number}-{slug}-{arm}-{self.seed + index}"),
            expected=tuple(experiment.extension.expect.get(arm, ())),
            sham=experiment.extension.sham,
            **experiment.extension.named.given(),
        )

    def as_json(self) -> dict[str, Json]:
        """The whole plan, for campaign.json."""
        return {
            "experiments": [_named(experiment) for experiment in self.experiments],
            "arms": list(self.arms),
            "trials_count": self.trials_count,
            "sequential": self.sequential,
            "shams_count": self.shams_count,
            "sham": _named(self.sham) if self.sham else None,
            "max_minutes": self.max_minutes,
            "seed": self.seed,
            "target": {
                "name": self.target.name,
                "path": str(self.target.path),
                "sha256": hashlib.sha256(self.target.path.read_bytes()).hexdigest(),
                "embedded": self.target.stack is not None,
                "settings": _settings(self.target),
            },
            "order": [Path(trial.folder).name for trial in self.trials()],
        }


def summary_of(plan: Mapping[str, Json]) -> dict[str, Json]:
    """What a campaign's results say of its plan (``Campaign.plan``)."""
    if not plan:
        return {}
    kept = ("arms", "trials_count", "sequential", "shams_count", "max_minutes")
    return {"experiments": [one["name"] for one in plan["experiments"]], **{key: plan[key] for key in kept}}


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
        path = folder / CAMPAIGN_FILE
        try:
            header = json.loads(path.read_bytes())
            plan = header["plan"]
            complete = header["duration_s"] is not None and not header["aborted"] and not header["ended_early"]
        except OSError:
            raise UsageError(f"{folder}: no {CAMPAIGN_FILE} in it, so there is nothing to continue") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: damaged, or of an older version that cannot be continued: {error}"
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
        if now["order"] != then["order"]:
            raise self._changed("the order of trials that its seed gives (numpy, or monkeyproof)")
        return plan

    def _unchanged(self, stored: Mapping[str, Json]) -> Experiment:
        name = stored["name"]
        named = Named(**stored.get("named", {}))
        found = catalogue.find(name if name in catalogue.names() else stored["path"], named)
        if found.sha256 != stored["sha256"]:
            raise self._changed(f"the experiment {found.path}")
        return found

    def _changed(self, what: str) -> UsageError:
        return UsageError(
            f"{self.folder}: {what} has changed since this campaign began, so its trials would not be alike; "
            "put it back as it was, or begin a new campaign"
        )


def _named(experiment: Experiment) -> dict[str, Json]:
    return {
        "name": experiment.name,
        "path": str(experiment.path),
        "sha256": experiment.sha256,
        "named": experiment.extension.named.given(),
    }


def _settings(target: TargetFile) -> dict[str, Json]:
    """What makes trials alike, whatever the ports are."""
    return {key: asdict(getattr(target, key)) for key in ("slo", "windows", "prober", "load")}
