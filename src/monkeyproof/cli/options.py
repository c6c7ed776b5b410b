"""The options of ``monkeyproof run``, ``gate`` and ``plan``, which define a campaign.

Imports nothing that takes time: ``--help`` shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from monkeyproof.errors import UsageError
from monkeyproof.experiment.activity_roles import ActivityNames

if TYPE_CHECKING:
    from monkeyproof.campaign.resume import StoredPlan
    from monkeyproof.config.target_file import TargetFile

ARMS = ("none", "elephant")
AUTO = "auto"
TRIALS_MAX = 1000


def _arms(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    arms = tuple(word.strip() for word in value.split(",")) if value is not None else ()
    for arm in arms:
        if arm not in ARMS:
            raise click.BadParameter(f"{arm!r} is none of {', '.join(ARMS)}", context, parameter)
    return arms


def _trials(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == AUTO:
        return None
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= TRIALS_MAX:
        raise click.BadParameter(f"{value!r} is neither {AUTO!r} nor 1 to {TRIALS_MAX}", context, parameter)
    return int(value)


_OPTIONS = (
    click.argument("names", nargs=-1),
    click.option(
        "--target",
        type=click.Path(path_type=Path),
        help="The target file of the system under test. The default is the embedded target.",
    ),
    click.option(
        "--arms",
        callback=_arms,
        metavar="ARM,...",
        help="The healers: none, elephant, or none,elephant to compare both on the same seeds. The default is "
        "elephant for the embedded target, none for others.",
    ),
    click.option(
        "--healer",
        "healers",
        multiple=True,
        type=click.Choice(ARMS),
        help="Run all trials under this one healer. Use --arms to compare several.",
    ),
    click.option(
        "--trials",
        "trials_count",
        callback=_trials,
        default="1",
        show_default=True,
        metavar="N|auto",
        help="The number of trials of each experiment and arm. auto runs trials until the verdict is decided.",
    ),
    click.option(
        "--max-trials",
        type=click.IntRange(1, TRIALS_MAX),
        default=100,
        show_default=True,
        help="With --trials auto, the largest number of trials of each experiment and arm.",
    ),
    click.option(
        "--shams",
        "shams_count",
        type=click.IntRange(0, TRIALS_MAX),
        default=0,
        help="The number of trials in each arm that break nothing. They run between the others, and any action of "
        "a healer in one of them is a false-positive remediation.",
    ),
    click.option(
        "--max-minutes",
        type=click.FloatRange(0, min_open=True),
        help="Start no trial after so many minutes. The campaign then ends in order, and --resume continues it.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**31),
        default=1,
        show_default=True,
        help="The seed of the first trial and of the order of trials. The same seed gives the same plan.",
    ),
    click.option(
        "--inject",
        metavar="NAME",
        help="The activity that injects the fault of an external experiment, if its file does not name it.",
    ),
    click.option("--evidence", metavar="NAME", help="The probe that proves that this fault took effect."),
    click.option(
        "--undo",
        metavar="NAME",
        help="The action that undoes this fault, or 'none' if there is nothing to undo. The default is the "
        "rollbacks.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="The folder that the campaign creates. The default is runs/<time>.",
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Continue the interrupted campaign in this folder by its own plan. It keeps finished trials.",
    ),
    click.option("--no-tracking", is_flag=True, help="Do not log the campaign to MLflow."),
)


def campaign_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add all options that define a campaign; ``run``, ``gate`` and ``plan`` take the same."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Options:
    """The values of the options that define a campaign, each checked by itself."""

    names: tuple[str, ...]
    target: Path | None
    arms: tuple[str, ...]
    healers: tuple[str, ...]
    trials_count: int | None
    """None: auto."""
    max_trials: int
    shams_count: int
    max_minutes: float | None
    seed: int
    inject: str | None
    evidence: str | None
    undo: str | None
    out: Path | None
    resume: Path | None
    no_tracking: bool
    given: frozenset[str]
    """Names of the options that the command line contains."""

    @classmethod
    def of(cls, context: click.Context, values: dict[str, Any]) -> Options:
        """Raises: UsageError: two of them contradict each other."""
        given = frozenset(
            name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        )
        if {"arms", "healers"} <= given:
            raise UsageError("--arms and --healer have the same meaning; give one of them")
        if "max_trials" in given and values["trials_count"] is not None and "resume" not in given:
            raise UsageError("--max-trials limits --trials auto; it has no meaning for a fixed number of trials")
        roles = [name for name in ("inject", "evidence", "undo") if name in given]
        if roles and "resume" not in given and len(values["names"]) != 1:
            raise UsageError(
                f"--{roles[0]} names an activity of one experiment's file: name that file, and no other"
            )
        return cls(**values, given=given)

    @property
    def named(self) -> ActivityNames:
        """The activities that inject, prove and undo, as far as the command line names them."""
        return ActivityNames(self.inject or "", self.evidence or "", self.undo or "")

    def arms_for(self, file: TargetFile) -> tuple[str, ...]:
        arms = self.arms or tuple(dict.fromkeys(self.healers)) or (("elephant",) if file.stack else ("none",))
        if file.stack is None and "elephant" in arms:
            raise UsageError("the Elephant heals the embedded target only; use --arms none for others")
        return arms

    def finished_folder(self) -> Path | None:
        """The folder of the finished campaign to judge; None if the command line names experiments."""
        if len(self.names) != 1 or not Path(self.names[0]).is_dir():
            return None
        if self.given - {"names"}:
            raise UsageError(f"{self.names[0]}: a finished campaign is judged as it is; give no options with it")
        return Path(self.names[0]).resolve()

    def _roles_against(self, plan: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        then = plan["experiments"][0].get("named", {})
        return {role: (getattr(self, role), then.get(role)) for role in ("inject", "evidence", "undo")}

    def check_against(self, stored: StoredPlan) -> None:
        """Check the options beside --resume, which may repeat the stored plan.

        Raises:
            UsageError: one of them contradicts it.
        """
        from monkeyproof.experiment import catalogue

        plan = stored.plan
        named = sorted(Path(name).stem if Path(name).suffix else name for name in catalogue.chosen(self.names))
        trials = None if plan["sequential"] else plan["trials_count"]
        says = {
            "names": (named, sorted(one["name"] for one in plan["experiments"])),
            "arms": (sorted(self.arms), sorted(plan["arms"])),
            "healers": (sorted(set(self.healers)), sorted(plan["arms"])),
            "trials_count": (self.trials_count, trials),
            "max_trials": (self.max_trials, plan["trials_count"] if plan["sequential"] else None),
            "shams_count": (self.shams_count, plan["shams_count"]),
            "seed": (self.seed, plan["seed"]),
            **self._roles_against(plan),
            "out": (self.out and self.out.resolve(), stored.folder),
        }
        for name, (now, then) in says.items():
            if name in self.given and now != then:
                option = {"names": "the experiments", "healers": "--healer", "trials_count": "--trials"}.get(
                    name, f"--{name.removesuffix('_count').replace('_', '-')}"
                )
                raise UsageError(
                    f"{stored.folder}: {option} contradicts this campaign's plan; leave it out, or begin a new "
                    "campaign"
                )
