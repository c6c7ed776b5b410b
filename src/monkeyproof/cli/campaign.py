"""``monkeyproof run`` and ``monkeyproof gate``: one campaign, its report, and the exit code.

Imports what it needs only when a command runs, as the command line does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monkeyproof import paths
from monkeyproof.cli.options import Options, campaign_options
from monkeyproof.errors import (
    EXIT_FAIL,
    EXIT_INCONCLUSIVE,
    EXIT_NOT_REVERTED,
    EXIT_OK,
    EXIT_REFUSED,
    MonkeyproofError,
    UsageError,
)

if TYPE_CHECKING:
    from monkeyproof.campaign.plan import CampaignPlan
    from monkeyproof.campaign.runner import CampaignResult
    from monkeyproof.config.target_file import TargetFile
    from monkeyproof.reports.model.report import Report
    from monkeyproof.reports.write import WrittenReport

EXIT_OF = {"pass": EXIT_OK, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE, "aborted": EXIT_REFUSED}


@click.command("run")
@campaign_options
@click.pass_context
def run(context: click.Context, /, **values: Any) -> None:
    """Run experiments and write a report.

    NAMES are experiments of the catalogue ('monkeyproof list') or paths of Chaos Toolkit files. The name 'all'
    runs every experiment that the embedded target supports; without a name, the command runs a few of them. If the
    embedded target is not up, the command starts it, and ends it afterwards. The exit code does not judge the
    target: 0 means that the campaign ran and its report is written.
    """
    _run(Options.of(context, values))


@click.command("gate")
@campaign_options
@click.pass_context
def gate(context: click.Context, /, **values: Any) -> None:
    """Run experiments as 'run' does, and exit by the verdict; or judge a finished campaign.

    NAMES are those of 'run'; or the folder of one finished campaign (or trial): the command then judges it by its
    histories, and runs nothing. Exit codes: 0 pass, 1 fail, 3 inconclusive, 4 aborted or refused, 5 something
    could not be reverted, 2 usage or configuration.
    """
    options = Options.of(context, values)
    folder = options.finished_folder()
    report = _run(options) if folder is None else report_on(folder)
    if folder is not None:
        _print_verdict(report)
    context.exit(exit_code_of(report))


def report_on(folder: Path) -> Report:
    """The report on a finished campaign, from its histories.

    Raises:
        UsageError: the folder holds no campaign and no trial.
    """
    from monkeyproof.campaign.results import read_campaign
    from monkeyproof.reports.model.report import build

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder")
    return build(read_campaign(folder), folder)


def exit_code_of(report: Report) -> int:
    """The exit code of a gate."""
    if any(trial.not_reverted for trial in report.campaign.trials):
        return EXIT_NOT_REVERTED
    return EXIT_OF[report.verdict.decision]


def write_and_name(report: Report, names: Sequence[str] = ()) -> WrittenReport:
    """Write the report's files, or those of the formats with these ``names``, and print where they are."""
    from monkeyproof.reports.write import write_reports

    written = write_reports(report, names)
    files = sorted(written.files, key=lambda path: path.name != "report.html")
    if files:
        click.echo(f"Report: {files[0]}")
    if files[1:]:
        click.echo(f"  beside it: {', '.join(path.name for path in files[1:])}")
    return written


def unwritten(written: WrittenReport) -> MonkeyproofError | None:
    """The error of a report that is not complete; None if it is."""
    if not written.failures:
        return None
    others = "; the other files are written" if written.files else ""
    error = MonkeyproofError("; ".join(written.failures) + others)
    error.exit_code = EXIT_REFUSED
    return error


def _print_verdict(report: Report) -> None:
    from rich.console import Console

    from monkeyproof.reports.formats.console import print_summary

    print_summary(report, Console(highlight=False))


