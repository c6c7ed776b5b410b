"""The plan of a campaign: its trials, and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.experiment.catalogue import Experiment
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.types import Json

CAMPAIGN_FILE = "campaign.json"
TRIALS_DIR = "trials"


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """The plan of a campaign. Trial i of every experiment and every arm has the seed ``seed + i``.

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
    """The experiment that the shams run."""
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
        """The block of each trial; a sham belongs to the block in which it runs."""
        of_sham = {sham: index for index in range(self.trials_count) for sham in self._shams_of(index)}
        beside = {self.sham.name} if self.sham else set()
        return [of_sham[trial.index] if trial.experiment in beside else trial.index for trial in trials]

    def _shams_of(self, index: int) -> list[int]:
        """The shams of a block: spread evenly; but in the first blocks of a campaign that may end early."""
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
            benign=experiment.extension.benign,
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
                "sha256": _digest(self.target.path),
                "golden_sha256": _digest(self.target.predict.golden),
                "embedded": self.target.stack is not None,
                "settings": _settings(self.target),
            },
            "order": [Path(trial.folder).name for trial in self.trials()],
        }


def summary_of(plan: Mapping[str, Json]) -> dict[str, Json]:
    """The part of a plan that results keep (``Campaign.plan``)."""
    if not plan:
        return {}
    kept = ("arms", "trials_count", "sequential", "shams_count", "max_minutes")
    return {"experiments": [one["name"] for one in plan["experiments"]], **{key: plan[key] for key in kept}}


def _named(experiment: Experiment) -> dict[str, Json]:
    return {
        "name": experiment.name,
        "path": str(experiment.path),
        "sha256": experiment.sha256,
        "named": experiment.extension.named.given(),
    }


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _settings(target: TargetFile) -> dict[str, Json]:
    """The settings that make trials alike. Ports are not among them."""
    return {key: asdict(getattr(target, key)) for key in ("slo", "windows", "prober", "load")}
