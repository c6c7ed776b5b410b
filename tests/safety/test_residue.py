"""What a trial left behind: on links, in replicas, registry and stores, and among processes; and what is none."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from monkeyproof.clock import Anchor, SystemClock, wait_for
from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.errors import NotReverted, TargetError
from monkeyproof.record.history import TRIAL_FILE, Event, HistoryWriter, Kind, write_json
from monkeyproof.runtime import procfs, trial_mark
from monkeyproof.safety import residue
from monkeyproof.safety.residue import Audit
from monkeyproof.safety.snapshot import TargetSnapshot
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.port import (
    Artifacts,
    Features,
    Links,
    ModelVersion,
    Processes,
    Registry,
    Replica,
    Replicas,
    Resettable,
)
from monkeyproof.trial import cleanup
from monkeyproof.trial.plan import TrialPlan

LISTENS = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("up", flush=True)
time.sleep(600)
"""
DAEMON = """
import os
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
os.execv("/bin/sleep", ["sleep", "600"])
"""


class Parts:
    """All that can be asked of a target, as values that a test changes."""

    def __init__(self) -> None:
        self.toxics: list[str] = []
        self.states = ["ready", "ready"]
        self.now = "2"
        self.published = {"1": "aa", "2": "bb"}
        self.files = {"2/model.pkl": "bb", "2/MLmodel": "cc"}
        self.stored = {"e1": [1.0, 2.0], "e2": [3.0, 4.0]}
        self.gone = False
        self.pids: list[int] = [7]
        self.hangs_s = 0.0
        self.resets = 0

    def active(self) -> Sequence[str]:
        if self.gone:
            raise TargetError("no answer")
        return self.toxics

    def stats(self, toxic_id: str) -> Mapping[str, Any]:
        assert toxic_id in self.toxics
        cells = [("e1", 0, 1.0, 70.0), ("e2", 1, 4.0, -4.0), ("e2", "label", 0, 1)]
        return {"journal": [dict(zip(("entity", "column", "old", "new"), cell, strict=True)) for cell in cells]}

    def list(self) -> Sequence[Replica]:
        return [
            Replica(f"r{number}", self.pids[0], state, False, "", "") for number, state in enumerate(self.states)
        ]

    def champion(self) -> str:
        return self.now

    def versions(self) -> Sequence[ModelVersion]:
        return [ModelVersion(version, digest, "a", None) for version, digest in self.published.items()]

    def digests(self, version: str) -> Mapping[str, str]:
        assert version == "2"  # That was the champion when the trial began.
        return dict(self.files)

    def read(self, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        return {entity: self.stored.get(entity) for entity in entities}

    def roots(self) -> Sequence[int]:
        return self.pids

    def reset(self) -> Sequence[str]:
        self.resets += 1
        time.sleep(self.hangs_s)
        return []


OFFERED = (Links, Replicas, Registry, Artifacts, Features, Processes, Resettable)


class FakeTarget:
    def __init__(self, parts: Parts | None, port: int = 1, offered: tuple[type, ...] = OFFERED) -> None:
        self.file = TargetFile("fake", Predict(f"http://127.0.0.1:{port}/", Path("g")))
        self.parts, self.offered = parts, offered

    def find(self, capability: type[Any]) -> Any:
        return self.parts if capability in self.offered else None

    def close(self) -> None: ...


def event(kind: Kind, **data: Any) -> Event:
    return Event(1, 0.0, kind, "trial", "", data)


PROMOTED = event(Kind.FAULT_INTENDED, id="1", fault="registry.promote_degraded", parameters={"version": "1"})
ACTED = event(Kind.HEALER_ACTED, remedy="roll_back", ok=True, summary="")


@pytest.mark.parametrize(
    ("change", "events", "words"),
    [
        ({}, [PROMOTED], []),
        ({"toxics": ["latency-1"]}, [], ["the fault latency-1 is still on a link"]),
        ({"states": ["ready", "paused"]}, [], ["r1 is still paused"]),
        # The platform's own business.
        ({"states": ["ready", "backing_off"]}, [], []),
        ({"now": "1"}, [PROMOTED], ["the champion is version 1, and was 2"]),
        ({"now": "1"}, [PROMOTED, ACTED], ["the champion is version 1, and was 2"]),
        # A healer chose this one; the reset restores it.
        ({"now": "3"}, [PROMOTED, ACTED], []),
        ({"now": "3"}, [PROMOTED], ["the champion is version 3, and was 2"]),
        ({"published": {"1": "aa", "2": "xx"}}, [], ["version 2 of the model is not what it was"]),
        ({"published": {"2": "bb", "3": "cc"}}, [], ["version 1 of the model is not what it was"]),
        (
            {"files": {"2/model.pkl": "xx", "3/model.pkl": "dd"}},
            [],
            ["the artifact 2/model.pkl is not what it was", "the artifact 2/MLmodel is missing"],
        ),
        ({"gone": True}, [], ["the fault proxy cannot be checked: no answer"]),
    ],
)
def test_residue_is_found(tmp_path: Path, change: dict[str, Any], events: list[Event], words: list[str]) -> None:
    parts = Parts()
    Audit.begin(FakeTarget(parts), tmp_path)
    for name, value in change.items():
        setattr(parts, name, value)
    # As another process would audit because the trial's process has died.
    found = Audit(FakeTarget(parts), tmp_path, TargetSnapshot.read(tmp_path)).left(events)
    assert [one.what for one in found] == words
    assert all(one.what_to_do for one in found)


def test_target_without_capabilities_has_no_residue(tmp_path: Path) -> None:
    audit = Audit.begin(FakeTarget(None, offered=()), tmp_path)
    audit.record_written()
    assert audit.left([]) == audit.find_stored() == audit.strays() == []


def test_corrupted_values_are_residue_until_they_are_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residue, "REFRESHED_WITHIN_S", 0.3)
    parts = Parts()
    audit = Audit.begin(FakeTarget(parts), tmp_path)
    assert audit.find_stored() == []
    parts.toxics, parts.stored["e1"], parts.stored["e2"] = ["corrupt-1"], [70.0, 2.0], [3.0, -4.0]
    audit.record_written()
    parts.toxics = []
    parts.stored["e2"] = [3.0, 5.0]  # Another value altogether: the stream has gone on.
    (found,) = audit.find_stored()
    assert found.what == "1 value that a fault corrupted is still in the feature store (the first: e1, column 0)"
    monkeypatch.setattr(residue, "REFRESHED_WITHIN_S", 5.0)
    timer = threading.Timer(0.2, parts.stored.update, [{"e1": [1.0, 2.0]}])
    timer.start()
    assert audit.find_stored() == []
    timer.join()


