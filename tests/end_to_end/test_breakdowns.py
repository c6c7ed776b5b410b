"""Disk full, undo log read-only, target gone, control hanging: a refusal or a clean end, and nothing left."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_bounds
from test_bounds import await_fault, first, monkeyproof, run
from test_own_service import EXPERIMENT

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.record.history import Kind
from monkeyproof.targets.local.control_plane import lifecycle
from monkeyproof.undo import log as undo_log

pytestmark = pytest.mark.timeout(240)
folder = test_bounds.folder


def processes_of(folder: Path, module: bytes) -> list[int]:
    """Processes that run a module and whose command line names the folder, or whose working folder it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            if module in words.split(b"\0") and (
                os.fsencode(folder) in words or path.with_name("cwd").readlink() == folder
            ):
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """Something mounted on the last argument; skips the test where that is not allowed."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def ended(process: subprocess.Popen[str], code: int, *words: str, within_s: float) -> None:
    begun_s = time.monotonic()
    output = " ".join(process.communicate(timeout=within_s)[0].split())
    assert process.returncode == code, output
    assert "Traceback" not in output
    for one in words:
        assert one in output, output
    assert time.monotonic() - begun_s < within_s
    assert "Verdict: pass" not in output


def nothing_runs(folder: Path) -> bool:
    return wait_for(lambda: not any(processes_of(folder, b"-m")), within_s=20)


def test_a_trial_that_can_no_longer_write_ends_clean(folder: Path) -> None:
    """Neither its worker nor its prober; and two hang-ups come at once, as from a terminal that closes."""
    process = run(folder)
    await_fault(folder)
    (worker,) = processes_of(folder, b"monkeyproof.trial.worker")
    for pid in (worker, *processes_of(folder, b"monkeyproof.probes.prober.prober")):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    os.killpg(process.pid, signal.SIGHUP)
    os.killpg(process.pid, signal.SIGHUP)
    ended(process, 4, "a signal ended the trial; what was injected is reverted", within_s=60)
    assert undo_log.open_logs() == []
    assert nothing_runs(folder)
    assert monkeyproof(folder, "gate", "out").returncode == 4


@pytest.mark.slow
def test_a_full_disk_ends_the_trial(folder: Path) -> None:
    (folder / "out").mkdir()
    with mounted("-t", "tmpfs", "-o", "size=4m", "none", str(folder / "out")):
        process = run(folder)
        await_fault(folder)
        fill(folder / "out")
        ended(process, 4, "cannot be written (No space left on device)", "reverted", within_s=30)
        assert undo_log.open_logs() == []
        (folder / "out" / "fill").unlink()
        assert monkeyproof(folder, "gate", "out").returncode == 4
        assert monkeyproof(folder, "revert").stdout == "Nothing is open.\n"
    assert nothing_runs(folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_read_only_home_prevents_campaigns(folder: Path, how: str) -> None:
    assert monkeyproof(folder, "revert").returncode == 0
    home = paths.home()
    size = ("-t", "tmpfs", "-o", "size=64k", "none") if how == "full" else ("--bind", str(home))
    with mounted(*size, str(home)):
        if how == "full":
            fill(home)
        else:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(home)], check=True)
        done = monkeyproof(folder, "run", "e.yaml", "--target", "t.yaml", "--out", "out")
        assert done.returncode == 4, done.stdout + done.stderr
        assert done.stderr.startswith("monkeyproof: not injecting: the undo log ")
        assert "make room on the disk, or move MONKEYPROOF_HOME" in done.stderr
        assert not (folder / "out").exists()


@pytest.mark.slow
def test_faults_are_reverted_although_the_home_is_full(folder: Path) -> None:
    paths.home()
    with mounted("-t", "tmpfs", "-o", "size=1m", "none", str(paths.home())):
        process = run(folder)
        await_fault(folder)
        fill(paths.home())
        os.killpg(process.pid, signal.SIGINT)
        ended(process, 4, "a signal ended the trial; what was injected is reverted", within_s=30)
        assert first(folder, Kind.FAULT_REVERTED)
        assert undo_log.open_logs() == []
    assert nothing_runs(folder)


@pytest.mark.slow
def test_a_stopped_fault_proxy_is_named_and_leaves_nothing(folder: Path) -> None:
    process = run(folder)
    await_fault(folder)
    (proxy,) = processes_of(folder, b"monkeyproof.faults.proxy.server")
    os.kill(proxy, signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGINT)
    ended(process, 5, "could not be reverted", "no answer from", "monkeyproof revert", within_s=60)
    assert nothing_runs(folder)
    if undo_log.open_logs():
        done = monkeyproof(folder, "revert")
        assert done.returncode == 0, done.stderr
        assert "the fault had ended already" in done.stdout
    assert undo_log.open_logs() == []


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["latency-spike", "broken-rollback"])
def test_the_faults_of_a_target_end_with_it(tmp_path: Path, experiment: str) -> None:
    target = lifecycle.up()
    try:
        command = [sys.executable, "-m", "monkeyproof.cli", "run", experiment, "--healer", "none", "--trials", "2"]
        process = subprocess.Popen(
            [*command, "--no-tracking", "--out", "out"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        await_fault(tmp_path)
        os.kill(supervisor(), signal.SIGKILL)
        words = "the embedded target ended in the middle of the trial"
        ended(process, 4, words, within_s=90)
        seen, broken = first(tmp_path, Kind.TRIAL_ABORTED), first(tmp_path, Kind.FAULT_EFFECTIVE)
        assert words in str(seen.data["why"])
        assert seen.t_s - broken.t_s < 6.0  # Not only at the horizon.
        assert undo_log.open_logs() == []
        assert not target.path.exists() or not lifecycle.is_running()
    finally:
        lifecycle.down()


@pytest.mark.slow
def test_a_stopped_supervisor_prevents_trials_and_stays_stopped(tmp_path: Path) -> None:
    lifecycle.up()
    pid = supervisor()
    os.kill(pid, signal.SIGSTOP)
    try:
        done = monkeyproof(tmp_path, "run", "latency-spike", "--out", "out")
        assert done.returncode == 2, done.stderr
        assert f"(pid {pid}) is stopped; kill -CONT {pid}" in done.stderr
        assert not (tmp_path / "out").exists()
    finally:
        os.kill(pid, signal.SIGCONT)
        assert wait_for(lambda: lifecycle.status().up, within_s=20)
        lifecycle.down()


def supervisor() -> int:
    state = lifecycle._supervisor(paths.target_dir())
    assert state is not None
    return int(state["pid"])


BOOM = """
import os, time, chaoslib.run
def interrupts(): raise KeyboardInterrupt
def leaves(): raise SystemExit(7)
def is_gone(): os._exit(3)
def is_told_often():
    for number in (2, 15, 1, 2): os.kill(os.getpid(), number)
    time.sleep(60)
def breaks_chaoslib():
    def broken(*_, **__): raise RuntimeError("chaoslib is broken")
    chaoslib.run.apply_activities = chaoslib.run.run_activity = chaoslib.run.apply_rollbacks = broken
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupts", "leaves", "is_gone", "is_told_often", "breaks_chaoslib"])
def test_an_activity_that_ends_its_own_worker_leaves_nothing(folder: Path, how: str) -> None:
    (folder / "boom.py").write_text(BOOM)
    text = EXPERIMENT.replace(
        "module: monkeyproof.probes.watch, func: hold_until_recovered", f"module: boom, func: {how}"
    )
    assert text != EXPERIMENT
    (folder / "e.yaml").write_text(text)
    process = run(folder)
    ended(process, 4, "reverted", within_s=60)
    assert first(folder, Kind.FAULT_REVERTED)
    assert first(folder, Kind.TRIAL_ABORTED)
    assert undo_log.open_logs() == []
    assert nothing_runs(folder)
