"""The command line. A command imports its modules only when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from monkeyproof import __version__, paths
from monkeyproof.cli.campaign import gate, report_on, run, unwritten, write_and_name
from monkeyproof.cli.fault import fault
from monkeyproof.cli.plan import plan
from monkeyproof.cli.stop import stop
from monkeyproof.cli.unleash import unleash
from monkeyproof.errors import EXIT_REFUSED, EXIT_USAGE, MonkeyproofError, RenamedWarning, UsageError


class _Group(click.Group):
    """Prints errors that the user can act on without a traceback, and exits by their kind."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the whole program; commands that call one another do not pass through here."""
        paths.keep_private()
        warnings.showwarning = functools.partial(_show_warning, warnings.showwarning, set())
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MonkeyproofError as error:
            click.echo(f"monkeyproof: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            # Outside trials, which end in order. click would exit with 1, which is a verdict here.
            click.echo("monkeyproof: ended by Ctrl-C", err=True)
            ctx.exit(EXIT_REFUSED)
        except OSError as error:
            if error.filename is None:
                raise  # For instance a closed pipe, which click handles.
            click.echo(f"monkeyproof: {error.filename}: {error.strerror}; correct that, then try again", err=True)
            ctx.exit(EXIT_USAGE)


def _show_warning(
    others: Callable[..., None],
    shown: set[str],
    message: Warning | str,
    category: type[Warning],
    *where: Any,
    **more: Any,
) -> None:
    """Print, once each, the warnings that users can act on; leave the others to Python."""
    if not issubclass(category, RenamedWarning):
        others(message, category, *where, **more)
    elif str(message) not in shown:
        shown.add(str(message))
        click.echo(f"monkeyproof: warning: {message}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="monkeyproof")
def main() -> None:
    """Inject faults into a machine-learning system, watch it heal, and measure how long its answers were wrong.

    Exit codes: 0 the command is done (gate: pass); 1 gate: fail; 2 wrong usage or configuration; 3 gate:
    inconclusive; 4 aborted, or refused for safety; 5 something could not be reverted.
    """


main.add_command(run)
main.add_command(gate)
main.add_command(plan)
main.add_command(stop)
main.add_command(fault)
main.add_command(unleash)


@main.command("calibrate")
@click.option(
    "--episodes",
    "episodes_count",
    type=click.IntRange(7, 1000),
    default=36,
    show_default=True,
    help="The number of outages.",
)
@click.option(
    "--rate-per-s",
    type=click.FloatRange(20, 500),
    default=50.0,
    show_default=True,
    help="The number of requests that the prober sends per second.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=1,
    show_default=True,
    help="The seed of the outages' times and kinds.",
)
def calibrate(episodes_count: int, rate_per_s: float, seed: int) -> None:
    """Check the accuracy of recovery times on this machine.

    Starts a service with outages at known times, and compares the measured intervals with the true ones. This
    takes about half a minute. Reports show the result. Exit code 0 if the intervals hold the truth, else 1.
    """
    from rich.console import Console
    from rich.progress import Progress

    from monkeyproof.clock import SystemClock
    from monkeyproof.errors import EXIT_FAIL
    from monkeyproof.probes.calibration import calibrate as calibration
    from monkeyproof.trial.plan import machine

    console = Console()
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("true outages", total=episodes_count)
            result = calibration.calibrate(
                episodes_count,
                rate_per_s,
                seed,
                machine(),
                SystemClock(),
                lambda count: progress.update(task, completed=count),
            )
    except KeyboardInterrupt:
        stopped = MonkeyproofError("stopped before the end; nothing was stored")
        stopped.exit_code = EXIT_REFUSED
        raise stopped from None
    console.print(calibration.table(result))
    for line in calibration.verdict(result):
        click.echo(line)
    if not result["passed"]:
        sys.exit(EXIT_FAIL)


@main.command("list")
@click.option(
    "--faults",
    is_flag=True,
    help="Show the faults instead, with their parameters, evidence, undo, healing and origin.",
)
@click.option("--probes", is_flag=True, help="Show the probes instead that an experiment can name.")
@click.option(
    "--target",
    type=click.Path(path_type=Path),
    help="Also show the faults or probes of the plugins that this target file names.",
)
@click.option("--markdown", is_flag=True, help="Print the faults as the Markdown table in docs/faults.md.")
def list_catalogue(faults: bool, probes: bool, target: Path | None, markdown: bool) -> None:
    """Show the catalogue of experiments, or of the faults that they inject."""
    from rich.console import Console
    from rich.table import Table

    from monkeyproof.cli import fault_list
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.experiment import catalogue

    if markdown:
        if not faults:
            raise UsageError("--markdown: use it together with --faults")
        click.echo(fault_list.as_markdown(), nl=False)
        return
    if target is not None:
        if not faults and not probes:
            raise UsageError("--target: use it together with --faults or --probes")
        read_target_file(target)
    if faults or probes:
        shown = fault_list.faults_for_terminal() if faults else fault_list.probes_for_terminal()
        Console(highlight=False).print(shown)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("experiment", style="bold", no_wrap=True)
    table.add_column("title")
    for name in catalogue.names():
        table.add_row(name, catalogue.document_of(name)["title"])
    Console().print(table)


@main.group("target")
def target_group() -> None:
    """Start, inspect or end the embedded target: a small but real ML platform on this machine."""


@target_group.command("up")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="The port on which it answers requests. The default is a free port.",
)
def target_up(port: int) -> None:
    """Start the embedded target and leave it running."""
    from monkeyproof.targets.local.control_plane import lifecycle

    file = lifecycle.up(port, progress=click.echo)
    click.echo(f"The target is up: {file.predict.url}")
    click.echo(f"Its target file:  {file.path}")


@target_group.command("status")
def target_status() -> None:
    """Show the parts of the embedded target. Exit code 0 if it is up, 1 if it is not."""
    from rich.console import Console
    from rich.table import Table

    from monkeyproof.targets.local.control_plane import lifecycle

    status = lifecycle.status()
    if not status.up:
        click.echo("The target is not up; 'monkeyproof target up' starts it.")
        sys.exit(1)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("part", "state", "pid", "port"):
        table.add_column(title)
    for part in status.parts:
        table.add_row(part.name, part.state, str(part.pid or ""), str(part.port or ""))
    Console().print(table)


@target_group.command("down")
def target_down() -> None:
    """End the embedded target, whatever its state."""
    from monkeyproof.targets.local.control_plane import lifecycle

    click.echo("The target is down." if lifecycle.down() else "The target was not up.")


@main.command("proxy")
@click.argument("target", type=click.Path(path_type=Path))
def proxy(target: Path) -> None:
    """Run the fault proxy of a target file until Ctrl-C, also between trials.

    Your service can then stay connected through its links. Trials use this proxy instead of their own.
    """
    import signal
    import threading

    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.runtime.stop_file import SIGNALS
    from monkeyproof.targets.http import HttpTarget

    file = read_target_file(target)
    if not file.links:
        raise UsageError(f"{target}: describes no links, so there is nothing to proxy")
    if file.stack:
        raise UsageError(f"{target}: the embedded target runs a proxy of its own")
    ended = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: ended.set())
    held = HttpTarget(file)
    try:
        for name, link in held.file.links.items():
            click.echo(f"{name}: {link.listen} -> {link.forward}")
        ended.wait()
    finally:
        held.close()


