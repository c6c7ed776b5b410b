"""Replicas that are real processes are killed and paused; a registry gets a worse champion."""

# ruff: noqa: ARG001, ARG005  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_world import events, impatient

from monkeyproof.clock import wait_for
from monkeyproof.errors import MonkeyproofError, NotReverted, Refusal, TargetError, UsageError
from monkeyproof.faults import registry, replicas
from monkeyproof.faults.support import champion as versions
from monkeyproof.injection.inject import current, revert
from monkeyproof.record.history import Kind
from monkeyproof.targets import port
from monkeyproof.trial.cleanup import record_missing_faults

# Replicas.


class Sleepers:
    """Replicas that are real processes, with a supervisor that restarts them when told to."""

    def __init__(self, names, *, restarts: bool = False) -> None:
        self.restarts = restarts
        self.processes = {name: self._start() for name in names}
        self.starts = dict.fromkeys(names, 1)
        self.drained: set[str] = set()
        self.deaf = False

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["/bin/sleep", "60"])

    def list(self):
        found = []
        for name in self.processes:
            if self.processes[name].poll() is not None and self.restarts:
                self.processes[name] = self._start()
                self.starts[name] += 1
            process = self.processes[name]
            state = "ready" if process.poll() is None else "down"
            if state == "ready" and Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T":
                state = "paused"
            pid = process.pid if state != "down" else None
            found.append(
                port.Replica(name, pid, state, name in self.drained, f"gateway->{name}", "", self.starts[name])
            )
        return found

    def kill(self, name):
        before = next(one for one in self.list() if one.name == name)
        if not self.deaf:
            self.processes[name].kill()
        return before

    def pause(self, name, lease_s=None):  # noqa: ARG002
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name):
        if not self.deaf:
            self.processes[name].send_signal(signal.SIGCONT)

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def sleepers(world) -> Iterator[Sleepers]:
    one = Sleepers(["replica-1", "replica-2", "replica-3"])
    world.parts[port.Replicas] = one
    yield one
    one.close()


def intent_of() -> dict[str, Any]:
    """The undo log's first line."""
    return json.loads(current().undo.path.read_text().splitlines()[0])


@pytest.mark.parametrize("restarts", [False, True])
def test_kill_is_proven_by_the_pid(world, sleepers, restarts):
    sleepers.restarts = restarts
    victim = sleepers.processes["replica-2"]
    found = replicas.kill("replica-2")
    assert found["data"]["pid_before"] == victim.pid
    assert f"replica-2: pid {victim.pid} has ended" in found["evidence"]
    assert victim.poll() == -signal.SIGKILL
    assert ("not restarted yet" in found["evidence"]) or (restarts and "restarted with" in found["evidence"])
    assert revert() == []
    (intent,) = events(world, Kind.FAULT_INTENDED)
    assert not intent.data["held"]
    prior = {"state": "ready", "pid": victim.pid, "starts": 1, "drained": False}
    assert intent_of()["prior"] == prior
    assert "cannot be brought back" in intent_of()["nothing_to_undo"]


def test_a_random_replica_depends_on_the_seed_alone(world, sleepers):
    sleepers.restarts = True
    assert len({replicas.kill()["subject"] for _ in range(3)}) == 1


def test_a_kill_without_effect_is_not_proven(world, sleepers, monkeypatch):
    sleepers.deaf = True
    monkeypatch.setattr(replicas, "inject", impatient(replicas.inject))
    with pytest.raises(MonkeyproofError, match="no evidence"):
        replicas.kill("replica-1")


def test_the_last_serving_replica_is_spared(world, sleepers):
    with pytest.raises(UsageError, match="no replica 'replica-9'; there are replica-1, replica-2, replica-3"):
        replicas.kill("replica-9")
    sleepers.drained = {"replica-1"}
    sleepers.processes["replica-2"].kill()
    sleepers.processes["replica-2"].wait()
    for one in ("replica-3", ""):
        with pytest.raises(Refusal, match="without replica-3 no replica would be serving"):
            replicas.kill(one)
    with pytest.raises(Refusal, match="replica-2 is down already"):
        replicas.kill("replica-2")
    assert replicas.kill("replica-1")["subject"] == "replica-1"  # Drained: no user needs it.


def test_pause_and_resume(world, sleepers):
    found = replicas.pause("replica-3")
    assert found["data"]["pid"] == sleepers.processes["replica-3"].pid
    assert sleepers.list()[2].state == "paused"
    assert (intent_of()["prior"]["state"], intent_of()["lease_s"]) == ("ready", port.LEASE_S)
    with pytest.raises(Refusal, match="replica-3 is paused already, by another program; kill -CONT"):
        replicas.pause("replica-3")
    assert revert() == ["replica-3: resumed"]
    assert sleepers.list()[2].state == "ready"
    assert replicas.resume(world, "replica-3", found["data"]["pid"]) == "replica-3: was not paused any more"


