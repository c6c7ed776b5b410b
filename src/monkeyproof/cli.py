"""The command line. Imports what it needs only when a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monkeyproof import __version__, paths
from monkeyproof.errors import EXIT_USAGE, MonkeyproofError, UsageError

if TYPE_CHECKING:
    from monkeyproof.config import TargetFile


class _Group(click.Group):
    """Prints failures that a person can act on without a traceback, and exits by their kind."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MonkeyproofError as error:
            click.echo(f"monkeyproof: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="monkeyproof")
def main() -> None:
    """Break a machine-learning system on purpose, watch it heal, and say honestly how long right answers
    were gone.

    Exit codes: 0 done; 2 usage or configuration; 4 aborted, or refused for safety; 5 something could not be
    reverted.
    """


@main.command("run")
@click.argument("names", nargs=-1)
@click.option("--target", type=click.Path(path_type=Path), help="Target file. Default: the embedded target.")
@click.option(
    "--healer",
    "healers",
    multiple=True,
    type=click.Choice(["none", "elephant"]),
    help="Who heals. Give it twice to compare both on the same seeds. Default: elephant.",
)
@click.option("--trials", "trials_count", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Seed of the first trial."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the campaign. Default: runs/<time>.")
@click.option("--no-tracking", is_flag=True, help="Do not log the campaign to MLflow.")
def run(
    names: tuple[str, ...],
    target: Path | None,
    healers: tuple[str, ...],
    trials_count: int,
    seed: int,
    out: Path | None,
    no_tracking: bool,
) -> None:
    """Run experiments and write a report.

    NAMES are experiments of the catalogue ('monkeyproof list') or paths of Chaos Toolkit files; none means
    all that the embedded target can do. The embedded target is started if it is not up, and then also
    ended. The exit code does not judge the target: 0 means that the campaign ran and its report is written.
    """
    from monkeyproof import catalogue
    from monkeyproof.campaign import CampaignPlan, run_campaign
    from monkeyproof.progress import watcher
    from monkeyproof.reverting import clear_to_inject

    experiments = tuple(catalogue.find(name) for name in names or catalogue.default_names())
    folder = (out or Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: not an empty folder; choose another one with --out")
    with clear_to_inject(), _target(target) as file:
        arms = tuple(dict.fromkeys(healers)) or (("elephant",) if file.stack else ("none",))
        if file.stack is None and "elephant" in arms:
            raise UsageError("the Elephant heals the embedded target only; use --healer none for others")
        with watcher(folder) as progress:
            finished = run_campaign(CampaignPlan(experiments, arms, trials_count, seed, file, folder), progress)
        if finished.campaign.trials:
            _report(finished.campaign, folder)
            if not no_tracking:
                _track(finished.campaign, folder, file)
    if finished.error:
        error = MonkeyproofError(finished.error)
        error.exit_code = finished.exit_code
        raise error


@contextlib.contextmanager
def _target(path: Path | None) -> Iterator[TargetFile]:
    """The target of a run; an embedded target that was not up is ended again."""
    from monkeyproof.config import read_target_file
    from monkeyproof.targets.local import lifecycle

    if path is not None:
        yield read_target_file(path)
    elif lifecycle.status().up:
        yield read_target_file(paths.target_dir() / "target.yaml")
    else:
        click.echo("The embedded target is not up; starting it for this run.")
        try:
            yield lifecycle.up(progress=lambda words: click.echo(f"  {words}"), owner_pid=os.getpid())
        finally:
            lifecycle.down()


def _report(campaign: Any, folder: Path) -> None:
    from monkeyproof.reports.write import write_reports

    names = [path.name for path in write_reports(campaign, folder)]
    names.remove("report.html")
    click.echo(f"Report: {folder / 'report.html'}\n  beside it: {', '.join(names)}")


def _track(campaign: Any, folder: Path, file: TargetFile) -> None:
    from monkeyproof.reports.tracking import log_campaign, public_uri

    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    files = [folder / name for name in ("report.html", "report.md", "results.json", "junit.xml")]
    forbidden = []
    if file.registry:
        address = file.registry.uri.removeprefix("http://").rstrip("/")
        links = (link.listen for link in file.links.values() if link.forward == address)
        forbidden = [file.registry.uri, *(f"http://{listen}" for listen in links)]
    store = folder.parent / "mlflow"
    try:
        run = log_campaign(campaign, files, uri=uri, store=store, forbidden=forbidden)
    except MonkeyproofError as error:
        # The report is written: a tracking server that is away must not make the campaign look failed.
        click.echo(f"  not logged to MLflow: {error}", err=True)
    else:
        click.echo(f"  logged to MLflow: run {run} in {public_uri(uri, store)}")


@main.command("list")
def list_experiments() -> None:
    """Show the catalogue of experiments."""
    from rich.console import Console
    from rich.table import Table

    from monkeyproof import catalogue, config

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("experiment", style="bold", no_wrap=True)
    table.add_column("what it asks")
    for name in catalogue.names():
        path = paths.experiments() / f"{name}.yaml"
        _, document = config.load_yaml(path.read_text(encoding="utf-8"), str(path))
        table.add_row(name, document["title"])
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
    from monkeyproof.targets.local import lifecycle

    file = lifecycle.up(port, progress=click.echo)
    click.echo(f"The target is up: {file.predict.url}")
    click.echo(f"Its target file:  {file.path}")


@target_group.command("status")
def target_status() -> None:
    """Show its parts. Exit code 0 if it is up, 1 if it is not."""
    from rich.console import Console
    from rich.table import Table

    from monkeyproof.targets.local import lifecycle

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
    from monkeyproof.targets.local import lifecycle

    click.echo("The target is down." if lifecycle.down() else "The target was not up.")


@main.command("proxy")
@click.argument("target", type=click.Path(path_type=Path))
def proxy(target: Path) -> None:
    """Keep the fault proxy of a target file up, between trials too, until Ctrl-C.

    Your service can then stay connected through its links; trials use this proxy instead of one of their own.
    """
    import signal
    import threading

    from monkeyproof.config import read_target_file
    from monkeyproof.targets.http import HttpTarget

    file = read_target_file(target)
    if not file.links:
        raise UsageError(f"{target}: describes no links, so there is nothing to stand in for")
    if file.stack:
        raise UsageError(f"{target}: the embedded target has a proxy of its own, up as long as it is")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
def report(folder: Path) -> None:
    """Write the reports of a finished campaign (or of one trial) anew, from its histories alone."""
    from monkeyproof.campaign import read_campaign

    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    _report(read_campaign(folder), folder)


@main.command("revert")
@click.option("--dry-run", is_flag=True, help="Only show what is open.")
def revert(dry_run: bool) -> None:
    """Take back every fault that an earlier trial left behind."""
    from monkeyproof.reverting import revert_all, sole_campaign

    # A running campaign's faults are its own to take back: it would take their end for the target's recovery.
    with contextlib.nullcontext() if dry_run else sole_campaign():
        if not revert_all(click.echo, dry_run=dry_run):
            click.echo("Nothing is open.")


@main.command("doctor")
def doctor() -> None:
    """Show what this machine lacks, and how to get it. Exit code 0 if everything needed is there, else 2."""
    from monkeyproof.doctor import examine

    findings = examine()
    for finding in findings:
        mark = "ok" if finding.ok else ("missing" if finding.needed else "optional")
        click.echo(f"{mark:9} {finding.name}: {finding.words}")
    if any(finding.needed and not finding.ok for finding in findings):
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
