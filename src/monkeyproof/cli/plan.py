"""``monkeyproof plan``: shows what ``run`` would do, and does nothing.

Imports its modules only when it runs, as the whole command line does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monkeyproof import paths
from monkeyproof.cli.campaign import read_target
from monkeyproof.cli.options import Options, campaign_options

if TYPE_CHECKING:
    from monkeyproof.campaign.plan import CampaignPlan
    from monkeyproof.config.target_file import TargetFile
    from monkeyproof.trial.dry_run import PlannedStep
    from monkeyproof.trial.plan import TrialPlan


@click.command("plan")
@campaign_options
@click.pass_context
def plan(context: click.Context, /, **values: Any) -> None:
    """Show the faults that 'run' with the same options would inject, their limits and their undo.

    Starts nothing, injects nothing and changes nothing of the target. It reads the target's links, replicas and
    registry, so that it can name what the seed chooses. Exit code 2 or 4 if 'run', or one of its trials, would be
    refused.
    """
    options = Options.of(context, values)
    from monkeyproof.safety.replay import clear_to_inject

    prepared = options.prepare()
    with clear_to_inject():
        file, live = _target(prepared.target_path)
        planned = prepared.plan(file)
    refused = _print(planned, live=live)
    if refused:
        context.exit(refused)


def _target(path: Path | None) -> tuple[TargetFile, bool]:
    """The target file, and whether the target is up; 'run' would start an embedded target that is down."""
    from monkeyproof.config.target_file import Predict, StackAddress, TargetFile
    from monkeyproof.targets.local.control_plane import lifecycle

    if path is not None:
        return read_target(path), True
    if lifecycle.status().up:
        return read_target(paths.target_dir() / "target.yaml"), True
    predict = Predict("http://127.0.0.1/invocations", Path())
    stack = StackAddress(Path())
    return TargetFile("embedded", predict, stack=stack, path=paths.target_dir() / "target.yaml"), False


def _print(planned: CampaignPlan, *, live: bool) -> int:
    """Print the plan. Returns the exit code of the first refusal, or 0."""
    from monkeyproof.campaign.plan import TRIALS_DIR
    from monkeyproof.campaign.results import is_finished
    from monkeyproof.targets.opening import open_target
    from monkeyproof.trial.dry_run import DescribedTarget, DryRun

    file = planned.target
    trials = [trial for trial in planned.trials() if not is_finished(Path(trial.folder))]
    for line in _head(planned, len(trials), live=live):
        click.echo(line)
    experiments = {one.name: one for one in (*planned.experiments, *([planned.sham] if planned.sham else []))}
    target = None
    if live:
        target = open_target(file.path) if file.stack else DescribedTarget(file)
    code, shown = 0, set[tuple[str, str]]()
    try:
        preview = DryRun(file, target)
        for trial in trials:
            steps = preview.steps(experiments[trial.experiment], trial.seed, trial.arm)
            code = code or next((step.refused.exit_code for step in steps if step.refused), 0)
            number = Path(trial.folder).relative_to(planned.folder / TRIALS_DIR).name.partition("-")[0]
            for line in _lines(number, trial, steps, experiments[trial.experiment].added_steps, shown):
                click.echo(line)
    finally:
        if target is not None:
            target.close()
    return code


def _head(planned: CampaignPlan, count: int, *, live: bool) -> Iterator[str]:
    file = planned.target
    most = "at most " if planned.sequential or planned.max_minutes is not None else ""
    trials = f"{most}{count} trial{'s' if count != 1 else ''}"
    yield f"{trials} against {file.name} ({file.path}), in this order. Nothing is injected now."
    if not live:
        yield "The embedded target is not up; 'run' would start it, and end it afterwards."
    limits = [f"{key} {value:g}" for key in file.limits_in_force.__slots__ if (value := _limit(file, key))]
    yield f"limits: {', '.join(limits) or 'none'}"
    yield f"abort_if: {'; '.join(one.words for one in file.abort_if) or 'nothing'}"


def _limit(file: TargetFile, key: str) -> float | None:
    value: float | None = getattr(file.limits_in_force, key)
    return value


def _lines(
    number: str, trial: TrialPlan, steps: list[PlannedStep], added: Sequence[str], shown: set[tuple[str, str]]
) -> Iterator[str]:
    """The lines about one trial; details that an earlier trial of the experiment shows as well are left out."""
    yield ""
    yield f"{number} {trial.experiment}, arm {trial.arm}, seed {trial.seed}"
    if not steps:
        yield "    injects nothing"
    for step in steps:
        yield f"    {'would refuse' if step.refused else 'injects'} {step.headline}"
        if (trial.experiment, step.headline) in shown:
            continue
        shown.add((trial.experiment, step.headline))
        for name, words in step.details:
            yield f"        {name:7} {words}" if name else f"        {words}"
    if added and (trial.experiment, "") not in shown:
        shown.add((trial.experiment, ""))
        yield f"    adds the steps of a trial: {'; '.join(added)}"
