"""What a trial left behind: found on links, in replicas, in the registry and among processes; and what is none."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from monkeyproof.config import Predict, TargetFile
from monkeyproof.errors import TargetError
from monkeyproof.history import Event, Kind
from monkeyproof.residue import Audit, children
from monkeyproof.targets.port import Links, ModelVersion, Registry, Replica, Replicas


class Parts:
    """Links, replicas and registry of a target, as lists that a test changes."""

    def __init__(self) -> None:
        self.toxics: list[str] = []
        self.states = ["ready", "ready"]
        self.now = "2"
        self.digests = {"1": "aa", "2": "bb"}
        self.gone = False

    def active(self) -> Sequence[str]:
        if self.gone:
            raise TargetError("no answer")
        return self.toxics

    def list(self) -> Sequence[Replica]:
        return [Replica(f"r{number}", 7, state, False, "", "") for number, state in enumerate(self.states)]

    def champion(self) -> str:
        return self.now

    def versions(self) -> Sequence[ModelVersion]:
        return [ModelVersion(version, digest, "a", None) for version, digest in self.digests.items()]


class FakeTarget:
    file = TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g")))

    def __init__(self, parts: Parts | None) -> None:
        self.parts = parts

    def find(self, capability: type[Any]) -> Any:
        return self.parts if capability in (Links, Replicas, Registry) else None

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
        # A healer chose this one; it is put back.
        ({"now": "3"}, [PROMOTED, ACTED], []),
        ({"now": "3"}, [PROMOTED], ["the champion is version 3, and was 2"]),
        ({"digests": {"1": "aa", "2": "xx"}}, [], ["version 2 of the model is not what it was"]),
        ({"digests": {"2": "bb", "3": "cc"}}, [], ["version 1 of the model is not what it was"]),
        ({"gone": True}, [], ["the fault proxy cannot be looked at: no answer"]),
    ],
)
def test_what_is_left(change: dict[str, Any], events: list[Event], words: list[str]) -> None:
    parts = Parts()
    audit = Audit(FakeTarget(parts))
    for name, value in change.items():
        setattr(parts, name, value)
    found = audit.left(events)
    assert [one.what for one in found] == words
    assert all(one.mend for one in found)


def test_a_target_of_which_nothing_can_be_asked_leaves_nothing() -> None:
    assert Audit(FakeTarget(None)).left([]) == []


def test_a_process_that_still_runs_is_named_without_its_arguments() -> None:
    before = subprocess.Popen(["/bin/sleep", "60"])
    audit = Audit(FakeTarget(None))
    stray = subprocess.Popen(["/bin/sleep", "61"])
    try:
        (found,) = audit.strays()
        assert found.what == f"process {stray.pid} still runs: /bin/sleep"
        assert {before.pid, stray.pid} <= children()
        stray.kill()
        stray.wait()
        assert audit.strays() == []
    finally:
        for one in (before, stray):
            one.kill()
            one.wait()