@main.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    help="Write only this format: results, markdown, html, junit, or a plugin's. Repeat it to write several.",
)
@click.option(
    "--target",
    type=click.Path(path_type=Path),
    help="Also load the report formats of the plugins that this target file names.",
)
def report(folder: Path, formats: tuple[str, ...], target: Path | None) -> None:
    """Write the reports of a finished campaign (or of one trial) anew, from its histories alone."""
    from monkeyproof.config.target_file import load_plugins_of

    load_plugins_of(target)
    written = write_and_name(report_on(folder.resolve()), formats)
    if (incomplete := unwritten(written)) is not None:
        raise incomplete


@main.command("compare")
@click.argument("folder_a", metavar="DIR_A", type=click.Path(path_type=Path))
@click.argument("folder_b", metavar="DIR_B", type=click.Path(path_type=Path))
def compare(folder_a: Path, folder_b: Path) -> None:
    """Compare the recovery times of two finished campaigns: how much sooner A recovered than B.

    The command compares trials of the same experiment and arm, in pairs of equal seeds where there are any, and
    lists in what the two campaigns were not alike. The exit code is 0 whatever it finds.
    """
    from rich.console import Console

    from monkeyproof.reports.formats.comparison_table import print_comparison
    from monkeyproof.reports.model.campaign_comparison import compare as compare_reports

    ours, reference = report_on(folder_a.resolve()), report_on(folder_b.resolve())
    found = compare_reports(ours, reference, (str(folder_a), str(folder_b)))
    if not found.comparisons:
        raise UsageError(
            f"{ours.folder} and {reference.folder} have no experiment in common that both tried in one arm"
        )
    print_comparison(found, Console())


@main.command("revert")
@click.option("--dry-run", is_flag=True, help="Show the open faults; revert nothing.")
@click.option(
    "--run",
    "run_id",
    metavar="ID",
    default="",
    help="Revert only the faults of this run; --dry-run shows the IDs.",
)
@click.option(
    "--forget",
    metavar="ID",
    default="",
    help="Revert nothing, and close the undo log of this trial, because you have repaired manually what it left.",
)
def revert(dry_run: bool, run_id: str, forget: str) -> None:
    """Revert every fault that an earlier trial left behind."""
    from monkeyproof.safety import replay
    from monkeyproof.safety.replay import revert_all, sole_campaign

    if forget and (dry_run or run_id):
        raise UsageError("--forget: give no other option with it, because it reverts nothing")
    # A running campaign reverts its own faults: it would take their end for the target's recovery.
    with contextlib.nullcontext() if dry_run else sole_campaign(doing="reverting"):
        if forget:
            replay.forget(forget, click.echo)
            return
        if not revert_all(click.echo, dry_run=dry_run, run=run_id, hold_targets=True):
            click.echo("Nothing is open.")


@main.command("doctor")
def doctor() -> None:
    """Show what this machine lacks, and how to install it. Exit code 0 if nothing required is missing, else 2."""
    from monkeyproof.cli.doctor import examine

    findings = examine()
    for finding in findings:
        mark = "ok" if finding.ok else ("missing" if finding.needed else "optional")
        click.echo(f"{mark:9} {finding.name}: {finding.words}")
    if any(finding.needed and not finding.ok for finding in findings):
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
