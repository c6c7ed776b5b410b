"""Kills in the middle: whichever process dies, no fault is left and no process runs on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile
from monkeyproof.record.history import EVENTS_FILE, READINGS_FILE, Kind, parse_events
from monkeyproof.record.readings import Readings
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Leases, Links, Replicas, Target, require
from monkeyproof.undo import log as undo_log

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


@pytest.fixture
def target(chaos_target: TargetFile) -> Iterator[Target]:
    opened = open_target(chaos_target.path)
    yield opened
    opened.close()


def start(target: Target, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "monkeyproof.cli", "run", *arguments, "--no-tracking"]
    return subprocess.Popen(
        [*command, "--target", str(target.file.path), "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def trial_folder(folder: Path) -> Path | None:
    return next((path.parent for path in (folder / "trials").glob(f"*/{EVENTS_FILE}")), None)


def has(folder: Path, kind: Kind) -> bool:
    trial = trial_folder(folder)
    return trial is not None and any(e.kind is kind for e in parse_events((trial / EVENTS_FILE).read_bytes()))


def of_this_trial(folder: Path) -> list[int]:
    """Processes whose command line names the campaign's folder: workers, probers, loads, healers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def nothing_is_left(target: Target, folder: Path, campaign: subprocess.Popen[bytes]) -> None:
    output = campaign.communicate(timeout=60)[0].decode() if campaign.poll() is None else ""
    assert wait_for(lambda: not of_this_trial(folder), within_s=20), (of_this_trial(folder), output)
    assert wait_for(lambda: not require(target, Links).active(), within_s=10)


def test_ctrl_c_reverts_and_reports(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    campaign = start(target, folder, "latency-spike", "--healer", "none")
    assert wait_for(lambda: has(folder, Kind.FAULT_EFFECTIVE), within_s=60)
    assert require(target, Links).active()
    os.killpg(campaign.pid, signal.SIGINT)
    # A second signal must not cut the undoing short.
    os.killpg(campaign.pid, signal.SIGTERM)
    output = campaign.communicate(timeout=60)[0].decode()
    assert campaign.returncode == 4, output
    assert "a signal ended the trial" in output
    nothing_is_left(target, folder, campaign)
    assert undo_log.open_logs() == []
    assert has(folder, Kind.FAULT_REVERTED)
    assert has(folder, Kind.TRIAL_ABORTED)
    assert (folder / "report.html").exists()
    assert "a signal ended the trial" in json.loads((folder / "results.json").read_text())["aborted"]


def test_a_killed_campaigns_worker_ends_in_order(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    campaign = start(target, folder, "broken-rollback", "--healer", "none")
    assert wait_for(lambda: has(folder, Kind.FAULT_EFFECTIVE), within_s=60)
    os.killpg(campaign.pid, signal.SIGKILL)
    campaign.wait(10)
    nothing_is_left(target, folder, campaign)
    assert wait_for(lambda: undo_log.open_logs() == [], within_s=20)
    assert has(folder, Kind.FAULT_REVERTED)


def test_a_kill_while_the_sidecars_start_leaves_nothing(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    campaign = start(target, folder, "broken-rollback", "--healer", "elephant")
    # The campaign's own, the worker's, and the observers'.
    assert wait_for(lambda: len(of_this_trial(folder)) == 5, within_s=60, every_s=0.005)
    os.killpg(campaign.pid, signal.SIGKILL)
    campaign.wait(10)
    nothing_is_left(target, folder, campaign)
    assert undo_log.open_logs() == []
    assert not has(folder, Kind.FAULT_INTENDED)


def test_the_campaign_reverts_a_killed_workers_fault(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    campaign = start(target, folder, "broken-rollback", "--healer", "elephant")
    assert wait_for(lambda: has(folder, Kind.FAULT_EFFECTIVE), within_s=60)
    trial = trial_folder(folder)
    assert trial is not None
    workers = [
        pid
        for pid in of_this_trial(folder)
        if b"monkeyproof.trial.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGKILL)
    output = campaign.communicate(timeout=60)[0].decode()
    assert campaign.returncode == 4, output
    assert "worker died" in output
    nothing_is_left(target, folder, campaign)
    assert undo_log.open_logs() == []
    # What had been seen by then is kept.
    assert len(Readings.read(trial / READINGS_FILE)) > 50


def test_a_paused_replica_is_resumed_by_its_supervisor(target: Target) -> None:
    replicas = require(target, Replicas)
    replicas.pause("replica-1", lease_s=0.5)
    leases = require(target, Leases)
    for _ in range(4):
        time.sleep(0.2)
        assert leases.renew() == {}
    assert replicas.list()[0].state == "paused"
    assert wait_for(lambda: replicas.list()[0].state == "ready", within_s=3)
    assert "not renewed for 0.5 s: resumed" in leases.renew()["replica-1"]
    replicas.resume("replica-1")
    assert leases.renew() == {}


def test_killed_worker_and_killed_or_hung_watchdog_leave_nothing(target: Target) -> None:
    torture = Path(__file__).parents[1] / "torture" / "torture.py"
    done = subprocess.run(
        [
            *(sys.executable, str(torture), "--target", str(target.file.path), "--kills-per-family", "1"),
            # A seed with which a fault is open at each of the three instants.
            *("--families", "network,registry", "--kinds", "worker,watchdog,stop", "--seed", "202"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n2 kills and 1 stops" in done.stdout
    assert done.stdout.count("(fault open)") >= 3, done.stdout


def test_a_dead_prober_makes_the_trial_invalid(target: Target, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    campaign = start(target, folder, "replica-kill", "--healer", "none")
    assert wait_for(lambda: has(folder, Kind.FAULT_EFFECTIVE), within_s=60)
    for pid in of_this_trial(folder):
        if b"monkeyproof.probes.prober.prober" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    output = campaign.communicate(timeout=120)[0].decode()
    (trial,) = json.loads((folder / "results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "invalid", output
    assert "could not tell" in trial["recovery"]["reason"]
    ended = parse_events(next(folder.glob(f"trials/*/{EVENTS_FILE}")).read_bytes())
    (hold,) = [one for one in ended if one.kind is Kind.PHASE_ENDED and one.subject == "hold"]
    assert "the prober died" in hold.data["why"]
    nothing_is_left(target, folder, campaign)


def test_plain_chaos_run_is_a_trial_too(
    target: Target, tmp_path: Path, open_to_others: Callable[[Path], list[str]]
) -> None:
    experiment = Path(__file__).parents[2] / "experiments" / "latency-spike.yaml"
    chaos = Path(sys.executable).with_name("chaos")
    done = subprocess.run(
        [str(chaos), "--no-version-check", "run", "--rollback-strategy", "always", str(experiment)],
        cwd=tmp_path,
        env={**os.environ, "MONKEYPROOF_TARGET": str(target.file.path), "MONKEYPROOF_HEALER": "elephant"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Outcome: healed" in done.stdout + done.stderr
    assert json.loads((tmp_path / "journal.json").read_text())["status"] == "completed"
    assert undo_log.open_logs() == []
    assert not require(target, Links).active()
    (run,) = (tmp_path / "runs").iterdir()
    assert open_to_others(run) == []
