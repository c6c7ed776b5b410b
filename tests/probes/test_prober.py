"""The real prober, in its own process, against a real service on the loopback that misbehaves on command."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import probe_service
import pytest
from probe_traces import event

from monkeyproof.clock import Anchor, wait_for
from monkeyproof.config.target_file import Slo
from monkeyproof.probes.recovery.intervals import impact_index, impact_interval
from monkeyproof.probes.recovery.measurement import measure
from monkeyproof.probes.recovery.windows import ProbeSchedule
from monkeyproof.record.history import READINGS_FILE, HistoryWriter, Kind
from monkeyproof.record.readings import Readings, SignalState
from monkeyproof.runtime.process_group import ProcessGroup

GOOD, BAD, UNKNOWN = SignalState.GOOD, SignalState.BAD, SignalState.UNKNOWN


@pytest.fixture
def service() -> Iterator[probe_service.Handle]:
    with probe_service.running() as handle:
        yield handle


@dataclass
class Probing:
    folder: Path
    process: subprocess.Popen[bytes]
    anchor_s: float

    def readings(self) -> Readings:
        return Readings.read(self.folder / READINGS_FILE)

    def since(self, at_s: float) -> Callable[[int], bool]:
        """Whether so many readings that were due after ``at_s`` are there."""
        return lambda count: (self.readings().scheduled_s > at_s - self.anchor_s).sum() >= count

    def wait(self, count: int, after_s: float = -1e9) -> Readings:
        def there() -> bool:
            with contextlib.suppress(Exception):
                return bool(self.since(after_s)(count))
            return False

        assert wait_for(there, within_s=15), (self.folder / "prober.log").read_text()
        return self.readings()

    def end(self) -> Readings:
        self.process.terminate()
        assert self.process.wait(5) == 0
        return self.readings()


@contextlib.contextmanager
def probing(folder: Path, target: Path) -> Iterator[Probing]:
    with ProcessGroup() as group:
        anchor_s = time.monotonic()
        arguments = ["--target", str(target), "--out", str(folder), "--anchor", repr(anchor_s), "--seed", "1"]
        process = group.start(
            [sys.executable, "-m", "monkeyproof.probes.prober.prober", *arguments], log=folder / "prober.log"
        )
        yield Probing(folder, process, anchor_s)


def rows(readings: Readings, wanted: np.ndarray) -> list[tuple[SignalState, SignalState, SignalState, int, str]]:
    return [
        (
            SignalState(readings.available[i]),
            SignalState(readings.fast[i]),
            SignalState(readings.correct[i]),
            int(readings.status[i]),
            str(readings.problem[i]),
        )
        for i in np.flatnonzero(wanted)
    ]


MISDEEDS = {
    # What the service does, and what a reading says of it.
    "good": (GOOD, GOOD, GOOD, 200, ""),
    "chunked": (GOOD, GOOD, GOOD, 200, ""),
    "eof": (GOOD, GOOD, GOOD, 200, ""),
    "twice": (GOOD, GOOD, GOOD, 200, ""),
    "wrong": (GOOD, GOOD, BAD, 200, "wrong answer"),
    "text": (GOOD, GOOD, BAD, 200, "answer is not JSON"),
    "error": (BAD, GOOD, UNKNOWN, 503, "status 503"),
    "reset": (BAD, GOOD, UNKNOWN, 0, "closed"),
    "nonsense": (BAD, GOOD, UNKNOWN, 0, "answer is not HTTP"),
    "huge": (BAD, GOOD, UNKNOWN, 0, "answer too large"),
    "slow 300": (GOOD, BAD, GOOD, 200, ""),
    "hang": (BAD, BAD, UNKNOWN, 0, "timeout"),
    "dark": (BAD, GOOD, UNKNOWN, 0, "refused"),
}


def test_what_a_reading_says_of_each_misdeed(service: probe_service.Handle, tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=200)
    with probing(tmp_path, target) as prober:
        prober.wait(1)
        for mode, expected in MISDEEDS.items():
            told_s = service.tell(mode)["done_s"]
            found = prober.wait(12, told_s + 0.02)
            late = found.scheduled_s > told_s + 0.02 - prober.anchor_s
            # A stalled machine may cost a slot; what was seen must all say the same.
            seen = {row for row in rows(found, late) if row[4] not in ("missed", "prober was stopped")}
            assert seen == {expected}, mode
            service.tell("good")
            prober.wait(2, time.monotonic())


def test_tags_are_read_from_headers(service: probe_service.Handle, tmp_path: Path) -> None:
    service.tell("degraded")
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as prober:
        found = prober.wait(20)
    known = found.status == 200
    assert set(found.model_version[known]) == {"7"}
    assert found.degraded[known].all()
    assert (found.good[known] == GOOD).all()


def test_the_schedule_is_kept_whatever_the_answers_do(service: probe_service.Handle, tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=200)
    with probing(tmp_path, target) as prober:
        prober.wait(100)
        service.tell("hang")
        prober.wait(300)
        found = prober.end()
    assert (np.diff(found.slot) == 1).all()
    assert np.diff(found.scheduled_s) == pytest.approx(1 / 200, abs=1e-6)
    sent = ~np.isnan(found.sent_s)
    assert sent.mean() > 0.9
    assert (found.sent_s[sent] >= found.scheduled_s[sent] - 1e-6).all()
    assert np.percentile(found.lateness_ms[sent], 50) < 2.0
    # Latency counts from the schedule, and a time-out is its own instant.
    hung = found.problem == "timeout"
    assert hung.sum() > 20
    assert found.latency_ms[hung] == pytest.approx(500.0, abs=0.001)


def test_an_outage_is_measured_truly(service: probe_service.Handle, tmp_path: Path) -> None:
    """Dark for real: the instants at which the service went and came back lie in what is reported."""
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=100)
    with probing(tmp_path, target) as prober:
        prober.wait(60)
        t0_s = time.monotonic()
        went = service.tell("dark")
        time.sleep(1.2)
        came = service.tell("good")
        prober.wait(80, came["done_s"])
        found = prober.end()
    events = [
        event(0.0, Kind.BASELINE_MET),
        event(t0_s - prober.anchor_s, Kind.FAULT_INTENDED, "service", id="f", fault="x.y", held=False),
        event(went["done_s"] - prober.anchor_s, Kind.FAULT_EFFECTIVE, "service", id="f"),
    ]
    recovery = measure(found, events, Slo(latency_ms=200, objective=0.99, stable_for_s=0.5))
    assert recovery.recovered is not None, recovery.reason
    assert recovery.recovered.low_s <= came["done_s"] - prober.anchor_s
    assert recovery.recovered.high_s >= came["before_s"] - prober.anchor_s
    assert recovery.recovered.width_s < 0.15
    schedule = ProbeSchedule.of(found)
    assert schedule is not None
    impact = impact_index(schedule, t0_s - prober.anchor_s)
    assert impact is not None
    began = impact_interval(schedule, impact, t0_s - prober.anchor_s)
    assert began.low_s <= went["done_s"] - prober.anchor_s
    assert began.high_s >= went["before_s"] - prober.anchor_s


def test_a_hang_does_not_delay_what_comes_after_it(service: probe_service.Handle, tmp_path: Path) -> None:
    """A SIGSTOPped server still completes handshakes; once it goes on, new readings are good at once."""
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=50, timeout_ms=400)
    with probing(tmp_path, target) as prober:
        prober.wait(20)
        service.pause()
        time.sleep(1.0)
        resumed_s = service.resume()
        prober.wait(30, resumed_s + 0.2)
        found = prober.end()
    during = (found.finished_s < resumed_s - prober.anchor_s) & (found.problem == "timeout")
    assert during.sum() > 10
    after = (found.scheduled_s > resumed_s + 0.2 - prober.anchor_s) & (found.good != UNKNOWN)
    assert (found.good[after] == GOOD).all()


SMALL_BACKLOG = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        x = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["x"]
        body = json.dumps({"predictions": [x]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...

class Server(http.server.HTTPServer):
    request_queue_size = 2

server = Server(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_full_backlog_does_not_distort_the_end_of_a_hang(tmp_path: Path) -> None:
    """A paused server completes handshakes until its backlog is full; then the kernel repeats a SYN after 1 s."""
    with contextlib.ExitStack() as stack:
        small = subprocess.Popen([sys.executable, "-c", SMALL_BACKLOG], stdout=subprocess.PIPE, text=True)
        stack.callback(small.communicate)
        stack.callback(small.kill)
        assert small.stdout is not None
        target = probe_service.write_target(tmp_path, int(small.stdout.readline()), timeout_ms=800)
        prober = stack.enter_context(probing(tmp_path, target))
        prober.wait(30)
        os.kill(small.pid, signal.SIGSTOP)
        time.sleep(1.2)
        resumed_s = time.monotonic() - prober.anchor_s
        os.kill(small.pid, signal.SIGCONT)
        prober.wait(60, resumed_s + prober.anchor_s)
        found = prober.end()
    assert ((found.problem == "timeout") & (found.finished_s < resumed_s)).sum() > 20
    good = (found.good == GOOD) & (found.scheduled_s > resumed_s)
    assert found.scheduled_s[good].min() < resumed_s + 0.1
    late = found.scheduled_s > resumed_s + 0.1
    assert (found.good[late] == BAD).sum() <= 2


def test_missed_slots_are_unknown_and_not_sent_in_a_burst(service: probe_service.Handle, tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=100)
    with probing(tmp_path, target) as prober:
        prober.wait(50)
        os.kill(prober.process.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        seen_before = service.tell("good")["seen"]
        time.sleep(1.0)
        os.kill(prober.process.pid, signal.SIGCONT)
        resumed_s = time.monotonic()
        prober.wait(20, resumed_s)
        found = prober.end()
    seen = service.tell("good")["seen"]
    asleep = (found.scheduled_s > stopped_s - prober.anchor_s + 0.01) & (
        found.scheduled_s < resumed_s - prober.anchor_s - 0.06
    )
    assert asleep.sum() > 80
    assert (found.good[asleep] == UNKNOWN).all()
    assert set(found.problem[asleep]) == {"missed"}
    assert np.isnan(found.sent_s[asleep]).all()
    sent_after = (found.sent_s > stopped_s - prober.anchor_s).sum()
    assert seen - seen_before <= sent_after + 1
    assert not (found.good == BAD).any()  # The service was well all along.


def test_an_answer_during_a_stall_is_not_called_late(service: probe_service.Handle, tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=50, timeout_ms=2000)
    with probing(tmp_path, target) as prober:
        prober.wait(20)
        service.tell("slow 100")
        prober.wait(10, time.monotonic())
        os.kill(prober.process.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(prober.process.pid, signal.SIGCONT)
        prober.wait(20, time.monotonic())
        found = prober.end()
    slept = found.problem == "prober was stopped"
    assert slept.sum() >= 2  # Those in flight: asked in the last 100 ms before.
    assert set(rows(found, slept)) == {(GOOD, UNKNOWN, GOOD, 200, "prober was stopped")}
    assert not (found.good == BAD).any()


def test_connections_are_kept_and_now_and_then_replaced(service: probe_service.Handle, tmp_path: Path) -> None:
    """Kept, for that is what clients do; replaced, for a service that takes no new ones must be seen."""
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as prober:
        count = len(prober.wait(150))
        sessions = service.tell("good")["sessions"]
    assert count / 40 <= sessions <= count / 5


def test_idle_connections_that_the_server_closes_do_no_harm(service: probe_service.Handle, tmp_path: Path) -> None:
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as prober:
        prober.wait(20)
        for _ in range(10):
            service.tell("close_idle")
            prober.wait(5, time.monotonic())
        found = prober.end()
    assert not (found.good == BAD).any()


def test_an_unanswered_reused_connection_is_retried_once(service: probe_service.Handle, tmp_path: Path) -> None:
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as prober:
        prober.wait(20)
        service.tell("race")
        found = prober.wait(20, time.monotonic())
    assert (found.problem == "reconnected").sum() > 5
    assert not (found.good == BAD).any()


def test_bursts_of_hung_readings_are_capped(service: probe_service.Handle, tmp_path: Path) -> None:
    """Never more in flight than the rate and the time-out explain."""
    target = probe_service.write_target(tmp_path, service.port, rate_per_s=100, timeout_ms=300)
    with probing(tmp_path, target) as prober:
        prober.wait(20)
        service.tell("hang")
        found = prober.wait(100, time.monotonic())
        files = Path(f"/proc/{prober.process.pid}/fd")
        assert len(list(files.iterdir())) < 30 + 8 + 40
    assert (found.problem == "timeout").sum() > 60


def test_the_seed_decides_the_order_of_questions(tmp_path: Path) -> None:
    from monkeyproof.config.target_file import read_target_file
    from monkeyproof.probes.prober.answers import Judge
    from monkeyproof.probes.prober.connection_monitor import ConnectionMonitor
    from monkeyproof.probes.prober.prober import Prober
    from monkeyproof.probes.prober.question import Question
    from monkeyproof.record.readings import ReadingsWriter

    target = read_target_file(probe_service.write_target(tmp_path, 1))
    question, judge = Question.of(target), Judge(target.predict, target.path)
    writer = ReadingsWriter(tmp_path / READINGS_FILE)
    connection_monitor = ConnectionMonitor("127.0.0.1", 1, HistoryWriter(tmp_path, Anchor(0.0, ""), "prober"))
    orders = [Prober(target, question, judge, writer, connection_monitor, seed)._order for seed in (1, 1, 2)]
    connection_monitor.close()
    writer.close()
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == list(range(16))
    assert question.requests[3].startswith(b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert question.requests[3].endswith(b'Content-Length: 7\r\n\r\n{"x":3}')


def test_stop_waits_for_probes_in_flight(service: probe_service.Handle, tmp_path: Path) -> None:
    with probing(tmp_path, probe_service.write_target(tmp_path, service.port)) as prober:
        prober.wait(20)
        service.tell("slow 300")
        prober.wait(5, time.monotonic())
        before_s = time.monotonic()
        found = prober.end()
        assert time.monotonic() - before_s < 0.5 + 1.0
    assert found.latency_ms[-1] == pytest.approx(300, abs=150)  # The last one was waited for.


def test_it_ends_by_itself_when_its_parent_is_killed(service: probe_service.Handle, tmp_path: Path) -> None:
    target = probe_service.write_target(tmp_path, service.port)
    arguments = ["--target", str(target), "--out", str(tmp_path), "--anchor", "0", "--seed", "1"]
    argv = [sys.executable, "-m", "monkeyproof.probes.prober.prober", *arguments]
    start = f"import subprocess, time; print(subprocess.Popen({argv!r}).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert wait_for((tmp_path / READINGS_FILE).exists, within_s=10)
        assert wait_for(lambda: len(Readings.read(tmp_path / READINGS_FILE)) > 0, within_s=10)
    finally:
        parent.kill()
        parent.communicate(timeout=5)
    assert wait_for(lambda: not alive(child), within_s=5)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("golden: golden.jsonl", "golden: nowhere.jsonl", "nowhere.jsonl: the golden set cannot be read"),
        (
            "golden: golden.jsonl",
            'golden: golden.jsonl\n  answer: "$.["',
            "predict.answer: '$.[' is not a JSONPath",
        ),
        (
            "127.0.0.1:9",
            "no-such-host.invalid:9",
            "target.yaml:4: predict.url: no-such-host.invalid: no such",
        ),
        (
            "golden: golden.jsonl",
            'golden: golden.jsonl\n  headers: {A: "b\\r\\nc"}',
            "holds a line break, a control or a non-ASCII character",
        ),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_2(tmp_path: Path, old: str, new: str, message: str) -> None:
    target = probe_service.write_target(tmp_path, 9)
    target.write_text(target.read_text().replace(old, new))
    arguments = ["--target", str(target), "--out", str(tmp_path), "--anchor", "0", "--seed", "1"]
    argv = [sys.executable, "-m", "monkeyproof.probes.prober.prober", *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
