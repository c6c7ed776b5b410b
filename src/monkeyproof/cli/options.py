"""The options of ``monkeyproof run``, ``gate`` and ``plan``, which define a campaign.

Imports nothing that takes time: ``--help`` shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from monkeyproof.campaign.request import CampaignRequest
from monkeyproof.errors import UsageError
from monkeyproof.experiment.activity_roles import ActivityNames

if TYPE_CHECKING:
    from monkeyproof.campaign.prepare import PreparedCampaign

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

    request: CampaignRequest
    resume: Path | None
    no_tracking: bool

    @classmethod
    def of(cls, context: click.Context, values: dict[str, Any]) -> Options:
        """Check the options against one another.

        Raises:
            UsageError: two of them contradict each other.
        """
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
        request = CampaignRequest(
            names=values["names"],
            target=values["target"],
            arms=values["arms"] or tuple(dict.fromkeys(values["healers"])),
            trials_count=values["trials_count"],
            max_trials=values["max_trials"],
            shams_count=values["shams_count"],
            max_minutes=values["max_minutes"],
            seed=values["seed"],
            activities=ActivityNames(*(values[role] or "" for role in ("inject", "evidence", "undo"))),
            out=values["out"],
            given=given,
        )
        return cls(request, values["resume"], values["no_tracking"])

    def prepare(self) -> PreparedCampaign:
        """The campaign that these options ask for, or the rest of an interrupted one.

        Raises:
            UsageError: it cannot be run as the options ask; nothing has been started.
        """
        from monkeyproof.campaign.prepare import prepare, prepare_resumed

        if self.resume is None:
            return prepare(self.request)
        return prepare_resumed(self.resume.resolve(), self.request)

    def finished_folder(self) -> Path | None:
        """The folder to judge, if the options ask for nothing else."""
        names = self.request.names
        if len(names) != 1 or not Path(names[0]).is_dir():
            return None
        if self.request.given - {"names"}:
            raise UsageError(f"{names[0]}: a finished campaign is judged as it is; give no options with it")
        return Path(names[0]).resolve()