def _run(options: Options) -> Report:
    """Run a campaign, or the rest of one, and report it.

    Raises:
        MonkeyproofError: it did not end in order, or its report is not complete; what there is has been reported.
    """
    from monkeyproof.reports.model.report import build
    from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on

    prepared = options.prepare()
    with clear_to_inject(), open_or_start(prepared.target_path) as file, sole_campaign_on(file.path):
        plan = prepared.plan(file)
        result = _run_campaign(plan, resume=prepared.resumed)
        report = build(result.campaign, plan.folder)
        trouble = _report(report, result, file, tracking=not options.no_tracking)
    if result.error:
        if trouble is not None:
            click.echo(f"monkeyproof: {trouble}", err=True)
        trouble = MonkeyproofError(result.error)
        trouble.exit_code = result.exit_code
    if trouble is not None:
        raise trouble
    return report


def _run_campaign(plan: CampaignPlan, *, resume: bool) -> CampaignResult:
    from monkeyproof.campaign.runner import run_campaign
    from monkeyproof.cli.progress import progress_on

    with progress_on(plan.folder) as progress:
        return run_campaign(plan, progress, resume=resume)


def _report(
    report: Report, result: CampaignResult, file: TargetFile, *, tracking: bool
) -> MonkeyproofError | None:
    """Print, write and log a campaign, if it has a trial. Returns what was wrong with the report's files."""
    if not result.campaign.trials:
        return None
    _print_verdict(report)
    if result.ended_early:
        resume_words = f"'monkeyproof run --resume {report.folder}' goes on"
        click.echo(f"Ended in order before the plan was done: {result.ended_early}; {resume_words}")
    try:
        written = write_and_name(report)
    except OSError as error:
        trouble = MonkeyproofError(
            f"the report cannot be written ({error.strerror or error}); make room, then "
            f"'monkeyproof report {report.folder}' writes it"
        )
        trouble.exit_code = EXIT_REFUSED
        return trouble
    if tracking:
        _track(report, written.files, file)
    return unwritten(written)


@contextlib.contextmanager
def open_or_start(path: Path | None) -> Iterator[TargetFile]:
    """Open the target of a run. An embedded target that was not up is started, and ended afterwards."""
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.targets.local.control_plane import lifecycle

    if path is not None:
        yield read_target(path)
    elif lifecycle.status().up:
        yield read_target_file(paths.target_dir() / "target.yaml")
    else:
        click.echo("The embedded target is not up; starting it for this run.")
        # lifecycle.up ends a target that does not come up; a target that hangs is not this process's to end.
        file = lifecycle.up(progress=lambda words: click.echo(f"  {words}"), owner_pid=os.getpid())
        try:
            yield file
        finally:
            lifecycle.down()


def read_target(path: Path) -> TargetFile:
    """Read a target file, and warn of a small golden set.

    Raises:
        UsageError: it cannot be read, or something in it is wrong.
    """
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.probes.prober.golden import too_few_words

    file = read_target_file(path)
    if few := too_few_words(file.predict.golden):
        click.echo(f"Warning: {few}", err=True)
    return file


def _track(report: Report, files: Sequence[Path], target: TargetFile) -> None:
    """Log a campaign to MLflow. A server that does not answer must not make the campaign look failed."""
    from monkeyproof.reports.formats.mlflow_tracking import log_campaign, public_uri

    uri = os.environ.get("MLFLOW_TRACKING_URI") or None
    forbidden = []
    if target.registry:
        address = target.registry.uri.removeprefix("http://").rstrip("/")
        links = (link.listen for link in target.links.values() if link.forward == address)
        forbidden = [target.registry.uri, *(f"http://{listen}" for listen in links)]
    store = report.folder.parent / "mlflow"
    try:
        run = log_campaign(report, files, uri=uri, store=store, forbidden=forbidden)
    except MonkeyproofError as error:
        click.echo(f"  not logged to MLflow: {error}", err=True)
    else:
        click.echo(f"  logged to MLflow: run {run} in {public_uri(uri, store)}")
