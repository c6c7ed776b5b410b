"""A second fault that waits for something to happen."""

from __future__ import annotations

import threading

import pytest
from fault_world import events

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults import compound
from monkeyproof.injection.inject import current, revert
from monkeyproof.record.history import Kind

ERROR = {"link": "web", "probability": 1.0}


@pytest.mark.usefixtures("asked")
def test_the_second_fault_strikes_when_the_event_is_seen_and_not_before(world):
    found = []
    wait = threading.Thread(
        target=lambda: found.append(
            compound.when_seen("healer.acting", "network.fail_requests", ERROR, 20.0, subject="replica-2")
        )
    )
    wait.start()
    history = current().history
    assert wait_for(lambda: events(world, Kind.PHASE_STARTED), within_s=5)
    history.event(Kind.HEALER_DETECTED, "replica-2")
    history.event(Kind.HEALER_ACTING, "replica-1", remedy="drain")
    assert not wait_for(lambda: events(world, Kind.FAULT_INTENDED), within_s=0.3)
    history.event(Kind.HEALER_ACTING, "replica-2", remedy="drain")
    wait.join(timeout=10)
    assert found[0]["injected"]
    assert found[0]["fault"] == "network.fail_requests"
    (effective,) = events(world, Kind.FAULT_EFFECTIVE)
    acting = events(world, Kind.HEALER_ACTING)[-1]
    assert effective.t_s > acting.t_s
    revert()


def test_without_the_event_there_is_no_second_fault_and_the_history_says_so(world):
    found = compound.when_seen("healer.acting", "network.fail_requests", ERROR, 0.1)
    assert not found["injected"]
    assert not events(world, Kind.FAULT_INTENDED)
    (ended,) = events(world, Kind.PHASE_ENDED)
    assert "healer.acting was not seen within 0.1 s" in ended.data["why"]


@pytest.mark.usefixtures("world")
def test_the_wait_for_an_event_ends_once_nothing_can_be_judged():
    current().why_blind = lambda: "the prober died"
    found = compound.when_seen("healer.acting", "network.fail_requests", ERROR, 60.0)
    assert not found["injected"]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("healer.dances", "noop.nothing", {}, 1.0), "no kind of event"),
        (("healer.acting", "noop.nothing", {}, 0.0), "not above 0"),
        (("healer.acting", "noop.nothin", {}, 1.0), "no fault 'noop.nothin'"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(UsageError, match=words):
        compound.when_seen(*arguments)


@pytest.mark.usefixtures("world")
def test_the_second_fault_is_refused_as_any_other():
    current().history.event(Kind.HEALER_ACTING, "x")
    with pytest.raises(Refusal, match="does not allow faults of the family 'noop'"):
        compound.when_seen("healer.acting", "noop.nothing", {}, 1.0)
