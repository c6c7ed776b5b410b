from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.errors import UsageError
from monkeyproof.record import history
from monkeyproof.record.history import History, HistoryWriter, Kind, parse_events
from monkeyproof.record.readings import Reading, Readings, ReadingsTail, ReadingsWriter, SignalState

ANCHOR = Anchor(100.0, "2026-01-01T00:00:00.000+00:00")


def test_events_come_back_in_order_of_time(tmp_path: Path) -> None:
    clock = ManualClock(100.0)
    history.write_json(tmp_path / history.TRIAL_FILE, {"version": 1})
    trial = HistoryWriter(tmp_path, ANCHOR, "trial", clock)
    healer = HistoryWriter(tmp_path, ANCHOR, "elephant", clock)
    trial.event(Kind.TRIAL_STARTED, "x", title="ü <b>\n")
    clock.now_s = 103.0
    trial.event(Kind.TRIAL_ENDED, "x", status="closed")
    clock.now_s = 102.0
    healer.event(Kind.HEALER_DETECTED, "replica-1", signal="latency")
    events = History.read(tmp_path).events
    assert [(event.t_s, event.source, event.seq) for event in events] == [
        (0.0, "trial", 1),
        (2.0, "elephant", 1),
        (3.0, "trial", 2),
    ]
    assert events[0].data == {"title": "ü <b>\n"}


def test_lines_of_many_writers_never_mix(tmp_path: Path) -> None:
    def write(source: str) -> None:
        writer = HistoryWriter(tmp_path, ANCHOR, source)
        for _ in range(200):
            writer.event(Kind.HEALER_DETECTED, "x" * 300)
        writer.close()

    threads = [threading.Thread(target=write, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = list(parse_events((tmp_path / history.EVENTS_FILE).read_bytes()))
    assert len(events) == 800
    for source in ("s0", "s1", "s2", "s3"):
        assert [event.seq for event in events if event.source == source] == list(range(1, 201))


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path, ANCHOR, "trial")
    writer.event(Kind.TRIAL_STARTED)
    writer.event(Kind.TRIAL_ENDED)
    whole = (tmp_path / history.EVENTS_FILE).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        assert [event.kind for event in parse_events(whole[:cut])] == [Kind.TRIAL_STARTED]


@pytest.mark.parametrize(
    "line", [b"{}", b"[1]", b'{"seq":1', b'{"seq":1,"t_s":0,"kind":"made.up","source":"","subject":"","data":{}}']
)
def test_damaged_line_is_named(line: bytes) -> None:
    with pytest.raises(UsageError, match=r"events.jsonl:1: not an event"):
        list(parse_events(line + b"\n"))


def test_folder_without_trial_and_newer_version(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no trial\.json in it"):
        History.read(tmp_path)
    history.write_json(tmp_path / history.TRIAL_FILE, {"version": history.VERSION + 1})
    with pytest.raises(UsageError, match="newer monkeyproof"):
        History.read(tmp_path)


def test_files_are_private(tmp_path: Path) -> None:
    HistoryWriter(tmp_path, ANCHOR, "trial").event(Kind.TRIAL_STARTED)
    history.write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"a": 1}
    for name in (history.EVENTS_FILE, "a.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


sights = st.sampled_from(SignalState)
rows = st.lists(
    st.builds(
        Reading,
        slot=st.integers(0, 10**6),
        scheduled_s=st.floats(0, 1e4),
        sent_s=st.floats(0, 1e4) | st.just(float("nan")),
        finished_s=st.floats(0, 1e4) | st.just(float("nan")),
        available=sights,
        fast=sights,
        correct=sights,
        degraded=st.booleans(),
        status=st.integers(0, 599),
        model_version=st.text(max_size=5).filter(lambda text: "\0" not in text),
        problem=st.sampled_from(["", "timeout", "reset"]),
    ),
    max_size=20,
    unique_by=lambda row: row.slot,
)


@given(rows)
def test_good_is_all_three_signals(some: list[Reading]) -> None:
    readings = Readings.of(some)
    assert list(readings.good) == [int(row.good) for row in sorted(some, key=lambda row: row.slot)]
    for row in some:
        if SignalState.UNKNOWN in (row.available, row.fast, row.correct):
            assert row.good is not SignalState.GOOD


@pytest.mark.parametrize("cut_share", [0.0, 0.2, 0.5, 0.8, 0.99, 1.0])
def test_torn_readings_lose_only_their_last_batch(tmp_path: Path, cut_share: float) -> None:
    good = SignalState.GOOD
    path = tmp_path / history.READINGS_FILE
    writer, sizes = ReadingsWriter(path), []
    for batch in range(10):
        writer.write([Reading(batch * 5 + row, batch, batch, batch, good, good, good) for row in range(5)])
        sizes.append(path.stat().st_size)
    cut = int(sizes[-1] * cut_share)
    path.write_bytes(path.read_bytes()[:cut])
    assert len(Readings.read(path)) == 5 * sum(size <= cut for size in sizes)


def test_tail_sees_batches_of_another_process_and_survives_its_kill(tmp_path: Path) -> None:
    path = tmp_path / history.READINGS_FILE
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom monkeyproof.record.readings import *\n"
        "w = ReadingsWriter(Path(sys.argv[1])); g = SignalState.GOOD\n"
        "for n in range(3): w.write([Reading(n, n, n, n, g, g, g, model_version='2')])\n"
        "print('written', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)
    child.stdout.close()
    with path.open("rb") as file:
        tail = ReadingsTail(file)
        assert tail.poll()
        assert not tail.poll()
        assert list(tail.readings.slot) == [0, 1, 2]
        assert list(tail.readings.model_version) == ["2", "2", "2"]


def test_file_with_other_contents_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no readings"):
        Readings.read(tmp_path / "none")