def test_resume_leaves_a_replaced_replica_alone(world, sleepers):
    sleepers.restarts = True
    replicas.pause("replica-1")
    sleepers.kill("replica-1")
    assert wait_for(lambda: sleepers.list()[0].starts == 2, within_s=5)
    for _ in range(2):
        record_missing_faults(current())
    (taken,) = events(world, Kind.FAULT_ENDED_EARLY)
    assert "replica-1 was restarted, with pid" in taken.data["why"]
    (said,) = revert()
    assert "was replaced since" in said


def test_a_replica_that_stays_paused_is_not_called_reverted(world, sleepers):
    replicas.pause("replica-1")
    sleepers.deaf = True
    with pytest.raises(NotReverted, match="still stopped; try: kill -CONT"):
        revert()
    sleepers.deaf = False
    assert revert() == ["replica-1: resumed"]


# Registry.


class Models:
    """A registry, and one replica that follows it and says so over HTTP."""

    def __init__(self, server) -> None:
        self.alias = "3"
        self.follows = True
        self.served = "3"
        self.digests = {"3": "c3"}
        self.gone: set[str] = set()
        server.handler = self.scrape

    def champion(self):
        return self.alias

    def set_champion(self, version):
        self.alias = version

    def versions(self):
        accuracies = {"4": None, "3": 0.99, "2": 0.6, "1": 0.9}
        return [
            port.ModelVersion(version, self.digests.get(version, ""), "", accuracy)
            for version, accuracy in accuracies.items()
            if version not in self.gone
        ]

    def list(self):
        return [port.Replica("replica-1", 1, "ready", False, "", self.url)]

    def scrape(self, connection: socket.socket) -> None:
        connection.recv(1000)
        if self.follows:
            self.served = self.alias
        body = b"# TYPE replica_model_version gauge\nreplica_model_version %b.0\n" % self.served.encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
        )


@pytest.fixture
def models(world, server) -> Models:
    one = Models(server)
    one.url = f"http://127.0.0.1:{server.port}/metrics"
    world.parts |= {port.Registry: one, port.Replicas: one}
    return one


def test_the_worst_version_is_promoted_and_proven_by_a_replica(world, models):
    found = registry.promote_degraded()
    assert models.alias == "2"
    assert found["data"] == {"champion": "2", "previous": "3", "accuracy": 0.6, "serving": ["replica-1"]}
    assert "the champion is version 2 (accuracy 0.600) instead of 3; replica-1 serves it" in found["evidence"]
    assert intent_of()["prior"] == {"champion": "3", "sha256": "c3"}
    assert intent_of()["lease_s"] is None
    assert revert() == ["the champion is version 3 again"]
    assert models.alias == "3"
    assert registry.restore_champion(world, "2", "3") == "the champion is version 3 already"


def test_what_a_healer_chose_since_is_left(world, models):
    registry.promote_degraded(version="1")
    models.alias = "4"
    (said,) = revert()
    assert "version 4 by now" in said
    assert models.alias == "4"


@pytest.mark.parametrize("healed", [False, True])
def test_a_champion_changed_by_no_healer_ends_the_fault_early(world, models, healed):
    registry.promote_degraded()
    record_missing_faults(current())
    assert not events(world, Kind.FAULT_ENDED_EARLY)
    models.alias = "3"
    if healed:
        current().history.event(Kind.HEALER_ACTED, "champion", remedy="roll back", ok=True, summary="")
    record_missing_faults(current())
    taken = [one.data["why"] for one in events(world, Kind.FAULT_ENDED_EARLY)]
    assert taken == ([] if healed else ["the champion is version 3, and was 2"])


def test_the_undo_reports_changes_to_the_old_champion(world, models):
    registry.promote_degraded()
    models.gone = {"3"}
    with pytest.raises(
        NotReverted, match="version 3, the old champion, does not exist any more: choose another instead of 2"
    ):
        revert()
    assert models.alias == "2"
    models.gone, models.digests = set(), {"3": "another"}
    assert revert() == ["the champion is version 3 again, whose digest another program has changed since"]
    # What an earlier version has written down does not say which digest it was.
    models.alias = "2"
    assert registry.restore_champion(world, promoted="2", previous="3") == "the champion is version 3 again"


def test_a_promotion_that_no_replica_follows_is_not_proven(world, models, monkeypatch):
    models.follows = False
    monkeypatch.setattr(versions, "inject", impatient(versions.inject))
    with pytest.raises(MonkeyproofError, match="no evidence"):
        registry.promote_degraded()
    assert models.alias == "3"


@pytest.mark.parametrize(
    ("version", "error", "words"),
    [
        ("7", UsageError, "the registry has no version '7'; it has 4, 3, 2, 1"),
        ("3", Refusal, "version 3 is the champion already"),
    ],
)
def test_wrong_versions(world, models, version, error, words):
    with pytest.raises(error) as refusal:
        registry.promote_degraded(version)
    assert words in str(refusal.value)
    assert models.alias == "3"


def test_a_registry_that_does_not_keep_its_word_is_not_called_reverted(world, models):
    registry.promote_degraded()
    models.set_champion = lambda version: None
    with pytest.raises(NotReverted, match="should be version 3 again, and is 2"):
        revert()
    with pytest.raises(TargetError):
        registry.restore_champion(world, "2", "3")
    del models.set_champion
    revert()
