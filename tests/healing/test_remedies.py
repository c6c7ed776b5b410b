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
from monkeyproof.healing.remedies import (
    REGISTRY_TRIES,
    Actuators,
    CannotHeal,
    Retry,
    good_snapshot,
    quarantine_and_restore,
    read_known,
    roll_back,
    serve_snapshot,
    strays,
)
from monkeyproof.targets.port import ModelVersion, Registry

KNOWN = {canary.entity: good_vector(canary.entity) for canary in CANARIES}


def hands(world: World, **changes: object) -> Actuators:
    one = Actuators(world, world.clock, CANARIES, read_known(world, CANARIES), "3", 1.0)
    return replace(one, **changes)  # type: ignore[arg-type]


def test_serving_a_snapshot_takes_the_newest_good_one() -> None:
    world = World()
    assert "new" in serve_snapshot(hands(world), "features")
    world.poisoned = {"new"}
    assert "old" in serve_snapshot(hands(world), "features")


def test_without_anything_known_no_snapshot_can_be_trusted() -> None:
    with pytest.raises(CannotHeal, match="nothing is known"):
        good_snapshot(hands(World(), known={}))


def test_the_quarantine_comes_first_so_that_nothing_bad_follows_the_restore() -> None:
    world = World()
    quarantine_and_restore(hands(world), "features")
    assert world.calls == ["quarantine True", "restore new", "forget"]


def test_a_target_without_a_capability_is_told_in_plain_words() -> None:
    class Bare(World):
        def find(self, capability: type[object]) -> None:  # noqa: ARG002
            return None

    with pytest.raises(CannotHeal, match="offers no features control"):
        serve_snapshot(hands(World(), target=Bare()), "features")


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
def test_what_a_snapshot_must_look_like(vectors: Vectors, why: str) -> None:
    found = strays(vectors, KNOWN)
    assert (why in found) if why else found == ""


@given(st.lists(st.sampled_from(sorted(KNOWN)), min_size=6, unique=True), st.floats(-10, 10))
def test_scaled_values_in_many_entities_are_always_seen_unless_they_stay_in_range(
    entities: list[str], factor: float
) -> None:
    changed = {k: [v[0], v[1] * factor if k in entities else v[1], v[2]] for k, v in KNOWN.items()}
    values = [vector[1] for vector in KNOWN.values()]
    margin = 0.5 * (max(values) - min(values))
    outside = sum(not min(values) - margin <= v[1] <= max(values) + margin for v in changed.values())
    if outside >= 1:
        assert strays(changed, KNOWN)


# --- rolling back --------------------------------------------------------------------------------------------


def degraded(**changes: object) -> World:
    return replace(World(model="1"), **changes)  # type: ignore[arg-type]


def test_the_last_known_good_version_comes_first() -> None:
    world = degraded()
    assert "version 2 is champion instead of 1" in roll_back(hands(world, version="2"), "model")


@pytest.mark.parametrize("failures", [0, 1, 3, REGISTRY_TRIES - 1])
def test_a_registry_that_fails_for_a_while_is_asked_again(failures: int) -> None:
    world = degraded(registry_fails=failures)
    roll_back(hands(world), "model")
    assert world.model == "3"


def test_a_registry_that_keeps_failing_ends_it_in_bounded_time() -> None:
    world = degraded(registry_fails=10_000)
    with pytest.raises(TargetError, match="503"):
        roll_back(hands(world), "model")
    assert world.clock.now_s < 8.0
    assert world.model == "1"


def test_bytes_that_differ_from_what_was_published_never_become_champion() -> None:
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
        roll_back(hands(world), "model")
    assert world.model == "1"


def test_a_version_whose_bytes_cannot_be_had_is_passed_over() -> None:
    world = degraded(missing={"3"})
    said = roll_back(hands(world), "model")
    assert world.model == "2"
    assert "version 3: its bytes cannot be had (HTTP 404: no such artifact)" in said
    assert world.clock.now_s == 0.0, "it waited for what does not come"
    with pytest.raises(CannotHeal, match=r"version 3: its bytes cannot.*version 2: its bytes cannot"):
        roll_back(hands(degraded(missing={"2", "3"})), "model")


def test_a_good_champion_is_not_left_because_a_replica_does_not_follow_it() -> None:
    world = World(model="3")
    with pytest.raises(CannotHeal, match="version 3 is champion and proves itself: some replica does not follow"):
        roll_back(hands(world), "model")
    assert world.model == "3"
    # One that went bad under its name is.
    world.models = {**world.models, "3": "degraded"}
    roll_back(hands(world), "model")
    assert world.model == "2"


@pytest.mark.parametrize(
    "models", [{"1": "degraded"}, {"1": "degraded", "2": "degraded"}, {"1": "degraded", "2": "crashes"}]
)
def test_without_a_version_that_is_right_nothing_is_changed(models: dict[str, str]) -> None:
    world = degraded(models=models)
    with pytest.raises(CannotHeal, match="no version is fit"):
        roll_back(hands(world), "model")
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
    roll_back(hands(degraded()), "model")
    assert list(tmp_path.iterdir()) == []
