"""``monkeyproof unleash``: injects a randomised schedule of faults, a storm.

Imports its modules only when it runs, as the whole command line does.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monkeyproof import paths
from monkeyproof.cli.campaign import open_or_start, read_target, unwritten, write_and_name
from monkeyproof.cli.options import ARMS
from monkeyproof.errors import UsageError

if TYPE_CHECKING:
    from monkeyproof.campaign.unleash import ScheduleResult
    from monkeyproof.config.target_file import TargetFile
    from monkeyproof.injection.schedule_plan import SchedulePlan

MINUTES_MAX = 24 * 60.0


class _Intensity(click.ParamType[float]):
    """``low``, ``medium``, ``high``, or a number from 0.05 to 1."""

    name = "low|medium|high|0.05..1"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        from monkeyproof.injection.schedule_plan import INTENSITIES, INTENSITY_LEAST

        with contextlib.suppress(ValueError):
            number = INTENSITIES.get(str(value)) or float(value)
            if INTENSITY_LEAST <= number <= 1:
                return number
        numbers = f"a number from {INTENSITY_LEAST:g} to 1"
        return self.fail(f"{value!r} is none of low, medium, high, nor {numbers}", parameter, context)


def _families(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip())) if value else ()


@dataclass(frozen=True, slots=True)
class UnleashOptions:
    minutes: float
    seed: int
    intensity: float
    families: tuple[str, ...]
    max_at_once: int | None
    target: Path | None
    healer: str | None
    stored: Path | None
    out: Path | None
    dry_run: bool
    shrink: bool
    max_trials: int
    max_minutes: float | None
    tries: int
    restore: str


@click.command("unleash")
@click.option(
    "--minutes",
    type=click.FloatRange(0.1, MINUTES_MAX),
    default=1.0,
    show_default=True,
    help="The time in minutes at which the last fault is reverted, at the latest.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=1,
    show_default=True,
    help="The seed of the storm. The same seed gives the same storm.",
)
@click.option(
    "--intensity",
    type=_Intensity(),
    default="medium",
    show_default=True,
    help="How dense, how long and how strong the faults are.",
)
@click.option(
    "--families",
    callback=_families,
    metavar="A,B",
    help="The families of faults to draw from. The default is all that the target allows.",
)
@click.option(
    "--max-at-once",
    type=click.IntRange(1, 20),
    help="The maximum of faults at the same time. The default depends on the intensity.",
)
@click.option(
    "--target", type=click.Path(path_type=Path), help="The target file. The default is the embedded target."
)
@click.option(
    "--healer",
    type=click.Choice(ARMS),
    help="The healer. The default is elephant for the embedded target, none for others.",
)
@click.option(
    "--plan",
    "stored",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Replay the storm that is stored in this file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder that the run creates. The default is runs/storm-<time>.",
)
@click.option("--dry-run", is_flag=True, help="Show the schedule of the storm; inject nothing.")
@click.option(
    "--shrink", is_flag=True, help="If the storm fails, reduce it to the fewest faults that still make it fail."
)
@click.option(
    "--max-trials",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="The largest number of trials that --shrink runs.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(0, min_open=True),
    help="Start no trial of --shrink after so many minutes.",
)
@click.option(
    "--tries",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="How often --shrink tries a part of the storm before the part counts as harmless.",
)
@click.option(
    "--restore",
    default="",
    metavar="CMD",
    help="A command that restores your target. --shrink runs it before each trial.",
)
@click.pass_context
def unleash(context: click.Context, /, **values: Any) -> None:
    """Inject random faults, with random gaps and overlaps, within the limits of the target.

    After the last revert, the target must recover with its own healer within its horizon. Bad answers during the
    storm are counted, not judged. Exit codes: 0 survived; 1 failed, because the target did not recover; 2 wrong
    usage; 3 could not tell; 4 aborted or refused; 5 something could not be reverted.
    """
    if values["stored"] is not None:
        drawn = ("minutes", "seed", "intensity", "families", "max_at_once")
        given = [
            one for one in drawn if context.get_parameter_source(one) is click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise UsageError(f"--plan: the file holds a complete storm; leave out --{given[0].replace('_', '-')}")
    options = UnleashOptions(**values)
    if options.dry_run:
        _print_plan(_plan(options, _read_target_file(options.target)))
        return
    context.exit(_run(options))


def _read_target_file(path: Path | None) -> TargetFile:
    """Read the target file without starting the target."""
    own = paths.target_dir() / "target.yaml"
    if path is None and not own.exists():
        raise UsageError(
            "the embedded target is not up; 'monkeyproof target up' starts it, or name one with --target"
        )
    return read_target(path or own)


def _plan(options: UnleashOptions, file: TargetFile) -> SchedulePlan:
    from monkeyproof.injection.fault_registry import all_faults
    from monkeyproof.injection.schedule_plan import plan_schedule, read_plan

    if options.stored is not None:
        return read_plan(options.stored)
    return plan_schedule(
        file,
        all_faults(),
        seed=options.seed,
        minutes=options.minutes,
        intensity=options.intensity,
        families=options.families,
        max_at_once=options.max_at_once,
    )


def _print_plan(plan: SchedulePlan) -> None:
    faults = "1 fault" if len(plan.faults) == 1 else f"{len(plan.faults)} faults"
    click.echo(
        f"A storm of {faults} in {plan.minutes:g} minutes, at most {plan.max_at_once} at once; "
        f"seed {plan.seed}, intensity {plan.intensity:g}, from {', '.join(plan.families)}:"
    )
    for one in plan.faults:
        click.echo(f"  {one}")


def _run(options: UnleashOptions) -> int:
    from monkeyproof.campaign.unleash import run_schedule
    from monkeyproof.cli.progress import progress_on
    from monkeyproof.reports.model.report import build
    from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = (options.out or Path("runs") / f"storm-{stamp}").resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: not an empty folder; choose another one with --out")
    with clear_to_inject(), open_or_start(options.target) as file, sole_campaign_on(file.path):
        arm = options.healer or ("elephant" if file.stack else "none")
        if arm == "elephant" and file.stack is None:
            raise UsageError("the Elephant heals the embedded target only; use --healer none for others")
        plan = _plan(options, file)
        _print_plan(plan)
        with progress_on(folder) as progress:
            result = run_schedule(plan, file, arm, folder, progress)
        _print_end(result)
        incomplete = None
        if result.campaign.trials:
            incomplete = unwritten(write_and_name(build(result.campaign, folder)))
        click.echo(f"Replay it: {_replay(folder / 'storm.yaml', options, arm)}")
        if result.error:
            return _print_error(result)
        if options.shrink and result.failed:
            _shrink(plan, file, arm, folder, options)
    if incomplete is not None:
        raise incomplete
    return result.exit_code


def _print_error(result: ScheduleResult) -> int:
    click.echo(f"monkeyproof: {result.error}", err=True)
    return result.exit_code


def _print_end(result: ScheduleResult) -> None:
    if result.reason:
        click.echo(f"{result.decision.upper()}: {result.reason}.")
    count, others = result.effective_count, ", and not all went as planned:" if result.left_out else ""
    click.echo(f"{count} fault{'' if count == 1 else 's'} took effect{others or '.'}")
    for line in result.left_out:
        click.echo(f"  {line}")


def _shrink(plan: SchedulePlan, file: TargetFile, arm: str, folder: Path, options: UnleashOptions) -> None:
    from monkeyproof.campaign.runner import NoProgressListener
    from monkeyproof.campaign.unleash import Shrinker, restore, run_schedule
    from monkeyproof.clock import SystemClock

    def run_part(part: SchedulePlan, number: int) -> ScheduleResult:
        if options.restore:
            restore(options.restore)
        result = run_schedule(part, file, arm, folder / "shrink" / f"{number:03d}", NoProgressListener())
        names = ", ".join(one.fault for one in part.faults)
        click.echo(f"  {number}: {result.decision}: {len(part.faults)} faults ({names})")
        return result

    clock = SystemClock()
    ends_s = None if options.max_minutes is None else clock.monotonic_s() + 60.0 * options.max_minutes
    click.echo(f"Shrinking, in at most {options.max_trials} trials:")
    shrinker = Shrinker(plan, run_part, clock, options.tries, options.max_trials, ends_s)
    least, found = shrinker.shrink()
    path = folder / "least.yaml"
    with paths.open_private(path) as written:
        written.write(least.text().encode())
    for line in _shrunk_words(
        len(plan.faults), found.minimal, found.unknown_count, shrinker.ended, len(least.faults)
    ):
        click.echo(line)
    for one in least.faults:
        click.echo(f"  {one}")
    click.echo(f"Replay it: {_replay(path, options, arm)}")
    if shrinker.failure is not None:
        raise shrinker.failure


def _shrunk_words(before: int, minimal: bool, unknown_count: int, ended: str, after: int) -> Iterator[str]:
    yield f"{after} of {before} faults still fail{':' if minimal else ', and there may be fewer:'}"
    if minimal:
        yield "  (without any one of them, the target recovers)" if after > 1 else "  (this fault alone is enough)"
    if ended:
        yield f"  (ended early: {ended})"
    if unknown_count:
        yield f"  (of {unknown_count} parts it is not known whether they fail: see their reports in shrink/)"


def _replay(path: Path, options: UnleashOptions, arm: str) -> str:
    words: Sequence[str] = ["monkeyproof", "unleash", "--plan", str(path), "--healer", arm]
    if options.target is not None:
        words = [*words, "--target", str(options.target)]
    return shlex.join(words)
