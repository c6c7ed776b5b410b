"""A campaign: trials over experiments, seeds and arms, each in a worker of its own; and reading one back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter

from monkeyproof import history
from monkeyproof.catalogue import Experiment
from monkeyproof.clock import Anchor, Clock, SystemClock
from monkeyproof.config import Slo, TargetFile
from monkeyproof.errors import EXIT_OK, EXIT_REFUSED, MonkeyproofError, UsageError
from monkeyproof.history import History, Kind
from monkeyproof.probes.recovery import measure, remedies
from monkeyproof.process import ProcessGroup, last_line
from monkeyproof.readings import Readings
from monkeyproof.reverting import revert_all
from monkeyproof.trial import TrialPlan, machine, versions
from monkeyproof.types import Campaign, Outcome, Recovery, TrialResult

CAMPAIGN_FILE = "campaign.json"
TRIALS_DIR = "trials"
WORKER_ENDS_WITHIN_S = 60.0
HEADER = ("name", "started_utc", "duration_s", "target", "seed", "slo", "prober", "machine", "versions")
"""What campaign.json has to say; the rest of a campaign is computed from its trials."""


@dataclass(frozen=True, slots=True)
class CampaignPlan:
    """What a campaign is to do. Trial i of every experiment and every arm has the seed ``seed + i``."""

    experiments: tuple[Experiment, ...]
    arms: tuple[str, ...]
    trials_count: int
    seed: int
    target: TargetFile
    folder: Path

    def trials(self) -> list[TrialPlan]:
        """In the order in which they run: the arms of one seed follow one another, so that they are alike."""
        plans: list[TrialPlan] = []
        for experiment in self.experiments:
            for index in range(self.trials_count):
                for arm in self.arms:
                    number = len(plans) + 1
                    slug = experiment.name.replace("/", "-")
                    folder = self.folder / TRIALS_DIR / f"{number:03d}-{slug}-{arm}-{self.seed + index}"
                    plans.append(
                        TrialPlan(
                            experiment=experiment.name,
                            title=experiment.title,
                            experiment_file=str(experiment.path),
                            experiment_sha256=experiment.sha256,
                            seed=self.seed + index,
                            arm=arm,
                            index=index,
                            target=str(self.target.path),
                            folder=str(folder),
                            expected=tuple(experiment.extension.expect.get(arm, ())),
                            sham=experiment.extension.sham,
                        )
                    )
        return plans


class Watcher(Protocol):
    """Somebody who is told how a campaign goes: the terminal, a test."""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None: ...

    def tick(self, folder: Path) -> None:
        """Called a few times a second while a trial runs; its history grows in ``folder``."""

    def trial_ended(self, result: TrialResult) -> None: ...


class NoWatcher:
    """Watches nothing."""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None: ...

    def tick(self, folder: Path) -> None: ...

    def trial_ended(self, result: TrialResult) -> None: ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A campaign that ended, in order or not."""

    campaign: Campaign
    exit_code: int = EXIT_OK
    error: str = ""


def run_campaign(plan: CampaignPlan, watcher: Watcher | None = None, clock: Clock | None = None) -> Finished:
    """Run every trial; after a failure that is not the target's (usage, refusal, not reverted) run no more.

    What was finished is in the result, whatever happened later.
    """
    watcher, clock = watcher or NoWatcher(), clock or SystemClock()
    begun_s, started_utc = clock.monotonic_s(), clock.utc().isoformat(timespec="seconds")
    (plan.folder / TRIALS_DIR).mkdir(parents=True, mode=0o700)
    header = {
        "version": 1,
        "name": plan.folder.name,
        "started_utc": started_utc,
        "target": plan.target.name,
        "seed": plan.seed,
        "slo": asdict(plan.target.slo),
        "prober": asdict(plan.target.prober),
        "machine": machine(),
        "versions": versions(),
        "arms": plan.arms,
        "trials_count": plan.trials_count,
        "experiments": [experiment.name for experiment in plan.experiments],
    }
    history.write_json(plan.folder / CAMPAIGN_FILE, header | {"duration_s": None})
    code, error = EXIT_OK, ""
    trials = plan.trials()
    with _stops() as stop:
        for number, trial in enumerate(trials, start=1):
            watcher.trial_started(trial, number, len(trials))
            code, error = _run_trial(trial, watcher, stop, clock)
            if (Path(trial.folder) / history.TRIAL_FILE).exists():
                watcher.trial_ended(result_of(Path(trial.folder), plan.folder))
            if stop and code == EXIT_OK:
                code, error = EXIT_REFUSED, f"a signal ended the campaign after {number} of {len(trials)} trials"
            if code != EXIT_OK:
                break
    duration_s = round(clock.monotonic_s() - begun_s, 3)
    history.write_json(plan.folder / CAMPAIGN_FILE, header | {"duration_s": duration_s})
    return Finished(read_campaign(plan.folder), code, error)


def _run_trial(trial: TrialPlan, watcher: Watcher, stop: list[int], clock: Clock) -> tuple[int, str]:
    """Run one worker to its end. Returns its exit code and its words."""
    plan_file = Path(trial.folder).with_suffix(".plan.json")
    history.write_json(plan_file, asdict(trial))
    log = plan_file.with_suffix(".log")
    with ProcessGroup() as group:
        worker = group.start([sys.executable, "-m", "monkeyproof.trial", str(plan_file)], log=log)
        told_s: float | None = None
        while worker.poll() is None:
            if stop and told_s is None:
                # The worker alone: its observers have to see the revert.
                os.kill(worker.pid, signal.SIGTERM)
                told_s = clock.monotonic_s()
            if told_s is not None and clock.monotonic_s() - told_s > WORKER_ENDS_WITHIN_S:
                group.end(worker)
            watcher.tick(Path(trial.folder))
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(0.2)
    outcome_file = plan_file.with_suffix(".outcome.json")
    if outcome_file.exists():
        outcome = json.loads(outcome_file.read_bytes())
        plan_file.unlink()
        outcome_file.unlink()
        if log.stat().st_size == 0:
            log.unlink()
        return outcome["exit_code"], outcome["error"]
    # It died without a word, so its undo log is still open: take back what it left.
    _note_death(Path(trial.folder), worker.returncode)
    try:
        revert_all(lambda _: None)
    except MonkeyproofError as error:
        return error.exit_code, str(error)
    words = f"the trial's worker died (status {worker.returncode}; {last_line(log)}); see {log}"
    return EXIT_REFUSED, words + "; what it had injected is reverted"


