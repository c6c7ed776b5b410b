"""The controller in a small world: it diagnoses and heals each fault, and leaves a healthy world alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from elephant_world import Watched, World

from monkeyproof.healing.policy import Attempt
from monkeyproof.record.history import Kind


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    one = Watched(tmp_path, World())
    one.run(3.0)
    assert one.controller.ready
    yield one
    one.close()


def causes(watched: Watched) -> list[str]:
    return [event.data["cause"] for event in watched.events(Kind.HEALER_DIAGNOSED)]


def remedies(watched: Watched) -> list[str]:
    return [event.data["remedy"] for event in watched.events(Kind.HEALER_ACTED) if event.data["ok"]]


def test_it_is_ready_within_two_seconds(tmp_path: Path) -> None:
    one = Watched(tmp_path, World())
    assert one.until(Kind.HEALER_READY, within_s=2.0).data["samples"] >= 6


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_noisy_world_is_left_alone(tmp_path: Path, seed: int) -> None:
    one = Watched(tmp_path, World(rng=np.random.default_rng(seed)))
    one.run(500.0)
    assert one.world.calls == []
    assert [event.kind for event in one.events()] == [Kind.HEALER_READY], one.lines()


def test_a_slow_replica_is_drained_until_its_link_is_fast(watched: Watched) -> None:
    began_s = watched.world.clock.now_s
    watched.world.slow_link = "replica-2"
    assert watched.until(Kind.HEALER_DETECTED).t_s - began_s < 1.5
    assert watched.until(Kind.HEALER_RESOLVED).t_s - began_s < 5.0
    assert watched.world.calls == ["drain replica-2"]
    watched.run(20.0)
    assert watched.world.drained == {"replica-2"}, "it must stay drained while its link is slow"
    watched.world.slow_link = ""
    watched.run(5.0)
    assert watched.world.calls == ["drain replica-2", "undrain replica-2"]
    assert causes(watched) == ["replica_slow"]


def test_the_platform_gets_the_first_try_at_a_dead_replica(watched: Watched) -> None:
    watched.world.dead = "replica-1"
    assert watched.until(Kind.HEALER_DETECTED, within_s=1.0).subject == "replica-1"
    assert "no action" in watched.until(Kind.HEALER_RESOLVED).data["summary"]
    assert watched.world.calls == []


def test_a_replica_that_stays_down_is_restarted(watched: Watched) -> None:
    watched.world.platform_restarts = False
    watched.world.dead = "replica-1"
    began_s = watched.world.clock.now_s
    acting = watched.until(Kind.HEALER_ACTING)
    assert 1.5 <= acting.t_s - began_s < 3.0
    watched.until(Kind.HEALER_RESOLVED)
    assert watched.world.calls == ["restart replica-1"]


def test_corrupt_records_are_quarantined(watched: Watched) -> None:
    began_s = watched.world.clock.now_s
    watched.world.corrupt_source = True
    assert watched.until(Kind.HEALER_DETECTED).t_s - began_s < 1.5
    watched.until(Kind.HEALER_RESOLVED)
    assert watched.world.calls == ["quarantine True", "restore new", "forget"]
    watched.run(10.0)
    assert watched.world.quarantining, "strays keep coming, so the quarantine stays"
    watched.world.corrupt_source = False
    watched.run(6.0)
    assert watched.world.calls[3:] == ["quarantine False"]
    assert causes(watched) == ["data_corrupted"]


def test_a_poisoned_snapshot_is_passed_over(watched: Watched) -> None:
    watched.world.poisoned = {"new"}
    watched.world.corrupt_source = True
    watched.until(Kind.HEALER_RESOLVED)
    assert "restore old" in watched.world.calls
    assert "restore new" not in watched.world.calls


def test_without_a_good_snapshot_it_escalates_with_what_it_tried(watched: Watched) -> None:
    watched.world.poisoned = {"old", "new"}
    watched.world.corrupt_source = True
    event = watched.until(Kind.HEALER_ESCALATED, within_s=20.0)
    incident = json.loads((watched.folder / event.data["incident"]).read_text())
    assert incident["cause"] == "data_corrupted"
    assert [attempt["ok"] for attempt in incident["tried"]] == [False, False, False]
    assert "no snapshot is good" in incident["tried"][0]["summary"]
    assert incident["seen"]
    assert incident["recommendation"]
    assert "restore" not in " ".join(watched.world.calls)
    done = len(watched.world.calls)
    watched.run(30.0)
    assert len(watched.world.calls) == done, "after the incident nothing more is tried"


def test_a_feature_store_outage_is_bridged_by_the_snapshot(watched: Watched) -> None:
    began_s = watched.world.clock.now_s
    watched.world.store_down = True
    assert watched.until(Kind.HEALER_DETECTED).t_s - began_s < 1.5
    watched.until(Kind.HEALER_RESOLVED)
    assert watched.world.calls == ["mode snapshot new"]
    watched.run(10.0)
    assert watched.world.mode == "snapshot"
    watched.world.store_down = False
    watched.run(5.0)
    assert watched.world.calls[1:] == ["mode live"]
    assert causes(watched) == ["features_unavailable"]


def test_a_rollback_survives_a_failing_registry(watched: Watched) -> None:
    watched.world.registry_fails = 4
    watched.world.model = "1"
    watched.until(Kind.HEALER_RESOLVED, within_s=15.0)
    assert watched.world.calls == ["champion 3"]
    assert causes(watched) == ["model_regressed"]
    acted = watched.events(Kind.HEALER_ACTED)[0]
    assert "4 calls to the registry failed" in acted.data["summary"]


def test_a_rollback_passes_over_versions_that_do_not_verify(watched: Watched) -> None:
    watched.world.models |= {"3": "crashes", "4": "degraded"}
    watched.world.model = "4"
    watched.until(Kind.HEALER_RESOLVED, within_s=15.0)
    assert watched.world.calls == ["champion 2"]
    assert "signal 11" in watched.events(Kind.HEALER_ACTED)[0].data["summary"]


def test_a_dead_registry_ends_in_an_incident(watched: Watched) -> None:
    watched.world.registry_fails = 1000
    watched.world.model = "1"
    watched.until(Kind.HEALER_ESCALATED, within_s=60.0)
    assert [event.data["ok"] for event in watched.events(Kind.HEALER_ACTED)] == [False, False]


def test_a_release_that_is_right_is_no_fault(watched: Watched) -> None:
    watched.world.model = "2"
    watched.run(10.0)
    assert watched.world.calls == []
    # And it is the new normal: what goes wrong later is not its fault.
    watched.world.model = "1"
    watched.until(Kind.HEALER_RESOLVED, within_s=15.0)
    assert watched.world.calls == ["champion 2"]


def test_wrong_answers_without_a_known_cause_are_escalated(watched: Watched) -> None:
    watched.world.models["3"] = "degraded"
    event = watched.until(Kind.HEALER_ESCALATED)
    assert causes(watched) == ["unknown"]
    assert watched.world.calls == []
    assert (watched.folder / event.data["incident"]).exists()


def test_lost_telemetry_is_a_finding_and_resolves_no_case(watched: Watched) -> None:
    watched.world.slow_link = "replica-2"
    watched.until(Kind.HEALER_ACTED)
    watched.world.silent = True
    watched.run(4.0)
    lost = [e for e in watched.events(Kind.HEALER_DETECTED) if e.data["signal"] == "telemetry_lost"]
    assert {event.subject for event in lost} == {"replicas", "pipeline", "canary"}
    assert not watched.events(Kind.HEALER_RESOLVED), "a case without data is not resolved"


def test_lifting_too_early_makes_it_wait_longer_each_time(watched: Watched) -> None:
    lifts: list[float] = []
    for _ in range(4):
        watched.world.slow_link = "replica-2"
        watched.until(Kind.HEALER_RESOLVED)
        watched.world.slow_link = ""
        began_s = watched.world.clock.now_s
        while "replica-2" in watched.world.drained:
            watched.run(0.25)
            assert watched.world.clock.now_s - began_s < 120.0
        lifts.append(watched.world.clock.now_s - began_s)
    assert lifts[-1] > 2.0 * lifts[0]
    assert lifts == sorted(lifts)


def test_it_does_not_thrash(tmp_path: Path) -> None:
    one = Watched(tmp_path, World())
    one.run(3.0)
    for _ in range(40):
        one.world.platform_restarts = False
        one.world.dead = "replica-1"
        one.run(3.0)
    minutes = (one.world.clock.now_s) / 60.0
    assert len(one.world.calls) <= 8 * (minutes + 1)


def test_one_action_at_a_time_on_a_subject(tmp_path: Path) -> None:
    pending: list[tuple[Callable[[], Attempt], Future[Attempt]]] = []

    def later(work: Callable[[], Attempt]) -> Future[Attempt]:
        pending.append((work, Future()))
        return pending[-1][1]

    one = Watched(tmp_path, World(), later)
    one.run(3.0)
    one.world.corrupt_source = True
    one.run(10.0)
    assert len(pending) == 1, "the first action has not ended"
    work, future = pending[0]
    future.set_result(work())
    assert one.until(Kind.HEALER_RESOLVED)


def test_it_does_not_take_a_sick_target_for_its_reference(tmp_path: Path) -> None:
    world = World()
    world.models["3"] = "degraded"
    one = Watched(tmp_path, world)
    one.run(12.0)
    assert not one.controller.ready
    assert [event.kind for event in one.events()] == [Kind.HEALER_ESCALATED]
    world.models["3"] = "good"
    one.until(Kind.HEALER_READY)


def test_two_faults_at_once_are_both_healed(watched: Watched) -> None:
    watched.world.slow_link = "replica-2"
    watched.world.corrupt_source = True
    watched.until(Kind.HEALER_RESOLVED)
    watched.run(6.0)
    assert set(remedies(watched)) == {"drain", "quarantine_and_restore"}
    assert len(watched.events(Kind.HEALER_RESOLVED)) == 2
