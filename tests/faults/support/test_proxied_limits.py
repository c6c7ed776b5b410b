"""How far a fault may go: each limit of a target file, at its very edge, and nothing done beyond it."""

# ruff: noqa: ARG001  (fixtures are asked for what they set up)

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fault_world import Traffic, events

from monkeyproof.config.limits import Limits
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults import data, network, replicas
from monkeyproof.faults.network import delays
from monkeyproof.faults.support import record_stream, replica_choice
from monkeyproof.injection.active import ActiveFaults
from monkeyproof.injection.inject import current, revert, within_limit
from monkeyproof.record.history import Kind
from monkeyproof.targets import port
from monkeyproof.trial.dry_run import DryRun


class Ready:
    """Three replicas, of which some are down already."""

    def __init__(self, down: int = 0) -> None:
        self.down = down

    def list(self):
        states = ["backing_off"] * self.down + ["ready"] * (4 - self.down)
        return [port.Replica(f"r{number}", 1, state, False, "", "") for number, state in enumerate(states)]


class Store:
    """Nine features for every entity."""

    def read(self, entities):
        return {entity: [0.0] * 9 if entity == "e1" else None for entity in entities}


@pytest.fixture
def limited(world):
    """Sets the target's limits, which are the cautious ones otherwise."""

    def limit(**limits) -> None:
        world.file = replace(world.file, limits=Limits(**limits))

    limit()
    return limit


def refused(world, words: str, action, *arguments, **named) -> None:
    with pytest.raises(Refusal, match=f"not injecting: {words}"):
        action(*arguments, **named)
    assert not events(world, Kind.FAULT_INTENDED)


def test_latency(world, asked, limited):
    words = "the delay on web would be 2001, and target 'small' allows latency_ms 2000"
    refused(world, words, network.add_latency, "web", 20, 2001)
    limited(latency_ms=40)
    refused(world, "the delay on web would be 41", network.add_latency, "web", 20, 41)
    network.add_latency("web", 20, 40)
    revert()


def test_latencies_add_up_for_one_request_may_meet_all_of_them(world, proxy, asked, limited):
    limited(latency_ms=100)
    with Traffic(proxy, "web"):
        network.add_latency("web", 20, 60)
    with pytest.raises(Refusal, match="the delay on raw, together with the 60 of the active faults"):
        network.add_latency("raw", 20, 41)
    assert len(events(world, Kind.FAULT_INTENDED)) == 1
    revert()
    assert current().active_faults.used("latency_ms") == 0


def test_shares_of_rows_add_up_to_all_rows_at_most(world, limited):
    limited(rows_share=1.0)
    for fault_id in "12":
        within_limit("rows_share", 0.7, "the share of rows corrupted", adds_up=True)
        current().active_faults.begins(fault_id, 0.0, held=True)
    limited(rows_share=0.9)
    with pytest.raises(Refusal, match=r"together with the 1\.4 of the active faults, would be 1, and"):
        within_limit("rows_share", 0.7, "the share of rows corrupted", adds_up=True)


def test_a_plan_sees_that_they_add_up_and_what_cannot_be_called(world, limited, monkeypatch):
    limited(latency_ms=100)
    provider = {"type": "python", "module": "monkeyproof.faults.network", "func": "add_latency"}
    action = {"type": "action", "provider": provider | {"arguments": {"link": "web", "low_ms": 2, "high_ms": 60}}}
    faults, preview = ActiveFaults(), DryRun(world.file, world)
    first, second = (preview._own_step({"method": [action]}, action, 1, "none", faults) for _ in range(2))
    assert first.refused is None
    assert "together with the 60 of the active faults" in str(second.refused)
    monkeypatch.setattr(delays, "check_link_share", None)  # Whatever a fault raises before it is injected.
    broken = preview._own_step({"method": [action]}, action, 1, "none", ActiveFaults())
    assert isinstance(broken.refused, UsageError)
    assert "add_latency cannot be called with these arguments" in str(broken.refused)


def test_a_hang_holds_a_request_for_as_long_as_it_may_be_in_force(world, asked, limited):
    """15 s of horizon, 5 s after the revert, 5 s of margin."""
    limited(latency_ms=24_999)
    refused(world, "what web may hold a request for would be 25000", network.hang, "web")
    limited(latency_ms=25_000)
    network.hang("web")
    revert()


def test_replicas_down_counts_those_that_are_down_anyway(world, asked, limited):
    world.parts[port.Replicas] = Ready(down=1)
    words = "replicas down at once would be 2, and target 'small' allows replicas_down 1"
    refused(world, words, replicas.kill)
    refused(world, words, replicas.pause, "r3")
    limited(replicas_down=2)
    replica_choice.choose_replica(world.parts[port.Replicas], "", "p")
    world.parts[port.Replicas] = Ready(down=2)
    refused(world, "replicas down at once would be 3", replicas.kill)


@pytest.mark.parametrize(("limit", "passes"), [(0.62, True), (0.61, False), (None, False)])
def test_rows_share_is_of_rows_not_of_values(world, asked, limited, tmp_path, limit, passes):
    """A tenth of the values of nine columns is 61.3 % of the rows."""
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"body": {"rows": [{"entity": "e1"}]}, "expect": 0}) + "\n")
    world.file = replace(world.file, predict=replace(world.file.predict, golden=golden))
    world.parts[port.Features] = Store()
    if limit is not None:
        limited(rows_share=limit)
    assert record_stream.feature_count(world, world.parts[port.Features]) == 9
    if not passes:
        words = (
            f"the share of rows corrupted would be 0.6126, and target 'small' allows rows_share {limit or 0.5:g}"
        )
        refused(world, words, data.scale_records, "web")


@pytest.mark.parametrize("golden", ["", "not json\n", '{"body": [1, 2]}\n', '{"body": {"entity": "stranger"}}\n'])
def test_rows_of_unknown_width_may_all_be_hit(world, asked, limited, tmp_path, golden):
    path = tmp_path / "golden.jsonl"
    path.write_text(golden)
    world.file = replace(world.file, predict=replace(world.file.predict, golden=path))
    world.parts[port.Features] = Store()
    refused(world, "the share of rows corrupted would be 1", data.scale_records, "web", share=0.001)


def test_a_wrong_argument_is_reported_before_any_limit(world, asked, limited):
    with pytest.raises(UsageError, match="low_ms, high_ms"):
        network.add_latency("web", 5000, 4000)
