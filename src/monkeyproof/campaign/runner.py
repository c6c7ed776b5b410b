"""Runs a campaign: trials over experiments, seeds and arms, each in a worker process of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from monkeyproof.campaign.plan import CampaignPlan
from monkeyproof.campaign.running import RunningCampaign
from monkeyproof.campaign.stopping_rule import is_needed
from monkeyproof.campaign.worker import run_worker
from monkeyproof.clock import Clock, SystemClock
from monkeyproof.errors import EXIT_OK, EXIT_REFUSED
from monkeyproof.reports.model.report import Report
from monkeyproof.runtime.stop_file import SIGNALS, STOPPED, is_stop_requested
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.types import Campaign, TrialResult


class ProgressListener(Protocol):
    """Follows a campaign while it runs: the terminal, a test."""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None: ...

    def tick(self, folder: Path) -> None:
        """Called a few times a second while a trial runs; its history grows in ``folder``."""

    def trial_ended(self, result: TrialResult) -> None: ...

    def so_far(self, report: Report, left: int, block_ended: bool) -> None:
        """Called after each trial, with the report on the trials so far; at most ``left`` trials will follow."""


class NoProgressListener:
    """Does nothing."""

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None: ...

    def tick(self, folder: Path) -> None: ...

    def trial_ended(self, result: TrialResult) -> None: ...

    def so_far(self, report: Report, left: int, block_ended: bool) -> None: ...


RunTrial = Callable[[TrialPlan, ProgressListener, list[int], Clock], tuple[int, str]]
"""Runs one trial to its end, sooner if the list gets a signal; returns an exit code, and why if it failed."""


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """A campaign that ended, in order or not."""

    campaign: Campaign
    exit_code: int = EXIT_OK
    error: str = ""
    """Why it did not end in order; empty if it did."""
    ended_early: str = ""
    """Why it ended in order before its plan was done; empty if the plan is done."""


@dataclass(frozen=True, slots=True)
class _End:
    """Why no further trial runs."""

    exit_code: int = EXIT_OK
    error: str = ""
    ended_early: str = ""


def run_campaign(
    plan: CampaignPlan,
    listener: ProgressListener | None = None,
    clock: Clock | None = None,
    *,
    resume: bool = False,
    run_trial: RunTrial | None = None,
) -> CampaignResult:
    """Run every trial; after a failure that is not the target's (usage, refusal, not reverted) run no more.

    The result holds every trial that was finished, whatever happened later.

    Args:
        resume: Continue the campaign in the plan's folder: finished trials are kept, a half-done one is moved
            out of the way and run again.
        run_trial: For tests; without it, each trial gets a worker process.

    Raises:
        Refusal: the folder cannot be written, so nothing would be on record; or a worker of the interrupted
            campaign still runs.
    """
    listener, clock = listener or NoProgressListener(), clock or SystemClock()
    begun_s = clock.monotonic_s()
    trials = plan.trials()
    running = RunningCampaign.resumed(plan, trials) if resume else RunningCampaign.new(plan, clock)
    with _collected_signals() as stop:
        deadline_s = None if plan.max_minutes is None else begun_s + 60 * plan.max_minutes
        end = _run_trials(plan, trials, running, listener, stop, clock, deadline_s, run_trial or run_worker)
    sitting_s = clock.monotonic_s() - begun_s
    unwritten = running.close(sitting_s, aborted=end.error, ended_early=end.ended_early)
    if unwritten is not None and end.exit_code == EXIT_OK:
        why = f"{plan.folder} cannot be written ({unwritten.strerror or unwritten})"
        end = _End(EXIT_REFUSED, why, end.ended_early)
    return CampaignResult(running.campaign(), end.exit_code, end.error, end.ended_early)


def _run_trials(
    plan: CampaignPlan,
    trials: Sequence[TrialPlan],
    running: RunningCampaign,
    listener: ProgressListener,
    stop: list[int],
    clock: Clock,
    deadline_s: float | None,
    run_trial: RunTrial,
) -> _End:
    """Run the trials that have no result yet, as long as one can change the verdict."""
    blocks = plan.blocks_of(list(trials))
    verdict = running.report().verdict
    for place, trial in enumerate(trials):
        if running.has(trial) or not is_needed(trial, plan, verdict):
            continue
        if stop or is_stop_requested():
            how = "a signal ended the campaign" if stop else f"the campaign was {STOPPED}"
            return _End(EXIT_REFUSED, f"{how} after {len(running)} trials")
        if deadline_s is not None and clock.monotonic_s() >= deadline_s:
            early = f"{plan.max_minutes:g} minutes were over after {len(running)} trials"
            return _End(ended_early=early)
        listener.trial_started(trial, place + 1, len(trials))
        code, error = run_trial(trial, listener, stop, clock)
        if (result := running.add(trial)) is not None:
            listener.trial_ended(result)
        if code != EXIT_OK:
            return _End(code, error)
        report = running.report()
        verdict = report.verdict
        left = sum(not running.has(one) and is_needed(one, plan, verdict) for one in trials[place + 1 :])
        listener.so_far(report, left, blocks[place + 1 : place + 2] != [blocks[place]])
    return _End()


@contextlib.contextmanager
def _collected_signals() -> Iterator[list[int]]:
    """Collects the signals that ask this process to stop, so that they do not end it."""
    seen: list[int] = []
    old = {number: signal.signal(number, lambda got, _: seen.append(got)) for number in SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
