"""``monkeyproof fault NAME key=value ...``: injects one fault manually, holds it, then reverts it.

Imports its modules only when it runs, as the whole command line does.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from monkeyproof.errors import EXIT_REFUSED, MonkeyproofError, TargetError, Unproven, UsageError
from monkeyproof.runtime.stop_file import SIGNALS

if TYPE_CHECKING:
    from monkeyproof.injection.fault_registry import Fault
    from monkeyproof.trial.manual import Monkey

CHECK_EVERY_S = 0.5
DAY_S = 86_400.0
NOT_MEASURED = "this command does not measure how users fare; 'monkeyproof run' does"
_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h)?")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class _Time(click.ParamType[float]):
    """``30``, ``30s``, ``5m``, ``1h``: seconds, more than none and at most a day."""

    name = "TIME"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = _TIME.fullmatch(str(value).strip())
        seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else 0.0
        if not 0 < seconds <= DAY_S:
            self.fail(f"{value!r} is not a time such as 30s, 5m or 1h", parameter, context)
        return seconds


class _Faults(click.Group):
    """Every registered fault is a command; its help is what the fault declares about itself."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002
        from monkeyproof.injection.fault_registry import all_faults

        return [one.name for one in all_faults()]

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The target file may name the plugin that has the fault, so it is read first."""
        given = [word.partition("=")[2] or after for word, after in pairwise([*args, ""]) if _is_target(word)]
        if given and given[-1]:
            from monkeyproof.config.target_file import read_target_file

            read_target_file(Path(given[-1]))
        return super().resolve_command(context, args)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        from monkeyproof.injection.fault_registry import find

        return _command(find(name))


def _is_target(word: str) -> bool:
    return word.partition("=")[0] == "--target"


@click.group("fault", cls=_Faults)
def fault() -> None:
    """Inject one fault manually, hold it, then revert it. 'monkeyproof fault NAME --help' shows its parameters.

    Manual injection is as safe as a trial: it uses the same locks, limits, undo log, watchdog, leases and final
    audit. It does not measure how users fare. Exit codes: 0 the fault was injected, proven and reverted; 2 wrong
    usage; 4 it was refused or not proven, or ended before its time; 5 something could not be reverted.
    """


def _command(one: Fault) -> click.Command:
    return click.Command(
        one.name,
        params=[
            click.Argument(["words"], nargs=-1, metavar="[KEY=VALUE]..."),
            click.Option(
                ["--target"],
                type=click.Path(path_type=Path),
                help="The target file. The default is the running embedded target.",
            ),
            click.Option(
                ["--seed"],
                type=click.IntRange(0, 2**31),
                default=1,
                show_default=True,
                help="The seed of everything that the fault draws at random.",
            ),
            click.Option(
                ["--for", "for_s"],
                type=_Time(),
                default="30s",
                show_default=True,
                help="How long the fault is held: 30s, 5m or 1h.",
            ),
            click.Option(["--dry-run"], is_flag=True, help="Show what the command would inject; inject nothing."),
        ],
        callback=lambda **values: _run(one, **values),
        help=_help(one),
        short_help=one.summary.replace("``", ""),
    )


def _help(one: Fault) -> str:
    from monkeyproof.injection.arguments import described

    lines = [described(parameter) for parameter in one.parameters] or ["none"]
    facts = [f"Evidence: {one.evidence}.", f"Undo: {one.undo}.", f"Healing that it calls for: {one.healing}."]
    # click does not rewrap a paragraph that begins with \\b.
    parameters = "\b\nParameters:\n" + "\n".join(f"  {line}" for line in lines)
    return "\n\n".join([one.summary.replace("``", ""), parameters, *facts])


def _run(one: Fault, words: Sequence[str], target: Path | None, seed: int, for_s: float, *, dry_run: bool) -> None:
    from monkeyproof.injection.arguments import parse_arguments

    arguments = parse_arguments(one, words)
    if dry_run:
        _show(one, arguments, target, seed, for_s)
        return
    from monkeyproof.trial.manual import break_target

    for number in (signal.SIGTERM, *({signal.SIGHUP} & set(SIGNALS))):
        signal.signal(number, _end_on_signal)
    monkey: Monkey | None = None
    try:
        with break_target(target, seed=seed, at_most_s=for_s, own_process=True) as monkey:
            found = monkey.inject(one.name, **arguments)
            click.echo(f"injected: {found.fault} on {found.subject}")
            click.echo(f"evidence: {found.evidence}")
            if monkey.held:
                _hold(monkey, for_s)
            else:
                click.echo(f"There is nothing to hold or to revert: {one.undo}.")
    except (Unproven, TargetError) as error:
        # The target's failure, not a wrong usage.
        failed = MonkeyproofError(str(error))
        failed.exit_code = EXIT_REFUSED
        raise failed from None
    finally:
        for line in monkey.undone if monkey is not None else ():
            click.echo(f"reverted: {line}")
    click.echo(f"The record is in {monkey.folder}.")


def _end_on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Handle a signal other than Ctrl-C, which arrives here once the fault is reverted."""
    ended = MonkeyproofError("a signal ended it; what was injected is reverted")
    ended.exit_code = EXIT_REFUSED
    raise ended


def _hold(monkey: Monkey, for_s: float) -> None:
    """Wait until the time is over, or until Ctrl-C."""
    live = sys.stdout.isatty()
    begun_s = time.monotonic()
    try:
        click.echo(f"Held for {for_s:g} s, or until Ctrl-C; {NOT_MEASURED}.")
        while (since_s := time.monotonic() - begun_s) < for_s:
            if live:
                why = monkey.why_inactive()
                state = f"NO LONGER ACTIVE: {why}" if why else f"{', '.join(monkey.held)} is active"
                click.echo(f"\r{since_s:5.0f} of {for_s:g} s: {state}\x1b[K", nl=False)
            time.sleep(min(CHECK_EVERY_S, max(0.0, for_s - since_s)))
    except KeyboardInterrupt:
        click.echo("\nCtrl-C: reverting." if live else "Ctrl-C: reverting.")
    else:
        click.echo("" if live else "The time is over: reverting.")


def _show(one: Fault, arguments: dict[str, Any], path: Path | None, seed: int, for_s: float) -> None:
    from monkeyproof import paths
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.safety.replay import clear_to_inject
    from monkeyproof.targets.opening import open_target
    from monkeyproof.trial.dry_run import DescribedTarget, DryRun

    if path is None and not (paths.target_dir() / "target.yaml").exists():
        raise UsageError("the embedded target is not up; 'monkeyproof target up' starts it")
    file = read_target_file(path or paths.target_dir() / "target.yaml")
    with clear_to_inject():
        target = open_target(file.path) if file.stack else DescribedTarget(file)
        try:
            step = DryRun(file, target).manual_step(one, arguments, seed, for_s)
        finally:
            target.close()
    click.echo(f"would inject {step.headline} into {file.name} ({file.path})")
    for name, words in step.details:
        click.echo(f"    {name:7} {words}")
