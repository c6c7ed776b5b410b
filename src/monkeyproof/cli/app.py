"""The command line. Imports what it needs only when a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from monkeyproof import __version__, paths
from monkeyproof.cli.campaign import gate, run, write_and_name
from monkeyproof.cli.fault import fault
from monkeyproof.cli.plan import plan
from monkeyproof.cli.stop import stop
from monkeyproof.cli.unleash import unleash
from monkeyproof.errors import EXIT_REFUSED, EXIT_USAGE, MonkeyproofError, UsageError


class _Group(click.Group):
    """Prints failures that a person can act on without a traceback, and exits by their kind."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The entry of the program, and of nobody who calls a command from within another."""
        paths.keep_private()
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MonkeyproofError as error:
            click.echo(f"monkeyproof: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            # Outside trials, which end in order. Not what click makes of it: 1 is a verdict.
            click.echo("monkeyproof: ended by Ctrl-C", err=True)
            ctx.exit(EXIT_REFUSED)
        except OSError as error:
            if error.filename is None:
                raise  # A pipe that nobody reads any more, say: click's to end.
            click.echo(f"monkeyproof: {error.filename}: {error.strerror}; mend that, then try again", err=True)
            ctx.exit(EXIT_USAGE)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="monkeyproof")
def main() -> None:
    """Break a machine-learning system on purpose, watch it heal, and say honestly how long right answers
    were gone.

    Exit codes: 0 done, of gate: pass; 1 of gate: fail; 2 usage or configuration; 3 of gate: inconclusive;
    4 aborted, or refused for safety; 5 something could not be reverted.
    """


main.add_command(run)
main.add_command(gate)
main.add_command(plan)
main.add_command(stop)
main.add_command(fault)
main.add_command(unleash)


