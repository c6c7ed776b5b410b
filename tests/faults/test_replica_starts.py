"""Replicas that come back late, are preempted with a notice, or are all scaled away; real processes."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fault_world import events
from replica_world import STUBBORN, Fleet, join

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults import replicas
from monkeyproof.injection.inject import current, revert
from monkeyproof.record.history import Kind
from monkeyproof.targets import port

NAMES = ["replica-1", "replica-2", "replica-3"]


@pytest.fixture
def fleet(world) -> Iterator[Fleet]:
    one = Fleet(NAMES)
    join(world, one)
    yield one
    one.close()


def is_ready(fleet: Fleet, name: str) -> bool:
    return next(one for one in fleet.list() if one.name == name).state == "ready"


def test_a_start_is_held_until_it_is_released(world, fleet):
    pid = fleet.pid("replica-2")
    found = replicas.delay_start("replica-2", delay_s=30.0)
    assert found["data"]["pid_before"] == pid
    assert 29 < found["data"]["delay_left_s"] <= 30
    assert "its next start is delayed by" in found["evidence"]
    assert not is_ready(fleet, "replica-2")
    intent = json.loads(current().undo.path.read_text().splitlines()[0])
    assert intent["lease_s"] == port.LEASE_S
    assert intent["prior"]["pid"] == pid
    with pytest.raises(Refusal, match="replica-2 is down already"):
        replicas.delay_start("replica-2", delay_s=1.0)
    assert revert() == ["replica-2: starts as usual again"]
    assert is_ready(fleet, "replica-2")
    assert replicas.release_starts(world, ["replica-2"]) == "replica-2: nothing delays the next start any more"


def test_a_start_that_came_is_not_undone(world, fleet):
    replicas.delay_start("replica-1", delay_s=0.1)
    assert wait_for(lambda: is_ready(fleet, "replica-1"), within_s=10)
    assert fleet.starts["replica-1"] == 2
    assert revert() == ["replica-1: nothing delays the next start any more"]
    assert fleet.starts["replica-1"] == 2


def test_an_orderly_end_is_distinguished_from_a_kill(world, fleet):
    found = replicas.preempt("replica-1", notice_s=5.0, replaced_after_s=30.0)
    assert found["data"]["in_order"]
    assert "(by itself)" in found["evidence"]
    assert revert() == ["replica-1: starts as usual again"]
    fleet.code = STUBBORN
    fleet._start("replica-2")
    found = replicas.preempt("replica-2", notice_s=0.3, replaced_after_s=30.0)
    assert not found["data"]["in_order"]
    assert 0.3 <= found["data"]["ended_after_s"] < 3
    assert "(killed)" in found["evidence"]
    revert()


def test_all_are_scaled_away_together_and_come_back(world, fleet):
    before = [fleet.pid(name) for name in NAMES]
    found = replicas.scale_to_zero(delay_s=30.0)
    assert found["data"]["pids_before"] == before
    assert not any(is_ready(fleet, name) for name in NAMES)
    assert revert() == ["replica-1, replica-2, replica-3: starts as usual again"]
    assert all(is_ready(fleet, name) for name in NAMES)
    assert not events(world, Kind.FAULT_NOT_REVERTED)
    # From then on, a healer's success may be the Monkey's own timer.
    assert [one.data["ends_by_itself_s"] for one in events(world, Kind.FAULT_INTENDED)] == [30.0]


def test_a_limit_of_replicas_down_holds_for_all_of_them(world, fleet):
    object.__setattr__(world.file, "limits", Limits(replicas_down=2))
    with pytest.raises(Refusal, match="would be 3, and target 'small' allows replicas_down 2"):
        replicas.scale_to_zero()
    assert all(is_ready(fleet, name) for name in NAMES)


def test_a_target_that_cannot_hold_a_start_is_refused(world, fleet):
    del world.parts[port.Starts]
    with pytest.raises(Refusal, match="offers no starts control"):
        replicas.delay_start()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: replicas.delay_start("replica-1", delay_s=0), "delay_s: 0 is not a number that is more than 0"),
        (lambda: replicas.delay_start("replica-1", delay_s=float("nan")), "delay_s: nan is not"),
        (lambda: replicas.delay_start("replica-9", delay_s=1), "no replica 'replica-9'"),
        (lambda: replicas.preempt("replica-1", notice_s=True), "notice_s: True is not"),
        (lambda: replicas.preempt("replica-1", replaced_after_s=-1), "replaced_after_s: -1 is not"),
        (lambda: replicas.scale_to_zero(delay_s="soon"), "delay_s: 'soon' is not"),
    ],
)
def test_bad_parameters(world, fleet, call, words):
    with pytest.raises(UsageError, match=words):
        call()
    assert all(fleet.starts[name] == 1 for name in NAMES)
