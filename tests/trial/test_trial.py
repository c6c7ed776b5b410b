"""What chaoslib calls completed and a person would not; on real runs of chaoslib."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from chaoslib.exceptions import InterruptExecution
from chaoslib.run import Runner
from chaoslib.types import Schedule, Strategy
from click.testing import CliRunner

from monkeyproof import control, errors
from monkeyproof.cli import main
from monkeyproof.config.target_file import read_target_file
from monkeyproof.faults import noop
from monkeyproof.pytest_plugin import Chaos
from monkeyproof.safety import replay
from monkeyproof.targets.registry import _Transient
from monkeyproof.trial.run import _failed_action


def journal_of(function: str) -> dict[str, Any]:
    provider = {"type": "python", "module": "monkeyproof.faults.noop", "func": function}
    experiment = {
        "title": "t",
        "description": "d",
        "method": [{"type": "action", "name": "break-it", "provider": provider}],
    }
    return dict(Runner(Strategy.DEFAULT, Schedule()).run(experiment, settings={}))


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.TargetError("the registry does not answer"), errors.EXIT_USAGE),
        (errors.UsageError("no such link"), errors.EXIT_USAGE),
        (errors.Refusal("not allowed", "allow it"), errors.EXIT_REFUSED),
        (errors.NotReverted("stuck"), errors.EXIT_NOT_REVERTED),
        (_Transient("the registry is busy"), errors.EXIT_USAGE),
        (OSError("disk full"), errors.EXIT_USAGE),
    ],
)
def test_a_failed_action_is_a_failure(monkeypatch: pytest.MonkeyPatch, error: Exception, exit_code: int) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(noop, "fail", fail, raising=False)
    journal = journal_of("fail")
    assert journal["status"] == "completed"
    failed = _failed_action(journal)
    assert failed is not None
    assert failed[0] == "break-it"
    assert str(failed[1]).removeprefix("OSError: ") == str(error)
    assert failed[1].exit_code == exit_code


def test_a_fault_without_evidence_invalidates_the_trial_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise errors.Unproven("no evidence")

    monkeypatch.setattr(noop, "fail", fail, raising=False)
    assert _failed_action(journal_of("fail")) is None


def test_a_journal_that_never_began_has_no_failure() -> None:
    assert _failed_action({"status": "never started"}) is None


def test_revert_refuses_while_a_campaign_runs() -> None:
    with replay.sole_campaign():
        result = CliRunner().invoke(main, ["revert"])
        assert result.exit_code == errors.EXIT_REFUSED
        assert "another campaign is running" in result.output
        assert CliRunner().invoke(main, ["revert", "--dry-run"]).exit_code == 0
    assert CliRunner().invoke(main, ["revert"]).exit_code == 0


def test_a_target_that_another_home_uses_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "golden.jsonl").write_text('{"body": 1, "expect": 1}\n')
    path = tmp_path / "t.yaml"
    path.write_text('name: t\npredict: {url: "http://127.0.0.1:9/", golden: golden.jsonl}\n')
    held = r"another MONKEYPROOF_HOME, holds the target .*t\.yaml"
    with replay.sole_campaign_on(path):
        out = ["--target", str(path), "--healer", "none", "--out", str(tmp_path / "out")]
        done = CliRunner().invoke(main, ["run", "latency-spike", *out])
        assert done.exit_code == errors.EXIT_REFUSED, done.output
        assert re.search(held, done.output)
        with pytest.raises(errors.Refusal, match=held):
            Chaos(read_target_file(path), tmp_path / "plugin", "none", 1).run("latency-spike")
        monkeypatch.setenv("MONKEYPROOF_TARGET", str(path))
        with pytest.raises(InterruptExecution, match=held):
            control.before_experiment_control({"title": "x"})
    assert not (tmp_path / "out").exists()
    with replay.clear_to_inject():  # None of them holds anything any more.
        pass
