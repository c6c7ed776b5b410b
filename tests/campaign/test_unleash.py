"""``monkeyproof unleash`` without a storm: its words, its exit codes, and shrinking with trials that are faked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from manual_world import small_target

from monkeyproof.campaign.unleash import COULD_NOT_TELL, FAILED, SURVIVED, ScheduleResult, Shrinker, restore
from monkeyproof.cli import main
from monkeyproof.clock import ManualClock
from monkeyproof.errors import EXIT_NOT_REVERTED, EXIT_REFUSED, EXIT_USAGE, Refusal, UsageError
from monkeyproof.injection.schedule_plan import ScheduledFault, SchedulePlan
from monkeyproof.types import Campaign, Outcome, Recovery, TrialResult

PLAN = SchedulePlan(
    7, 1.0, 0.5, ("noop",), 2, 5.0, tuple(ScheduledFault(4.0 * n + 1, 3.0, f"noop.{n}", {}, n) for n in range(6))
)
CAMPAIGN = Campaign("c", "2026", 1.0, "t", 1, {}, {}, {}, {})


def ridden(decision: str, error: str = "", code: int = 0) -> ScheduleResult:
    return ScheduleResult(CAMPAIGN, decision, "a reason", (), 1, error, code)


def shrinker(fails: Callable[[set[str]], str], **more: float) -> tuple[Shrinker, list[SchedulePlan]]:
    tried: list[SchedulePlan] = []

    def run(part: SchedulePlan, number: int) -> ScheduleResult:
        tried.append(part)
        assert number == len(tried)
        return ridden(fails({one.fault for one in part.faults}))

    return Shrinker(PLAN, run, ManualClock(), **more), tried  # type: ignore[arg-type]


def test_a_storm_shrinks_to_the_faults_that_fail_together() -> None:
    one, tried = shrinker(lambda names: FAILED if {"noop.1", "noop.4"} <= names else SURVIVED)
    least, found = one.shrink()
    assert [fault.fault for fault in least.faults] == ["noop.1", "noop.4"]
    assert [fault.start_s for fault in least.faults] == [0.0, 12.0]
    assert [fault.seed for fault in least.faults] == [1, 4]
    assert (found.minimal, one.ended) == (True, "")
    assert all(len(part.faults) < len(PLAN.faults) for part in tried)


def test_shrinking_ends_with_its_budget() -> None:
    one, tried = shrinker(lambda names: FAILED if "noop.1" in names else SURVIVED, max_trials=1)
    least, found = one.shrink()
    assert len(tried) == 1
    assert [fault.fault for fault in least.faults] == ["noop.0", "noop.1", "noop.2"]
    assert (found.minimal, one.ended) == (False, "no more than 1 trial was allowed")
    one, tried = shrinker(lambda _: FAILED, ends_s=0.0)
    least, found = one.shrink()
    assert (tried, least, one.ended) == ([], PLAN, "the time was over")


def test_a_part_is_tried_again_before_it_counts_as_harmless() -> None:
    said = iter([SURVIVED, SURVIVED, FAILED])
    one, tried = shrinker(lambda names: next(said, COULD_NOT_TELL), tries=3, max_trials=3)  # noqa: ARG005
    one.shrink()
    assert [len(part.faults) for part in tried] == [3, 3, 3]


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (ridden(COULD_NOT_TELL, "something is left", EXIT_NOT_REVERTED), EXIT_NOT_REVERTED),
        (Refusal("it may not", "leave it"), EXIT_REFUSED),
    ],
)
def test_shrinking_ends_with_a_failed_trial(how: ScheduleResult | Refusal, code: int) -> None:
    count = 0

    def run(part: SchedulePlan, number: int) -> ScheduleResult:  # noqa: ARG001
        nonlocal count
        count += 1
        if isinstance(how, Refusal):
            raise how
        return how

    one = Shrinker(PLAN, run, ManualClock())
    least, found = one.shrink()
    assert (count, least, found.minimal) == (1, PLAN, False)
    assert one.failure is not None
    assert one.failure.exit_code == code


@pytest.mark.parametrize(("decision", "code"), [(SURVIVED, 0), (FAILED, 1), (COULD_NOT_TELL, 3)])
def test_exit_code_of_a_storm(decision: str, code: int) -> None:
    assert ridden(decision).exit_code == code
    assert ridden(decision, "stopped", EXIT_REFUSED).exit_code == EXIT_REFUSED
    trial = TrialResult(
        "e", "t", "none", 1, 0, "f", "x", "2026", Recovery(Outcome.INVALID, ""), not_reverted=("x",)
    )
    left = replace(ridden(decision), campaign=replace(CAMPAIGN, trials=(trial,)))
    assert left.exit_code == EXIT_NOT_REVERTED


def test_restore_command(tmp_path: Path) -> None:
    restore(f'{sys.executable} -c \'open("{tmp_path}/back", "w")\'')
    assert (tmp_path / "back").exists()
    with pytest.raises(UsageError, match="ended with 3: no such thing"):
        restore(f"{sys.executable} -c 'import sys; print(\"no such thing\"); sys.exit(3)'")
    with pytest.raises(UsageError, match="cannot be run"):
        restore("/no/such/program")


def test_dry_run_prints_the_same_plan_each_time_and_writes_nothing(tmp_path: Path) -> None:
    with small_target(tmp_path) as path:
        words = ["unleash", "--target", str(path), "--minutes", "0.5", "--seed", "7", "--dry-run"]
        before = sorted(tmp_path.rglob("*"))
        first, second = CliRunner().invoke(main, words), CliRunner().invoke(main, words)
        assert first.exit_code == 0, first.output
        assert first.output == second.output
        assert "A storm of " in first.output
        assert "network." in first.output
        assert [one for one in sorted(tmp_path.rglob("*")) if "home" not in one.parts] == [
            one for one in before if "home" not in one.parts
        ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--intensity", "wild"], "none of low, medium, high"),
        (["--intensity", "0"], "none of low, medium, high"),
        (["--intensity", "0.001"], "nor a number from 0.05 to 1"),
        (["--intensity", "nan"], "none of low, medium, high"),
        (["--families", "network,replicas"], "family 'replicas': target 'small' does not allow it"),
        (["--families", "noop"], "nothing can be drawn for target 'small' from the families noop"),
        (["--minutes", "0"], "0.1<=x<=1440"),
        (["--plan", "s.yaml", "--seed", "3"], "the file holds a complete storm; leave out --seed"),
        (["--plan", "s.yaml"], "s.yaml: cannot be read"),
        (["--healer", "elephant"], "the Elephant heals the embedded target only"),
        (["--healer", "nobody"], "is not one of"),
    ],
)
def test_usage_errors_of_unleash(tmp_path: Path, words: list[str], said: str) -> None:
    with small_target(tmp_path) as path:
        more = [] if "--healer" in words else ["--dry-run"]
        done = CliRunner().invoke(main, ["unleash", "--target", str(path), *words, *more])
        assert done.exit_code == EXIT_USAGE, done.output
        assert said in done.output
