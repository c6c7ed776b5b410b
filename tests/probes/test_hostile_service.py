"""The prober, the first question and the load against a service that does its worst: alive, in time, honest."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile_service
import numpy as np
import pytest
from test_load import said
from test_prober import probing

from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import Predict, read_target_file
from monkeyproof.errors import UsageError
from monkeyproof.probes.prober.answers import EFFORT_BURST_S, EFFORT_SHARE, Answer, Judge, JudgingBudget
from monkeyproof.probes.prober.golden import Golden
from monkeyproof.record.history import READINGS_FILE
from monkeyproof.record.readings import Readings, SignalState
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.http import HttpTarget
from monkeyproof.targets.opening import check_answers

GROWTH_MAX_MIB = 50
SEED = 1
"""Of the probers: the order of their questions depends on it."""


@pytest.fixture
def port() -> Iterator[int]:
    with hostile_service.running() as port:
        yield port


def most_mib(pid: int) -> float:
    """The most memory that a process has had so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def modes_of(readings: Readings, modes: list[str]) -> np.ndarray:
    """What each reading asked for."""
    order = np.random.default_rng(SEED).permutation(len(modes))
    return np.array(modes)[order[readings.slot % len(modes)]]


def test_the_prober_keeps_its_schedule_and_calls_nothing_good(port: int, tmp_path: Path) -> None:
    modes = ["good"] * (2 * len(hostile_service.MODES)) + list(hostile_service.MODES) * 2
    with probing(tmp_path, hostile_service.write_target(tmp_path, port, modes)) as probe:
        probe.wait(10)
        before_mib = most_mib(probe.process.pid)
        probe.wait(int(1.2 * len(modes)))
        grown_mib = most_mib(probe.process.pid) - before_mib
        readings = probe.end()
    assert (tmp_path / "prober.log").read_text() == ""
    assert grown_mib < GROWTH_MAX_MIB
    # Its clock: no slot is left out, and few questions were asked late or not at all.
    assert readings.slot.tolist() == list(range(len(readings)))
    assert (readings.problem == "missed").mean() < 0.05
    assert np.nanpercentile(readings.lateness_ms, 95) < 20
    asked = modes_of(readings, modes)
    told = {mode: set(readings.problem[asked == mode].tolist()) for mode in hostile_service.MODES}
    for mode in hostile_service.MODES:
        assert (asked == mode).sum() >= 2
        assert not (readings.good[asked == mode] == SignalState.GOOD).any(), (mode, told[mode])
    # None of them spoils the questions between them.
    assert (readings.good[asked == "good"] == SignalState.GOOD).mean() > 0.9
    assert (readings.degraded[(asked == "said twice") & (readings.status == 200)] == 1).all()
    assert all(text.isprintable() for text in {*readings.model_version, *readings.problem})


def test_many_unfinished_answers_cost_bounded_memory(port: int, tmp_path: Path) -> None:
    target = hostile_service.write_target(tmp_path, port, ["held back"], rate_per_s=200, timeout_ms=1000)
    with probing(tmp_path, target) as probe:
        # It writes the file's beginning when it is ready to ask.
        assert wait_for((tmp_path / READINGS_FILE).exists, within_s=15)
        before_mib = most_mib(probe.process.pid)
        probe.wait(300)
        grown_mib = most_mib(probe.process.pid) - before_mib
        readings = probe.end()
    assert grown_mib < GROWTH_MAX_MIB
    assert not (readings.good == SignalState.GOOD).any()


def test_early_and_repeated_answers_answer_no_question(tmp_path: Path) -> None:
    with (
        hostile_service.running(early=True) as port,
        probing(tmp_path, hostile_service.write_target(tmp_path, port, ["good"] * 16)) as probe,
    ):
        probe.wait(20)
        assert not (probe.end().good == SignalState.GOOD).any()
    later = tmp_path / "later"
    modes = ["once more, late"] * 16
    with (
        hostile_service.running() as port,
        # Long before the next question, also on a busy machine: what comes after it could not be told apart.
        probing(later, hostile_service.write_target(later, port, modes, rate_per_s=10)) as probe,
    ):
        probe.wait(40)
        readings = probe.end()
    assert "wrong answer" not in set(readings.problem)
    assert (readings.good == SignalState.GOOD).mean() > 0.9


def test_the_first_question_ends(port: int, tmp_path: Path) -> None:
    def words_and_time(mode: str) -> tuple[str, float]:
        file = hostile_service.write_target(tmp_path / mode.replace(" ", "-"), port, [mode], timeout_ms=100)
        target, words = HttpTarget(read_target_file(file)), ""
        started_s = time.monotonic()
        try:
            check_answers(target)
        except UsageError as error:
            words = str(error)
        took_s = time.monotonic() - started_s
        target.close()
        return words, took_s

    # Beside one another, for some take the whole second that they are given.
    with ThreadPoolExecutor(8) as threads:
        for words, took_s in threads.map(words_and_time, hostile_service.MODES):
            assert words.isprintable()
            assert len(words) < 700
            assert took_s < 6.0


def test_the_load_lives_in_bounded_memory(port: int, tmp_path: Path) -> None:
    modes = [*hostile_service.MODES, *["good"] * len(hostile_service.MODES)]
    target = hostile_service.write_target(tmp_path, port, modes, load_per_s=60)
    arguments = ["--target", str(target), "--out", str(tmp_path), "--seed", str(SEED)]
    with ProcessGroup() as group:
        load = group.start(
            [sys.executable, "-m", "monkeyproof.probes.load.generator", *arguments], log=tmp_path / "load.log"
        )
        assert wait_for(lambda: said(tmp_path)["requests"] >= 10, within_s=20), (tmp_path / "load.log").read_text()
        before_mib = most_mib(load.pid)
        assert wait_for(lambda: said(tmp_path)["requests"] >= 1.3 * len(modes), within_s=30)
        grown_mib = most_mib(load.pid) - before_mib
        load.terminate()
        assert load.wait(10) == 0
    found = said(tmp_path)
    assert 0.1 < found["failures"] / found["requests"] < 0.6
    assert (tmp_path / "load.log").read_text() == ""
    assert grown_mib < GROWTH_MAX_MIB


def test_judging_is_kept_to_a_share_of_the_time() -> None:
    now_s = 0.0
    effort = JudgingBudget(lambda: now_s)
    judged = 0
    for _ in range(1000):  # Ten seconds, in which every answer would take three times as long as there is.
        if effort.allowed():
            judged += 1
            now_s += 0.03
            effort.spent()
        else:
            now_s += 0.01
    assert judged * 0.03 / now_s == pytest.approx(EFFORT_SHARE, abs=0.02 + EFFORT_BURST_S / now_s)
    now_s += 1.0
    assert effort.allowed()


@pytest.mark.parametrize("path", ["$..x", "$.predictions[*]", "$", "$.predictions[0]"])
def test_a_judge_of_any_path_survives_any_document(tmp_path: Path, path: str) -> None:
    predict = Predict("http://127.0.0.1:1/", tmp_path, answer=path, model_version="$..version", degraded="$")
    judge = Judge(predict, tmp_path)
    for name, raw in hostile_service.STATIC.items():
        body = raw.partition(b"\r\n\r\n")[2]
        judged = judge(Answer(200, {}, body), Golden(b"{}", 7.0))
        assert judged.correct is not SignalState.GOOD, name
        assert judged.model_version.isprintable()
        assert len(judged.model_version) <= 100
