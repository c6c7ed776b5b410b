"""What ends a trial early: the stop file, and the target file's own conditions. Every fault is reverted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_line import ended_everything_here, monkeyproof
from test_own_service import EXPERIMENT, SERVICE, accepts, free_port

from monkeyproof.clock import wait_for
from monkeyproof.record.history import EVENTS_FILE, Event, Kind, parse_events
from monkeyproof.record.trial_end import REVERT_BEGINS_WITHIN_S
from monkeyproof.undo import log as undo_log

pytestmark = pytest.mark.timeout(200)

TARGET = """\
name: ours
predict:
  url: http://127.0.0.1:{link}/predict
  golden: golden.jsonl
  answer: $.y.value
slo: {{latency_ms: 100, objective: 0.95, stable_for_s: 0.5, recovery: {{within_s: 2, share: 0.9}}}}
windows: {{baseline_s: 0.5, horizon_s: 40, after_revert_s: 1}}
load: {{rate_per_s: 0}}
links: {{users: {{listen: "127.0.0.1:{link}", forward: "127.0.0.1:{service}", protocol: http}}}}
allow_faults: [network]
"""
STUCK = """
import signal, time
def forever():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)
"""
STUCK_IN_C = """
import ctypes, signal
def forever():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(600)
"""
LEAVES = """
import pathlib, subprocess
def begin():
    pathlib.Path("stray.pid").write_text(str(subprocess.Popen(["/bin/sleep", "600"]).pid))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A user's folder, and their service running; every request will be 150 to 200 ms late, for 40 s."""
    service, link = free_port(), free_port()
    (tmp_path / "golden.jsonl").write_text(
        "".join(json.dumps({"body": {"x": x}, "expect": 2 * x}) + "\n" for x in range(100))
    )
    (tmp_path / "t.yaml").write_text(TARGET.format(link=link, service=service))
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(service)])
    assert wait_for(lambda: accepts(service), within_s=10)
    yield tmp_path
    process.kill()
    process.wait()


