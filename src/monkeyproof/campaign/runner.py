"""A campaign: trials over experiments, seeds and arms, each in a worker of its own; begun, or continued."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from monkeyproof.campaign.plan import CAMPAIGN_FILE, TRIALS_DIR, CampaignPlan
from monkeyproof.campaign.results import campaign_of, is_finished, read_campaign, read_header, result_of
from monkeyproof.campaign.worker import no_room, run_worker
from monkeyproof.clock import Clock, SystemClock, wait_for
from monkeyproof.config.target_file import Slo
from monkeyproof.errors import EXIT_OK, EXIT_REFUSED, Refusal
from monkeyproof.paths import make_private
from monkeyproof.record import history
from monkeyproof.reports.model.verdict import CampaignVerdict, Decision, judge
from monkeyproof.runtime import procfs
from monkeyproof.runtime.stop_file import SIGNALS, STOPPED, is_stop_requested
from monkeyproof.trial.plan import TrialPlan, machine, versions
from monkeyproof.types import Campaign, Json, TrialResult

__all__ = [
    "CampaignPlan",
    "Finished",
    "NoProgressListener",
    "ProgressListener",
    "read_campaign",
    "result_of",
    "run_campaign",
]

LEFT_OVER_ENDS_WITHIN_S = 30.0
NOT_ENDED = "it has not ended: it is still running, or was killed; 'monkeyproof run --resume' continues it"


class ProgressListener(Protocol):
    """Somebody who is told how a campaign goes: the terminal, a test."""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None: ...

    def tick(self, folder: Path) -> None:
        """Called a few times a second while a trial runs; its history grows in ``folder``."""

    def trial_ended(self, result: TrialResult) -> None: ...

    def so_far(self, verdict: CampaignVerdict, left: int, block_ended: bool) -> None:
        """Called after each trial; ``left`` trials will follow at most."""


class NoProgressListener:
    """Watches nothing."""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None: ...

    def tick(self, folder: Path) -> None: ...

    def trial_ended(self, result: TrialResult) -> None: ...

    def so_far(self, verdict: CampaignVerdict, left: int, block_ended: bool) -> None: ...


RunTrial = Callable[[TrialPlan, ProgressListener, list[int], Clock], tuple[int, str]]
"""Runs one trial to its end, sooner if the list gets a signal; returns an exit code and words if it failed."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A campaign that ended, in order or not."""

    campaign: Campaign
    exit_code: int = EXIT_OK
    error: str = ""
    ended_early: str = ""
    """Why it ended in order before its plan was done; empty if the plan is done."""


def run_campaign(
    plan: CampaignPlan,
    watcher: ProgressListener | None = None,
    clock: Clock | None = None,
    *,
    resume: bool = False,
    run_trial: RunTrial | None = None,
) -> Finished:
    """Run every trial; after a failure that is not the target's (usage, refusal, not reverted) run no more.

    What was finished is in the result, whatever happened later.

    Args:
        resume: continue the campaign in the plan's folder: finished trials are kept, a half-done one is moved
            aside and done again.
        run_trial: for tests; each trial gets a worker process otherwise.

    Raises:
        Refusal: its folder cannot be written, so nothing would be on record; or what ran in it goes on.
    """
    watcher, clock, run_trial = watcher or NoProgressListener(), clock or SystemClock(), run_trial or run_worker
    begun_s = clock.monotonic_s()
    trials = plan.trials()
    if resume:
        header = read_header(plan.folder) | {"plan": plan.as_json()}
        results = _kept(plan.folder, trials)
    else:
        header, results = _header(plan, clock), {}
    before_s = header["duration_s"] or 0.0
    header |= {"duration_s": None, "aborted": NOT_ENDED, "ended_early": ""}
    try:
        if not resume:
            make_private(plan.folder)
            (plan.folder / TRIALS_DIR).mkdir(mode=0o700)
        history.write_json(plan.folder / CAMPAIGN_FILE, header)
    except OSError as full:
        raise no_room(plan.folder, full) from None
    code, error, ended_early = EXIT_OK, "", ""
    blocks = plan.blocks_of(trials)
    verdict = _so_far(header, results, plan.target.slo)
    with _stops() as stop:
        for place, trial in enumerate(trials):
            if trial.folder in results or not _needed(trial, plan, verdict):
                continue
            if stop or is_stop_requested():
                how = "a signal ended the campaign" if stop else f"the campaign was {STOPPED}"
                code, error = EXIT_REFUSED, f"{how} after {len(results)} trials"
                break
            if plan.max_minutes is not None and clock.monotonic_s() - begun_s >= 60 * plan.max_minutes:
                ended_early = f"{plan.max_minutes:g} minutes were over after {len(results)} trials"
                break
            watcher.trial_started(trial, place + 1, len(trials))
            code, error = run_trial(trial, watcher, stop, clock)
            if (Path(trial.folder) / history.TRIAL_FILE).exists():
                results[trial.folder] = result_of(Path(trial.folder), plan.folder)
                watcher.trial_ended(results[trial.folder])
            if code != EXIT_OK:
                break
            verdict = _so_far(header, results, plan.target.slo)
            left = [
                one for one in trials[place + 1 :] if one.folder not in results and _needed(one, plan, verdict)
            ]
            watcher.so_far(verdict, len(left), blocks[place + 1 : place + 2] != [blocks[place]])
    duration_s = round(before_s + clock.monotonic_s() - begun_s, 3)
    header |= {"duration_s": duration_s, "aborted": error, "ended_early": ended_early}
    try:
        history.write_json(plan.folder / CAMPAIGN_FILE, header)
    except OSError as full:  # What it says of itself since the beginning stays: that it has not ended.
        if code == EXIT_OK:
            code, error = EXIT_REFUSED, f"{plan.folder} cannot be written ({full.strerror or full})"
    return Finished(read_campaign(plan.folder), code, error, ended_early)


