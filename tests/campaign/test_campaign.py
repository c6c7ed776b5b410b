"""Order, early endings and resumption of campaigns; no process, no target: the histories are written here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from campaign_world import FakeRunner, Killed, plan_of, target_file, write_trial
from click.testing import CliRunner, Result

from monkeyproof.campaign.plan import CAMPAIGN_FILE, CampaignPlan
from monkeyproof.campaign.prepare import prepare_resumed
from monkeyproof.campaign.request import CampaignRequest
from monkeyproof.campaign.results import read_campaign, result_of
from monkeyproof.campaign.resume import StoredPlan
from monkeyproof.campaign.runner import CampaignResult, run_campaign
from monkeyproof.cli import main
from monkeyproof.clock import ManualClock
from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import EXIT_OK, EXIT_REFUSED, UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.experiment.activity_roles import ActivityNames
from monkeyproof.record import history
from monkeyproof.types import Outcome


@pytest.fixture
def target(tmp_path: Path) -> TargetFile:
    return target_file(tmp_path)


def run(plan: CampaignPlan, runner: FakeRunner, *, resume: bool = False) -> CampaignResult:
    return run_campaign(plan, clock=ManualClock(), run_trial=runner, resume=resume)


def rest_of(folder: Path, target: TargetFile) -> CampaignPlan:
    """The plan of the rest of an interrupted campaign, continued without options."""
    nothing = CampaignRequest((), None, (), 1, 100, 0, None, 1, ActivityNames(), None)
    return prepare_resumed(folder, nothing).plan(target)


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


# The plan.


def test_the_same_seed_gives_the_same_plan_to_the_byte(tmp_path: Path, target: TargetFile) -> None:
    def text(seed: int) -> str:
        plan = plan_of(
            tmp_path, target, "latency-spike", "replica-kill", arms="none,elephant", trials_count=6, seed=seed
        )
        return json.dumps([asdict(trial) for trial in plan.trials()])

    assert text(5).encode() == text(5).encode()
    order = [[(t["experiment"], t["arm"]) for t in json.loads(text(seed))] for seed in (5, 6)]
    assert order[0] != order[1]


def test_blocks(tmp_path: Path, target: TargetFile) -> None:
    plan = plan_of(
        tmp_path, target, "latency-spike", "replica-kill", arms="none,elephant", trials_count=20, shams_count=5
    )
    trials = plan.trials()
    blocks = plan.blocks_of(trials)
    assert blocks == sorted(blocks)
    for block in range(20):
        inside = [trial for trial, of in zip(trials, blocks, strict=True) if of == block and not trial.sham]
        assert Counter((t.experiment, t.arm) for t in inside) == Counter(
            (name, arm) for name in ("latency-spike", "replica-kill") for arm in ("none", "elephant")
        )
        assert {trial.seed for trial in inside} == {1 + block}
    # Spread from the first to the last quarter, each with a seed of its own.
    shams = [(of, trial) for trial, of in zip(trials, blocks, strict=True) if trial.sham and trial.arm == "none"]
    assert [of for of, _ in shams] == [0, 4, 8, 12, 16]
    assert len({trial.seed for _, trial in shams}) == 5
    # Neither arm is always the first of its block.
    first = Counter(trials[blocks.index(block)].arm for block in range(20))
    assert min(first["none"], first["elephant"]) >= 4
    assert len({trial.folder for trial in trials}) == len(trials)


def test_shams_of_a_sequential_campaign(tmp_path: Path, target: TargetFile) -> None:
    plan = plan_of(tmp_path, target, trials_count=100, sequential=True, shams_count=3)
    trials = plan.trials()
    assert [of for t, of in zip(trials, plan.blocks_of(trials), strict=True) if t.sham] == [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "more", "words"),
    [
        (("replica-kill", "replica-kill"), {}, "named twice"),
        (("sham", "replica-kill"), {"shams_count": 2}, "is a sham already"),
        (("sham",), {"sequential": True}, "use --shams"),
        (("replica-kill",), {"arms": "none,none"}, "arm 'none': named twice"),
    ],
)
def test_a_plan_that_contradicts_itself(
    tmp_path: Path, target: TargetFile, names: tuple[str, ...], more: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        plan_of(tmp_path, target, *names, **more)  # type: ignore[arg-type]


# How it ends.


def test_fixed_number_of_trials(tmp_path: Path, target: TargetFile) -> None:
    runner = FakeRunner(target)
    finished = run(plan_of(tmp_path / "c", target, trials_count=12), runner)
    assert (len(runner.ran), finished.exit_code, finished.ended_early) == (12, EXIT_OK, "")
    assert finished.campaign.plan == {
        "experiments": ["latency-spike"],
        "arms": ["none"],
        "trials_count": 12,
        "sequential": False,
        "shams_count": 0,
        "max_minutes": None,
    }
    assert finished.campaign.aborted == ""
    assert {trial.recovery.outcome for trial in finished.campaign.trials} == {Outcome.ABSORBED}


def test_auto_ends_when_decided(tmp_path: Path, target: TargetFile) -> None:
    runner = FakeRunner(target, broken=lambda trial: trial.arm == "none")
    plan = plan_of(tmp_path / "c", target, arms="none,elephant", trials_count=60, sequential=True)
    finished = run(plan, runner)
    arms = Counter(trial.arm for trial in runner.ran)
    assert 3 <= arms["elephant"] <= 30
    assert abs(arms["none"] - arms["elephant"]) <= 1
    assert runner.ran[-1].arm == "elephant"
    assert cli("gate", tmp_path / "c").exit_code == 0
    assert finished.campaign.plan["sequential"] is True


def test_auto_drops_a_decided_experiment(tmp_path: Path, target: TargetFile) -> None:
    def every_other(trial: object) -> bool:
        return trial.experiment == "replica-kill" and trial.index % 2 == 0  # type: ignore[attr-defined]

    runner = FakeRunner(target, broken=every_other)
    run(plan_of(tmp_path / "c", target, "latency-spike", "replica-kill", trials_count=24, sequential=True), runner)
    count = Counter(trial.experiment for trial in runner.ran)
    assert count["latency-spike"] < 20
    # Half of them in time where half are asked for: the cap ends it.
    assert count["replica-kill"] == 24
    assert cli("gate", tmp_path / "c").exit_code == 3


def test_auto_ends_if_unproven(tmp_path: Path, target: TargetFile) -> None:
    """Nothing names evidence: one block shows it, and the other experiment goes on."""
    runner = FakeRunner(target, unproven=lambda trial: trial.experiment == "replica-kill")
    names = ("latency-spike", "replica-kill")
    run(plan_of(tmp_path / "c", target, *names, arms="none,elephant", trials_count=60, sequential=True), runner)
    count = Counter((trial.experiment, trial.arm) for trial in runner.ran)
    assert count["replica-kill", "elephant"] == 1
    assert count["latency-spike", "elephant"] >= 3
    ended = cli("gate", tmp_path / "c")
    assert ended.exit_code == 3
    assert "name a probe as the evidence" in " ".join(ended.output.split())


def test_a_hard_limit_decides_at_once(tmp_path: Path) -> None:
    strict = target_file(tmp_path, slo="  wrong_answers: {at_most: 0}\n")
    runner = FakeRunner(strict, broken=lambda trial: trial.index == 1)
    run(plan_of(tmp_path / "c", strict, trials_count=60, sequential=True), runner)
    assert len(runner.ran) == 2
    assert cli("gate", tmp_path / "c").exit_code == 1


def test_time_limit_and_resume(tmp_path: Path, target: TargetFile) -> None:
    runner = FakeRunner(target, minutes=1.0)
    plan = plan_of(tmp_path / "c", target, trials_count=6, max_minutes=2.5)
    finished = run(plan, runner)
    assert len(runner.ran) == 3
    assert finished.exit_code == EXIT_OK
    assert "2.5 minutes were over after 3 trials" in finished.ended_early
    assert finished.campaign.aborted == ""
    assert finished.campaign.duration_s == 180
    finished = run(rest_of(tmp_path / "c", target), runner, resume=True)
    assert len(runner.ran) == 6
    assert finished.campaign.duration_s == 360
    assert finished.ended_early == ""


def test_a_signal_is_an_abort(tmp_path: Path, target: TargetFile) -> None:
    def stopped(trial: object, watcher: object, stop: list[int], clock: object) -> tuple[int, str]:  # noqa: ARG001
        write_trial(trial, target, half_done=True)  # type: ignore[arg-type]
        return EXIT_REFUSED, "a signal ended the trial; what was injected is reverted"

    finished = run_campaign(plan_of(tmp_path / "c", target), clock=ManualClock(), run_trial=stopped)
    assert finished.exit_code == EXIT_REFUSED
    assert "a signal" in finished.campaign.aborted
    # It was well until it was cut off, and that says nothing.
    assert finished.campaign.trials[0].recovery.outcome is Outcome.INVALID
    assert cli("gate", tmp_path / "c").exit_code == 4


# Going on.


def test_resume_after_a_kill(tmp_path: Path, target: TargetFile) -> None:
    folder = tmp_path / "c"
    plan = plan_of(folder, target, "latency-spike", "replica-kill", arms="none,elephant", trials_count=2, seed=3)
    killed = FakeRunner(target, dies_in=4)
    with pytest.raises(Killed):
        run(plan, killed)
    assert "it has not ended" in read_campaign(folder).aborted
    kept = {name: (folder / "trials" / name / "trial.json").stat().st_ino for name in killed.names[:3]}

    again = FakeRunner(target)
    finished = run(rest_of(folder, target), again, resume=True)
    assert killed.names[:3] + again.names == [Path(trial.folder).name for trial in plan.trials()]
    assert {name: (folder / "trials" / name / "trial.json").stat().st_ino for name in kept} == kept
    assert [path.name for path in (folder / history.DISCARDED_DIR).iterdir()] == [killed.names[3]]
    assert len(finished.campaign.trials) == 8
    assert finished.campaign.aborted == ""
    with pytest.raises(UsageError, match="complete; 'monkeyproof gate"):
        StoredPlan.read(folder)


def test_killed_twice_in_the_same_trial(tmp_path: Path, target: TargetFile) -> None:
    folder = tmp_path / "c"
    with pytest.raises(Killed):
        run(plan_of(folder, target), FakeRunner(target, dies_in=1))
    with pytest.raises(Killed):
        run(rest_of(folder, target), FakeRunner(target, dies_in=1), resume=True)
    run(rest_of(folder, target), FakeRunner(target), resume=True)
    assert len(list((folder / history.DISCARDED_DIR).iterdir())) == 2
    assert len(read_campaign(folder).trials) == 2


def test_resume_after_a_change(tmp_path: Path, target: TargetFile) -> None:
    experiment = tmp_path / "mine.yaml"
    experiment.write_text(catalogue.find("latency-spike").path.read_text())
    folder = tmp_path / "c"
    with pytest.raises(Killed):
        run(plan_of(folder, target, str(experiment)), FakeRunner(target, dies_in=2))
    assert rest_of(folder, target).trials() == plan_of(folder, target, str(experiment)).trials()
    target_file(tmp_path, port=10)
    with pytest.raises(UsageError, match=r"target.yaml has changed .* begin a new campaign"):
        rest_of(folder, target)
    target_file(tmp_path)
    golden = tmp_path / "golden.jsonl"
    golden.write_text(golden.read_text() * 2)
    with pytest.raises(UsageError, match=r"the golden set .*golden.jsonl has changed"):
        rest_of(folder, target)
    target_file(tmp_path)
    experiment.write_text(experiment.read_text() + "# one more line\n")
    with pytest.raises(UsageError, match=r"mine.yaml has changed"):
        rest_of(folder, target)


def test_resume_on_a_restarted_target(tmp_path: Path) -> None:
    stack = "stack: {control: control.sock}"
    target = target_file(tmp_path, more=stack)
    with pytest.raises(Killed):
        run(plan_of(tmp_path / "c", target), FakeRunner(target, dies_in=2))
    moved = target_file(tmp_path, more=stack, port=10)
    assert rest_of(tmp_path / "c", moved).target.predict.url == "http://127.0.0.1:10/invocations"
    with pytest.raises(UsageError, match="has changed"):
        rest_of(tmp_path / "c", target_file(tmp_path, more=stack, slo="  latency_ms: 100\n"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--seed", "4"), "--seed contradicts"),
        (("--trials", "auto"), "--trials contradicts"),
        (("--arms", "none,elephant"), "--arms contradicts"),
        (("replica-kill",), "the experiments contradicts"),
        (("--out", "elsewhere"), "--out contradicts"),
    ],
)
def test_options_that_contradict_the_plan(
    tmp_path: Path, target: TargetFile, options: tuple[str, ...], words: str
) -> None:
    with pytest.raises(Killed):
        run(plan_of(tmp_path / "c", target), FakeRunner(target, dies_in=2))
    done = cli("run", "--resume", tmp_path / "c", *options)
    assert done.exit_code == 2
    assert words in done.output


# The gate, on campaigns that are finished.


def finished_campaign(folder: Path, target: TargetFile, count: int, **said: object) -> Path:
    plan = plan_of(folder, target, trials_count=count)
    run(plan, FakeRunner(target, broken=lambda _: bool(said.get("broken"))))
    return folder


def test_gate_exits_by_the_verdict(tmp_path: Path, target: TargetFile) -> None:
    assert cli("gate", finished_campaign(tmp_path / "pass", target, 12)).exit_code == 0
    assert cli("gate", finished_campaign(tmp_path / "fail", target, 12, broken=True)).exit_code == 1
    small = cli("gate", finished_campaign(tmp_path / "small", target, 1))
    assert small.exit_code == 3
    assert "inconclusive" in small.output
    assert cli("gate", tmp_path / "small" / "trials" / "001-latency-spike-none-1").exit_code == 3


def test_gate_on_what_was_not_reverted_or_not_ended(tmp_path: Path, target: TargetFile) -> None:
    left = finished_campaign(tmp_path / "left", target, 12)
    last = plan_of(left, target, trials_count=13).trials()[-1]
    write_trial(last, target, not_reverted="it is stuck")
    assert cli("gate", left).exit_code == 5
    aborted = finished_campaign(tmp_path / "aborted", target, 12)
    header = json.loads((aborted / CAMPAIGN_FILE).read_text())
    (aborted / CAMPAIGN_FILE).write_text(json.dumps(header | {"aborted": "a signal"}))
    assert cli("gate", aborted).exit_code == 4


def test_a_healer_that_acts_in_a_sham_is_counted(tmp_path: Path, target: TargetFile) -> None:
    plan = plan_of(tmp_path / "c", target, arms="elephant", shams_count=1)
    (sham,) = [trial for trial in plan.trials() if trial.sham]
    run(replace(plan, shams_count=0), FakeRunner(target))
    write_trial(replace(sham, folder=sham.folder + "-sham"), target, acted="roll_back")
    found = [trial for trial in read_campaign(tmp_path / "c").trials if trial.sham]
    assert [trial.false_heals for trial in found] == [("roll_back",)]


@pytest.mark.parametrize("benign", [True, False])
@pytest.mark.parametrize("broken", [True, False])
def test_false_heal_under_a_benign_fault(tmp_path: Path, target: TargetFile, benign: bool, broken: bool) -> None:
    (plan, *_) = plan_of(tmp_path / "c", target, arms="elephant").trials()
    write_trial(replace(plan, benign=benign), target, acted="roll_back", broken=broken)
    found = result_of(Path(plan.folder), tmp_path / "c")
    assert found.benign == benign
    assert found.false_heals == (("roll_back",) if benign and not broken else ())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "sham", "--arms", "none", "--healer", "none"), "--arms and --healer have the same meaning"),
        (("run", "sham", "--arms", "dentist"), "'dentist' is none of none, elephant"),
        (("run", "sham", "--trials", "0"), "neither 'auto' nor 1 to 1000"),
        (("gate", "sham", "--trials", "5", "--max-trials", "9"), "--max-trials limits --trials auto"),
        (("gate", ".", "--seed", "3"), "give no options with it"),
        (("gate", "."), "no campaign.json in it"),
        (("run", "--resume", "nowhere"), "not a campaign's folder"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], words: str) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
