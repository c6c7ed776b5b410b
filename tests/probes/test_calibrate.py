"""The clock against outages whose instants are known: real services, real probers, measured as a trial is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from probe_traces import PERIOD_S, letters, trace

from monkeyproof import paths
from monkeyproof.clock import SystemClock, wait_for
from monkeyproof.errors import MonkeyproofError
from monkeyproof.probes.calibration import calibrate as calibration
from monkeyproof.probes.calibration.calibrate import misjudged, run_episodes
from monkeyproof.probes.calibration.episodes import KINDS, Episode, Judged, figures, judge, plan_episodes
from monkeyproof.record.readings import Readings
from monkeyproof.types import Interval, Outcome

EPISODES = ("--episodes", "7", "--seed", "370")


def processes_of(word: str, folder: Path) -> list[int]:
    """Processes with both words in their command lines."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in line and str(folder) in line:
                found.append(int(place.parent.name))
    return found


def test_the_three_traps_on_a_real_service(tmp_path: Path) -> None:
    """Peers say 30 s of a true 20 s, -5 s of a flap, and a number where it never recovered. Scaled in time."""
    true_s = 2.0
    episodes = [
        Episode("dark", (("dark", true_s),)),
        Episode("flapping", (("wrong", 0.5), ("good", 0.6), ("dark", 0.5))),
        Episode("never recovers", (("dark", 0.5), ("good", 0.4), ("hung", 1.5))),
    ]
    judged, _ = run_episodes(episodes, 100.0, 1, tmp_path, SystemClock())
    outage, flap, never = (next(one for one in judged if one.episode is episode) for episode in episodes)
    for one in judged:
        if one.disturbed:
            pytest.skip(f"the machine was too busy to tell: {one.disturbed}")
        assert one.held, one.recovery.reason
    assert outage.recovery.ttr is not None
    assert outage.recovery.ttr.low_s - 0.01 <= true_s <= outage.recovery.ttr.high_s + 0.01
    assert outage.recovery.ttr.width_s < 0.1
    assert flap.recovery.ttr is not None
    assert flap.recovery.ttr.low_s > 1.1, "dated to the first time that it seemed good"
    assert never.recovery.outcome is Outcome.NOT_RECOVERED
    assert never.recovery.ttr is None
    # What was asked in the last 0.2 s (the SLO's latency) was answered in time, as the hang ended after 2.4 s.
    assert never.recovery.censored_at_s == pytest.approx(2.2, abs=0.1)
    assert not processes_of("monkeyproof", tmp_path)


