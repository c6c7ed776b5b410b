"""Remedies on the small world: what they do, what they refuse, and that they trust nothing unchecked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from elephant_world import CANARIES, World, good_vector
from hypothesis import given
from hypothesis import strategies as st

from monkeyproof.clock import ManualClock
from monkeyproof.errors import TargetError
from monkeyproof.healing.actuators import Actuators, CannotHeal, read_known
from monkeyproof.healing.remedies.quarantine_and_restore import quarantine_and_restore
from monkeyproof.healing.remedies.roll_back import REGISTRY_TRIES, Retry, roll_back
from monkeyproof.healing.remedies.serve_snapshot import serve_snapshot
from monkeyproof.healing.snapshots import good_snapshot, why_it_strays
from monkeyproof.targets.port import ModelVersion, Registry

KNOWN = {canary.entity: good_vector(canary.entity) for canary in CANARIES}


def actuators(world: World, **changes: object) -> Actuators:
    one = Actuators(world, world.clock, CANARIES, read_known(world, CANARIES), "3", 1.0)
    return replace(one, **changes)  # type: ignore[arg-type]


def test_serving_a_snapshot_takes_the_newest_good_one() -> None:
    world = World()
    assert "new" in serve_snapshot(actuators(world), "features")
    world.poisoned = {"new"}
    assert "old" in serve_snapshot(actuators(world), "features")


def test_without_anything_known_no_snapshot_can_be_trusted() -> None:
    with pytest.raises(CannotHeal, match="nothing is known"):
        good_snapshot(actuators(World(), known={}))


def test_the_quarantine_comes_before_the_restore() -> None:
    world = World()
    quarantine_and_restore(actuators(world), "features")
    assert world.calls == ["quarantine True", "restore new", "forget"]


def test_a_missing_capability_is_named() -> None:
    class Bare(World):
        def find(self, capability: type[object]) -> None:  # noqa: ARG002
            return None

    with pytest.raises(CannotHeal, match="offers no features control"):
        serve_snapshot(actuators(World(), target=Bare()), "features")


# --- snapshots -----------------------------------------------------------------------------------------------


Vectors = dict[str, list[float] | None]


def each(change: Callable[[int, list[float]], list[float] | None]) -> Vectors:
    return {entity: change(number, vector) for number, (entity, vector) in enumerate(KNOWN.items())}


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        (each(lambda _, v: v), ""),
        (each(lambda _, v: [v[0], v[1] + 1.0, v[2]]), ""),
        (each(lambda _, v: [v[0], 0.0, v[2]]), "median of feature 2"),
        (each(lambda n, v: None if n < 10 else v), "lacks 10 of 32"),
        (each(lambda _, v: v[:2]), "2 features an entity, not 3"),
        (each(lambda n, v: [v[0] * 900.0, *v[1:]] if n < 4 else v), "out of range"),
        (each(lambda n, v: [math.nan, math.inf, v[2]] if n < 4 else v), "8 of its values are not numbers"),
    ],
)
def test_which_snapshots_may_be_used(vectors: Vectors, why: str) -> None:
    found = why_it_strays(vectors, KNOWN)
    assert (why in found) if why else found == ""


@given(st.lists(st.sampled_from(sorted(KNOWN)), min_size=6, unique=True), st.floats(-10, 10))
def test_values_scaled_out_of_range_are_always_seen(entities: list[str], factor: float) -> None:
    changed = {k: [v[0], v[1] * factor if k in entities else v[1], v[2]] for k, v in KNOWN.items()}
    values = [vector[1] for vector in KNOWN.values()]
    margin = 0.5 * (max(values) - min(values))
    outside = sum(not min(values) - margin <= v[1] <= max(values) + margin for v in changed.values())
    if outside >= 1:
        assert why_it_strays(changed, KNOWN)


# --- rolling back --------------------------------------------------------------------------------------------


def degraded(**changes: object) -> World:
    return replace(World(model="1"), **changes)  # type: ignore[arg-type]


def test_the_last_known_good_version_comes_first() -> None:
    world = degraded()
    assert "version 2 is champion instead of 1" in roll_back(actuators(world, version="2"), "model")


@pytest.mark.parametrize("failures", [0, 1, 3, REGISTRY_TRIES - 1])
def test_a_registry_that_fails_for_a_while_is_asked_again(failures: int) -> None:
    world = degraded(registry_fails=failures)
    roll_back(actuators(world), "model")
    assert world.model == "3"


def test_a_registry_that_keeps_failing_ends_it_in_bounded_time() -> None:
    world = degraded(registry_fails=10_000)
    with pytest.raises(TargetError, match="503"):
        roll_back(actuators(world), "model")
    assert world.clock.now_s < 8.0
    assert world.model == "1"


def test_a_version_with_a_wrong_digest_never_becomes_champion() -> None:
    world = degraded()

    registry = world.healer_registry()
    versions = [replace(v, sha256="0" * 64) if v.version == "3" else v for v in registry.versions()]
    versions = [replace(v, sha256="") if v.version == "2" else v for v in versions]

    class Lying:
        def __getattr__(self, name: str) -> object:
            return getattr(registry, name)

        def versions(self) -> list[ModelVersion]:
            return list(versions)

    def healer_registry() -> Registry:
        return Lying()  # type: ignore[return-value]

    world.healer_registry = healer_registry  # type: ignore[method-assign]
    with pytest.raises(CannotHeal, match=r"not those that were published.*no digest"):
        roll_back(actuators(world), "model")
    assert world.model == "1"


def test_a_version_without_its_bytes_is_passed_over() -> None:
    world = degraded(missing={"3"})
    summary = roll_back(actuators(world), "model")
    assert world.model == "2"
    assert "version 3: its bytes cannot be had (HTTP 404: no such artifact)" in summary
    assert world.clock.now_s == 0.0, "it waited for what does not come"
    with pytest.raises(CannotHeal, match=r"version 3: its bytes cannot.*version 2: its bytes cannot"):
        roll_back(actuators(degraded(missing={"2", "3"})), "model")


def test_a_good_champion_stays_though_a_replica_does_not_follow_it() -> None:
    world = World(model="3")
    with pytest.raises(CannotHeal, match="version 3 is champion and proves itself: some replica does not follow"):
        roll_back(actuators(world), "model")
    assert world.model == "3"
    # One that went bad under its name is.
    world.models = {**world.models, "3": "degraded"}
    roll_back(actuators(world), "model")
    assert world.model == "2"


@pytest.mark.parametrize(
    "models", [{"1": "degraded"}, {"1": "degraded", "2": "degraded"}, {"1": "degraded", "2": "crashes"}]
)
def test_without_a_version_that_is_right_nothing_is_changed(models: dict[str, str]) -> None:
    world = degraded(models=models)
    with pytest.raises(CannotHeal, match="no version is fit"):
        roll_back(actuators(world), "model")
    assert world.model == "1"


def test_retry_pauses_longer_each_time_and_stops_at_the_deadline() -> None:
    clock = ManualClock()
    times: list[float] = []

    def fail() -> None:
        times.append(clock.now_s)
        raise TargetError("no")

    with pytest.raises(TargetError):
        Retry(clock, 100.0)(fail)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == REGISTRY_TRIES
    assert pauses == sorted(pauses)
    times.clear()
    with pytest.raises(TargetError):
        Retry(clock, clock.now_s + 0.35)(fail)
    assert len(times) == 3


def test_a_folder_of_a_candidate_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    roll_back(actuators(degraded()), "model")
    assert list(tmp_path.iterdir()) == []
