"""The source: a steady, repeatable stream with a short memory."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running_parts import answers_200, free_port, http

from monkeyproof.clock import ManualClock, wait_for
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.local.workload.source import RecordStream

pytest_plugins = ("running_fixtures",)

ENTITIES = Entities(
    tuple(f"e-{number}" for number in range(40)), np.arange(360.0).reshape(40, 9), np.arange(40) % 2
)


def stream(clock: ManualClock, seed: int = 0) -> RecordStream:
    return RecordStream(ENTITIES, 10.0, seed, clock)


def positions(records: object) -> list[int]:
    return [one["position"] for one in records]  # type: ignore[attr-defined]


def test_records_are_released_at_the_rate_and_every_entity_comes_once_a_round() -> None:
    clock = ManualClock(1000.0)
    source = stream(clock)
    start = source.after(0, 1500)[-1]["position"]
    clock.now_s += 4.0
    records = source.after(start, 1500)
    assert positions(records) == list(range(start + 1, start + 41))
    assert {one["entity"] for one in records} == set(ENTITIES.names)
    for one in records:
        row = ENTITIES.names.index(one["entity"])
        assert one["features"] == ENTITIES.values[row].tolist()
        assert one["label"] == ENTITIES.labels[row]


def test_the_seed_decides_the_order() -> None:
    def order(seed: int) -> list[str]:
        return [one["entity"] for one in stream(ManualClock(1000.0), seed).after(-1, 40)]

    assert order(1) == order(1) != order(2)


@given(st.integers(-5, 2000), st.integers(0, 100), st.floats(0, 150))
def test_only_released_and_kept_records_are_given_in_order(after: int, limit: int, now_s: float) -> None:
    found = positions(stream(ManualClock(now_s)).after(after, limit))
    newest = int(now_s * 10)
    assert len(found) <= limit
    assert found == sorted(set(found))
    assert all(after < one <= newest and newest - 40 < one >= 0 for one in found)
    if limit > 0 and after < newest:
        assert found[0] == max(after + 1, newest - 39, 0)


@pytest.fixture
def url(tmp_path: Path, group: ProcessGroup) -> str:
    ENTITIES.save(tmp_path / "features.npz")
    config = tmp_path / "source.json"
    port = free_port()
    settings = {"port": port, "data": str(tmp_path / "features.npz"), "records_per_s": 200, "seed": 1}
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "monkeyproof.targets.local.workload.source", "--config", str(config)]
    group.start(command, log=tmp_path / "source.log")
    address = f"http://127.0.0.1:{port}"
    assert wait_for(lambda: answers_200(f"{address}/records?limit=1"), within_s=20)
    return address


def test_the_process_streams_over_http(url: str) -> None:
    first = http(f"{url}/records?limit=1000").json["records"]  # type: ignore[index]
    time.sleep(0.1)
    second = http(f"{url}/records?after={first[-1]['position']}&limit=1000").json["records"]  # type: ignore[index]
    assert len(first) == 40
    assert second[0]["position"] == first[-1]["position"] + 1
    assert len(second) >= 18
    assert http(f"{url}/records?after=x").status == 400
    assert http(f"{url}/records?after=99999999999").json == {"records": []}
