"""References to a process's owner, and whether it lives: no other process is ever mistaken for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from campaign_world import target_file

from monkeyproof.record.history import EVENTS_FILE
from monkeyproof.runtime.process_ref import Heartbeat, ProcessReference, reference_text


@pytest.fixture
def gone() -> str:
    """Of a process that has ended and was reaped."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as one:
        return reference_text(one.pid)


def test_recycled_pid_is_another_process(gone: str) -> None:
    assert ProcessReference(gone).has_ended()
    with subprocess.Popen(["sleep", "5"]) as other:
        pid, _, started = reference_text(other.pid).partition(":")
        reused = ProcessReference(f"{pid}:{int(started) - 1}")
        assert reused.has_ended()
        reused.send_signal(signal.SIGKILL)
        one = ProcessReference(f"{pid}:{started}")
        assert not one.has_ended(0.1)
        one.send_signal(signal.SIGTERM)
        assert one.has_ended(5.0)
        assert other.wait() == -signal.SIGTERM
        one.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("name", ["sentry", "prober", "load"])
def test_module_whose_owner_died_before_its_start_ends_and_signals_no_process(
    gone: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "g.jsonl").write_text('{"body": {}, "expect": 0}\n' * 100)
    # Its parent is another one, alive, and the condition holds.
    more = "load: {rate_per_s: 0}\nabort_if: [{health_url: 'http://127.0.0.1:9/'}]"
    words = ["--target", str(target_file(tmp_path, more=more).path), "--out", str(tmp_path), "--owner", gone]
    words += [] if name == "load" else ["--anchor", "0"]
    words += [] if name == "sentry" else ["--seed", "1"]
    signalled: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: signalled.append(number))
    module = {"sentry": "abort.monitor", "prober": "prober.prober", "load": "load.generator"}[name]
    try:
        subprocess.run([sys.executable, "-m", f"monkeyproof.probes.{module}", *words], check=True, timeout=20)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signalled == []
    if name == "sentry":
        assert not (tmp_path / EVENTS_FILE).exists()


def test_silence_counts_only_while_heartbeats_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("monkeyproof.runtime.process_ref.time.monotonic", lambda: now_s)
    theirs, ours = os.pipe()
    try:
        heart = Heartbeat(theirs)
        for expected_s in (1.0, 2.0):
            now_s += 1.0
            assert heart.silent_s() == pytest.approx(expected_s)
        now_s += 3600.0  # The machine slept, say.
        assert heart.silent_s() == pytest.approx(3.5)
        os.write(ours, b"++")
        assert heart.silent_s() == 0.0
        now_s += 1.0
        assert heart.silent_s() == pytest.approx(1.0)
    finally:
        os.close(theirs)
        os.close(ours)