def test_the_command_stores_what_it_prints(tmp_path: Path) -> None:
    """One episode of each kind. Whether all of them hold on a busy machine is not this test's question."""
    ended = subprocess.run(
        # A seed whose episodes are short.
        [*(sys.executable, "-m", "monkeyproof.cli", "calibrate"), "--rate-per-s", "100", *EPISODES],
        env={**os.environ, "MONKEYPROOF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert ended.returncode == (0 if stored["passed"] else 1), ended.stderr
    assert ("NOT" in ended.stdout) != stored["passed"]
    assert stored["episodes_count"] + stored["disturbed_count"] == 7
    assert [row["kind"] for row in stored["by_kind"]] == list(KINDS)
    assert stored["held_count"] >= 5, ended.stdout
    assert {
        "version",
        "utc",
        "monkeyproof",
        "machine",
        "held_share",
        "lateness_max_ms",
        "duration_s",
    } <= stored.keys()
    for kind in KINDS:
        assert kind in ended.stdout


def test_a_killed_prober_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    def kill(_: int) -> None:
        for pid in processes_of("monkeyproof.probes.prober.prober", tmp_path):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(MonkeyproofError, match="prober ended too early"):
        run_episodes([Episode("dark", (("dark", 5.0),))], 50.0, 1, tmp_path, SystemClock(), kill)
    assert wait_for(lambda: not processes_of("monkeyproof", tmp_path), within_s=5)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "monkeyproof.cli", "calibrate"],
        env={**os.environ, "MONKEYPROOF_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_for(lambda: bool(processes_of("monkeyproof.probes.prober.prober", tmp_path)), within_s=20)
        command.send_signal(signal.SIGINT)
        _, log_lines = command.communicate(timeout=20)
    finally:
        command.kill()
        command.wait()
    assert (command.returncode, log_lines) == (4, "monkeyproof: stopped before the end; nothing was stored\n")
    # One that was just being started ends by itself, as its parent is gone.
    assert wait_for(lambda: not processes_of("monkeyproof", tmp_path), within_s=10)
    assert not list(tmp_path.glob("monkeyproof-calibrate-*"))
    assert not list(tmp_path.glob("home/calibration.json"))


def test_a_missing_or_damaged_calibration_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONKEYPROOF_HOME", str(tmp_path))
    assert calibration.stored() == {}
    for text in ("", "{", "[]", '{"version": 2}'):
        (paths.home() / "calibration.json").write_text(text)
        assert calibration.stored() == {}
    (paths.home() / "calibration.json").write_text('{"version": 1, "passed": true}')
    assert calibration.stored()["passed"] is True


def test_the_plan_is_the_seeds_and_has_every_kind() -> None:
    planned = plan_episodes(36, 5)
    assert planned == plan_episodes(36, 5) != plan_episodes(36, 6)
    counts = [sum(episode.kind == kind for episode in planned) for kind in KINDS]
    assert (sum(counts), min(counts), max(counts)) == (36, 5, 6)
    for pair in range(calibration.PAIRS):
        assert sum(episode.duration_s for episode in planned[pair :: calibration.PAIRS]) < 45


DARK = Episode("dark", (("dark", 1.0),))
TRUE = [(2.0, 2.0001), (3.0, 3.0001)]


def judged_of(readings: Readings, episode: Episode = DARK, stalls: tuple[Interval, ...] = ()) -> Judged:
    return judge(episode, readings, TRUE, stalls)


def test_a_clock_that_is_off_is_found_out() -> None:
    text = letters((2, "G"), (1, "R"), (3, "G"))
    right = judged_of(trace(text))
    assert (right.held, right.onset_held, right.disturbed) == (True, True, "")
    assert right.width_ms is not None
    assert right.width_ms < PERIOD_S * 1000 + 20
    for late_s in (-0.1, 0.1):
        off = judged_of(trace(text, at_s=late_s))
        assert not off.held
        assert off.error_ms == pytest.approx(late_s * 1000, abs=50)
    found = figures([right, judged_of(trace(text, at_s=0.1))])
    assert (found["episodes_count"], found["held_count"], found["held_share"]) == (2, 1, 0.5)


def test_a_false_recovery_and_an_early_flap_are_misjudged() -> None:
    never = Episode("never recovers", (("dark", 2.0),))
    assert judge(never, trace(letters((2, "G"), (5, "R"))), [(2.0, 2.0), (6.0, 6.0)], ()).held
    wrong = judge(never, trace(letters((2, "G"), (1, "R"), (5, "G"))), [(2.0, 2.0), (6.0, 6.0)], ())
    flap = Episode("flapping", (("dark", 0.4), ("good", 0.2), ("dark", 0.4)))
    early = judge(flap, trace(letters((2, "G"), (0.4, "R"), (3, "G"))), TRUE, ())
    assert misjudged([wrong, early]) == [wrong, early]
    assert misjudged([replace(wrong, disturbed="the machine stopped")]) == []


def test_a_slow_switch_does_not_spill_into_the_next_episode() -> None:
    """The next one begins by the script: 1.6 s after the first answer to what hung, 60 ms less after the last."""
    slowly = [(2.0, 2.0001), (3.0, 3.06)]
    next_one = trace(letters((2, "G"), (1, "R"), (1.6, "G"), (1, "R")))
    found = judge(Episode("hung", (("hung", 1.0),)), next_one, slowly, ())
    assert (found.held, found.disturbed) == (True, ""), found.recovery.reason


def test_a_disturbed_episode_does_not_count() -> None:
    text = letters((2, "G"), (1, "R"), (3, "G"))
    assert judged_of(trace(text), stalls=(Interval(2.5, 2.7),)).disturbed
    assert not judged_of(trace(text), stalls=(Interval(0.5, 0.7),)).disturbed
    unseen = judged_of(trace(letters((2, "G"), (1, "U"), (3, "G"))))
    assert "unknown" in unseen.disturbed
    assert figures([unseen])["episodes_count"] == 0
    no_window = letters((2, "G"), (1, "R"), (0.7, "G")) + "UU" + letters((0.8, "G"))
    assert "2 questions were not asked in time" in judged_of(trace(no_window)).disturbed
    # Said nothing without an excuse, or said something false: that is the clock's.
    blinked = letters((2, "G"), (0.9, "R")) + "UU" + letters((3, "G"))
    for text, at_s in ((no_window.replace("U", "R"), 0.0), (blinked, 0.2)):
        failed = judged_of(trace(text, at_s=at_s))
        assert (failed.held, failed.disturbed) == (False, "")
    assert np.isfinite(figures([unseen])["error_p99_ms"])
