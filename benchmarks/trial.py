"""What a trial costs beyond its windows: a campaign of shams, whose fault does nothing, on the embedded target.

    python benchmarks/trial.py [--arms none,elephant] [--trials 5] [--target FILE] [--out FOLDER]

The target has to be up ('monkeyproof target up'). Takes about two minutes. A trial's wall time runs from its
campaign's turn to it until the next one's turn, so that measuring is in it. Its windows are those of the baseline,
of the hold and of the cool-down; whatever is beyond them is split by phase, from the trial's own events and the
campaign's clock. Medians over the trials of an arm. Exits with 1 if an arm misses the target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monkeyproof import paths
from monkeyproof.campaign.plan import CampaignPlan
from monkeyproof.campaign.runner import NoProgressListener, ProgressListener, run_campaign
from monkeyproof.campaign.worker import run_worker
from monkeyproof.clock import Clock, SystemClock
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import MonkeyproofError
from monkeyproof.experiment import catalogue, validation
from monkeyproof.record.history import History, Kind
from monkeyproof.safety.replay import clear_to_inject
from monkeyproof.trial.plan import TrialPlan

EXCESS_MAX_S = 1.5


@dataclass(slots=True)
class Stopwatch(NoProgressListener):
    """When, on the campaign's clock, each trial had its turn, and its worker had ended."""

    clock: Clock
    turns_s: list[float] = field(default_factory=list)
    ended_worker_s: list[float] = field(default_factory=list)

    def trial_started(self, plan: TrialPlan, number: int, of: int) -> None:  # noqa: ARG002
        self.turns_s.append(self.clock.monotonic_s())

    def run_trial(
        self, trial: TrialPlan, watcher: ProgressListener, stop: list[int], clock: Clock
    ) -> tuple[int, str]:
        ended = run_worker(trial, watcher, stop, clock)
        self.ended_worker_s.append(self.clock.monotonic_s())
        return ended


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one trial."""

    wall_s: float
    configured_s: float
    used_s: float
    """As ``configured_s``, but a baseline that ended early counts only for as long as it took."""
    phases_s: Mapping[str, float]
    """What was beyond the windows, in the order in which it came."""

    @property
    def beyond_s(self) -> float:
        return self.wall_s - self.used_s


def cost_of(trial: History, target: TargetFile, turn_s: float, ended_worker_s: float, next_s: float) -> Cost:
    """Raises: MonkeyproofError: the trial went another way than a sham of which nothing came."""
    if missed := trial.of_kind(Kind.BASELINE_MISSED):
        raise MonkeyproofError(f"{trial.folder}: the baseline was missed: {missed[0].data['why']}")
    from_s = trial.trial["anchor"]["monotonic_s"]

    def at_s(kind: Kind, subject: str | None = None) -> float:
        found = [e.t_s for e in trial.of_kind(kind) if subject is None or e.subject == subject]
        if len(found) != 1:
            raise MonkeyproofError(f"{trial.folder}: {len(found)} events {kind} {subject or ''}, not 1")
        return float(from_s + found[0])

    def phase(name: str) -> tuple[float, float]:
        return at_s(Kind.PHASE_STARTED, name), at_s(Kind.PHASE_ENDED, name)

    prepare, baseline, hold = phase("prepare"), phase("baseline"), phase("hold")
    cool_down, put_back = phase("cool_down"), phase("put_back")
    (met,) = trial.of_kind(Kind.BASELINE_MET)
    t0_s, started_s, ended_s = at_s(Kind.FAULT_INTENDED), at_s(Kind.TRIAL_STARTED), at_s(Kind.TRIAL_ENDED)
    window_s, hold_s = target.windows.baseline_s, hold_limit_s(trial.trial["experiment"])
    used_s = met.data["window_s"]
    return Cost(
        wall_s=next_s - turn_s,
        configured_s=2 * window_s + hold_s,
        used_s=used_s + window_s + hold_s,
        phases_s={
            "worker start": started_s - turn_s,
            "prepare": prepare[1] - started_s,
            "observers": baseline[0] - prepare[1],
            "baseline": baseline[1] - baseline[0] - used_s,
            "inject": t0_s - baseline[1],
            "hold": hold[1] - t0_s - hold_s,
            "revert": cool_down[0] - hold[1],
            "cool down": cool_down[1] - cool_down[0] - window_s,
            "end healer": put_back[0] - cool_down[1],
            "put back": ended_s - put_back[0],
            "close": ended_worker_s - ended_s,
            "measure": next_s - ended_worker_s,
        },
    )


def hold_limit_s(experiment: str) -> float:
    """How long an experiment holds a fault from which the target does not recover."""
    for _, activity in validation.activities(catalogue.find(experiment).document):
        if activity["provider"].get("func") == "hold_until_recovered":
            return float(activity["provider"]["arguments"]["at_most_s"])
    raise MonkeyproofError(f"{experiment}: holds nothing")


def costs(target: TargetFile, arms: tuple[str, ...], trials_count: int, folder: Path) -> dict[str, list[Cost]]:
    """Of every trial, by arm. One without a baseline is left out, and named.

    Raises:
        MonkeyproofError: the campaign did not end in order.
    """
    clock = SystemClock()
    watch = Stopwatch(clock)
    plan = CampaignPlan((catalogue.find("sham"),), arms, trials_count, 1, target, folder)
    with clear_to_inject():
        finished = run_campaign(plan, watch, clock, run_trial=watch.run_trial)
    if finished.error:
        raise MonkeyproofError(finished.error)
    turns_s = [*watch.turns_s, clock.monotonic_s()]
    found: dict[str, list[Cost]] = {arm: [] for arm in arms}
    for number, trial in enumerate(plan.trials()):
        times_s = turns_s[number], watch.ended_worker_s[number], turns_s[number + 1]
        try:
            found[trial.arm].append(cost_of(History.read(Path(trial.folder)), target, *times_s))
        except MonkeyproofError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def report(arm: str, found: list[Cost]) -> bool:
    """Print an arm's medians; returns whether it meets the target."""
    if not found:
        print(f"arm {arm}: no trial that counts")
        return False

    def median_s(of: Callable[[Cost], float]) -> float:
        return statistics.median(of(cost) for cost in found)

    beyond_s = median_s(lambda cost: cost.beyond_s)
    each = " ".join(f"{cost.beyond_s:.2f}" for cost in found)
    print(f"arm {arm}: wall time {median_s(lambda cost: cost.wall_s):.2f} s a trial, median of {len(found)}")
    print(
        f"  windows configured {median_s(lambda cost: cost.configured_s):.2f} s,"
        f" used {median_s(lambda cost: cost.used_s):.2f} s"
    )
    for name in found[0].phases_s:
        print(f"  {name:14} {median_s(lambda cost, name=name: cost.phases_s[name]):6.3f} s")  # type: ignore[misc]
    print(
        f"  beyond the configured windows {median_s(lambda cost: cost.wall_s - cost.configured_s):.2f} s,"
        f" beyond those used {beyond_s:.2f} s (target: at most {EXCESS_MAX_S}; each trial: {each})"
    )
    return beyond_s <= EXCESS_MAX_S


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a trial costs beyond its windows.")
    parser.add_argument("--arms", default="none,elephant")
    parser.add_argument("--trials", type=int, default=5, help="in each arm")
    parser.add_argument("--target", type=Path, default=paths.target_dir() / "target.yaml")
    parser.add_argument("--out", type=Path, help="keep the histories here")
    arguments = parser.parse_args()
    try:
        target = read_target_file(arguments.target)
        with tempfile.TemporaryDirectory() as name:
            folder = arguments.out or Path(name) / "campaign"
            found = costs(target, tuple(arguments.arms.split(",")), arguments.trials, folder)
    except MonkeyproofError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    met = [report(arm, of_arm) for arm, of_arm in found.items()]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
