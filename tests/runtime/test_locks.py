"""Locks that die with their holder: shared with a worker, kept while the target file is saved, seen by others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from monkeyproof import errors
from monkeyproof.campaign import worker
from monkeyproof.campaign.runner import NoProgressListener
from monkeyproof.cli import main
from monkeyproof.clock import SystemClock, wait_for
from monkeyproof.errors import NotReverted, Refusal
from monkeyproof.runtime import locks, procfs
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.safety import replay
from monkeyproof.trial.plan import TrialPlan
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import OpenFault, Undo, UndoLog

CAMPAIGN = """
import subprocess, sys
from pathlib import Path
from monkeyproof.runtime.locks import inheritable_descriptors as held
from monkeyproof.safety.replay import clear_to_inject, sole_campaign_on
with clear_to_inject(), sole_campaign_on(Path(sys.argv[1])):
    worker = subprocess.Popen(["/bin/sleep", "60"], pass_fds=held(), stdin=subprocess.DEVNULL, stdout=2)
    print(worker.pid, flush=True)
    sys.stdin.read()
"""


class Campaign:
    """A process that holds a target, and its worker."""

    def __init__(self, home: Path, target: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CAMPAIGN, str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "MONKEYPROOF_HOME": str(home)},
            text=True,
        )
        assert self.process.stdout is not None
        self.worker = int(self.process.stdout.readline())

    def die(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end_worker(self) -> None:
        if procfs.is_alive(self.worker):
            os.kill(self.worker, 9)
        assert wait_for(lambda: not procfs.is_alive(self.worker), within_s=5.0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MONKEYPROOF_HOME", str(tmp_path / "ours"))
    path = tmp_path / "target.yaml"
    path.write_text("name: x")
    return path


@pytest.fixture
def other(tmp_path: Path, file: Path) -> Iterator[Campaign]:
    """A campaign of another home."""
    campaign = Campaign(tmp_path / "another", file)
    yield campaign
    campaign.die()
    campaign.end_worker()


def save_anew(path: Path) -> None:
    """As editors do."""
    (path.parent / "new").write_text(path.read_text())
    (path.parent / "new").rename(path)


def refused(file: Path) -> bool:
    try:
        with locks.sole_campaign_on(file):
            return False
    except Refusal:
        return True


def test_target_lock_survives_saving_the_file_and_the_campaigns_death(
    tmp_path: Path, file: Path, other: Campaign
) -> None:
    hard = tmp_path / "hard.yaml"
    os.link(file, hard)
    assert refused(hard)
    save_anew(file)
    assert refused(file)
    other.die()
    assert refused(file)  # Its worker still breaks things.
    other.end_worker()
    assert not refused(file)


def test_worker_that_outlives_its_campaign_keeps_the_home_locked(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "LEFT_OVER_ENDS_WITHIN_S", 0.2)
    campaign = Campaign(Path(os.environ["MONKEYPROOF_HOME"]), file)
    try:
        with pytest.raises(Refusal, match=rf"another campaign is running \(pid {campaign.process.pid}\)"):
            replay.clear_to_inject().__enter__()
        campaign.die()
        assert replay.running_campaign() == str(campaign.process.pid)
        with pytest.raises(Refusal, match=r"a trial of an earlier campaign still runs, .* has died; it ends by"):
            replay.clear_to_inject().__enter__()
    finally:
        campaign.die()
        campaign.end_worker()
    with replay.clear_to_inject():
        pass


def test_the_worker_of_a_trial_gets_the_locks(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[int, ...]] = []

    def start(*_: object, pass_fds: tuple[int, ...], **__: object) -> None:
        got.append(pass_fds)
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessGroup, "start", start)
    folder = str(tmp_path / "trial")
    trial = TrialPlan("x", "x", "", 1, "none", 0, str(file), folder)
    with replay.sole_campaign(), locks.sole_campaign_on(file), pytest.raises(KeyboardInterrupt):
        worker.run_worker(trial, NoProgressListener(), [], SystemClock())
    assert len(got[0]) == 4  # The home's, the target's path and file, and the name by which others see it.
    assert locks.inheritable_descriptors() == ()


def test_revert_leaves_faults_on_a_target_that_another_home_holds(file: Path, other: Campaign) -> None:
    log = UndoLog(undo_log.undo_dir() / "left.jsonl")
    undoing = Undo("monkeyproof.faults.noop:undo_nothing", {})
    log.intend(OpenFault("1", "noop.nothing", "s", undoing, str(file), "2026-01-01T00:00:00+00:00"))
    log.close()
    with pytest.raises(NotReverted, match=r"another MONKEYPROOF_HOME, holds the target .*; wait for it"):
        replay.revert_all(lambda _: None, hold_targets=True)
    assert undo_log.open_logs()
    assert other.process.poll() is None


def test_stop_names_the_campaigns_of_other_homes(tmp_path: Path, file: Path, other: Campaign) -> None:
    assert file.exists()
    done = CliRunner().invoke(main, ["stop"])
    assert done.exit_code == errors.EXIT_REFUSED, done.output
    assert "still running: " in done.output
    assert f"nothing is open, in {tmp_path / 'ours'}." in done.output
    named = f"process {other.process.pid} with MONKEYPROOF_HOME={tmp_path / 'another'}"
    assert named in done.output
    other.die()
    dead = f"a trial of process {other.process.pid}, which has died"
    assert dead in CliRunner().invoke(main, ["stop"]).output
    other.end_worker()
    assert str(other.process.pid) not in CliRunner().invoke(main, ["stop"]).output  # Others may run here, too.
