"""Campaigns on the real embedded target: a gate, killed in the middle and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from short_trials import with_hold, with_windows

from monkeyproof.campaign.results import read_campaign
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile
from monkeyproof.record.history import EVENTS_FILE, Kind, parse_events
from monkeyproof.undo import log as undo_log

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


def monkeyproof(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "monkeyproof.cli", *(str(one) for one in arguments)]


def in_effect(folder: Path, number: int) -> bool:
    """Whether the fault of the trial with this number is in effect."""
    for path in (folder / "trials").glob(f"{number:03d}-*/{EVENTS_FILE}"):
        return any(event.kind is Kind.FAULT_EFFECTIVE for event in parse_events(path.read_bytes()))
    return False


def test_a_killed_gate_is_resumed(chaos_target: TargetFile, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    target = with_windows(chaos_target, tmp_path, baseline_s=0.5)
    experiment = with_hold("replica-kill", tmp_path, at_least_s=3.0, at_most_s=3.0)
    options = [experiment, "--arms", "none", "--trials", "2", "--no-tracking"]
    campaign = subprocess.Popen(
        monkeyproof("gate", *options, "--target", target.path, "--out", folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert wait_for(lambda: in_effect(folder, 2), within_s=90)
    finally:
        os.killpg(campaign.pid, signal.SIGKILL)
        campaign.wait(10)
    assert wait_for(lambda: undo_log.open_logs() == [], within_s=30)
    (kept,) = (folder / "trials").glob("001-*/trial.json")
    inode = kept.stat().st_ino

    done = subprocess.run(
        monkeyproof("gate", "--resume", folder, "--no-tracking"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Two trials cannot show anything.
    assert done.returncode == 3, done.stdout + done.stderr
    assert "inconclusive" in done.stdout
    assert "[2/2]" in done.stdout
    assert "[1/2]" not in done.stdout
    found = read_campaign(folder)
    assert [trial.seed for trial in found.trials] == [1, 2]
    assert found.aborted == ""
    assert kept.stat().st_ino == inode
    assert any(path.name.startswith("002-") for path in (folder / "discarded").iterdir())
    assert (folder / "report.html").exists()