def _note_death(folder: Path, status: int) -> None:
    """Without this, a trial that was cut off while all was well would look as if the fault had been absorbed."""
    with contextlib.suppress(UsageError):
        writer = history.HistoryWriter(folder, Anchor(**History.read(folder).trial["anchor"]), "campaign")
        writer.event(Kind.TRIAL_ABORTED, folder.name, why=f"its worker died (status {status})")
        writer.close()


@contextlib.contextmanager
def _stops() -> Iterator[list[int]]:
    """Collects the signals that ask this process to stop, instead of dying of them."""
    seen: list[int] = []
    old = {
        number: signal.signal(number, lambda got, _: seen.append(got))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def read_campaign(folder: Path) -> Campaign:
    """A campaign, computed anew from the histories in its folder; a folder of one trial is a campaign of one.

    Raises:
        UsageError: the folder holds neither.
    """
    if (folder / history.TRIAL_FILE).exists():
        return _campaign_of_one(folder)
    try:
        header = json.loads((folder / CAMPAIGN_FILE).read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {CAMPAIGN_FILE} in it, so this is not a campaign's folder") from None
    except ValueError as error:
        raise UsageError(f"{folder / CAMPAIGN_FILE}: damaged: {error}") from None
    if not isinstance(header, dict) or header.get("version") != 1:
        raise UsageError(f"{folder / CAMPAIGN_FILE}: not a campaign of a version that this monkeyproof reads")
    folders = sorted(path.parent for path in (folder / TRIALS_DIR).glob(f"*/{history.TRIAL_FILE}"))
    missing = [name for name in HEADER if name not in header]
    if missing:
        raise UsageError(f"{folder / CAMPAIGN_FILE}: damaged: {missing[0]} is missing")
    return Campaign(
        name=header["name"],
        started_utc=header["started_utc"],
        duration_s=header["duration_s"] or 0.0,
        target=header["target"],
        seed=header["seed"],
        slo=header["slo"],
        prober=header["prober"],
        machine=header["machine"],
        versions=header["versions"],
        trials=tuple(result_of(trial, folder) for trial in folders),
    )


def _campaign_of_one(folder: Path) -> Campaign:
    history_of_one = History.read(folder)
    trial = history_of_one.trial
    return Campaign(
        name=folder.name,
        started_utc=trial["anchor"]["utc"],
        duration_s=max((event.t_s for event in history_of_one.events), default=0.0),
        target=trial["target_name"],
        seed=trial["seed"],
        slo=trial["slo"],
        prober=trial["prober"],
        machine=trial["machine"],
        versions=trial["versions"],
        trials=(result_of(folder, folder),),
    )


def result_of(folder: Path, root: Path) -> TrialResult:
    """One trial's result, computed from its history alone.

    Raises:
        UsageError: the folder holds no trial.
    """
    trial = History.read(folder)
    slo = TypeAdapter(Slo).validate_python(trial.trial["slo"])
    recovery = _recovery(trial, slo)
    before_s = recovery.proven_s or recovery.reverted_s or inf
    done = remedies(trial.events, recovery.t0_s or 0.0, before_s)
    return TrialResult(
        experiment=trial.trial["experiment"],
        title=trial.trial["title"],
        arm=trial.trial["arm"],
        seed=trial.trial["seed"],
        index=trial.trial["index"],
        folder=os.path.relpath(folder, root),
        target=trial.trial["target_name"],
        started_utc=trial.trial["anchor"]["utc"],
        recovery=recovery,
        faults=_unique(
            f"{event.data['fault']} on {event.subject}" for event in trial.of_kind(Kind.FAULT_INTENDED)
        ),
        evidence=_unique(str(event.data["summary"]) for event in trial.of_kind(Kind.FAULT_EFFECTIVE)),
        healed_by=done if recovery.outcome in (Outcome.HEALED, Outcome.ABSORBED) else (),
        detected=_unique(
            str(event.data.get("summary", ""))
            for event in trial.of_kind(Kind.HEALER_DETECTED, Kind.HEALER_DIAGNOSED)
        ),
        escalations=_unique(str(event.data.get("summary", "")) for event in trial.of_kind(Kind.HEALER_ESCALATED)),
        not_reverted=_unique(
            f"{event.data['fault']} on {event.subject}: {event.data['why']}"
            for event in trial.of_kind(Kind.FAULT_NOT_REVERTED)
        ),
        expected=tuple(Outcome(name) for name in trial.trial.get("expected", ())),
        load=_load(folder),
    )


def _recovery(trial: History, slo: Slo) -> Recovery:
    try:
        readings = Readings.read(trial.folder / history.READINGS_FILE)
    except UsageError as error:
        return Recovery(Outcome.INVALID, f"could not tell: {error}")
    return measure(readings, trial.events, slo)


def _load(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / history.LOAD_FILE).read_bytes()))
    except (OSError, ValueError):
        return {}


def _unique(words: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))