@main.command("calibrate")
@click.option("--episodes", "episodes_count", type=click.IntRange(7, 1000), default=36, show_default=True)
@click.option("--rate-per-s", type=click.FloatRange(20, 500), default=50.0, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True)
def calibrate(episodes_count: int, rate_per_s: float, seed: int) -> None:
    """Prove the clock on this machine: known outages of a service of our own, true against measured.

    Takes about half a minute. Reports show the result. Exit code 0 if the clock holds here, 1 if it does not.
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
    help="Show the faults instead: parameters, evidence, undo, what heals them, and where they come from.",
)
@click.option("--probes", is_flag=True, help="Show the probes instead that an experiment can name.")
@click.option(
    "--target",
    type=click.Path(path_type=Path),
    help="With --faults or --probes: also show those of the plugins that this target file names.",
)
@click.option("--markdown", is_flag=True, help="With --faults: print the table of docs/faults.md.")
def list_catalogue(faults: bool, probes: bool, target: Path | None, markdown: bool) -> None:
    """Show the catalogue of experiments, or of the faults that they inject."""
    from rich.console import Console
    from rich.table import Table

    from monkeyproof.cli import fault_list
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.experiment import catalogue

    if markdown:
        if not faults:
            raise UsageError("--markdown: goes with --faults")
        click.echo(fault_list.as_markdown(), nl=False)
        return
    if target is not None:
        if not faults and not probes:
            raise UsageError("--target: goes with --faults or --probes")
        read_target_file(target)
    if faults or probes:
        shown = fault_list.faults_for_terminal() if faults else fault_list.probes_for_terminal()
        Console(highlight=False).print(shown)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("experiment", style="bold", no_wrap=True)
    table.add_column("what it asks")
    for name in catalogue.names():
        table.add_row(name, catalogue.document_of(name)["title"])
    Console().print(table)


@main.group("target")
def target_group() -> None:
    """The embedded target: a small but real ML platform on this machine."""


@target_group.command("up")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of its front door. Default: a free one."
)
def target_up(port: int) -> None:
    """Start it and leave it running."""
    from monkeyproof.targets.local.control_plane import lifecycle

    file = lifecycle.up(port, progress=click.echo)
    click.echo(f"The target is up: {file.predict.url}")
    click.echo(f"Its target file:  {file.path}")


@target_group.command("status")
def target_status() -> None:
    """Show its parts. Exit code 0 if it is up, 1 if it is not."""
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
    """End it, whatever state it is in."""
    from monkeyproof.targets.local.control_plane import lifecycle

    click.echo("The target is down." if lifecycle.down() else "The target was not up.")


@main.command("proxy")
@click.argument("target", type=click.Path(path_type=Path))
def proxy(target: Path) -> None:
    """Keep the fault proxy of a target file up, between trials too, until Ctrl-C.

    Your service can then stay connected through its links; trials use this proxy instead of one of their own.
    """
    import signal
    import threading

    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.runtime.stop_file import SIGNALS
    from monkeyproof.targets.http import HttpTarget

    file = read_target_file(target)
    if not file.links:
        raise UsageError(f"{target}: describes no links, so there is nothing to stand in for")
    if file.stack:
        raise UsageError(f"{target}: the embedded target has a proxy of its own, up as long as it is")
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
    "--target",
    type=click.Path(path_type=Path),
    help="Also write the report formats of the plugins that this target file names.",
)
def report(folder: Path, target: Path | None) -> None:
    """Write the reports of a finished campaign (or of one trial) anew, from its histories alone."""
    from monkeyproof.campaign.results import read_campaign
    from monkeyproof.config.target_file import load_plugins_of

    load_plugins_of(target)
    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    write_and_name(read_campaign(folder), folder)


@main.command("compare")
@click.argument("folder_a", metavar="DIR_A", type=click.Path(path_type=Path))
@click.argument("folder_b", metavar="DIR_B", type=click.Path(path_type=Path))
def compare(folder_a: Path, folder_b: Path) -> None:
    """Compare two finished campaigns: by how much sooner right answers were back in A than in B.

    Trials of the same experiment and arm are compared, in pairs of equal seeds where there are any. Says where
    the two campaigns were not alike. Exit code 0 whatever it finds.
    """
    from rich.console import Console

    from monkeyproof.campaign.runner import read_campaign
    from monkeyproof.reports.formats.comparison_table import print_comparison
    from monkeyproof.reports.formats.results_json import slo_of
    from monkeyproof.reports.stats.comparison import compare_campaigns, differences

    folders = (folder_a.resolve(), folder_b.resolve())
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder")
    ours, reference = (read_campaign(folder) for folder in folders)
    slo = slo_of(ours)
    found = compare_campaigns(ours, reference, slo)
    if not found:
        raise UsageError(f"{folders[0]} and {folders[1]} have no experiment in common that both tried in one arm")
    names = (str(folder_a), str(folder_b))
    unlike = differences(ours, reference, folders)
    print_comparison(found, unlike, names, slo.recovery.confidence, Console())


@main.command("revert")
@click.option("--dry-run", is_flag=True, help="Only show what is open.")
@click.option("--run", "run_id", metavar="ID", default="", help="Only of this run; --dry-run shows their names.")
@click.option(
    "--forget",
    metavar="ID",
    default="",
    help="Undo nothing, and close the undo log of this trial: you have mended by hand what it left.",
)
def revert(dry_run: bool, run_id: str, forget: str) -> None:
    """Take back every fault that an earlier trial left behind."""
    from monkeyproof.safety import replay
    from monkeyproof.safety.replay import revert_all, sole_campaign

    if forget and (dry_run or run_id):
        raise UsageError("--forget stands alone: it undoes nothing")
    # A running campaign's faults are its own to take back: it would take their end for the target's recovery.
    with contextlib.nullcontext() if dry_run else sole_campaign(doing="reverting"):
        if forget:
            replay.forget(forget, click.echo)
            return
        if not revert_all(click.echo, dry_run=dry_run, run=run_id, hold_targets=True):
            click.echo("Nothing is open.")


@main.command("doctor")
def doctor() -> None:
    """Show what this machine lacks, and how to get it. Exit code 0 if everything needed is there, else 2."""
    from monkeyproof.cli.doctor import examine

    findings = examine()
    for finding in findings:
        mark = "ok" if finding.ok else ("missing" if finding.needed else "optional")
        click.echo(f"{mark:9} {finding.name}: {finding.words}")
    if any(finding.needed and not finding.ok for finding in findings):
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
