"""``monkeyproof run`` and ``monkeyproof gate``: one campaign, and how it ends the command line.

Imports what it needs only when a command runs, as the command line does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
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
    from monkeyproof.campaign.resume import StoredPlan
    from monkeyproof.campaign.runner import Finished
    from monkeyproof.config.target_file import TargetFile
    from monkeyproof.experiment.catalogue import Experiment
    from monkeyproof.types import Campaign

EXIT_OF = {"pass": EXIT_OK, "fail": EXIT_FAIL, "inconclusive": EXIT_INCONCLUSIVE, "aborted": EXIT_REFUSED}


@click.command("run")
@campaign_options
@click.pass_context
def run(context: click.Context, /, **values: Any) -> None:
    """Run experiments and write a report.

    NAMES are experiments of the catalogue ('monkeyproof list') or paths of Chaos Toolkit files; 'all' means
    all that the embedded target can do, and none a tour of a few of them. The embedded target is started
    if it is not up, and then also ended. The exit code does not judge the target: 0 means that the campaign
    ran and its report is written.
    """
    _run(Options.of(context, values))


@click.command("gate")
@campaign_options
@click.pass_context
def gate(context: click.Context, /, **values: Any) -> None:
    """Run experiments as 'run' does, and exit by the verdict; or judge a finished campaign.

    NAMES as for 'run'; or the folder of one finished campaign (or trial), which is judged from its histories,
    running nothing. Exit codes: 0 pass, 1 fail, 3 inconclusive, 4 aborted or refused, 5 something could not be
    reverted, 2 usage or configuration.
    """
    options = Options.of(context, values)
    folder = options.finished_folder()
    if folder is None:
        campaign = _run(options)
    else:
        from monkeyproof.campaign.results import read_campaign

        campaign = read_campaign(folder)
        print_verdict(campaign)
    context.exit(exit_code_of(campaign))


def exit_code_of(campaign: Campaign) -> int:
    """What a gate ends with."""
    from monkeyproof.reports.formats.results_json import slo_of
    from monkeyproof.reports.model.verdict import judge

    if any(trial.not_reverted for trial in campaign.trials):
        return EXIT_NOT_REVERTED
    return EXIT_OF[judge(campaign, slo_of(campaign)).decision]


def print_verdict(campaign: Campaign) -> None:
    """The figures and the verdict, on the terminal."""
    from rich.console import Console

    from monkeyproof.reports.formats.console import print_summary
    from monkeyproof.reports.formats.results_json import slo_of

    print_summary(campaign, slo_of(campaign), Console(highlight=False))


def _run(options: Options) -> Campaign:
    """Run a campaign, or the rest of one, and report it.

    Raises:
        MonkeyproofError: it did not end in order; what there is has been reported.
    """
    from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on

    if options.resume is not None:
        finished = _resume(options, options.resume.resolve())
    else:
        experiments, sham, folder = begin(options)
        with clear_to_inject(), open_or_start(options.target) as file, sole_campaign_on(file.path):
            plan = new_plan(options, file, experiments, sham, folder)
            finished = _run_and_report(plan, options, resume=False)
    if finished.error:
        error = MonkeyproofError(finished.error)
        error.exit_code = finished.exit_code
        raise error
    return finished.campaign


def begin(options: Options) -> tuple[tuple[Experiment, ...], Experiment | None, Path]:
    """What is to be run, the sham beside it, and where to; wrong words are told before anything starts.

    Raises:
        UsageError: something is.
    """
    from monkeyproof.config.target_file import load_plugins_of
    from monkeyproof.experiment import catalogue

    load_plugins_of(options.target)
    found = tuple(catalogue.find(name, options.named) for name in catalogue.chosen(options.names))
    sham = catalogue.find("sham") if options.shams_count else None
    folder = (options.out or Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: not an empty folder; choose another one with --out")
    return found, sham, folder


def new_plan(
    options: Options,
    file: TargetFile,
    experiments: tuple[Experiment, ...],
    sham: Experiment | None,
    folder: Path,
) -> CampaignPlan:
    """Raises: UsageError: it contradicts itself, or the target."""
    from monkeyproof.campaign.plan import CampaignPlan

    return CampaignPlan(
        experiments=experiments,
        arms=options.arms_for(file),
        trials_count=options.trials_count or options.max_trials,
        seed=options.seed,
        target=file,
        folder=folder,
        sequential=options.trials_count is None,
        shams_count=options.shams_count,
        sham=sham,
        max_minutes=options.max_minutes,
    )


def resumed_plan(options: Options, folder: Path) -> tuple[StoredPlan, Path | None, float | None]:
    """An interrupted campaign's plan, the target file that it goes on with, and its limit in minutes.

    Raises:
        UsageError: it cannot be continued, or the options contradict it.
    """
    from monkeyproof.campaign.resume import StoredPlan
    from monkeyproof.config.target_file import load_plugins_of

    stored = StoredPlan.read(folder)
    options.check_against(stored)
    load_plugins_of(options.target or stored.target_path)
    stored.experiments()
    # An embedded target that was started for the campaign may have gone with it.
    own = paths.target_dir() / "target.yaml"
    path = options.target or (None if stored.target_path == own else stored.target_path)
    limit = options.max_minutes if options.max_minutes is not None else stored.plan["max_minutes"]
    return stored, path, limit


def _resume(options: Options, folder: Path) -> Finished:
    from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on

    stored, path, limit = resumed_plan(options, folder)
    with clear_to_inject(), open_or_start(path) as file, sole_campaign_on(file.path):
        return _run_and_report(stored.resumed(file, limit), options, resume=True)


def _run_and_report(plan: CampaignPlan, options: Options, *, resume: bool) -> Finished:
    from monkeyproof.campaign.runner import run_campaign
    from monkeyproof.cli.progress import watcher

    with watcher(plan.folder) as progress:
        finished = run_campaign(plan, progress, resume=resume)
    if finished.campaign.trials:
        print_verdict(finished.campaign)
        if finished.ended_early:
            resume_words = f"'monkeyproof run --resume {plan.folder}' goes on"
            click.echo(f"Ended in order before the plan was done: {finished.ended_early}; {resume_words}")
        try:
            write_and_name(finished.campaign, plan.folder)
        except OSError as error:
            unwritten = MonkeyproofError(
                f"the report cannot be written ({error.strerror or error}); make room, then "
                f"'monkeyproof report {plan.folder}' writes it"
            )
            unwritten.exit_code = EXIT_REFUSED
            if not finished.error:
                raise unwritten from None
            click.echo(f"monkeyproof: {unwritten}", err=True)
            return finished
        if not options.no_tracking:
            _track(finished.campaign, plan.folder, plan.target)
    return finished


@contextlib.contextmanager
def open_or_start(path: Path | None) -> Iterator[TargetFile]:
    """The target of a run; an embedded target that was not up is ended again."""
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.targets.local.control_plane import lifecycle

    if path is not None:
        yield read_target(path)
    elif lifecycle.status().up:
        yield read_target_file(paths.target_dir() / "target.yaml")
    else:
        click.echo("The embedded target is not up; starting it for this run.")
        # One that does not come up is ended there; one that stands still is not ours to end.
        file = lifecycle.up(progress=lambda words: click.echo(f"  {words}"), owner_pid=os.getpid())
        try:
            yield file
        finally:
            lifecycle.down()


def read_target(path: Path) -> TargetFile:
    """A target file, and a word about a golden set that is small.

    Raises:
        UsageError: it cannot be read, or something in it is wrong.
    """
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.probes.prober.golden import too_few_words

    file = read_target_file(path)
    if few := too_few_words(file.predict.golden):
        click.echo(f"Warning: {few}", err=True)
    return file


def write_and_name(campaign: Campaign, folder: Path) -> None:
    """Write the reports, and say where they are."""
    from monkeyproof.reports.write import write_reports

    names = [path.name for path in write_reports(campaign, folder)]
    names.remove("report.html")
    click.echo(f"Report: {folder / 'report.html'}\n  beside it: {', '.join(names)}")


def _track(campaign: Campaign, folder: Path, file: TargetFile) -> None:
    from monkeyproof.reports.formats.mlflow_tracking import log_campaign, public_uri

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