def run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "monkeyproof.cli", "run", "e.yaml", "--target", "t.yaml", "--out", "out"]
    return subprocess.Popen(
        [*command, "--no-tracking", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
    )


def events(folder: Path) -> list[Event]:
    for pattern in ("out/trials/*/", "runs/*/"):
        for path in folder.glob(pattern + EVENTS_FILE):
            return list(parse_events(path.read_bytes()))
    return []


def first(folder: Path, kind: Kind) -> Event:
    return next(event for event in events(folder) if event.kind is kind)


def await_fault(folder: Path) -> None:
    assert wait_for(lambda: any(one.kind is Kind.FAULT_EFFECTIVE for one in events(folder)), within_s=60)


def aborted(folder: Path, process: subprocess.Popen[str], words: str) -> None:
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 4, output
    assert words in output
    assert words.removesuffix("; what was injected is reverted") in str(
        first(folder, Kind.TRIAL_ABORTED).data["why"]
    )
    assert first(folder, Kind.FAULT_REVERTED)
    assert undo_log.open_logs() == []


def add(folder: Path, words: str) -> None:
    (folder / "t.yaml").write_text((folder / "t.yaml").read_text() + words + "\n")


def test_stop_ends_a_campaign_and_prevents_new_ones(folder: Path) -> None:
    process = run(folder, "--trials", "3")
    await_fault(folder)
    begun_s = time.monotonic()
    done = monkeyproof(folder, "stop")
    assert ended_everything_here(done), done.stderr
    assert f"The campaign of process {process.pid} ended" in done.stdout
    assert "nothing is open" in done.stdout
    aborted(folder, process, "stopped by 'monkeyproof stop'; what was injected is reverted")
    told, reverted = first(folder, Kind.TRIAL_ABORTED), first(folder, Kind.FAULT_REVERTED)
    assert reverted.t_s - told.t_s < 1.0
    assert time.monotonic() - begun_s < 30
    assert json.loads((folder / "out" / "results.json").read_text())["aborted"].startswith("stopped by")
    again = monkeyproof(folder, "run", "e.yaml", "--target", "t.yaml", "--out", "again")
    assert again.returncode == 4
    assert "not injecting: everything was stopped" in again.stderr
    assert "monkeyproof stop --clear" in again.stderr
    assert not (folder / "again").exists()
    assert monkeyproof(folder, "stop", "--clear").stdout == "Campaigns may begin again.\n"
    assert monkeyproof(folder, "stop", "--clear").stdout == "Nothing was stopped.\n"


def test_stop_ends_plain_chaos_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONKEYPROOF_TARGET", "t.yaml")
    chaos = [sys.executable, "-m", "chaostoolkit", "run", "e.yaml"]
    process = subprocess.Popen(chaos, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    await_fault(folder)
    done = monkeyproof(folder, "stop")
    assert ended_everything_here(done), done.stderr
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 4
    assert "The trial was aborted: stopped by 'monkeyproof stop'" in output
    told, reverted = first(folder, Kind.TRIAL_ABORTED), first(folder, Kind.FAULT_REVERTED)
    assert reverted.t_s - told.t_s < 1.0
    assert undo_log.open_logs() == []
    again = subprocess.run(chaos, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert "not injecting: everything was stopped" in again.stdout + again.stderr
    assert len(list((folder / "runs").iterdir())) == 1


def test_too_few_good_answers_end_a_trial(folder: Path) -> None:
    add(folder, "abort_if: [{sli_below: 0.5, for_s: 1}]")
    aborted(folder, run(folder), "abort_if: sli_below: ")
    assert first(folder, Kind.BOUNDS_WATCHED).t_s < first(folder, Kind.FAULT_INTENDED).t_s


@pytest.mark.slow
def test_a_health_url_that_hangs_ends_a_trial(folder: Path) -> None:
    hangs, ended = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if hangs.is_set():
                ended.wait(60)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        add(folder, f'abort_if: [{{health_url: "http://127.0.0.1:{server.server_address[1]}/ok"}}]')
        process = run(folder)
        await_fault(folder)
        hangs.set()
        aborted(folder, process, "abort_if: ")
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_unreachable_prometheus_prevents_the_injection(folder: Path) -> None:
    add(folder, f'abort_if: [{{prometheus: "http://127.0.0.1:{free_port()}", query: up, below: 1}}]')
    process = run(folder)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 4, output
    assert "does not answer: ConnectError" in output
    assert not any(one.kind is Kind.FAULT_INTENDED for one in events(folder))


def test_a_process_left_behind_ends_the_campaign(folder: Path) -> None:
    (folder / "leave.py").write_text(LEAVES)
    (folder / "t.yaml").write_text((folder / "t.yaml").read_text().replace("horizon_s: 40", "horizon_s: 1"))
    # As an activity of its own beside our fault.
    beside = EXPERIMENT.replace(
        "  - type: probe\n    name: hold",
        "  - type: probe\n    name: leave\n    provider: {type: python, module: leave, func: begin}\n"
        "  - type: probe\n    name: hold",
    )
    assert beside != EXPERIMENT
    (folder / "e.yaml").write_text(beside)
    process = run(folder, "--trials", "2")
    output = process.communicate(timeout=90)[0]
    pid = int((folder / "stray.pid").read_text())
    try:
        assert process.returncode == 5, output
        assert (
            f"left behind after the trial: process {pid} still runs: /bin/sleep (if it still runs: kill {pid})"
            in output
        )
        (trial,) = json.loads((folder / "out" / "results.json").read_text())["trials"]
        assert trial["not_reverted"]
        assert first(folder, Kind.FAULT_REVERTED)
        assert undo_log.open_logs() == []
    finally:
        with contextlib.suppress(ProcessLookupError):  # What shares the worker's process group ends with it.
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_an_unresponsive_worker_is_killed_and_its_fault_reverted(folder: Path) -> None:
    add(folder, "abort_if: [{sli_below: 0.5, for_s: 1}]")
    (folder / "stuck.py").write_text(STUCK)
    text = EXPERIMENT.replace(
        "module: monkeyproof.probes.watch, func: hold_until_recovered", "module: stuck, func: forever"
    )
    assert text != EXPERIMENT
    (folder / "e.yaml").write_text(text)
    process = run(folder)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 4, output
    assert "sli_below" in str(first(folder, Kind.TRIAL_ABORTED).data["why"])
    words = f"did not end within {REVERT_BEGINS_WITHIN_S:g} s"
    assert any(words in str(one.data.get("why")) for one in events(folder))
    assert undo_log.open_logs() == []


def test_stop_does_not_wait_for_an_unresponsive_worker(folder: Path) -> None:
    """Its interpreter is held up in C with its signals blocked: no handler and no thread of it ever runs."""
    (folder / "stuck.py").write_text(STUCK_IN_C)
    text = EXPERIMENT.replace(
        "module: monkeyproof.probes.watch, func: hold_until_recovered", "module: stuck, func: forever"
    )
    assert text != EXPERIMENT
    (folder / "e.yaml").write_text(text)
    process = run(folder)
    await_fault(folder)
    done = monkeyproof(folder, "stop")
    assert ended_everything_here(done), done.stderr
    aborted(
        folder,
        process,
        f"stopped by 'monkeyproof stop'; its worker did not react within {REVERT_BEGINS_WITHIN_S:g} s",
    )
    told, reverted = first(folder, Kind.TRIAL_ABORTED), first(folder, Kind.FAULT_REVERTED)
    assert (told.source, reverted.source) == ("campaign", "watchdog")
    assert reverted.t_s - told.t_s < 5.0
