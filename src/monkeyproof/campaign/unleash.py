"""Runs a randomised fault schedule (a storm) as a trial, and shrinks one that the target did not survive."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monkeyproof import paths
from monkeyproof.campaign.plan import CampaignPlan
from monkeyproof.campaign.runner import ProgressListener, run_campaign
from monkeyproof.campaign.shrink import ShrinkBudgetSpent, ShrinkResult, ddmin, tried_again
from monkeyproof.clock import Clock
from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import (
    EXIT_FAIL,
    EXIT_INCONCLUSIVE,
    EXIT_NOT_REVERTED,
    EXIT_OK,
    MonkeyproofError,
    UsageError,
)
from monkeyproof.experiment import catalogue
from monkeyproof.injection.schedule_plan import SCHEDULE_FILE, ScheduledFault, SchedulePlan
from monkeyproof.record.history import History, Kind
from monkeyproof.types import Campaign, Outcome

SURVIVED, FAILED, COULD_NOT_TELL = "survived", "failed", "could not tell"
RESTORES_WITHIN_S = 300.0
_DECISIONS = {
    Outcome.ABSORBED: SURVIVED,
    Outcome.FAULT_REMOVED: SURVIVED,
    Outcome.NOT_RECOVERED: FAILED,
}
_LEFT_OUT = {
    Kind.FAULT_REFUSED: "refused",
    Kind.FAULT_UNPROVEN: "not proven",
    Kind.LEASE_RAN_OUT: "ended before its time",
    Kind.FAULT_ENDED_EARLY: "ended before its time",
}
_EXITS = {SURVIVED: EXIT_OK, FAILED: EXIT_FAIL, COULD_NOT_TELL: EXIT_INCONCLUSIVE}


@dataclass(frozen=True, slots=True)
class ScheduleResult:
    """A storm that ended."""

    campaign: Campaign
    decision: str
    reason: str
    left_out: tuple[str, ...]
    """Faults that were refused, not proven, or ended before their time, each with why."""
    effective_count: int
    error: str = ""
    """Why it did not end in order; "" if it did."""
    error_code: int = EXIT_OK

    @property
    def exit_code(self) -> int:
        if any(trial.not_reverted for trial in self.campaign.trials):
            return EXIT_NOT_REVERTED
        return self.error_code or _EXITS[self.decision]

    @property
    def failed(self) -> bool | None:
        """None if the trial does not show it."""
        return None if self.decision == COULD_NOT_TELL else self.decision == FAILED


def store(plan: SchedulePlan, folder: Path) -> Path:
    """Write a storm's file into the folder of its run."""
    paths.make_private(folder)
    path = folder / SCHEDULE_FILE
    with paths.open_private(path) as file:
        file.write(plan.text().encode())
    return path


def run_schedule(
    plan: SchedulePlan, file: TargetFile, arm: str, folder: Path, listener: ProgressListener
) -> ScheduleResult:
    """Run a storm as one trial: observers, baseline, storm, and observation until the target recovers.

    Raises:
        Refusal: as a campaign.
    """
    experiment = catalogue.find(str(store(plan, folder)))
    finished = run_campaign(CampaignPlan((experiment,), (arm,), 1, plan.seed, file, folder), listener)
    if not finished.campaign.trials:
        return ScheduleResult(finished.campaign, COULD_NOT_TELL, "", (), 0, finished.error, finished.exit_code)
    trial = finished.campaign.trials[0]
    events = History.read(folder / trial.folder)
    left_out = [
        f"{event.data.get('fault', event.subject)} ({_LEFT_OUT[event.kind]}): {event.data['why']}"
        for event in events.of_kind(*_LEFT_OUT)
    ]
    return ScheduleResult(
        finished.campaign,
        _DECISIONS.get(trial.recovery.outcome, COULD_NOT_TELL),
        trial.recovery.reason,
        tuple(left_out),
        len(events.of_kind(Kind.FAULT_EFFECTIVE)),
        finished.error,
        finished.exit_code,
    )


def restore(command: str) -> None:
    """Run the user's command that restores a target that a storm left broken.

    Raises:
        UsageError: it cannot be run, fails, or does not come to an end.
    """
    try:
        done = subprocess.run(
            shlex.split(command),
            check=False,
            capture_output=True,
            text=True,
            timeout=RESTORES_WITHIN_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"--restore: {command!r} cannot be run: {error}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"--restore: {command!r} did not end within {RESTORES_WITHIN_S:g} s") from None
    if done.returncode:
        last_line = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        raise UsageError(f"--restore: {command!r} ended with {done.returncode}: {last_line}")


@dataclass
class Shrinker:
    """Replays parts of a storm that failed, as long as there are trials and time left."""

    plan: SchedulePlan
    run: Callable[[SchedulePlan, int], ScheduleResult]
    """Runs a storm; the number counts the trials of the shrinking, from 1."""
    clock: Clock
    tries: int = 1
    """How often a part is run before it counts as one that does not fail."""
    max_trials: int = 20
    ends_s: float | None = None
    """On the clock: no trial begins later."""
    trials_count: int = 0
    ended: str = ""
    """Why it ended before the smallest failing storm was found; "" if it did not."""
    failure: MonkeyproofError | None = None
    """What kept a trial from ending in order."""

    def shrink(self) -> tuple[SchedulePlan, ShrinkResult[ScheduledFault]]:
        """The smallest storm that was seen to fail."""
        found = ddmin(self.plan.faults, tried_again(self._fails, self.tries))
        return (self.plan.only(found.parts) if len(found.parts) < len(self.plan.faults) else self.plan), found

    def _fails(self, parts: tuple[ScheduledFault, ...]) -> bool | None:
        if self.trials_count >= self.max_trials:
            were = "trial was" if self.max_trials == 1 else "trials were"
            self.ended = f"no more than {self.max_trials} {were} allowed"
            raise ShrinkBudgetSpent
        if self.ends_s is not None and self.clock.monotonic_s() >= self.ends_s:
            self.ended = "the time was over"
            raise ShrinkBudgetSpent
        self.trials_count += 1
        try:
            result = self.run(self.plan.only(parts), self.trials_count)
        except MonkeyproofError as error:
            self.failure = error
        else:
            if result.error or result.exit_code == EXIT_NOT_REVERTED:
                self.failure = MonkeyproofError(result.error or "a storm left something behind")
                self.failure.exit_code = result.exit_code
        if self.failure is not None:
            self.ended = f"a trial did not end in order: {self.failure}"
            raise ShrinkBudgetSpent
        return result.failed
