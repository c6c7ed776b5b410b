"""The pytest plugin: its fixture ``chaos`` runs trials and injects faults in ordinary tests, as a CI gate.

A trial is a test:

    def test_replica_kill(chaos):
        trial = chaos.run("replica-kill")
        assert trial.recovered_within_s(10)

A single fault in your own test is reverted on every way out:

    def test_slow_features(chaos):
        with chaos.break_target() as monkey:
            monkey.inject("network.add_latency", link="replica->features", low_ms=100, high_ms=200)
            assert ask_my_service() == "the fallback"

The fixture ``chaos`` starts the embedded target once a session if no ``--chaos-target`` is given and none is
up, and ends the target that it started. With allure-pytest installed, each trial is a step whose sub-steps are the
trial's phases, with the timeline, the history and the evidence attached.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from monkeyproof.config.target_file import Slo, TargetFile
    from monkeyproof.trial.manual import Monkey
    from monkeyproof.types import Outcome, Recovery, TrialResult


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("monkeyproof", "chaos experiments on machine-learning systems")
    group.addoption("--chaos-target", type=Path, help="the target file (default: the embedded target)")
    group.addoption("--chaos-healer", default=None, choices=["none", "elephant"], help="the healer")
    group.addoption("--chaos-seed", type=int, default=1, help="the seed of the trials (default: 1)")
    group.addoption(
        "--chaos-out", type=Path, help="the folder for histories and reports (default: runs/pytest-<time>)"
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished trial, for assertions."""

    result: TrialResult
    folder: Path

    @property
    def outcome(self) -> Outcome:
        return self.result.recovery.outcome

    @property
    def recovery(self) -> Recovery:
        return self.result.recovery

    def recovered_within_s(self, within_s: float) -> bool:
        """Whether the service recovered under the fault within ``within_s`` of t0, the fault's start.

        An absorbed fault counts as recovered at once. The upper end of the recovery interval decides. An invalid
        or unproven trial gives no answer: it fails the test with "could not tell".
        """
        from monkeyproof.types import Outcome

        if not self.outcome.counts:
            pytest.fail(f"could not tell: {self.recovery.reason} (history: {self.folder})", pytrace=False)
        if self.outcome is Outcome.ABSORBED:
            return True
        return self.recovery.ttr is not None and self.recovery.ttr.high_s <= within_s

    def __repr__(self) -> str:
        return f"<trial {self.result.experiment}: {self.outcome}; {self.recovery.reason}; history: {self.folder}>"


class Chaos:
    """Injects faults into one target, by experiments or manually; the value of the fixture ``chaos``."""

    def __init__(self, target: TargetFile, folder: Path, healer: str, seed: int) -> None:
        self.target = target
        self._folder = folder
        self._healer = healer
        self._seed = seed
        self._count = 0

    def run(self, experiment: str, *, healer: str | None = None, seed: int | None = None) -> Trial:
        """Run one trial and return its result.

        Raises:
            MonkeyproofError: unknown experiment, refusal, or something that could not be reverted.
        """
        from monkeyproof.campaign.plan import CampaignPlan
        from monkeyproof.campaign.runner import run_campaign
        from monkeyproof.errors import MonkeyproofError
        from monkeyproof.experiment import catalogue
        from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on

        found = catalogue.find(experiment)
        self._count += 1
        folder = self._folder / f"{self._count:02d}-{found.name.replace('/', '-')}"
        with clear_to_inject(), sole_campaign_on(self.target.path):
            finished = run_campaign(
                CampaignPlan(
                    (found,),
                    (healer or self._healer,),
                    1,
                    self._seed if seed is None else seed,
                    self.target,
                    folder,
                )
            )
        if finished.error or not finished.campaign.trials:
            raise MonkeyproofError(finished.error or "the trial left no history")
        result = finished.campaign.trials[0]
        trial = Trial(result, folder / result.folder)
        _attach(trial, folder, self.target.slo)
        return trial

    def break_target(self, *, seed: int | None = None, at_most_s: float = 300.0) -> AbstractContextManager[Monkey]:
        """Open the target for manual injection; see ``monkeyproof.break_target``, also for what it raises."""
        from monkeyproof.trial.manual import break_target

        self._count += 1
        return break_target(
            self.target.path,
            seed=self._seed if seed is None else seed,
            at_most_s=at_most_s,
            folder=self._folder / f"{self._count:02d}-by-hand",
        )


@pytest.fixture(scope="session")
def chaos_target(pytestconfig: pytest.Config) -> Iterator[TargetFile]:
    """The target file; starts the embedded target if it is not up, and ends it again."""
    from monkeyproof import paths
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.plugins import registry as plugins
    from monkeyproof.targets.local.control_plane import lifecycle

    configured = pytestconfig.getoption("--chaos-target")
    if configured is not None:
        file = read_target_file(configured)
        plugins.load_declared()
        yield file
    elif lifecycle.status().up:
        yield read_target_file(paths.target_dir() / "target.yaml")
    else:
        try:
            yield lifecycle.up(owner_pid=os.getpid())
        finally:
            lifecycle.down()


@pytest.fixture(scope="session")
def chaos(chaos_target: TargetFile, pytestconfig: pytest.Config) -> Chaos:
    """Runs experiments, ``chaos.run("replica-kill")``, and opens manual injection, ``chaos.break_target()``."""
    folder = pytestconfig.getoption("--chaos-out")
    if folder is None:
        folder = pytestconfig.rootpath / "runs" / f"pytest-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"
    healer = pytestconfig.getoption("--chaos-healer") or ("elephant" if chaos_target.stack else "none")
    return Chaos(chaos_target, folder, healer, pytestconfig.getoption("--chaos-seed"))


def _attach(trial: Trial, campaign: Path, slo: Slo) -> None:
    """Show a trial in Allure, where allure-pytest is installed and a report is being written."""
    with contextlib.suppress(ImportError):
        import allure

        from monkeyproof.record import history
        from monkeyproof.reports.charts.timeline import draw

        recovery = trial.recovery
        with allure.step(f"{trial.result.experiment}: {recovery.outcome}"):
            for event in history.History.read(trial.folder).of_kind(history.Kind.PHASE_ENDED):
                why = f": {event.data['why']}" if event.data.get("why") else ""
                with allure.step(f"{event.subject.replace('_', ' ')} until {event.t_s:.2f} s{why}"):
                    pass
            kinds = allure.attachment_type
            timeline = draw(trial.result, campaign, slo, standalone=True)
            allure.attach(str(timeline), "timeline", kinds.SVG)
            allure.attach("\n".join(trial.result.evidence) or "none", "evidence", kinds.TEXT)
            events = trial.folder / history.EVENTS_FILE
            allure.attach(events.read_text(encoding="utf-8"), history.EVENTS_FILE, kinds.TEXT)
