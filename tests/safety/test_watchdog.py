"""The watchdog undoes what a dead worker left, however that died; and nothing else, ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.record.history import EVENTS_FILE, Event, Kind, parse_events
from monkeyproof.runtime.process_ref import SILENT_S
from monkeyproof.safety.replay import revert_all
from monkeyproof.safety.safeguards import await_watchdog
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import read_open

WORKER = """
import os, signal, sys, time
from pathlib import Path
from monkeyproof.record import history
from monkeyproof.undo import log as undo
from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config.target_file import read_target_file
from monkeyproof.faults import noop
from monkeyproof.record.history import HistoryWriter
from monkeyproof.injection.inject import Context, revert, set_current
from monkeyproof.safety import safeguards
from monkeyproof.safety.safeguards import Safeguards
from monkeyproof.targets.opening import open_target

target_file, folder = map(Path, sys.argv[1:3])
safeguards.SILENT_S = float(sys.argv[3])
anchor = Anchor.now(SystemClock())
at_s = {"monotonic_s": anchor.monotonic_s, "utc": anchor.utc}
history.write_json(folder / "trial.json", {"version": 1, "anchor": at_s})
writer = HistoryWriter(folder, anchor, "trial")
log = undo.UndoLog(undo.undo_dir() / "t-001.jsonl")
target = open_target(target_file)
guards = Safeguards(log.path, folder, target, writer)
set_current(Context(folder, target, writer, log, 1, "none",
                    before_injection=guards.check, before_revert=guards.renew_last_time))
noop.nothing()
print(guards._watchdog.pid, flush=True)
for line in sys.stdin:
    if line == "inject\\n":
        noop.nothing()
        print(guards._watchdog.pid, flush=True)
    if line == "close\\n":
        revert()
        log.close(folder / "undo.jsonl")
        guards.close()
        print("closed", flush=True)
"""


class Worker:
    """A process that has injected a fault, with its watchdog."""

    def __init__(self, folder: Path, silent_s: float = SILENT_S) -> None:
        self.folder = folder / "trial"
        self.folder.mkdir()
        (folder / "golden.jsonl").write_text('{"body": {}, "expect": 1}\n')
        target = folder / "target.yaml"
        target.write_text(
            'name: t\npredict: {url: "http://127.0.0.1:9/x", golden: golden.jsonl}\nallow_faults: [noop]\n'
        )
        self.log = undo_log.undo_dir() / "t-001.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(target), str(self.folder), str(silent_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.watchdog = int(self.read())

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.read()

    def events(self, *kinds: Kind) -> list[Event]:
        found = parse_events((self.folder / EVENTS_FILE).read_bytes())
        return [event for event in found if event.kind in kinds]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        assert await_watchdog(self.folder, within_s=20)


def is_dead(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    one = Worker(tmp_path)
    yield one
    one.close()


@pytest.mark.parametrize("how", ["alone", "its group, after every polite signal to its watchdog"])
def test_watchdog_reverts_faults_of_a_killed_worker(worker: Worker, how: str) -> None:
    assert len(read_open(worker.log)) == 1
    if how != "alone":
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(worker.watchdog, number)
    assert os.getsid(worker.watchdog) not in (os.getsid(0), os.getsid(worker.process.pid))
    (os.kill if how == "alone" else os.killpg)(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert await_watchdog(worker.folder, within_s=20)
    assert not worker.log.exists()
    steps = [json.loads(line)["step"] for line in (worker.folder / "undo.jsonl").open()]
    assert steps == ["intent", "effective", "reverted"]
    aborted, reverted = worker.events(Kind.TRIAL_ABORTED, Kind.FAULT_REVERTED)
    assert (aborted.source, aborted.data["why"]) == ("watchdog", "its worker died")
    assert (reverted.source, reverted.kind) == ("watchdog", Kind.FAULT_REVERTED)


def test_watchdog_leaves_a_stopped_worker_alone(worker: Worker) -> None:
    os.kill(worker.process.pid, signal.SIGSTOP)
    assert not wait_for(lambda: not read_open(worker.log), within_s=1.0)
    os.kill(worker.process.pid, signal.SIGCONT)
    assert worker.say("close") == "closed"


def test_closing_the_log_ends_the_watchdog(worker: Worker) -> None:
    assert worker.say("close") == "closed"
    assert not Path(f"/proc/{worker.watchdog}").exists()
    assert [event.source for event in worker.events(Kind.FAULT_REVERTED)] == ["trial"]
    assert not worker.events(Kind.TRIAL_ABORTED)


def test_a_killed_watchdog_is_replaced_before_the_next_fault(worker: Worker) -> None:
    os.kill(worker.watchdog, signal.SIGKILL)
    assert wait_for(lambda: is_dead(worker.watchdog), within_s=5)
    second = int(worker.say("inject"))
    assert second != worker.watchdog
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert await_watchdog(worker.folder, within_s=20)
    assert not worker.log.exists()
    assert len(worker.events(Kind.FAULT_REVERTED)) == 2


def test_stopped_watchdog_is_replaced(tmp_path: Path) -> None:
    worker = Worker(tmp_path, silent_s=1.5)
    try:
        os.kill(worker.watchdog, signal.SIGSTOP)
        assert wait_for(lambda: is_dead(worker.watchdog), within_s=10)
        assert int(worker.say("inject")) != worker.watchdog
    finally:
        worker.close()
    assert not worker.log.exists()


def test_stopped_watchdog_is_not_waited_for(worker: Worker) -> None:
    """Its worker died: it would undo nothing, and keep the log from those who can."""
    os.kill(worker.watchdog, signal.SIGSTOP)
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    assert await_watchdog(worker.folder, within_s=5)
    assert len(read_open(worker.log)) == 1
    revert_all(lambda _: None)
    assert not worker.log.exists()


def test_watchdog_imports_little_until_it_acts() -> None:
    words = "import sys, monkeyproof.safety.watchdog\n"
    words += "print(sorted(m for m in sys.modules if m.startswith('monkeyproof.')))"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "['monkeyproof.safety', 'monkeyproof.safety.watchdog']"