# Processes.


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Starts programs; they end with the test, whosever children they are by then."""
    monkeypatch.delenv(trial_mark.TRIAL_MARK, raising=False)
    pids: list[int] = []

    def start(*words: str, says: bool = False) -> int:
        child = subprocess.Popen(list(words), stdout=subprocess.PIPE if says else None, text=True)
        said = child.stdout.readline().strip() if child.stdout else ""
        if child.stdout:
            child.stdout.close()
        if said.isdigit():
            child.wait()
        pids.append(int(said) if said.isdigit() else child.pid)
        return pids[-1]

    yield start
    trial_mark.clear_mark()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        if pid in procfs.children():
            os.waitpid(pid, 0)


def test_a_child_that_still_runs_is_named_without_its_arguments(
    tmp_path: Path, started: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residue, "STRAYS_END_WITHIN_S", 0.1)
    before = started("/bin/sleep", "60")
    audit = Audit.begin(FakeTarget(None), tmp_path)
    assert audit.strays() == []
    stray = started("/bin/sleep", "61")
    (found,) = audit.strays()
    assert found.what == f"process {stray} still runs: /bin/sleep"
    assert {before, stray} <= procfs.children()


def test_daemon_is_found_by_its_inherited_mark(
    tmp_path: Path, started: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residue, "STRAYS_END_WITHIN_S", 0.1)
    audit = Audit.begin(FakeTarget(None), tmp_path)
    trial_mark.set_mark(tmp_path)
    daemon = started(sys.executable, "-c", DAEMON, says=True)
    assert daemon not in procfs.children()
    assert wait_for(lambda: procfs.program_name(daemon) == "sleep", within_s=5)
    assert [one.what for one in audit.strays()] == [f"process {daemon} still runs: sleep"]
    # Another trial's.
    assert trial_mark.marked_processes(tmp_path / "other") == set()


def test_process_that_an_undo_started_is_no_stray(tmp_path: Path, started: Callable[..., int]) -> None:
    audit = Audit.begin(FakeTarget(None), tmp_path)
    trial_mark.set_mark(tmp_path)
    with trial_mark.undo_mark():
        started(sys.executable, "-c", DAEMON, says=True)
        started("/bin/sleep", "60")
    assert os.environ[trial_mark.TRIAL_MARK] == str(tmp_path)
    assert audit.strays() == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    assert wait_for(lambda: procfs.living()[pid].is_stopped, within_s=5)


def test_stopped_processes_of_the_target_are_residue(tmp_path: Path, started: Callable[..., int]) -> None:
    port = free_port()
    service = started(sys.executable, "-c", LISTENS, str(port), says=True)
    worker, stranger, old = (started("/bin/sleep", "60") for _ in range(3))
    stop(old)
    parts = Parts()
    parts.pids = [worker, old]
    audit = Audit.begin(FakeTarget(parts, port), tmp_path)
    assert audit.left([]) == []
    for pid in (service, worker, stranger):
        stop(pid)
    found = audit.left([])
    assert sorted(one.what_to_do for one in found) == sorted(f"kill -CONT {pid}" for pid in (service, worker))
    assert f"process {service} is stopped: {sys.executable}" in [one.what for one in found]
    # A replica and its process are one thing.
    parts.states = ["paused", "ready"]
    assert {one.what for one in audit.left([])} >= {"r0 is still paused"}
    assert len(audit.left([])) == 2
    parts.states = ["ready", "ready"]
    # The stranger counts as well if a fault of the trial says that it stopped it.
    paused = event(Kind.FAULT_EFFECTIVE, id="1", fault="replicas.pause", evidence={"pid": stranger})
    assert f"kill -CONT {stranger}" in [one.what_to_do for one in audit.left([paused])]
    for pid in (service, worker):
        os.kill(pid, signal.SIGCONT)
    assert wait_for(lambda: audit.left([]) == [], within_s=5)


# What hangs.


def test_hung_control_interface_is_reported_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residue, "AUDIT_WITHIN_S", 0.3)
    parts = Parts()
    target = FakeTarget(parts)
    audit = Audit.begin(target, tmp_path)
    parts.states = ["ready", "paused"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(8)
        (tmp_path / "s.token").write_text("secret")
        links = ProxyLinks(tmp_path / "s")
        monkeypatch.setattr(parts, "active", links.active)
        begun_s = time.monotonic()
        found = [one.what for one in audit.left([])]
        assert time.monotonic() - begun_s < 3
    # The audit examined the others nevertheless.
    assert found == ["the fault proxy cannot be checked: no answer within 0.3 s", "r1 is still paused"]


def test_target_that_cannot_be_reset_in_time_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "RESET_WITHIN_S", 0.2)
    parts = Parts()
    parts.hangs_s = 1.0
    writer = HistoryWriter(tmp_path, Anchor.now(SystemClock()), "test")
    (found,) = cleanup.audit_and_reset(Audit.begin(FakeTarget(parts), tmp_path), FakeTarget(parts), writer)
    writer.close()
    assert found.what == "the target could not be reset: it did not end within 0.2 s"
    parts.hangs_s = 0.0
    writer = HistoryWriter(tmp_path, Anchor.now(SystemClock()), "test")
    assert cleanup.audit_and_reset(Audit.begin(FakeTarget(parts), tmp_path), FakeTarget(parts), writer) == []
    # What does not answer is not waited for twice.
    parts.gone, parts.hangs_s = True, 1.0
    (found,) = cleanup.audit_and_reset(Audit.begin(FakeTarget(parts), tmp_path), FakeTarget(parts), writer)
    assert found.what == "the fault proxy cannot be checked: no answer"
    writer.close()


@pytest.mark.parametrize(("champion", "resets"), [("1", 1), ("3", 0)])
def test_champion_chosen_by_another_user_is_reported_and_left(tmp_path: Path, champion: str, resets: int) -> None:
    parts = Parts()
    writer = HistoryWriter(tmp_path, Anchor.now(SystemClock()), "test")
    audit = Audit.begin(FakeTarget(parts), tmp_path)
    writer.event(Kind.FAULT_INTENDED, **PROMOTED.data)
    parts.now = champion
    (found,) = cleanup.audit_and_reset(audit, FakeTarget(parts), writer)
    writer.close()
    assert found.what == f"the champion is version {champion}, and was 2"
    assert parts.resets == resets


# A trial whose process has died.


def test_audit_after_a_death_finds_a_daemon_and_a_stopped_service(
    tmp_path: Path, started: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "ORPHANS_END_WITHIN_S", 0.2)
    port, folder = free_port(), tmp_path / "trial"
    service = started(sys.executable, "-c", LISTENS, str(port), says=True)
    (tmp_path / "golden.jsonl").write_text('{"body": {}, "expect": 1}\n')
    file = tmp_path / "t.yaml"
    file.write_text(f'name: ours\npredict: {{url: "http://127.0.0.1:{port}/x", golden: golden.jsonl}}\n')
    plan = TrialPlan("e", "t", "", 1, "none", 0, str(file), str(folder))
    folder.mkdir()
    begun_s = time.time()
    # Before it has a history there is nothing to look at but processes.
    cleanup.clean_up_after_death(plan)
    write_json(folder / TRIAL_FILE, {"version": 1, "anchor": {"monotonic_s": 0.0, "utc": ""}})
    HistoryWriter(folder, Anchor(0.0, ""), "trial").close()
    Audit.begin(FakeTarget(None, port, offered=()), folder)
    cleanup.clean_up_after_death(plan)
    assert cleanup.residue_since(begun_s) == ""
    trial_mark.set_mark(folder)
    daemon = started(sys.executable, "-c", DAEMON, says=True)
    assert wait_for(lambda: procfs.program_name(daemon) == "sleep", within_s=5)
    stop(service)
    with pytest.raises(NotReverted) as caught:
        cleanup.clean_up_after_death(plan)
    for words in (f"process {daemon} still runs: sleep", f"process {service} is stopped"):
        assert words in str(caught.value)
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [one["data"]["mend"] for one in told if one["kind"] == Kind.RESIDUE_FOUND] == [
        f"if it still runs: kill {daemon}",
        f"kill -CONT {service}",
    ]
    # For a process that waits for the end of another campaign.
    assert cleanup.residue_since(begun_s) == str(caught.value)
    assert cleanup.residue_since(time.time() + 60) == ""
