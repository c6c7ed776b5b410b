"""The plan of a randomised fault schedule: pure, within its bounds, and the same for the same seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkeyproof.config.target_file import Link, Predict, TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.experiment import catalogue
from monkeyproof.injection.fault_registry import Draw, Fault, all_faults, find
from monkeyproof.injection.schedule_plan import SHORTEST_S, SchedulePlan, plan_schedule, read_plan
from monkeyproof.probes.watch import longest_hold_s
from monkeyproof.targets.port import Links, Registry, Replicas
from monkeyproof.types import Json

FILE = TargetFile(
    "t",
    Predict("http://127.0.0.1:1/", Path("golden")),
    links={"a": Link("127.0.0.1:1", "127.0.0.1:2", "http"), "b": Link("127.0.0.1:3", "127.0.0.1:4")},
    allow_faults=("network", "registry", "replicas"),
)


def schedule(seed: int = 1, minutes: float = 2.0, intensity: float = 0.5, **more: Json) -> SchedulePlan:
    return plan_schedule(FILE, all_faults(), seed=seed, minutes=minutes, intensity=intensity, **more)


def fake(name: str, *needs: type, draw: Draw | None = lambda rng, target, intensity: {}) -> Fault:  # noqa: ARG005
    return Fault(name, lambda: None, needs, "", "", "", draw)


def test_the_seed_alone_decides_the_bytes() -> None:
    assert schedule(7).text() == schedule(7).text()
    assert schedule(7).faults != schedule(8).faults
    assert {one.fault for one in schedule(7).faults} <= {one.name for one in all_faults() if one.draw}


def test_a_plan_that_was_stored_is_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "storm.yaml"
    path.write_text(schedule(7).text())
    assert read_plan(path) == schedule(7)
    # It is an experiment like any other.
    experiment = catalogue.find(str(path))
    assert experiment.name == "storm"
    assert longest_hold_s(experiment.document) == max(one.duration_s for one in schedule(7).faults)


def test_a_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "storm.yaml"
    text = schedule(7).text().replace("monkeyproof.faults.actions.schedule", "monkeyproof.faults.storm")
    path.write_text(text.replace("func: run_schedule", "func: ride"))
    assert read_plan(path) == schedule(7)


@pytest.mark.parametrize("text", ["a: 1", "[]", "", "title: t\nextensions: []\nmethod: []"])
def test_a_file_that_is_not_a_schedule_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"not a fault schedule|x\.yaml"):
        read_plan(path)
    path.write_text(schedule().text().replace("start_s: ", "begin_s: ", 1))
    with pytest.raises(UsageError, match=r"faults\.0"):
        read_plan(path)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.floats(0.1, 5), st.floats(0.01, 1), st.one_of(st.none(), st.integers(1, 5)))
def test_every_schedule_keeps_its_bounds(
    seed: int, minutes: float, intensity: float, max_at_once: int | None
) -> None:
    plan = schedule(seed, minutes, intensity, max_at_once=max_at_once)
    assert plan.faults
    known = {one.name: one for one in all_faults()}
    assert [one.start_s for one in plan.faults] == sorted(one.start_s for one in plan.faults)
    for place, one in enumerate(plan.faults):
        assert one.duration_s >= SHORTEST_S
        assert one.end_s <= 60 * minutes + 0.01
        assert known[one.fault].family in FILE.allow_faults
        beside = [other for other in plan.faults[:place] if other.end_s > one.start_s]
        assert len(beside) < plan.max_at_once
        parts = set(known[one.fault].needs) - {Links}
        assert not any(parts & set(known[other.fault].needs) for other in beside)
        links = [known[other.fault].link(other.arguments) for other in [*beside, one]]
        assert len(set(links) - {None}) == len(links) - links.count(None)


def test_only_faults_on_links_overlap() -> None:
    on_parts = [fake("registry.a", Registry, Replicas), fake("replicas.b", Replicas)]
    plan = plan_schedule(FILE, on_parts, seed=1, minutes=5, intensity=1.0, max_at_once=5)
    assert len(plan.faults) > 10
    assert all(one.end_s <= other.start_s for one, other in zip(plan.faults, plan.faults[1:], strict=False))
    on_links = plan_schedule(FILE, [fake("network.c", Links)], seed=1, minutes=5, intensity=1.0, max_at_once=5)
    assert any(one.end_s > other.start_s for one, other in zip(on_links.faults, on_links.faults[1:], strict=False))


def test_a_default_link_has_one_fault_at_a_time() -> None:
    def on_a(link: str = "a") -> Json:
        return link

    named = replace(fake("network.named", Links, draw=lambda *_: {"link": "a"}), function=on_a)
    faults = [named, replace(fake("data.by_default", Links), function=on_a)]
    file = replace(FILE, allow_faults=("network", "data"))
    plan = plan_schedule(file, faults, seed=1, minutes=5, intensity=1.0, max_at_once=5)
    assert {one.fault for one in plan.faults} == {"network.named", "data.by_default"}
    assert all(one.end_s <= other.start_s for one, other in zip(plan.faults, plan.faults[1:], strict=False))


def test_more_intensity_is_more_of_everything() -> None:
    low, high = schedule(3, 10, 0.25), schedule(3, 10, 1.0)
    assert len(high.faults) > 1.3 * len(low.faults)
    assert max(one.duration_s for one in high.faults) > max(one.duration_s for one in low.faults)
    assert (low.max_at_once, schedule(3).max_at_once, high.max_at_once) == (1, 2, 3)


def test_only_what_can_be_drawn_is_drawn() -> None:
    faults = [
        fake("network.never", draw=None),
        fake("network.no_place", draw=lambda *_: None),
        fake("network.numbers", draw=lambda rng, *_: {"share": np.float64(rng.uniform()), "rows": np.int64(3)}),
        fake("kubernetes.not_allowed"),
    ]
    plan = plan_schedule(FILE, faults, seed=1, minutes=2, intensity=0.5)
    assert {one.fault for one in plan.faults} == {"network.numbers"}
    assert type(plan.faults[0].arguments["share"]) is float
    with pytest.raises(UsageError, match="nothing can be drawn"):
        plan_schedule(FILE, faults[:2], seed=1, minutes=2, intensity=0.5)
    with pytest.raises(UsageError, match="'kubernetes': target 't' does not allow it; it allows network"):
        schedule(families=("network", "kubernetes"))
    assert {find(one.fault).family for one in schedule(families=("network",)).faults} == {"network"}


def test_a_part_starts_at_once_and_keeps_gaps_and_seeds() -> None:
    plan = schedule(7)
    part = plan.only([plan.faults[3], plan.faults[1]])
    assert [one.fault for one in part.faults] == [plan.faults[1].fault, plan.faults[3].fault]
    assert part.faults[0].start_s == 0.0
    gap_s = plan.faults[3].start_s - plan.faults[1].start_s
    assert part.faults[1].start_s == pytest.approx(gap_s, abs=0.011)
    assert [one.seed for one in part.faults] == [plan.faults[1].seed, plan.faults[3].seed]
    assert replace(part, faults=plan.faults) == plan