def _header(plan: CampaignPlan, clock: Clock) -> dict[str, Json]:
    from monkeyproof.probes.calibration.calibrate import stored

    return {
        "version": 1,
        "name": plan.folder.name,
        "started_utc": clock.utc().isoformat(timespec="seconds"),
        "duration_s": None,
        "target": plan.target.name,
        "seed": plan.seed,
        "slo": asdict(plan.target.slo),
        "prober": asdict(plan.target.prober),
        "machine": machine(),
        "versions": versions(),
        "plan": plan.as_json(),
        "calibration": stored(),
    }


def _so_far(header: dict[str, Json], results: dict[str, TrialResult], slo: Slo) -> CampaignVerdict:
    """The verdict on the trials so far, as if the campaign ended here in order."""
    return judge(campaign_of(header | {"aborted": ""}, results.values()), slo)


def _needed(trial: TrialPlan, plan: CampaignPlan, verdict: CampaignVerdict) -> bool:
    """Whether a trial can still change anything: where the number is fixed, always.

    A reference arm ends with the experiment that it is there for. Shams are run as many as were asked for: one
    sham more may break a hard limit at any time, until something has failed anyway.
    """
    if not plan.sequential:
        return True
    decided = {
        name: all(
            one.decision is not Decision.INCONCLUSIVE or one.hopeless
            for one in verdict.verdicts
            if one.judged and one.experiment == name
        )
        for name in (experiment.name for experiment in plan.experiments)
    }
    if trial.experiment in decided:
        return not decided[trial.experiment]
    return not (all(decided.values()) and verdict.decision is Decision.FAIL)


def _kept(folder: Path, trials: list[TrialPlan]) -> dict[str, TrialResult]:
    """The finished trials of an interrupted campaign. What is half done is moved aside: not counted, not lost."""
    _await_left_over(folder)
    results: dict[str, TrialResult] = {}
    for trial in trials:
        place = Path(trial.folder)
        if is_finished(place):
            results[trial.folder] = result_of(place, folder)
        for path in [path for path in place.parent.iterdir() if path.name.startswith(place.name)]:
            if path != place or trial.folder not in results:
                _discard(path, folder / history.DISCARDED_DIR)
    return results


def _discard(path: Path, to: Path) -> None:
    to.mkdir(mode=0o700, exist_ok=True)
    number, free = 1, to / path.name
    while free.exists():
        number += 1
        free = to / f"{path.name}.{number}"
    path.rename(free)


def _await_left_over(folder: Path) -> None:
    """The worker of a killed campaign reverts and puts back by itself, and writes its history meanwhile.

    Raises:
        Refusal: it does not come to an end.
    """
    if not wait_for(lambda: not _at_work(folder), within_s=LEFT_OVER_ENDS_WITHIN_S, every_s=0.2):
        raise Refusal(
            f"process {_at_work(folder)[0]} still works on a trial of the interrupted campaign",
            "wait for it, or end it",
        )


def _at_work(folder: Path) -> list[int]:
    """Processes whose command line names something in the campaign's folder of trials."""
    named = f"{folder / TRIALS_DIR}/".encode()
    return [pid for pid in procfs.pids() if any(named in word for word in procfs.command_line(pid))]


@contextlib.contextmanager
def _stops() -> Iterator[list[int]]:
    """Collects the signals that ask this process to stop, instead of dying of them."""
    seen: list[int] = []
    old = {number: signal.signal(number, lambda got, _: seen.append(got)) for number in SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
